"""Folders that are made once and then only read: generated corpora, features, decoded images."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from nas_apps.core import files
from nas_apps.core.errors import UserError


def default_cache() -> Path:
    """Where the user's system keeps what can be made again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~", ".cache").expanduser()) / "nas-apps"


def key(*parts: object) -> str:
    """A short name for all that a folder depends on."""
    digest = sha256()
    for part in parts:
        digest.update(repr(part).encode() + b"\n")
    return digest.hexdigest()[:16]


def stamp(path: Path) -> tuple[object, ...]:
    """What changes when a file does: its place, size and time; its place alone when it is not there."""
    path = path.expanduser().absolute()
    try:
        stat = path.stat()
    except OSError:
        return (str(path),)
    return str(path), stat.st_size, stat.st_mtime_ns


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """`folder`, filled by `make` if it is not there.

    It is made beside its place and renamed, so it is there whole or not at all. A process that wants what another is
    making waits for it, and makes it when that one ended before its time.
    """
    if folder.is_dir():
        return folder
    with files.open_to_write(folder.with_name(f".{folder.name}.lock")) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            new = folder.with_name(f".{folder.name}.new")
            shutil.rmtree(new, ignore_errors=True)
            try:
                new.mkdir()
                make(new)
                new.rename(folder)
            except OSError as error:
                raise UserError(f"{folder}: {files.no_space(error) or f'cannot make it: {error}'}") from error
            finally:
                shutil.rmtree(new, ignore_errors=True)
    return folder
