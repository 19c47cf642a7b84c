"""What the command line says, and how it ends."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer


def command() -> str:
    """What the user typed, as a line of a shell."""
    return shlex.join(["nas-apps", *sys.argv[1:]])


@contextmanager
def ended_as_interrupted() -> Iterator[None]:
    """What ends this process, as a batch system or a closed terminal does, ends its children too."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        if handler is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leads() -> bool:
    """Whether this process is the one of several that speaks."""
    return os.environ.get("RANK", "0") == "0"


def say(text: str) -> None:
    """A line for the user."""
    if leads():
        typer.echo(text)


def fail(message: str, status: int = 2) -> NoReturn:
    """Say what is wrong in one line, and end."""
    rank = "" if leads() else f" (rank {os.environ['RANK']})"  # a mistake that only one rank meets is still told
    typer.echo(f"nas-apps{rank}: {message}", err=True)
    sys.exit(status)
