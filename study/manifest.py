"""What a study has declared: its primary, pinned by the first run, and its measure steps."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import search_spaces
from results import Finding, Study, StudyError
from results.files import json_bytes, write_bytes
from search_spaces import Primary, Space
from twophase.chaos import INDICATORS
from twophase.config import Protocol
from twophase.errors import BadInput
from twophase.relative import RELATIVE_INDICATORS

FILE = "_declared.json"
REPORT_FILE = "report.html"
WAY_OUT = "restore it, or remove it and run the study's spaces again, the first of which pins the primary anew"


@dataclass(frozen=True)
class Declared:
    """A study's declarations.

    Attributes:
        primary: The headline; its magnitude is settled by the first run and never moves.
        perturbation: The primary's kind, the first that the first run listed.
        measure: The primary's measure step as written.
        magnitudes: All magnitudes that were ever asked for, descending.
        measures: All measure steps as written.
        spaces: Every space that was run, as `Space.source` has it, in order; the last is the newest.
        protocol: How the primary is measured; None where nothing tells.
    """

    primary: Primary = Primary()
    perturbation: str = "gaussian"
    measure: str = "end"
    magnitudes: tuple[float, ...] = ()
    measures: tuple[str, ...] = ("end",)
    spaces: tuple[dict[str, Any], ...] = ()
    protocol: Protocol | None = None

    @property
    def primary_magnitude(self) -> float:
        """The primary's magnitude: as pinned, 0 for a kind without one; else the largest asked for, NaN before any."""
        if self.primary.magnitude is not None:
            return self.primary.magnitude
        return max(self.magnitudes, default=float("nan"))


def read_declared(folder: Path) -> Declared | None:
    """Read a study's declarations; None if it has none yet.

    Raises:
        StudyError: The file is damaged.
    """
    path = folder / FILE
    try:
        return _declared(json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except KeyError as error:
        raise StudyError(f"{path} is damaged: it has no {error}; {WAY_OUT}") from error
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise StudyError(f"{path} is damaged: {error or type(error).__name__}; {WAY_OUT}") from error


def require_declared(folder: Path) -> Declared:
    """Read the declarations of a study that has rows: without them, nobody knows what its headline was to be.

    Raises:
        StudyError: The file is missing or damaged.
    """
    declared = read_declared(folder)
    if declared is None:
        raise StudyError(
            f"{folder / FILE} is missing, which pins the study's primary; restore it, or run the study's spaces again, "
            "the first of which pins it anew"
        )
    return declared


def declared_spaces(folder: Path, declared: Declared) -> list[Space]:
    """Every space that a study was run with.

    Raises:
        StudyError: One can't be read as a space.
    """
    try:
        return [search_spaces.load(source) for source in declared.spaces]
    except BadInput as error:
        raise StudyError(f"{folder / FILE} is damaged: a space that it keeps is none: {error}; {WAY_OUT}") from error


def find_damage(study: Study) -> list[Finding]:
    """What is wrong with a study's declarations; they may be missing as long as nothing was committed."""
    try:
        declared = read_declared(study.path)
        if declared is not None:
            declared_spaces(study.path, declared)
        elif any(study.commits_path.glob("[!.]*")):
            require_declared(study.path)
    except StudyError as error:
        return [Finding("_declared", str(error), FILE)]
    return []


def _declared(raw: Any) -> Declared:
    """Give what was read its types.

    Raises:
        KeyError: Something is missing.
        ValueError: Something has the wrong type.
    """
    if not isinstance(raw, dict) or not isinstance(raw["primary"], dict):
        raise ValueError("it must be a mapping, and so must its primary")
    primary = Primary(**raw["primary"])
    given = Declared(
        primary,
        raw["perturbation"],
        raw["measure"],
        tuple(raw["magnitudes"]),
        tuple(raw["measures"]),
        tuple(raw.get("spaces", ())),
    )
    magnitude = () if primary.magnitude is None else (primary.magnitude,)
    rules = {
        "primary.indicator": primary.indicator in INDICATORS,
        "primary.threshold and magnitudes": _is_size(primary.threshold)
        and all(size == 0 or _is_size(size) for size in (*magnitude, *given.magnitudes)),
        "perturbation and measures": all(
            isinstance(word, str) for word in (given.perturbation, given.measure, *given.measures)
        ),
        "lists": all(isinstance(raw.get(name, []), list) for name in ("magnitudes", "measures", "spaces")),
        "spaces": all(isinstance(space, dict) for space in given.spaces),
    }
    wrong = [name for name, is_right in rules.items() if not is_right]
    if wrong:
        raise ValueError(f"wrong type or value of {', '.join(wrong)}")
    pinned = _protocol(raw["protocol"]) if raw.get("protocol") else None
    if primary.magnitude is not None and pinned is not None:
        return replace(given, protocol=pinned)
    return _settled(given, pinned)


def _is_size(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0


def _protocol(raw: Mapping[str, Any]) -> Protocol:
    usual = asdict(Protocol())
    wrong = [name for name, value in raw.items() if type(value) is not type(usual.get(name))]
    if wrong:
        raise ValueError(f"wrong name or type of protocol.{wrong[0]}")
    return Protocol(**raw)


def _settled(known: Declared, pinned: Protocol | None) -> Declared:
    """Settle what earlier versions left open by the first space that they kept; without one, by all there is."""
    if not known.spaces:
        magnitude = known.primary_magnitude if known.magnitudes else None
        return replace(known, primary=replace(known.primary, magnitude=magnitude), protocol=pinned)
    first = search_spaces.load(known.spaces[0])
    named = known.primary.magnitude
    primary = replace(known.primary, magnitude=max(first.chaos.magnitudes) if named is None else named)
    return replace(known, primary=primary, protocol=pinned or first.protocol)


def declare(space: Space, old: Declared | None) -> Declared:
    """Add a space's declarations to a study's.

    Args:
        space: What is to be run.
        old: What the study declared before.

    Returns:
        The union; the primary (its magnitude, kind, measure step and protocol) stays what the first run made it.

    Raises:
        BadInput: The space names another primary, or one at a magnitude that isn't run.
    """
    chaos = space.chaos
    measure = "end" if "end" in chaos.measure_steps else chaos.measure_steps[0]
    magnitude = chaos.primary.magnitude or max(chaos.magnitudes)
    first = Declared(
        replace(chaos.primary, magnitude=magnitude),
        chaos.perturbations[0],
        measure,
        chaos.magnitudes,
        chaos.measure_steps,
        (dict(space.source),),
        space.protocol,
    )
    if old is None:
        merged = first
    else:
        magnitudes = tuple(sorted({*old.magnitudes, *chaos.magnitudes}, reverse=True))
        measures = tuple(dict.fromkeys([*old.measures, *chaos.measure_steps]))
        spaces = (*(asked for asked in old.spaces if asked != first.spaces[0]), *first.spaces)
        merged = replace(old, magnitudes=magnitudes, measures=measures, spaces=spaces)
        if chaos.is_primary_named:
            _hold_against(chaos.primary, merged)
    named = merged.primary.magnitude
    if named is not None and named not in merged.magnitudes:
        run = ", ".join(f"{size:g}" for size in merged.magnitudes)
        raise BadInput(f"chaos.primary.magnitude must be one of chaos.magnitudes ({run}), got {named:g}")
    return merged


def unlisted(declared: Declared, space: Space) -> Declared:
    """The same declarations without one of their spaces: what it is to be comes later."""
    return replace(declared, spaces=tuple(asked for asked in declared.spaces if asked != space.source))


def grown(declared: Declared, space: Space) -> Declared:
    """List a space whose settings grew, in place of what it was before.

    Args:
        declared: A study's declarations.
        space: The space; its `settings` begin with those that it had before.
    """
    now = dict(space.source)

    def is_before(asked: Mapping[str, Any]) -> bool:
        listed = asked.get("settings") or []
        rest = {key: value for key, value in now.items() if key != "settings"}
        return rest == {k: v for k, v in asked.items() if k != "settings"} and now["settings"][: len(listed)] == listed

    return replace(declared, spaces=(*(asked for asked in declared.spaces if not is_before(asked)), now))


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
        "protocol": None if declared.protocol is None else asdict(declared.protocol),
        "spaces": declared.spaces,
    }
    write_bytes(folder / FILE, json_bytes(content))


def default_threshold(indicator: str) -> float:
    """The threshold of an indicator that isn't the primary."""
    made = RELATIVE_INDICATORS.get(indicator)
    return INDICATORS[indicator] if made is None else made.threshold
