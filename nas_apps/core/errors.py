"""What a user did wrong, in one line."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec


class UserError(ValueError):
    """A mistake in what the user wrote or gave: the message says what was got, what is allowed, and where.

    The command line prints the message alone and ends with status 2. Anything else that is raised is a bug of ours
    and keeps its traceback.
    """


def unknown(where: str, got: object, allowed: Iterable[str]) -> UserError:
    """The error for a name that is not in a table.

    >>> str(unknown("variant", "dart", ["darts", "gdas"]))
    "variant: no 'dart'; allowed: darts, gdas"
    """
    return UserError(f"{where}: no {got!r}; allowed: {', '.join(sorted(allowed))}")


def require(*modules: str, extra: str) -> None:
    """Refuse, naming the extra that brings them, when modules are not installed. They are not imported."""
    for module in modules:
        if find_spec(module) is None:
            raise UserError(f"needs {module}, which is not installed: pip install 'nas-apps[{extra}]'")
