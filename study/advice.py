"""Which seeds and fork steps to add to a study, setting by setting, for a wanted precision; and how to ask for them."""

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

import results
import search_spaces
from search_spaces import Space
from study.curves import curve_matrix, is_measure, measures_of
from study.evidence import Evidence, judged
from study.labels import setting_labels, varying_axes
from study.manifest import Declared, declared_spaces
from study.planner import make_plan
from study.summary import aligned, records, step_text
from twophase.config import LEAVES, Setting, applies
from twophase.errors import BadInput
from twophase.precision import MOST_SEEDS, advise
from twophase.transition import locate_transition

ADVICE_COLUMNS = [
    *("indicator", "threshold", "perturbation", "magnitude", "measure", "transition_step", "ci_low", "ci_high"),
    *("verdict", "seeds_now", "directions_now", "ratio", "spread", "direction_spread", "num_seeds", "num_seeds_low"),
    *("num_seeds_high", "num_directions", "fork_steps", "expected_ratio", "is_enough", "reason"),
]


@dataclass(frozen=True)
class Line:
    """What to lay over a space so that it runs what is missing.

    Attributes:
        label: Of which setting, or of all.
        setting_key: The setting; empty for all.
        set: Arguments of ``--set``.
        todo_lane_steps: What that would cost.
    """

    label: str
    setting_key: str
    set: tuple[str, ...]
    todo_lane_steps: int

    @property
    def command(self) -> str:
        """As typed in a shell."""
        return " ".join(["twophase run SPACE", *(f"--set {shlex.quote(pair)}" for pair in self.set)])


def advice(chaos: pd.DataFrame, declared: Declared, evidence: Evidence, ratio: float) -> pd.DataFrame:
    """Say of each setting what its primary's interval takes to be narrow enough.

    Args:
        chaos: The study's `chaos` table.
        declared: Its declarations.
        evidence: What is known of its trials beside.
        ratio: Wanted ratio of the interval's ends.

    Returns:
        A row per setting with the leaves, `ADVICE_COLUMNS` (`twophase.precision.Advice` beside the estimate, and how
        many seeds and directions there are); settings without a row of the primary are left out.

    Raises:
        BadInput: The ratio isn't above 1.
    """
    keys = ["study", "setting_key", *LEAVES]
    rows = []
    for point, children in judged(chaos, evidence).groupby(keys, sort=True):
        of_kind, _, _ = evidence.protocols.one(children)
        is_push = of_kind["perturbation"] == declared.perturbation
        of_kind = of_kind[is_push & (of_kind["magnitude"] == declared.primary_magnitude)]
        for text, is_primary, measured in measures_of(of_kind, declared):
            if is_primary:
                rows.append({**dict(zip(keys, point, strict=True)), "measure": text, **_row(measured, declared, ratio)})
    said = pd.DataFrame(rows, columns=[*keys, *ADVICE_COLUMNS])
    return said.sort_values([*varying_axes(said, list(LEAVES)), "setting_key"], ignore_index=True)


def _row(rows: pd.DataFrame, declared: Declared, ratio: float) -> dict[str, object]:
    primary = declared.primary
    curves = curve_matrix(rows, primary.indicator)
    seeds = [int(seed) for seed in curves.index.get_level_values("seed")]
    steps, values = curves.columns.to_numpy(), curves.to_numpy()
    found = locate_transition(steps, values, threshold=primary.threshold, groups=seeds)
    last = _last_fork(rows, declared.measure)
    said = advise(steps, values, ratio=ratio, last_step=last, threshold=primary.threshold, groups=seeds)
    return {
        "indicator": primary.indicator,
        "threshold": primary.threshold,
        "perturbation": declared.perturbation,
        "magnitude": declared.primary_magnitude,
        "transition_step": found.step,
        "ci_low": found.low,
        "ci_high": found.high,
        "verdict": found.verdict,
        "seeds_now": found.num_seeds,
        "directions_now": int(rows["direction"].nunique()),
        **asdict(said),
    }


def _last_fork(rows: pd.DataFrame, measure: str) -> int:
    """The last step at which a child can fork and still be measured."""
    if measure.startswith("+"):
        return int(rows["num_steps"].iloc[0]) - int(measure)
    return int(rows.loc[is_measure(rows, measure), "measure_step"].iloc[0]) - 1


def lines(study: results.Study, said: pd.DataFrame, declared: Declared) -> list[Line]:
    """Lay what is missing over the study's own spaces, for all settings of a space at once and for each by itself.

    Args:
        study: The study.
        said: Rows of `advice`.
        declared: The study's declarations.

    Returns:
        Lines of which each makes a space that holds the seeds and fork steps that are wanted; of a space with one
        setting that lacks something, one line.
    """
    commits = results.read_commits(study)
    labels = setting_labels(said, varying_axes(said, list(LEAVES))) if len(said) else pd.Series(dtype=object)
    lacking = [row for row in records(said) if not row["is_enough"]]
    found = []
    for space in reversed(declared_spaces(study.path, declared)):
        known = {point.key: point for point in space.settings}
        mine = [row for row in lacking if row["setting_key"] in known]
        lacking = [row for row in lacking if row["setting_key"] not in known]
        asked: list[tuple[str, list[dict[str, Any]], Setting | None]] = []
        if len(mine) > 1:
            asked.append(("all settings at once", mine, None))
        asked += [(str(labels[row["setting_key"]]), [row], known[row["setting_key"]]) for row in mine]
        for label, rows, point in asked:
            laid = _overrides(space, rows, point)
            grown = _grown(space, laid, point)
            if grown is not None:
                key = "" if point is None else point.key
                cost = make_plan(grown, commits).todo_lane_steps
                found.append(Line(label, key, tuple(_written(laid)), cost))
    return found


def _overrides(space: Space, rows: Sequence[Mapping[str, Any]], point: Setting | None) -> dict[str, Any]:
    """What of a space is to be laid over: its seeds, fork steps and directions, grown; one setting alone if named."""
    points = space.settings if point is None else (point,)
    ends = min(each.num_steps for each in points)
    forks = {child.fork_step for each in points for child in space.chaos.children(each)}
    forks |= {step for row in rows for step in row["fork_steps"] if step < ends}
    # Seeds that tell nothing are no help: as many more as are lacking, whatever their number.
    more = max(row["num_seeds"] - row["seeds_now"] for row in rows)
    directions = max(row["num_directions"] for row in rows)
    laid: dict[str, Any] = {} if point is None or len(space.settings) == 1 else _alone(space, point)
    if more > 0:
        laid["seeds"] = _seeds(space.seeds, more)
    if not forks <= {child.fork_step for child in space.chaos.children(points[0])} or space.chaos.fork_steps is None:
        laid["chaos.fork_steps"] = sorted(forks)
    if directions > space.chaos.num_directions:
        laid["chaos.num_directions"] = directions
    return laid


def _seeds(seeds: tuple[int, ...], more: int) -> int | list[int]:
    if seeds == tuple(range(len(seeds))):
        return len(seeds) + more
    unused = (number for number in range(len(seeds) + more) if number not in seeds)
    return sorted([*seeds, *(next(unused) for _ in range(more))])


def _alone(space: Space, point: Setting) -> dict[str, Any]:
    """The leaves in which a setting differs from others of its space, so that it is the only one."""
    head = point.values()
    leaves = {leaf: head[leaf] for leaf in space.axes if applies(leaf, head)}
    return {"axes": {}, "settings": [leaves]}


def _grown(space: Space, laid: Mapping[str, Any], point: Setting | None) -> Space | None:
    """The space that overrides make; None if it isn't of the settings that are meant."""
    device = space.settings[0].device
    try:
        made = search_spaces.load(space.source, laid, name=space.name, device=device)
    except BadInput:
        return None
    wanted = space.settings if point is None else (point,)
    return made if set(made.settings) == set(wanted) else None


def _written(laid: Mapping[str, Any]) -> list[str]:
    """Overrides as KEY=VALUE; JSON is YAML."""
    return [f"{key}={json.dumps(value)}" for key, value in laid.items()]


def advice_text(said: pd.DataFrame, found: Sequence[Line], ratio: float) -> str:
    """Everything that `more` says."""
    if said.empty:
        return "no transition of the declared primary was measured yet: nothing to go by"
    first = said.iloc[0]
    size = f" at magnitude {first['magnitude']:g}" if first["magnitude"] else ""
    parts = [
        f"for an interval whose upper end is {ratio:g} times its lower: the step from which {first['indicator']} stays "
        f"at or below {first['threshold']:g} for good, {first['perturbation']}{size}, measured at {first['measure']}",
        _table(said),
    ]
    labels = setting_labels(said, varying_axes(said, list(LEAVES)))
    parts += [f"note: {labels[row['setting_key']]}: {row['reason']}" for row in records(said)]
    if said["num_seeds_high"].gt(said["num_seeds"]).any():
        parts.append(
            "note: in brackets how many seeds it takes if the spread over seeds is at an end of its own 80 % interval: "
            "few seeds don't tell it well. Add some and ask again"
        )
    if not found and not said["is_enough"].all():
        parts.append("note: the study keeps no space that makes these settings: write what is to be added into yours")
    if found:
        parts += ["", "to add them (SPACE: what the study was run with, with the --set that it was given then):"]
    for line in found:
        parts += [f"{line.label}, {line.todo_lane_steps:,} lane-steps:", f"  {line.command}"]
    return "\n".join(parts)


def _table(said: pd.DataFrame) -> str:
    axes = varying_axes(said, list(LEAVES))
    header = [*axes, "transition", "ratio now", "spread", "of directions", "seeds", "directions", "fork steps to add"]
    cells = [[*header, "then about"]]
    for row in records(said):
        cells.append(
            [
                *(f"{row[axis]:g}" if isinstance(row[axis], float) else str(row[axis]) for axis in axes),
                step_text(row["transition_step"]),
                _factor(row["ratio"]),
                _spread(row["spread"]),
                _spread(row["direction_spread"]),
                _seeds_text(row),
                _change(row["directions_now"], row["num_directions"]),
                ", ".join(f"{step}" for step in row["fork_steps"]) or "–",
                _factor(row["expected_ratio"]),
            ]
        )
    return aligned(cells)


def _factor(value: float) -> str:
    return "–" if math.isnan(value) else "∞" if math.isinf(value) else f"{value:.3g}"


def _spread(value: float) -> str:
    """A standard deviation of logarithms as a factor."""
    return "–" if math.isnan(value) else f"×/÷ {math.exp(value):.3g}"


def _change(now: int, wanted: int) -> str:
    return f"{now} → {wanted}" if wanted > now else str(now)


def _seeds_text(row: Mapping[str, Any]) -> str:
    likely = row["num_seeds_low"], row["num_seeds_high"]
    most = f"{likely[1]}" if likely[1] < MOST_SEEDS else f"{MOST_SEEDS} or more"
    return _change(row["seeds_now"], row["num_seeds"]) + (f" ({likely[0]} to {most})" if likely[0] < likely[1] else "")
