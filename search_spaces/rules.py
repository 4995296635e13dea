"""Checks that the blocks of a space share: each names the field, the rule and the value."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from search_spaces.source import BLOCKS
from twophase.config import Setting, is_finite
from twophase.errors import BadInput, unknown

MOST = 10_000
"""Of anything that is counted per trial: a larger number is a slip, and would hang before it fails."""


def read_mapping(block: str, raw: Any) -> Mapping[str, Any]:
    """A block's entries, all of its keys known; empty where it is left out."""
    if raw is None:
        return {}
    if not isinstance(raw, Mapping):
        raise BadInput(f"{block} must be a mapping with keys {', '.join(BLOCKS[block])}, got {raw!r}")
    for key in raw:
        if key not in BLOCKS[block]:
            raise unknown(f"key in {block}", key, BLOCKS[block])
    return raw


def read_list(field: str, raw: Any, *, is_one_allowed: bool = False) -> list[Any]:
    """A list that isn't empty, or one entry where that is allowed."""
    values = [raw] if is_one_allowed and isinstance(raw, str | int | float) else raw
    if not isinstance(values, list | tuple):
        raise BadInput(f"{field} must be a list, got {raw!r}")
    if not values:
        raise BadInput(f"{field} must have at least one entry, got an empty list")
    return list(values)


def distinct(field: str, values: list[Any]) -> tuple[Any, ...]:
    """The same values, none twice."""
    repeated = [value for value, times in Counter(values).items() if times > 1]
    if repeated:
        raise BadInput(f"{field} must not repeat an entry, got {repeated[0]!r} twice")
    return tuple(values)


def count(field: str, value: Any, *, least: int, most: int | None = None) -> int:
    """An integer not below `least`, nor above `most`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise BadInput(f"{field} must be an integer >= {least}, got {value!r}")
    if most is not None and value > most:
        raise BadInput(f"{field} must be an integer <= {most:,}, got {value}")
    return value


def listed_steps(field: str, raw: Any) -> tuple[int, ...]:
    """Steps as listed, ascending."""
    if not isinstance(raw, list | tuple):
        raise BadInput(f"{field} must be a list of steps or {{num_log: n, num_linear: m}}, got {raw!r}")
    return tuple(sorted(distinct(field, [count(field, step, least=0) for step in read_list(field, raw)])))


def spaced_steps(field: str, raw: Any, num_log: int, num_linear: int) -> tuple[tuple[int, ...] | None, int, int]:
    """Steps as listed, or None where they are spaced; and how many log- and linear-spaced ones, by default as given."""
    listed = None if isinstance(raw, Mapping) or raw is None else listed_steps(field, raw)
    numbers = read_mapping(field, raw) if listed is None else {}
    num_log = count(f"{field}.num_log", numbers.get("num_log", num_log), least=0, most=MOST)
    num_linear = count(f"{field}.num_linear", numbers.get("num_linear", num_linear), least=1, most=MOST)
    return listed, num_log, num_linear


def within_run(field: str, steps: Iterable[int], setting: Setting) -> None:
    """Refuse steps past the end of a setting's run."""
    late = [step for step in steps if step > setting.num_steps]
    if late:
        raise BadInput(
            f"{field} must not pass num_steps ({setting.num_steps} for model '{setting.model}'), got {late[0]}"
        )


def known_word(what: str, value: Any, known: Iterable[str]) -> str:
    """One of the names that there are."""
    if not isinstance(value, str) or value not in known:
        raise unknown(what, value, known)
    return value


def truth(field: str, value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise BadInput(f"{field} must be true or false, got {value!r}")
    return value


def positive(field: str, value: Any) -> float:
    """A finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not (is_finite(value) and value > 0):
        raise BadInput(f"{field} must be a number > 0, got {value!r}")
    return float(value)
