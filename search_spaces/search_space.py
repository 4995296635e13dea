"""A space to be searched: axes may be distributions, and a proposal is one point of them."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search_spaces.axes import axis_values, ends
from search_spaces.fold import Fold, read_fold
from search_spaces.search_block import GOALS, KERNEL_GOALS, Search, read_search
from search_spaces.source import apply_overrides, read_source
from search_spaces.space import Space, load_raw
from twophase.config import DEFAULTS, HEAD, LEAVES, TYPES, Value, applies, coerce
from twophase.errors import BadInput

DISTRIBUTIONS = ("uniform", "loguniform")
BRANCH = "settings"
"""Name of the choice among the space's `settings`."""


@dataclass(frozen=True)
class Interval:
    """A distribution of one leaf over [low, high], both included.

    Attributes:
        low: Least value.
        high: Greatest value.
        is_log: Whether the logarithm is uniform, and not the value.
        is_integer: Whether values are whole.
    """

    low: float
    high: float
    is_log: bool
    is_integer: bool


Axis = Interval | tuple[Value, ...]
Choice = Mapping[str, Value]
"""Of each axis that applies the value; under `BRANCH` the place in `settings`."""


@dataclass(frozen=True)
class SearchSpace:
    """What to search.

    Attributes:
        search: Goals, sampler and budget.
        axes: Leaf -> distribution, or values to choose from; those of `HEAD` first, for they decide which others apply.
        branches: The space's `settings`; one empty mapping where it lists none.
        raw: The space without `search`, `axes` and `settings`.
        device: What ``device: auto`` stands for.
    """

    search: Search
    axes: Mapping[str, Axis]
    branches: tuple[Mapping[str, Any], ...]
    raw: Mapping[str, Any]
    device: str

    def applies(self, axis: str, choice: Choice) -> bool:
        """Tell whether an axis means anything, given what has been chosen of `HEAD` and `settings`."""
        return axis in HEAD or applies(axis, _head(self._values(choice)))

    def space(self, choices: Sequence[Choice]) -> Space:
        """The space of some points, as `twophase run` would take it.

        Raises:
            BadInput: A point is no valid setting.
        """
        points = [self._point(choice) for choice in choices]
        return load_raw({**self.raw, "base": {}, "settings": points}, device=self.device)

    def examples(self) -> list[Choice]:
        """Points that show every rule a proposal could break: each axis at each of its ends or values in turn."""
        found: list[Choice] = []
        heads = {leaf: axis for leaf, axis in self.axes.items() if leaf in HEAD}
        for place in range(len(self.branches)):
            for combination in itertools.product(*(_shown(axis) for axis in heads.values())):
                chosen: dict[str, Value] = {BRANCH: place, **dict(zip(heads, combination, strict=True))}
                others = {leaf: _shown(axis) for leaf, axis in self.axes.items() if self.applies(leaf, chosen)}
                first = {**chosen, **{leaf: values[0] for leaf, values in others.items() if leaf not in HEAD}}
                found.append(first)
                found += [{**first, leaf: v} for leaf, vs in others.items() if leaf not in HEAD for v in vs[1:]]
        return found

    def grid(self) -> Iterator[dict[str, Value]]:
        """Every point of a space whose axes are all lists, in order; none twice."""
        for place in range(len(self.branches)):
            points: list[dict[str, Value]] = [{BRANCH: place}]
            for leaf, axis in self.axes.items():
                points = [
                    {**point, leaf: value} if isinstance(value, str | int | float) else point
                    for point in points
                    for value in (_shown(axis) if self.applies(leaf, point) else (None,))
                ]
            yield from points

    def _values(self, choice: Choice) -> dict[str, Any]:
        chosen = {leaf: value for leaf, value in choice.items() if leaf != BRANCH}
        return {**(self.raw.get("base") or {}), **self.branches[int(choice.get(BRANCH, 0))], **chosen}

    def _point(self, choice: Choice) -> dict[str, Any]:
        """All leaves of a point; those of `base` that mean nothing here, but do for another point, are left out."""
        values = self._values(choice)
        own = {*self.branches[int(choice.get(BRANCH, 0))], *choice}
        head = _head(values)
        return {
            leaf: value
            for leaf, value in values.items()
            if leaf in own or leaf not in LEAVES or applies(leaf, head) or not self._ever_applies(leaf)
        }

    def _ever_applies(self, leaf: str) -> bool:
        heads = {name: axis for name, axis in self.axes.items() if name in HEAD}
        return any(
            applies(leaf, _head(self._values({BRANCH: place, **dict(zip(heads, combination, strict=True))})))
            for place in range(len(self.branches))
            for combination in itertools.product(*(_shown(axis) for axis in heads.values()))
        )


def load_search(
    source: str | Path | Mapping[str, Any],
    overrides: Mapping[str, Any] | None = None,
    *,
    name: str | None = None,
    device: str = "cpu",
) -> SearchSpace:
    """Read a space to be searched and check it whole, also at the ends of its axes.

    Args:
        source: A preset's name, a YAML file or a dict, with a `search` block.
        overrides: Values by flat name or dotted path, laid over the space.
        name: Name of the study, in place of the space's own.
        device: What ``device: auto``, the default, stands for.

    Raises:
        BadInput: Anything is wrong with it.
    """
    raw = apply_overrides(read_source(source), overrides or {})
    if raw.get("search") is None:
        raise BadInput("space has no search block, which names the goals; add one, or use twophase run")
    search = read_search(raw["search"])
    if isinstance(raw.get("chaos"), Mapping) and isinstance(raw["chaos"].get("fork_steps"), Mapping):
        raise BadInput(
            "chaos.fork_steps must be a list in a space that is searched, got one to refine: a goal is read off when a "
            "setting's trials end, and brackets would be narrowed after that"
        )
    if read_fold(raw.get("fold")) != Fold():
        raise BadInput(f"fold must be all in a space that is searched, got {raw['fold']!r}; leave it out")
    axes = _axes(raw.get("axes"), search.sampler)
    branches = raw.get("settings") or [{}]
    if not isinstance(branches, list) or not all(isinstance(branch, dict) for branch in branches):
        raise BadInput(f"settings must be a list of mappings such as {{model: mlp, depth: 5}}, got {branches!r}")
    for i, branch in enumerate(branches):
        both = next((leaf for leaf in branch if leaf in axes), None)
        if both:
            raise BadInput(f"{both} must be in settings or in axes, not both; got it in settings[{i}] and axes.{both}")
    if not axes and len(branches) == 1:
        raise BadInput("axes must hold at least one leaf to search over, got none")
    rest = {key: value for key, value in raw.items() if key not in ("search", "axes", "settings")}
    found = SearchSpace(search, axes, tuple(branches), {**rest, **({} if name is None else {"name": name})}, device)
    examples = [found.space([choice]) for choice in found.examples()]
    _check_goals(search, examples[0])
    return found


def _check_goals(search: Search, example: Space) -> None:
    wanted = [*(goal.name for goal in search.goals), *(constraint.name for constraint in search.constraints)]
    for name in wanted:
        if name in KERNEL_GOALS and not example.cone.kernels:
            raise BadInput(f"goal '{name}' ({GOALS[name]}) needs kernels; add a cone block")
        if name == "excess_octaves" and not example.chaos.controls:
            raise BadInput(f"goal '{name}' ({GOALS[name]}) needs controls, got chaos.controls 0")
    if search.pruner != "none" and len(example.seeds) < 2:
        raise BadInput(f"search.pruner '{search.pruner}' needs at least 2 seeds, got {len(example.seeds)}")


def _axes(raw: Any, sampler: str) -> dict[str, Axis]:
    if raw is not None and not isinstance(raw, Mapping):
        raise BadInput(f"axes must be a mapping from settings to values, got {raw!r}")
    read = {leaf: _axis(leaf, spec) for leaf, spec in (raw or {}).items()}
    spread = next((leaf for leaf, axis in read.items() if isinstance(axis, Interval)), None)
    if sampler == "grid" and spread is not None:
        raise BadInput(f"axes.{spread} must be a list or {{range: …, num: n}} for sampler 'grid', got a distribution")
    return dict(sorted(read.items(), key=lambda item: item[0] not in HEAD))


def _axis(leaf: str, spec: Any) -> Axis:
    kind = next((kind for kind in DISTRIBUTIONS if isinstance(spec, Mapping) and kind in spec), None)
    if kind is None or leaf not in LEAVES:
        return axis_values(leaf, spec)
    field = f"axes.{leaf}"
    if set(spec) != {kind}:
        raise BadInput(f"{field} must be {{{kind}: [low, high]}}, got {dict(spec)!r}")
    if TYPES[leaf] is str:
        raise BadInput(f"{field} must be a list of words, got the distribution {dict(spec)!r}")
    low, high = ends(field, kind, spec[kind], is_log=kind == "loguniform")
    return Interval(coerce_number(leaf, low), coerce_number(leaf, high), kind == "loguniform", TYPES[leaf] is int)


def coerce_number(leaf: str, value: float) -> float:
    """Check a number by its leaf's own rule."""
    number = coerce(leaf, value)
    if isinstance(number, str):
        raise BadInput(f"axes.{leaf} must be a list of words, got {value}")
    return number


def _shown(axis: Axis) -> tuple[Value, ...]:
    return axis if isinstance(axis, tuple) else (axis.low, axis.high)


def _head(values: Mapping[str, Any]) -> dict[str, Any]:
    return {leaf: coerce(leaf, values.get(leaf, DEFAULTS[leaf])) for leaf in HEAD}
