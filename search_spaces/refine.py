"""Adaptive fork steps: a coarse grid, then each seed's own bracket of the threshold, narrower and narrower."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from search_spaces.rules import MOST, count, distinct, positive, read_list, read_mapping
from twophase.errors import BadInput

KEY = "refine"
DEFAULT_START = (0, 10, 50, 200, 800)


@dataclass(frozen=True)
class Refine:
    """How far a seed's bracket is narrowed.

    Attributes:
        factor: Wanted: (1 + upper end) / (1 + lower end) at most this.
        most: Fork steps that a seed may have beyond the grid that it starts from.
    """

    factor: float = 1.25
    most: int = 12


def read_refine(raw: Mapping[str, Any]) -> tuple[tuple[int, ...] | None, Refine]:
    """Check ``{refine: {start: …, factor: …, most: …}}``.

    Returns:
        The grid to start from, None for the default one; and how far to go.

    Raises:
        BadInput: A key is unknown or a value breaks a rule.
    """
    if set(raw) != {KEY}:
        raise BadInput(f"chaos.fork_steps must be a list of steps or {{refine: …}}, got {dict(raw)!r}")
    given = read_mapping("chaos.fork_steps.refine", raw[KEY])
    factor = positive("chaos.fork_steps.refine.factor", given.get("factor", Refine.factor))
    if factor <= 1:
        raise BadInput(f"chaos.fork_steps.refine.factor must be > 1, got {factor:g}")
    most = count("chaos.fork_steps.refine.most", given.get("most", Refine.most), least=1, most=MOST)
    return _start(given.get("start")), Refine(factor, most)


def _start(raw: Any) -> tuple[int, ...] | None:
    if raw is None:
        return None
    name = "chaos.fork_steps.refine.start"
    steps = [count(name, step, least=0) for step in read_list(name, raw)]
    if len(steps) < 2:
        raise BadInput(f"{name} must have two fork steps or more, to bracket something, got {steps}")
    return tuple(sorted(distinct(name, steps)))
