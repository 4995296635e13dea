"""What can go wrong with a study, each told in one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class StudyError(Exception):
    """A study cannot be used as asked; the message is one line for the user."""


class SchemaError(StudyError):
    """Rows, columns or settings that do not fit the schema."""


class LeaseHeld(StudyError):  # noqa: N818 - names the state, as BlockingIOError does
    """Another driver works on this study."""


class LeaseLost(StudyError):  # noqa: N818
    """The driver that this writer belongs to no longer holds the study; nothing was committed."""


def unknown_name(kind: str, name: object, known: Iterable[str]) -> str:
    """Says that `name` is unknown, which name is nearest, and which names there are."""
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    return f"unknown {kind} {name!r}{hint} known: {', '.join(names) or 'none'}"
