"""What pytest leaves out: a module whose extra is not installed cannot be imported for its doctests."""

from importlib.util import find_spec

SPEECH = ("cells", "decode", "encoder", "export", "model", "objective", "ops", "speech", "task")
NEEDS = {
    "nas_apps/core/sweep_ray.py": "ray",
    "nas_apps/tasks/rl/sb3.py": "stable_baselines3",
    **{f"nas_apps/tasks/asr/{module}.py": "espnet2" for module in SPEECH},
}
collect_ignore = [path for path, package in NEEDS.items() if not find_spec(package)]
collect_ignore.append("nas_apps/tasks/asr/espnet_task.py")  # has no doctests, and imports all of ESPnet
