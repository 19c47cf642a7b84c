"""Every task that is installed is held to the laws of tasks."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

import pytest

from nas_apps.testing import check_task

_SPEECH = {"encoder": {"cells": 1, "width": 16}, "model": {"decoder_blocks": 1, "heads": 2, "ff": 16}}

SIZES: dict[str, dict[str, Any]] = {
    "asr": {
        "task": {"mini": {"speakers": [2, 1, 1], "utterances": [6, 2, 2]}, "nodes": 2},
        "search": {"batch_size": 4, "network": _SPEECH, "data": {"most": 2}},
        "train": {"batch_size": 4, "network": _SPEECH, "data": {"most": 2}},
    },
    "rl": {
        "task": {"game": "pattern_env:nas_apps/PatternLong-v0", "nodes": 2},
        "search": {
            "batch_size": 16,
            "network": {"channels": [8], "features": 64},
            "data": {"episodes": 4, "ppo": {"envs": 4, "steps": 8}},
        },
        "train": {
            "batch_size": 16,
            "network": {"channels": [8], "features": 64, "output": "last_node"},
            "data": {"episodes": 4, "ppo": {"envs": 4, "steps": 8}},
        },
    },
    "sr": {
        "task": {
            "scale": 2,
            "tree": {"cells": 2, "ups": 1, "searched": 1},
            "channels": 16,
            "ops_per_cell": 2,
            "widths": [0.5, 1.0],
        },
        "search": {"batch_size": 4, "data": {"side": 8}},
        "train": {"batch_size": 4, "data": {"side": 8}},
    },
    "toy": {"task": {"points": 48}, "search": {"batch_size": 8}, "train": {"batch_size": 8}},
    "image": {
        "task": {"train_images": 64},
        "search": {"batch_size": 8, "network": {"channels": 4, "cells": 3, "affine": True}},
        "train": {"batch_size": 8, "network": {"channels": 4, "cells": 3, "auxiliary": 0.4}},
    },
}


@pytest.mark.parametrize("name", sorted(point.name for point in entry_points(group="nas_apps.tasks")))
def test_a_task_obeys_the_laws(name: str) -> None:
    check_task(name, SIZES[name])


def test_a_task_that_breaks_a_law_is_told_which(monkeypatch: pytest.MonkeyPatch) -> None:
    from nas_apps.tasks.toy import ToyTask

    monkeypatch.setattr(ToyTask, "evaluate", lambda *_: {"loss": 0.0})
    with pytest.raises(AssertionError, match="does not answer the goal's 'accuracy'"):
        check_task("toy", SIZES["toy"])
