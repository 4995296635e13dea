"""What a study has declared: its primary, pinned by the first run, and its measure steps."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from results import StudyError
from results.files import json_bytes, write_bytes
from search_spaces import Primary, Space
from twophase.chaos import INDICATORS
from twophase.errors import BadInput

FILE = "_declared.json"


@dataclass(frozen=True)
class Declared:
    """A study's declarations.

    Attributes:
        primary: The headline.
        perturbation: The primary's kind.
        measure: The primary's measure step as written.
        magnitudes: All magnitudes that were ever asked for, descending.
        measures: All measure steps as written.
        spaces: Every space that was run, as `Space.source` has it, in order; the last is the newest.
    """

    primary: Primary = Primary()
    perturbation: str = "gaussian"
    measure: str = "end"
    magnitudes: tuple[float, ...] = ()
    measures: tuple[str, ...] = ("end",)
    spaces: tuple[dict[str, Any], ...] = ()

    @property
    def primary_magnitude(self) -> float:
        """The primary's magnitude: as named, or the largest run; NaN before any."""
        return self.primary.magnitude or max(self.magnitudes, default=float("nan"))


def read_declared(folder: Path) -> Declared | None:
    """Read a study's declarations; None if it has none yet.

    Raises:
        StudyError: The file is damaged.
    """
    path = folder / FILE
    try:
        raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        primary = Primary(**raw["primary"])
        magnitudes, measures = tuple(raw["magnitudes"]), tuple(raw["measures"])
        spaces = tuple(raw.get("spaces", ()))
        return Declared(primary, raw["perturbation"], raw["measure"], magnitudes, measures, spaces)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise StudyError(f"{path} is damaged: {error}; restore it, or choose another --name") from error


def declare(space: Space, old: Declared | None) -> Declared:
    """Add a space's declarations to a study's.

    Args:
        space: What is to be run.
        old: What the study declared before.

    Returns:
        The union; the primary stays what the first run made it.

    Raises:
        BadInput: The space names another primary, or one at a magnitude that isn't run.
    """
    chaos = space.chaos
    measure = "end" if "end" in chaos.measure_steps else chaos.measure_steps[0]
    first = Declared(
        chaos.primary, chaos.perturbations[0], measure, chaos.magnitudes, chaos.measure_steps, (dict(space.source),)
    )
    if old is None:
        merged = first
    else:
        magnitudes = tuple(sorted({*old.magnitudes, *chaos.magnitudes}, reverse=True))
        measures = tuple(dict.fromkeys([*old.measures, *chaos.measure_steps]))
        spaces = (*(asked for asked in old.spaces if asked != first.spaces[0]), *first.spaces)
        merged = Declared(old.primary, old.perturbation, old.measure, magnitudes, measures, spaces)
        if chaos.is_primary_named:
            _hold_against(chaos.primary, merged)
    named = merged.primary.magnitude
    if named is not None and named not in merged.magnitudes:
        run = ", ".join(f"{size:g}" for size in merged.magnitudes)
        raise BadInput(f"chaos.primary.magnitude must be one of chaos.magnitudes ({run}), got {named:g}")
    return merged


def _hold_against(named: Primary, pinned: Declared) -> None:
    pairs = {
        "indicator": (named.indicator, pinned.primary.indicator),
        "threshold": (named.threshold, pinned.primary.threshold),
        "magnitude": (named.magnitude or pinned.primary_magnitude, pinned.primary_magnitude),
    }
    for name, (new, old) in pairs.items():
        if new != old:
            raise BadInput(
                f"chaos.primary.{name} was pinned to {old} by the study's first run, got {new}; "
                "leave it out, or choose another --name"
            )


def write_declared(folder: Path, declared: Declared) -> None:
    """Write declarations whole or not at all."""
    primary = {"indicator": declared.primary.indicator, "threshold": declared.primary.threshold}
    content = {
        "primary": {**primary, "magnitude": declared.primary.magnitude},
        "perturbation": declared.perturbation,
        "measure": declared.measure,
        "magnitudes": declared.magnitudes,
        "measures": declared.measures,
        "spaces": declared.spaces,
    }
    write_bytes(folder / FILE, json_bytes(content))


def default_threshold(indicator: str) -> float:
    """The threshold of an indicator that isn't the primary."""
    return INDICATORS[indicator]
