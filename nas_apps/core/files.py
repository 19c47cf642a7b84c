"""Files that are written whole or not at all, and read with one clear line when they cannot be."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from nas_apps.core.errors import UserError


def write(path: Path, content: bytes | memoryview) -> None:
    """Write `path`: under a new name, flushed to the disk, then renamed over the old one.

    A process that is killed, or a disk that fills up, leaves the old file as it was.
    """
    new = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with new.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        with suppress(OSError):
            new.unlink()
        raise _cannot_write(path, error) from error


def write_text(path: Path, text: str) -> None:
    """Write a text file whole."""
    write(path, text.encode())


def append(path: Path, content: bytes) -> None:
    """Add to a log file."""
    try:
        with path.open("ab", buffering=0) as file:
            file.write(content)
    except OSError as error:
        raise _cannot_write(path, error) from error


def append_text(path: Path, text: str) -> None:
    """Add to a log file that is text."""
    append(path, text.encode())


@contextmanager
def open_to_write(path: Path) -> Iterator[IO[str]]:
    """A file open for writing, with the folder it is in; what was in it stays."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as error:
        raise _cannot_write(path.parent, error) from error
    with file:
        yield file


def read_text(path: Path, what: str) -> str:
    """The text of a file the user named as `what`."""
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise UserError(f"{path}: cannot read {what}: {reason}") from None


def no_space(error: OSError) -> str | None:
    """What to tell a user whose disk, quota or limit on file sizes is used up; None for any other error."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return None
    return (
        f"no space left ({error.strerror}); nothing is lost: make some, and run the same command again "
        "(a search or a training with --resume)"
    )


def _cannot_write(path: Path, error: OSError) -> UserError:
    return UserError(f"{path}: {no_space(error) or f'cannot write: {error.strerror or error}'}")
