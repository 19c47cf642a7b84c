"""ESPnet's programs as processes of their own: a progress bar for the user, what they say in a file."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from nas_apps.core import files
from nas_apps.core.errors import UserError


@dataclass(frozen=True)
class Told:
    """How far a program is, by the lines it logs.

    unit, total: what is counted. done: a line that says that one more is done, or, by its group, how many are. shown: a
    line with something to show, by the names of its groups.
    """

    unit: str
    total: int | None
    done: str
    shown: str = "(?!)"

    def update(self, bar: tqdm[Any], line: str) -> None:
        """Show what a line tells."""
        if found := re.search(self.done, line):
            bar.update(int(found[1]) - bar.n if found.groups() else 1)
        if found := re.search(self.shown, line):
            bar.set_postfix(found.groupdict(), refresh=False)


def run(verb: str, arguments: Sequence[str], folder: Path, log: str, told: Told) -> None:
    """Run a verb of `nas_apps.tasks.asr.espnet` in a folder, where its lines are added to the file `log`.

    UserError, with its last line, where it fails. It ends with this process, unless that is killed.
    """
    command = [sys.executable, "-m", "nas_apps.tasks.asr.espnet", verb, *arguments]
    path, last = folder / log, "it said nothing"
    every, shown = (0.1 if sys.stderr.isatty() else 30.0), time.monotonic()
    bar: tqdm[Any] = tqdm(total=told.total, desc=path.stem, unit=told.unit, mininterval=every, maxinterval=every)
    with bar, _started(command, folder) as process:
        try:
            for line in process.stdout or ():
                files.append_text(path, line)
                told.update(bar, line)
                last = line.strip() or last
                if time.monotonic() - shown >= every:
                    bar.refresh()
                    shown = time.monotonic()
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        raise UserError(f"ESPnet's {verb} ended with status {process.returncode}: {last} ({path} has all it said)")


def _started(command: Sequence[str], folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(  # noqa: S603, our own command line
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
