"""ESPnet's ASR task with our encoder among its choices. Importing this imports all of ESPnet: seconds."""

from __future__ import annotations

import inspect
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from nas_apps.core import files
from nas_apps.core.errors import unknown
from nas_apps.tasks.asr.encoder import DartsConformerEncoder, read_genotype
from nas_apps.tasks.asr.quiet import quiet

with quiet(tasks=True):
    from espnet2.tasks.asr import ASRTask, encoder_choices

NAME = "darts_conformer"


def register() -> None:
    """Make `encoder: darts_conformer` a choice of ESPnet's, in this process."""
    encoder_choices.classes[NAME] = DartsConformerEncoder


class Task(ASRTask):
    """The task that our entry point trains. A class of a module that can be imported: training on several devices
    starts a process for each, which finds the class by its name and calls `main_worker`."""

    @classmethod
    def get_parser(cls) -> Any:
        register()
        return super().get_parser()

    @classmethod
    def print_config(cls, file: Any = None) -> None:
        super().print_config(file or sys.stdout)  # ESPnet's own default is what stdout was while it was imported

    @classmethod
    def main_worker(cls, args: Any) -> None:
        register()
        if args.encoder == NAME:
            args.encoder_conf = _portable(args.encoder_conf)
        with _saving_whole():
            super().main_worker(args)


@contextmanager
def _saving_whole() -> Iterator[None]:
    """What ESPnet saves is there whole or not at all, wherever it is stopped: it writes over its only checkpoint."""
    save = torch.save

    def save_whole(what: Any, where: Any, *args: Any, **kwargs: Any) -> None:
        if not isinstance(where, str | Path):
            save(what, where, *args, **kwargs)
            return
        buffer = io.BytesIO()
        save(what, buffer, *args, **kwargs)
        files.write(Path(where), buffer.getbuffer())

    torch.save = save_whole  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.save = save


def _portable(conf: dict[str, Any]) -> dict[str, Any]:
    """The settings of our encoder with the genotype itself in them, and not its file: what config.yaml then holds."""
    allowed = list(inspect.signature(DartsConformerEncoder).parameters)[1:]
    for key in conf:
        if key not in allowed:
            raise unknown("encoder_conf", key, allowed)
    return {**conf, "genotype": read_genotype(conf.get("genotype", "conformer")).to_json()}
