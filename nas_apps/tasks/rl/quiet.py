"""gym, procgen and torchrl without what they print when they are imported, and whether torchrl's replay runs here."""

from __future__ import annotations

import os
from contextlib import suppress
from importlib import import_module
from importlib.metadata import version

from nas_apps.core.errors import UserError, require


def silence() -> None:
    """Keep gym's notice of its own end and torchrl's log of what it does from the user; a level that the user set for
    torchrl stays. Of no effect on what is imported already.
    """
    os.environ.setdefault("RL_LOGGING_LEVEL", "WARNING")
    with suppress(ImportError):
        import_module("gym_notices.notices").notices.clear()


def require_replay() -> None:
    """Refuse when torchrl's compiled part, without which no prioritised replay is made, does not load here."""
    require("torchrl", extra="rl")
    silence()
    try:
        import_module("torchrl._torchrl")
    except ImportError as error:
        raise UserError(
            f"a prioritised replay: the compiled part of torchrl {version('torchrl')} does not load with torch "
            f"{version('torch')}; install the pair that goes together: pip install 'nas-apps[rl]'"
        ) from error
