"""The `fold` of a space: into how many pieces a trial's work is cut. It changes no row, and enters no identity."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from search_spaces.rules import MOST, count
from twophase.errors import BadInput, unknown

ALL, FORK_STEP, CELL, CHILDREN = "all", "fork_step", "cell", "children"
WORDS = (ALL, FORK_STEP, CELL)


@dataclass(frozen=True)
class Fold:
    """How the inner axes are folded into what Ray runs.

    Attributes:
        by: `all`, one piece; `fork_step`, one for each; `cell`, one for each fork step and magnitude; `children`.
        most: With `children`, the most children of a piece, controls included.
    """

    by: str = ALL
    most: int = 0

    def __str__(self) -> str:
        return f"{{children: {self.most}}}" if self.by == CHILDREN else self.by


def read_fold(raw: Any) -> Fold:
    """Check it and give it its type.

    Raises:
        BadInput: It is no word that is known, and no number of children.
    """
    if raw is None:
        return Fold()
    if isinstance(raw, Mapping):
        if set(raw) != {CHILDREN}:
            raise BadInput(f"fold must be {', '.join(WORDS)} or {{children: n}}, got {dict(raw)!r}")
        return Fold(CHILDREN, count("fold.children", raw[CHILDREN], least=1, most=MOST))
    if not isinstance(raw, str):
        raise BadInput(f"fold must be {', '.join(WORDS)} or {{children: n}}, got {raw!r}")
    if raw not in WORDS:
        raise unknown("fold", raw, [*WORDS, "{children: n}"])
    return Fold(raw)
