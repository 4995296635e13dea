"""The `training` block of a space: what only cost depends on. None of it enters an identity."""

from dataclasses import dataclass
from typing import Any

from search_spaces.rules import MOST, count, read_mapping
from twophase.children import MIN_WIDTH
from twophase.errors import BadInput

AUTO = "auto"


@dataclass(frozen=True)
class Training:
    """How trials are trained, without changing what comes out.

    Attributes:
        lane_width: Most lanes of a batch; 0 for the best by measurement.
        is_snapshot_kept: Whether the reference's whole state is kept at each fork step, for later runs to go on from.
    """

    lane_width: int = 0
    is_snapshot_kept: bool = False


def read_training(raw: Any) -> Training:
    """Check the block and give it its types.

    Raises:
        BadInput: A key is unknown or a value breaks a rule.
    """
    given = read_mapping("training", raw)
    width, is_kept = given.get("lane_width", AUTO), given.get("snapshots", False)
    if not isinstance(is_kept, bool):
        raise BadInput(f"training.snapshots must be true or false, got {is_kept!r}")
    if isinstance(width, str) and width != AUTO:
        raise BadInput(f"training.lane_width must be auto or an integer >= {MIN_WIDTH}, got {width!r}")
    return Training(0 if width == AUTO else count("training.lane_width", width, least=MIN_WIDTH, most=MOST), is_kept)
