"""The folder of a run: who may write into it, and what it says of itself."""

from __future__ import annotations

import fcntl
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from nas_apps.core import files
from nas_apps.core.config import Recipe, load
from nas_apps.core.errors import UserError
from nas_apps.core.parts.penalty import Cost
from nas_apps.core.runtime import Runtime
from nas_apps.core.space import Space
from nas_apps.core.space_json import space_to_json

LOCK = ".lock"
PROCGEN = ("procgen", "procgen-mirror", "procgen-gym")  # one engine, by the version of Python


def relevant(recipe: Recipe, stage: str) -> dict[str, Any]:
    """What a stage depends on: the other phase's settings and the device may differ on resume. A search with a budget
    depends on the sizes of the network that is priced."""
    data = recipe.plain()
    leave = {"search": ("train", "device"), "train": ("search", "variant", "device")}[stage]
    kept = {key: value for key, value in data.items() if key not in leave}
    priced = recipe.search.budget or any(isinstance(penalty, Cost) for penalty in recipe.variant.penalties)
    if stage == "search" and priced:  # the network that may not cost more
        kept["train"] = {"network": data["train"]["network"]}
    return kept


def check(folder: Path, recipe: Recipe, stage: str, runtime: Runtime, *, resume: bool) -> None:
    """Refuse a folder that is not this stage's to write into: what a user made is never written over."""
    refusal = runtime.gather(_refusal(folder, recipe, stage, resume) if runtime.leads else None)[0]
    if refusal:
        raise UserError(refusal)


@contextmanager
def hold(folder: Path, runtime: Runtime) -> Iterator[None]:
    """Keep other processes out of `folder`; refuse when one is in it. Ends with the process, however that ends."""
    if not runtime.leads:
        yield
        return
    with files.open_to_write(folder / LOCK) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{folder}: another process runs in it; allowed: wait, or another folder") from None
        yield


def claim(folder: Path, recipe: Recipe, space: Space) -> None:
    """Make `folder` the folder of this recipe: it says so from now on."""
    if not (folder / "recipe.yaml").exists():
        files.write_text(folder / "space.json", space_to_json(space))
        files.write_text(folder / "recipe.yaml", OmegaConf.to_yaml(OmegaConf.create(recipe.plain())))


def read_recipe(folder: Path) -> Recipe:
    """The recipe of a run folder."""
    path = folder / "recipe.yaml"
    if not path.exists():
        raise UserError(f"{folder}: no recipe.yaml in it; allowed: the folder of a search or of a training")
    try:
        return load([path])
    except UserError as error:
        raise UserError(str(error) if str(error).startswith(str(path)) else f"{path}: {error}") from None


def _refusal(folder: Path, recipe: Recipe, stage: str, resume: bool) -> str | None:
    try:
        if folder.exists() and not folder.is_dir():
            return f"{folder}: is a file; allowed: a folder for the run"
        found = {path.name for path in folder.iterdir()} if folder.exists() else set()
    except OSError as error:
        return f"{folder}: cannot be read: {error.strerror}; allowed: a folder for the run"
    if found <= {LOCK, "space.json", ".space.json.new", ".recipe.yaml.new"}:
        return None  # new, or killed while it was claimed
    if "recipe.yaml" not in found:
        return f"{folder}: holds other files and no recipe.yaml; allowed: a new folder, or that of a run"
    if not resume:
        return f"{folder}: holds a run; allowed: --resume to go on with it, or another folder"
    difference = _difference(relevant(read_recipe(folder), stage), relevant(recipe, stage))
    return (
        f"{folder}: holds a run of another recipe: {difference}; allowed: the same recipe, or another folder"
        if difference
        else None
    )


def _difference(there: Any, here: Any, path: str = "") -> str | None:
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        for key in [*there, *(k for k in here if k not in there)]:
            found = _difference(there.get(key), here.get(key), f"{path}.{key}".lstrip("."))
            if found:
                return found
        return None
    return None if there == here else f"{path} is {there!r} there and {here!r} here"


def versions() -> dict[str, str]:
    """What the run was made with."""
    found = {"python": platform.python_version()}
    for name in ("nas-apps", "torch", "numpy", "timm", "torchvision", "espnet", "gymnasium", "torchrl", *PROCGEN):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def device_name(device: torch.device) -> str:
    """The device in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({platform.machine()}, {torch.get_num_threads()} threads)"
