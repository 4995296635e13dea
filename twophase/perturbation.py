"""How a perturbation is written: a kind with options, in one canonical form, which is what tables hold."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

from twophase.config import Setting
from twophase.directions import NORMS, PERTURBATIONS
from twophase.errors import BadInput, unknown
from twophase.subject import Facts, setting_facts

EVERY = ("*",)
FORM = "a kind or kind(option=value, option=value), which goes in quotes inside a YAML list"
_TEXT = re.compile(r"\s*([^\s()]+)\s*(?:\(([^()]*)\))?\s*")
_PATTERN = re.compile(r"[\w.*?\[\]!-]+")


@dataclass(frozen=True)
class Perturbation:
    """A kind with its options; make one with `parse`.

    Attributes:
        kind: A key of `PERTURBATIONS`.
        norm: What the magnitude is relative to, a key of `NORMS`; ``none`` where the kind has no magnitude.
        include: Patterns (`fnmatch`) of the names of parameters that may be pushed.
        exclude: Patterns of those that may not.
        momentum: Whether momentum is pushed too.
        fraction: Share of the weights that ``sparse`` pushes.
    """

    kind: str
    norm: str
    include: tuple[str, ...] = EVERY
    exclude: tuple[str, ...] = ()
    momentum: bool = False
    fraction: float = 0.01

    @property
    def has_magnitude(self) -> bool:
        """Whether it has a size to choose; without one its rows carry magnitude 0."""
        return self.norm != "none"

    @property
    def is_relative(self) -> bool:
        """Whether its magnitude is relative to a norm of the network."""
        return self.norm not in ("none", "absolute")

    @property
    def text(self) -> str:
        """The canonical form: options in alphabetical order, none at its default."""
        default = Perturbation(self.kind, PERTURBATIONS[self.kind].norm)
        names = sorted(entry.name for entry in fields(self) if entry.name != "kind")
        values = [(name, getattr(self, name)) for name in names if getattr(self, name) != getattr(default, name)]
        options = ", ".join(f"{name}={_written(value)}" for name, value in values)
        return f"{self.kind}({options})" if options else self.kind

    def pushed(self, facts: Facts) -> list[str]:
        """Names of the parameters that it may move, in the network's order."""
        can_push = PERTURBATIONS[self.kind].can_push
        return [name for name in facts.sizes if self._is_chosen(name) and can_push(facts, name)]

    def _is_chosen(self, name: str) -> bool:
        return _matches(name, self.include) and not _matches(name, self.exclude)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "|".join(value) if isinstance(value, tuple) else f"{value:g}" if isinstance(value, float) else value


def parse(raw: object) -> Perturbation:
    """Read a perturbation.

    Args:
        raw: ``kind`` or ``kind(option=value, …)``, several patterns joined by ``|``; or a mapping with key ``kind`` and
            the options, patterns as one text or a list.

    Returns:
        The perturbation; its `text` is the same however it was written.

    Raises:
        BadInput: It is malformed, the kind is unknown, or an option is unknown, twice there or out of its range.
    """
    return _of_text(raw) if isinstance(raw, str) else _of_mapping(raw)


@lru_cache
def _of_text(text: str) -> Perturbation:
    found = _TEXT.fullmatch(text)
    if found is None:
        raise BadInput(f"perturbation must be {FORM}, got {text!r}")
    options: dict[str, str] = {}
    for part in filter(None, map(str.strip, (found[2] or "").split(","))):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise BadInput(f"option of perturbation {text!r} must be written option=value, got {part!r}")
        if name in options:
            raise BadInput(f"option {name} of perturbation {text!r} must be there once, got it twice")
        options[name] = value
    return _checked(found[1], options)


def _of_mapping(raw: object) -> Perturbation:
    if not isinstance(raw, Mapping):
        raise unknown("perturbation", raw, PERTURBATIONS)
    if "kind" not in raw:
        raise BadInput(f"perturbation must have a kind ({', '.join(PERTURBATIONS)}), got {dict(raw)!r}")
    return _checked(raw["kind"], {name: value for name, value in raw.items() if name != "kind"})


def _checked(kind: object, options: Mapping[str, Any]) -> Perturbation:
    if not isinstance(kind, str) or kind not in PERTURBATIONS:
        raise unknown("perturbation", kind, PERTURBATIONS)
    entry = PERTURBATIONS[kind]
    for name in options:
        if name not in entry.options:
            raise unknown(f"option of perturbation '{kind}'", name, entry.options)
    read = {name: _READERS[name](f"{name} of perturbation '{kind}'", value) for name, value in options.items()}
    return Perturbation(kind, **{"norm": entry.norm, **read})


def _patterns(field: str, value: Any) -> tuple[str, ...]:
    parts = value.split("|") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or not all(isinstance(p, str) and _PATTERN.fullmatch(p) for p in parts):
        raise BadInput(f"{field} must hold patterns of parameter names such as head.*, joined by |, got {value!r}")
    if not parts:
        raise BadInput(f"{field} must have at least one pattern, got an empty list; leave it out")
    return EVERY if "*" in parts else tuple(sorted(set(parts)))


def _norm(field: str, value: Any) -> str:
    if not isinstance(value, str) or value not in NORMS:
        raise unknown(field, value, NORMS)
    return value


def _truth(field: str, value: Any) -> bool:
    if not isinstance(value, bool) and value not in ("true", "false"):
        raise BadInput(f"{field} must be true or false, got {value!r}")
    return value in (True, "true")


def _share(field: str, value: Any) -> float:
    try:
        number = float("nan" if isinstance(value, bool) else value)
    except (TypeError, ValueError):
        number = float("nan")
    if not 0 < number <= 1:
        raise BadInput(f"{field} must be a number > 0 and <= 1, got {value!r}")
    return float(f"{number:.6g}")  # what it is written with, so that the text is the whole of it


_READERS: dict[str, Callable[[str, Any], Any]] = {
    "exclude": _patterns,
    "fraction": _share,
    "include": _patterns,
    "momentum": _truth,
    "norm": _norm,
}


def check_setting(text: str, setting: Setting) -> None:
    """Hold a perturbation against the model of a setting.

    Raises:
        BadInput: A pattern matches none of its parameters, nothing is left to push, or its code doesn't say how
            parameters are drawn where that is asked.
    """
    asked = parse(text)
    needs_draws = PERTURBATIONS[asked.kind].needs_draws or asked.norm == "init"
    if not needs_draws and not asked.exclude and asked.include == EVERY:
        return
    facts, model = setting_facts(setting), setting.model
    for pattern in (*asked.include, *asked.exclude):
        if not any(fnmatchcase(name, pattern) for name in facts.sizes):
            first = ", ".join(dict.fromkeys(f"{name.partition('.')[0]}.*" for name in facts.sizes))
            raise BadInput(f"perturbation {text!r}: {pattern} must match a parameter of model '{model}' ({first})")
    unsaid = next((name for name in facts.sizes if name not in facts.draws), None)
    if needs_draws and unsaid is not None:
        raise BadInput(f"perturbation {text!r} asks how parameters are drawn, model '{model}' doesn't say of {unsaid}")
    if not asked.pushed(facts):
        raise BadInput(f"perturbation {text!r} must push a parameter of model '{model}', but leaves none to push")
