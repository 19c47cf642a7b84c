"""A file is written whole or stays as it was, and what cannot be read or written is one clear line."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from nas_apps.core import files
from nas_apps.core.errors import UserError


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "down" / "a.txt"
    files.write_text(path, "one")
    files.write_text(path, "two, and more")
    assert path.read_text() == "two, and more"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


def test_what_a_killed_write_left_is_written_over(tmp_path: Path) -> None:
    (tmp_path / ".a.txt.new").write_text("half of someth")
    files.write_text(tmp_path / "a.txt", "whole")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.txt", "whole")]


def test_the_new_file_is_on_the_disk_before_it_has_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, steps = tmp_path / "a.txt", []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (steps.append("fsync"), fsync(fd)))
    monkeypatch.setattr(Path, "replace", lambda old, new: (steps.append("replace"), replace(old, new)))
    files.write(path, b"x")
    assert steps == ["fsync", "replace"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("at", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    code: int, at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(*((os, "fsync", fail) if at == "fsync" else (Path, "replace", fail)))
    with pytest.raises(UserError) as caught:
        files.write(path, b"new")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.txt", "old")]
    full = code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    reason = f"no space left ({os.strerror(code)}); nothing is lost" if full else f"cannot write: {os.strerror(code)}"
    assert str(caught.value).startswith(f"{path}: {reason}")


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"file/a.txt: cannot write: (Not a directory|File exists)"):
        files.write_text(tmp_path / "file" / "a.txt", "y")
    with pytest.raises(UserError, match=r"none/a.txt: cannot write: No such file or directory"):
        files.append_text(tmp_path / "none" / "a.txt", "y")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="folder: cannot write: Is a directory"):
        files.write_text(tmp_path / "folder", "y")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


def test_lines_are_added_to_a_log(tmp_path: Path) -> None:
    for line in ("one\n", "two\n"):
        files.append_text(tmp_path / "log", line)
    assert files.read_text(tmp_path / "log", "a log") == "one\ntwo\n"


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("none", "No such file or directory"), ("folder", "Is a directory"), ("bytes", "not a text file")],
)
def test_what_cannot_be_read_is_named_with_what_it_was_to_be(kind: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    if kind == "folder":
        path.mkdir()
    if kind == "bytes":
        path.write_bytes(b"\x80\xff\x00")
    with pytest.raises(UserError) as caught:
        files.read_text(path, "a genotype")
    assert str(caught.value) == f"{path}: cannot read a genotype: {reason}"
