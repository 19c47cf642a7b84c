"""What pytest leaves out: a module whose extra is not installed cannot be imported for its doctests."""

from importlib.util import find_spec

NEEDS = {
    "nas_apps/core/sweep_ray.py": "ray",
    "nas_apps/tasks/rl/sb3.py": "stable_baselines3",
    **{f"nas_apps/tasks/asr/{name}.py": "espnet2" for name in ("decode", "model", "objective")},
}
collect_ignore = [path for path, package in NEEDS.items() if not find_spec(package)]
