"""The values of one axis: a list, a range or a log range."""

from collections import Counter
from collections.abc import Mapping, Sequence

from search_spaces.rules import MOST
from search_spaces.source import SETTINGS_PAGE
from twophase.config import LEAVES, TYPES, Value, coerce, is_finite
from twophase.errors import BadInput, unknown

FORMS = "a list, {range: [low, high], num: n} or {log: [low, high], num: n}"


def axis_values(name: str, spec: object) -> tuple[Value, ...]:
    """Expand one axis.

    Args:
        name: The leaf that it varies.
        spec: What the space says of it.

    Returns:
        Its values, none twice, each checked by the leaf's own rule.

    Raises:
        BadInput: The axis is unknown, empty, malformed or repeats a value.
    """
    field = f"axes.{name}"
    if name not in LEAVES:
        raise unknown("axis", name, LEAVES, see=SETTINGS_PAGE)
    if isinstance(spec, Mapping) and not {"uniform", "loguniform"}.isdisjoint(spec):
        raise BadInput(f"{field} is a distribution, which twophase search draws from; here it must be {FORMS}")
    if isinstance(spec, Mapping):
        raw: Sequence[object] = _spread(field, spec, is_integer=TYPES[name] is int)
    elif isinstance(spec, list | tuple):
        raw = spec
    else:
        raise BadInput(f"{field} must be {FORMS}, got {spec!r}")
    if not raw:
        raise BadInput(f"{field} must have at least one value, got an empty list; leave it out to use the default")
    values = tuple(coerce(name, value) for value in raw)
    repeated = [value for value, times in Counter(values).items() if times > 1]
    if repeated:
        raise BadInput(f"{field} must not repeat a value, got {repeated[0]!r} twice")
    return values


def _spread(field: str, spec: Mapping[object, object], *, is_integer: bool) -> list[float | int]:
    kind = next((key for key in ("range", "log") if key in spec), None)
    if kind is None or set(spec) != {kind, "num"}:
        raise BadInput(f"{field} must be {FORMS}, got {dict(spec)!r}")
    low, high = ends(field, kind, spec[kind], is_log=kind == "log")
    num = spec["num"]
    if isinstance(num, bool) or not isinstance(num, int) or num < 2:
        raise BadInput(f"{field}.num must be an integer >= 2, got {num!r}")
    if num > MOST:
        raise BadInput(f"{field}.num must be an integer <= {MOST:,}, got {num}")
    shares = [i / (num - 1) for i in range(num)]
    if kind == "log":
        points = [low * (high / low) ** share for share in shares]
    else:
        points = [low + (high - low) * share for share in shares]
    # A value that came out of arithmetic is rounded: its identity must not hang on the last bits of a logarithm.
    return [round(point) if is_integer else float(f"{point:.6g}") for point in points]


def ends(field: str, kind: str, given: object, *, is_log: bool) -> tuple[float, float]:
    """The two ends of a range.

    Raises:
        BadInput: They are not two numbers in ascending order, or not above 0 where their logarithm is taken.
    """
    numbers = [float(end) for end in given if _is_number(end)] if isinstance(given, list | tuple) else []
    if not isinstance(given, list | tuple) or len(given) != 2 or len(numbers) != 2:
        raise BadInput(f"{field}.{kind} must be two numbers [low, high], got {given!r}")
    low, high = numbers
    if not low < high or (is_log and low <= 0):
        rule = "0 < low < high" if is_log else "low < high"
        raise BadInput(f"{field}.{kind} must have {rule}, got {given!r}")
    return low, high


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and is_finite(value)
