"""`python -m nas_apps`, for torchrun."""

from nas_apps.cli import main

if __name__ == "__main__":
    main()
