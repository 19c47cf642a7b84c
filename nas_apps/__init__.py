"""One search engine for every DARTS variant, and tasks that put its cells into the models people use.

`search`, `train`, `derive`, `evaluate` and `recipe` are the verbs of the command line as functions; `load` gives the
trained network of a run to use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nas_apps.core.config import Recipe

__version__ = "0.1.0"

_VERBS = {
    "search": "runs",
    "train": "runs",
    "derive": "runs",
    "evaluate": "runs",
    "load": "runs",
    "Genotype": "genotype",
}


def recipe(*sources: str) -> Recipe:
    """The recipe of YAML files and `key=value` overrides, in any order, the later over the earlier."""
    from nas_apps.core import config

    return config.load([s for s in sources if "=" not in s], [s for s in sources if "=" in s])


def __getattr__(name: str) -> Any:
    if name not in _VERBS:
        raise AttributeError(f"module 'nas_apps' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"nas_apps.core.{_VERBS[name]}"), name)
