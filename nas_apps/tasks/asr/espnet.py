"""ESPnet's own training and decoding with `encoder: darts_conformer` among its choices.

    python -m nas_apps.tasks.asr.espnet train <arguments of espnet2.bin.asr_train>
    python -m nas_apps.tasks.asr.espnet infer <arguments of espnet2.bin.asr_inference>

For what starts ESPnet's modules itself, such as asr.sh, scripts/espnet_python.py stands for python.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence

from nas_apps.console import fail
from nas_apps.core.errors import UserError, require, unknown
from nas_apps.tasks.asr.quiet import quiet

VERBS = {"train": "espnet2.bin.asr_train", "infer": "espnet2.bin.asr_inference"}


def main(arguments: Sequence[str]) -> None:
    """Run a verb with the arguments of ESPnet's module. A user's mistake is one line and status 2."""
    try:
        require("espnet2", extra="asr")
        if not arguments or arguments[0] not in VERBS:
            raise unknown("verb", arguments[0] if arguments else "", VERBS)
        run(VERBS[arguments[0]], arguments[1:])
    except UserError as error:
        fail(str(error))


def run(module: str, arguments: Sequence[str]) -> None:
    """Run a module of ESPnet as `python -m module arguments` would, with our encoder among the choices."""
    from nas_apps.tasks.asr import espnet_task

    espnet_task.register()
    if module == VERBS["train"]:
        espnet_task.Task.main(cmd=arguments)
    elif module == VERBS["infer"]:
        with quiet(tasks=True):
            from espnet2.bin import asr_inference
        asr_inference.main(cmd=arguments)
    else:
        sys.argv = [module, *arguments]
        runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
