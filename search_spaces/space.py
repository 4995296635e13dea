"""A space, checked whole before anything starts: settings × seeds, and what is done to each."""

import itertools
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from search_spaces.axes import axis_values
from search_spaces.chaos_block import Chaos, caution, read_chaos
from search_spaces.cone_block import Cone, read_cone
from search_spaces.fold import Fold, read_fold
from search_spaces.growth_block import Growth, read_growth
from search_spaces.source import SETTINGS_PAGE, apply_overrides, read_source
from search_spaces.switch_block import Switch, read_switch
from search_spaces.training_block import Training, read_training
from twophase.config import DEFAULTS, HEAD, LEAVES, MOST_SEED, Protocol, Setting, Trial, applies, coerce, setting
from twophase.errors import BadInput, unknown

MOST_TRIALS = 100_000
"""Of settings, of seeds, and of both together: more are a slip, and would hang before they fail."""


@dataclass(frozen=True)
class Space:
    """What to try.

    Attributes:
        name: Name of the study that it makes.
        settings: Every point of the outer axes, none twice.
        seeds: Replicate numbers.
        chaos: What is done to each reference.
        cone: Which of its kernels are taken.
        growth: Where small perturbations of it are followed.
        switch: From where it is trained on linearised.
        training: What only cost depends on.
        fold: Into how many pieces a trial is cut.
        axes: Names of the leaves that vary.
        source: The space as written, overrides laid over it, name and device filled in: `load` makes the same of it.
    """

    name: str
    settings: tuple[Setting, ...]
    seeds: tuple[int, ...]
    chaos: Chaos
    cone: Cone
    growth: Growth
    switch: Switch
    training: Training
    fold: Fold
    axes: tuple[str, ...]
    source: Mapping[str, Any] = field(compare=False)

    @property
    def caution(self) -> str:
        """What its user should know before it runs, in a line; empty if nothing."""
        return caution(self.chaos, {point.precision for point in self.settings})

    @property
    def protocol(self) -> Protocol:
        """How its trials are measured."""
        probed = replace(self.chaos.protocol, probe_size=self.cone.probe_size, probe_seed=self.cone.probe_seed)
        return self.growth.added_to(probed)

    def trials(self) -> list[Trial]:
        """All trials, setting by setting."""
        return [Trial(point, seed, self.protocol) for point in self.settings for seed in self.seeds]


def load(
    source: str | Path | Mapping[str, Any],
    overrides: Mapping[str, Any] | None = None,
    *,
    name: str | None = None,
    device: str = "cpu",
) -> Space:
    """Read a space and check it whole.

    Args:
        source: A preset's name, a YAML file or a dict.
        overrides: Values by flat name or dotted path, laid over the space.
        name: Name of the study, in place of the space's own.
        device: What ``device: auto``, the default, stands for.

    Returns:
        The space, with every default filled in.

    Raises:
        BadInput: Anything is wrong with it; the message names field, rule, value and what would do.
    """
    raw = apply_overrides(read_source(source), overrides or {})
    if raw.get("search") is not None:
        raise BadInput("space has a search block, which twophase search takes; leave it out to run its settings")
    return load_raw(raw, name=name, device=device)


def load_raw(raw: Mapping[str, Any], *, name: str | None = None, device: str = "cpu") -> Space:
    """Check what was read of a space; see `load`."""
    chaos, cone = read_chaos(raw.get("chaos")), read_cone(raw.get("cone"))
    growth, switch = read_growth(raw.get("growth")), read_switch(raw.get("switch"))
    points = _points(raw, device)
    for point in points:
        chaos.check(point)
        cone.check(point, chaos)
        growth.check(point)
        switch.check(point)
    fold = read_fold(raw.get("fold"))
    if chaos.refine and fold != Fold():
        raise BadInput(
            f"fold must be all where chaos.fork_steps are refined, got {fold}: a trial's next steps hang on its last"
        )
    axes = _mapping(raw, "axes")
    varying = [leaf for leaf in LEAVES if len({getattr(point, leaf) for point in points}) > 1]
    called = _name(name if name is not None else raw.get("name"))
    seeds = _seeds(raw.get("seeds", 3))
    if len(points) * len(seeds) > MOST_TRIALS:
        made = f"{len(points):,} settings and {len(seeds):,} seeds"
        raise BadInput(f"settings times seeds must make at most {MOST_TRIALS:,} trials, got {made}")
    return Space(
        called,
        points,
        seeds,
        chaos,
        cone,
        growth,
        switch,
        read_training(raw.get("training")),
        fold,
        tuple(dict.fromkeys([*axes, *varying])),
        _written(raw, called, device),
    )


def _written(raw: Mapping[str, Any], name: str, device: str) -> dict[str, Any]:
    """The space with what isn't in the file: its name, and what ``device: auto`` stood for."""
    settled = {**raw, "name": name, "base": {"device": "auto", **_mapping(raw, "base")}}
    for values in [settled["base"], *(raw.get("settings") or [])]:
        if values.get("device") == "auto":
            values["device"] = device
    return settled


def _points(raw: Mapping[str, Any], device: str) -> tuple[Setting, ...]:
    base = {"device": "auto", **_mapping(raw, "base")}
    listed = _settings_list(raw)
    axes = {leaf: axis_values(leaf, spec) for leaf, spec in _mapping(raw, "axes").items()}
    for values in [base, *listed]:
        for leaf in values:
            if leaf not in LEAVES:
                raise unknown("setting", leaf, LEAVES, see=SETTINGS_PAGE)
    for i, values in enumerate(listed):
        both = next((leaf for leaf in values if leaf in axes), None)
        if both:
            raise BadInput(f"{both} must be in settings or in axes, not both; got it in settings[{i}] and axes.{both}")
    num_points = len(listed) * math.prod(map(len, axes.values()))
    if num_points > MOST_TRIALS:
        raise BadInput(f"settings times axes must make at most {MOST_TRIALS:,} points, got {num_points:,}")
    crossed = [
        {**base, **values, **dict(zip(axes, combination, strict=True))}
        for values in listed
        for combination in itertools.product(*axes.values())
    ]
    own = [set(values) | set(axes) for values in listed for _ in itertools.product(*axes.values())]
    points = [setting(_resolved(v, keys, crossed, device)) for v, keys in zip(crossed, own, strict=True)]
    for point, times in Counter(points).items():
        if times > 1:
            raise BadInput(f"settings must differ, got this one twice: model '{point.model}', lr {point.lr:g}")
    return tuple(points)


def _resolved(values: Mapping[str, Any], own: set[str], crossed: list[dict[str, Any]], device: str) -> dict[str, Any]:
    """Drop leaves of `base` that mean nothing for this point but do for another; resolve the device."""
    kept = {}
    for leaf, value in values.items():
        is_shared = (
            leaf not in own and not applies(leaf, _head(values)) and any(applies(leaf, _head(o)) for o in crossed)
        )
        if not is_shared:
            kept[leaf] = value
    if kept["device"] == "auto":
        kept["device"] = device
    return kept


def _head(values: Mapping[str, Any]) -> dict[str, Any]:
    return {leaf: coerce(leaf, values.get(leaf, DEFAULTS[leaf])) for leaf in HEAD}


def _settings_list(raw: Mapping[str, Any]) -> list[dict[str, Any]]:
    listed = raw.get("settings")
    if listed is None:
        return [{}]
    if not isinstance(listed, list) or not listed or not all(isinstance(values, dict) for values in listed):
        raise BadInput(f"settings must be a list of mappings such as {{model: mlp, depth: 5}}, got {listed!r}")
    return listed


def _mapping(raw: Mapping[str, Any], name: str) -> dict[str, Any]:
    block = raw.get(name)
    if block is None:
        return {}
    if not isinstance(block, dict):
        raise BadInput(f"{name} must be a mapping from settings to values, got {block!r}")
    return block


def _seeds(raw: Any) -> tuple[int, ...]:
    if isinstance(raw, int) and raw > MOST_TRIALS:
        raise BadInput(f"seeds must be at most {MOST_TRIALS:,}, got {raw}")
    seeds = list(range(raw)) if isinstance(raw, int) and not isinstance(raw, bool) and raw > 0 else raw
    is_list = isinstance(seeds, list) and bool(seeds)
    if not is_list or any(isinstance(s, bool) or not isinstance(s, int) or s < 0 for s in seeds):
        raise BadInput(f"seeds must be a number of seeds >= 1 or a list of integers >= 0, got {raw!r}")
    if max(seeds) > MOST_SEED:
        raise BadInput(f"seeds must be <= {MOST_SEED:,}, got {max(seeds)}")
    if len(set(seeds)) < len(seeds):
        raise BadInput(f"seeds must not repeat a seed, got {raw!r}")
    return tuple(seeds)


def _name(raw: Any) -> str:
    if raw is None:
        raise BadInput("name must be given, in the space or by --name: the study's folder is called so")
    if not isinstance(raw, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", raw):
        raise BadInput(
            "name must be of letters (A to Z), digits, '.', '_' and '-', begin with a letter or digit, "
            f"and have at most 100 of them, got {raw!r}"
        )
    return raw
