"""ESPnet's own training and decoding with `encoder: darts_conformer` among its choices.

    python -m nas_apps.tasks.asr.espnet train <arguments of espnet2.bin.asr_train>
    python -m nas_apps.tasks.asr.espnet infer <arguments of espnet2.bin.asr_inference>
    python -m nas_apps.tasks.asr.espnet retrain <arguments of nas-apps train>: those two, for a recipe of ours

For what starts ESPnet's modules itself, such as asr.sh, scripts/espnet_python.py stands for python.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from nas_apps.console import fail
from nas_apps.core.errors import UserError, require, unknown
from nas_apps.tasks.asr.quiet import quiet

VERBS = {"train": "espnet2.bin.asr_train", "infer": "espnet2.bin.asr_inference"}


def main(arguments: Sequence[str]) -> None:
    """Run a verb with the arguments of ESPnet's module."""
    verb = arguments[0] if arguments else ""
    if verb in VERBS:
        run(VERBS[verb], arguments[1:])
        return
    try:
        if verb != "retrain":
            raise unknown("verb", verb, [*VERBS, "retrain"])
        from nas_apps.tasks.asr import retrain

        retrain.main(arguments[1:])
    except UserError as error:
        fail(str(error))


def run(module: str, arguments: Sequence[str]) -> None:
    """Do what `python -m module arguments` does, for a module of ESPnet's speech recognition, with our encoder among
    the choices. A user's mistake is one line and status 2."""
    try:
        require("espnet2", extra="asr")
        from nas_apps.tasks.asr import espnet_task

        espnet_task.register()
        with quiet(tasks=True):
            runs: Any = espnet_task.Task if module == VERBS["train"] else import_module(module)
        runs.main(cmd=arguments)
    except UserError as error:
        fail(str(error))


if __name__ == "__main__":
    main(sys.argv[1:])
