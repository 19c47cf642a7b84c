"""torchrl, imported once."""

from __future__ import annotations

import warnings
from importlib import import_module

import pytest

from nas_apps.tasks.rl.quiet import silence


@pytest.fixture(scope="session")
def torchrl() -> None:
    """What our modules import of it, without the warnings of what it imports itself: procgen leaves a file open."""
    silence()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("torchrl")
        for name in ("torchrl.data", "torchrl.data.postprocs", "torchrl.objectives"):
            import_module(name)
