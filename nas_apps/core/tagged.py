"""A stream whose batches say something more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

from nas_apps.core.task import Stream


@final
class Tagged:
    """A stream of mappings, each with the same entries besides.

    >>> from itertools import repeat
    >>> next(Tagged(repeat({"x": 1}), augment=False))
    {'x': 1, 'augment': False}
    """

    def __init__(self, stream: Stream, **entries: Any) -> None:
        self._stream, self._entries = stream, entries

    @property
    def cycle(self) -> int:
        """That of the stream."""
        return self._stream.cycle

    def __next__(self) -> dict[str, Any]:
        return {**next(self._stream), **self._entries}

    def state_dict(self) -> dict[str, Any]:
        """That of the stream."""
        return self._stream.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up where the stream was."""
        self._stream.load_state_dict(state)
