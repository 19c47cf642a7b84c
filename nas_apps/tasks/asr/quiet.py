"""ESPnet without what it prints, warns of and downloads."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from typing import Any


@contextmanager
def quiet(*, tasks: bool = False) -> Iterator[None]:
    """Around imports of ESPnet: they print and warn of nothing, and what is imported never warns of how it asks for
    autocast, on each batch. A thread of one's own that prints meanwhile is not heard.

    tasks: around espnet2.tasks and what imports it (seconds): the texts of every language that come with it ask for
    downloads when they are imported, which are refused. A user's own call of `nltk.download` works before and after.
    """
    nltk: Any = import_module("nltk") if tasks else None
    download = nltk.download if tasks else None
    with redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if tasks:
            nltk.download = _refused
        try:
            yield
        finally:
            if tasks:
                nltk.download = download
    warnings.filterwarnings("ignore", r"`torch\.cuda\.amp\.autocast", FutureWarning)


def _refused(*_: object, **__: object) -> bool:
    return False
