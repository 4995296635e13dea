"""What predicts the transition? Candidate clocks, ranked by how well they foretell a setting that they haven't seen.

The hypothesis that a clock makes is that every setting turns stable when the clock reads the same number. It is held to
its word: the number is taken from all other settings, and turned into a step by the course of the one left out.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from study.summary import records
from twophase.config import LEAVES, TYPES, Setting
from twophase.training import learning_rate

LEAST_SETTINGS = 3
MOST_POINTS = 1500
CLOCK_COLUMNS = [
    *("rank", "clock", "error_octaves", "largest_error_octaves", "reading", "num_never", "num_settings", "num_seeds"),
    "coefficient_of_variation",
]
WHY_NOT_CV = (
    "the coefficient of variation of a clock's readings is no measure of this: a clock that hardly moves while the "
    "step grows tenfold has a small one, whatever it foretells"
)
_Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Course:
    """How one run goes.

    Attributes:
        setting: Its setting.
        steps: [points] Steps, ascending from 0 to the end.
        rates: [points] Learning rate.
        train_loss: [points] Nats; NaN where unknown.
        sharpness: [points] NaN where it wasn't measured.
    """

    setting: Setting
    steps: _Array
    rates: _Array
    train_loss: _Array
    sharpness: _Array

    @property
    def lr_integral(self) -> _Array:
        """∫ η dt from the start, by trapezoids."""
        areas = np.diff(self.steps) * (self.rates[1:] + self.rates[:-1]) / 2
        return np.concatenate([[0.0], np.cumsum(areas)])


@dataclass(frozen=True)
class Clock:
    """A reading along a course, and whether it goes up or down as training goes on."""

    read: Callable[[Course], _Array]
    is_rising: bool


CLOCKS: dict[str, Clock] = {
    "steps": Clock(lambda course: course.steps, True),
    "epochs": Clock(lambda course: course.steps / (course.setting.num_train // course.setting.batch_size), True),
    "fraction of the run": Clock(lambda course: course.steps / course.setting.num_steps, True),
    "learning-rate integral": Clock(lambda course: course.lr_integral, True),
    "remaining learning-rate integral": Clock(lambda course: course.lr_integral[-1] - course.lr_integral, False),
    "learning rate": Clock(lambda course: course.rates, False),
    "training loss": Clock(lambda course: course.train_loss, False),
    "sharpness × learning rate": Clock(lambda course: course.sharpness * course.rates, False),
}


def clocks(pushes: pd.DataFrame, trajectory: pd.DataFrame) -> pd.DataFrame:
    """Rank candidate clocks by leave-one-setting-out error.

    For a setting s left out, c is the median over all other settings of the median reading at their seeds' crossings;
    the step foretold for a seed of s is the first at which its own clock has come to c, between 1 and the end of the
    run. A setting's error is the median over its seeds of log2(foretold / seen); a clock's is the root of the mean
    square over settings, so that 1 is a factor of two.

    Args:
        pushes: Crossings (`study.crossings`) of one indicator, perturbation, magnitude and measure step.
        trajectory: The `trajectory` table.

    Returns:
        A row per clock that could be read everywhere, best first; `num_never` counts the seeds whose clock never came
        to c. Settings count where more than half the seeds crossed; with fewer than three of them it is empty.
    """
    is_located = pushes["outcome"] == "located"
    seen = pushes[is_located & (is_located.groupby(pushes["setting_key"]).transform("mean") > 0.5)]
    courses = dict(_courses(seen, trajectory))
    # Steps are whole: interpolation may put a crossing before the first.
    keyed = [(str(row["setting_key"]), int(row["seed"]), max(float(row["step"]), 1.0)) for row in records(seen)]
    keyed = [(key, seed, step) for key, seed, step in keyed if (key, seed) in courses]
    if len({key for key, _, _ in keyed}) < LEAST_SETTINGS:
        return pd.DataFrame(columns=CLOCK_COLUMNS)
    rows = [row for name in CLOCKS if (row := _judge(name, keyed, courses)) is not None]
    ranked = pd.DataFrame(rows).sort_values("error_octaves", kind="stable").reset_index(drop=True)
    return ranked.assign(rank=ranked.index + 1)[CLOCK_COLUMNS]


def _courses(seen: pd.DataFrame, trajectory: pd.DataFrame) -> Iterator[tuple[tuple[str, int], Course]]:
    wanted = set(zip(seen["setting_key"], seen["seed"], strict=True))
    for (key, seed), rows in trajectory.groupby(["setting_key", "seed"]):
        if (key, seed) in wanted:
            yield (str(key), int(str(seed))), make_course(rows.drop_duplicates("step").sort_values("step"))


def make_course(rows: pd.DataFrame) -> Course:
    """Lay a run's course over many steps: the schedule exactly, what was measured by its logarithm over log(1 + t)."""
    setting = Setting(**{leaf: TYPES[leaf](rows[leaf].iloc[0]) for leaf in LEAVES})
    end = int(setting.num_steps)
    marks = [np.linspace(0, end, MOST_POINTS // 2), np.expm1(np.linspace(0, math.log1p(end), MOST_POINTS // 2))]
    steps = np.unique(np.concatenate(marks).round())
    rates = np.array([learning_rate(setting, int(step)) for step in steps])
    measured = [_along(steps, rows, name) for name in ("train_loss", "sharpness")]
    return Course(setting, steps, rates, *measured)


def _along(steps: _Array, rows: pd.DataFrame, name: str) -> _Array:
    known = rows[rows[name] > 0]
    if len(known) < 2:
        return np.full(len(steps), np.nan)
    logs = np.interp(np.log1p(steps), np.log1p(known["step"].to_numpy(dtype=float)), np.log(known[name].to_numpy()))
    return np.asarray(np.exp(logs), dtype=np.float64)


def _judge(
    name: str, keyed: list[tuple[str, int, float]], courses: dict[tuple[str, int], Course]
) -> dict[str, object] | None:
    clock = CLOCKS[name]
    dials = {place: clock.read(course) for place, course in courses.items()}
    readings = [float(np.interp(step, courses[key, seed].steps, dials[key, seed])) for key, seed, step in keyed]
    if not np.isfinite(readings).all() or np.ptp(readings) == 0:
        return None
    table = pd.DataFrame(keyed, columns=["key", "seed", "step"]).assign(reading=readings)
    of_setting = table.groupby("key")["reading"].median()
    errors, never = {}, 0
    for key, rows in table.groupby("key"):
        wanted = float(of_setting.drop(key).median())
        told = [_foretold(courses[str(key), seed], dials[str(key), seed], wanted, clock) for seed in rows["seed"]]
        never += sum(math.isnan(step) for step in told)
        steps = [
            courses[str(key), s].steps[-1] if math.isnan(t) else t for t, s in zip(told, rows["seed"], strict=True)
        ]
        errors[key] = float(np.median(np.log2(np.maximum(steps, 1.0) / rows["step"].to_numpy())))
    values = np.array(list(errors.values()))
    return {
        "clock": name,
        "error_octaves": float(np.sqrt((values**2).mean())),
        "largest_error_octaves": float(np.abs(values).max()),
        "reading": float(of_setting.median()),
        "num_never": never,
        "num_settings": len(values),
        "num_seeds": len(keyed),
        "coefficient_of_variation": float(of_setting.std(ddof=1) / of_setting.mean()),
    }


def _foretold(course: Course, dial: _Array, wanted: float, clock: Clock) -> float:
    """The first step at which a clock has come to a reading; NaN if it never does."""
    sign = 1.0 if clock.is_rising else -1.0
    reached = np.maximum.accumulate(sign * dial)
    place = int(np.searchsorted(reached, sign * wanted))
    if place == len(reached):
        return math.nan
    if place == 0:
        return float(course.steps[0])
    before, after = reached[place - 1], reached[place]
    part = (sign * wanted - before) / (after - before)
    return float(course.steps[place - 1] + part * (course.steps[place] - course.steps[place - 1]))
