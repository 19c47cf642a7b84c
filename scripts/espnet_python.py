#!/usr/bin/env python3
"""Python for ESPnet's recipes, with `darts_conformer` among the encoders: asr.sh --python .../espnet_python.py

What starts with `-m espnet2.bin.asr_` runs with the encoder registered; anything else is python's as it is.
"""

import os
import sys

if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments[:1] != ["-m"] or not "".join(arguments[1:2]).startswith("espnet2.bin.asr_"):
        os.execv(sys.executable, [sys.executable, *arguments])  # noqa: S606

    from nas_apps.tasks.asr.espnet import run

    run(arguments[1], arguments[2:])
