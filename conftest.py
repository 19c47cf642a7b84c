"""What pytest leaves out: a module whose extra is not installed cannot be imported for its doctests."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("ray") else ["nas_apps/core/sweep_ray.py"]
