"""Scalars for TensorBoard."""

from __future__ import annotations

import io
import os
import socket
import time
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from nas_apps.core import files


class Board:
    """A file of scalars that TensorBoard reads.

    Unlike torch's SummaryWriter it has no thread, which on a full disk would die with a traceback; every scalar is in
    the file when `add` returns.

    Args:
        step: the first step that this file tells of; what an earlier file tells of it and of later ones is void.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self._path = folder / f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._write(file_version="brain.Event:2")
        self._write(step=step, session_log=SessionLog(status=SessionLog.START))

    def add(self, name: str, value: float, step: int) -> None:
        """Add a scalar."""
        self._write(step=step, summary=Summary(value=[Summary.Value(tag=name, simple_value=value)]))

    def _write(self, **what: Any) -> None:
        record = io.BytesIO()
        RecordWriter(record).write(Event(wall_time=time.time(), **what).SerializeToString())
        files.append(self._path, record.getvalue())
