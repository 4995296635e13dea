"""How often the interval of a transition holds the truth: simulated seeds, told apart from what the estimate assumes.

    python -m benchmarks.coverage [--draws 1000]

A seed's noise-free curve falls from a plateau of its own along a logistic in log(1 + t) and passes the threshold at
its crossing; crossings are log-normal over seeds, so that the population's transition is known. Directions of a seed
are seen through multiplicative noise of mean 1: a seed's curve is, by definition, the mean over its directions. Some
cases add what real curves do: a plateau that half the directions never leave zero for (bimodal outcomes of tiny
pushes), children that diverge while the plateau lasts, a late re-opening.
"""

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from twophase.transition import Transition, locate_transition

Array = NDArray[np.float64]

THRESHOLD = 0.05
MEDIAN = 200.0
"""The population's transition, in steps."""
COARSE = (0, 25, 50, 100, 200, 400, 800)
FINE = (0, 10, 14, 20, 28, 40, 57, 80, 113, 160, 226, 320, 453, 640, 905, 1280)
TABLE = Path(__file__).with_name("coverage.md")


@dataclass(frozen=True)
class World:
    """What is simulated.

    Attributes:
        name: In words.
        spread: Standard deviation of the log of crossings over seeds.
        octaves: Octaves that a curve takes from 90 % to 10 % of its plateau.
        noise: Standard deviation of the log of a direction's barrier; their mean is the seed's curve.
        plateau: Median plateau, in nats.
        median: The population's transition; 0 where plateaus lie below the threshold, +inf where nothing falls.
        silent: Share of directions that see nothing at all, as tiny pushes that are lost.
        diverging: Share of directions that diverge while the curve is above half its plateau.
        reopening: Share of seeds whose curve rises above the threshold once more, at step 700.
    """

    name: str
    spread: float = 0.3
    octaves: float = 3.0
    noise: float = 0.3
    plateau: float = 1.0
    median: float = MEDIAN
    silent: float = 0.0
    diverging: float = 0.0
    reopening: float = 0.0


USUAL = World("log-normal crossings, gradual curves")
LOCATED = [
    USUAL,
    replace(USUAL, name="sharp curves (an octave)", octaves=1.0),
    replace(USUAL, name="wide spread over seeds (.7)", spread=0.7),
    replace(USUAL, name="seeds that agree (.05)", spread=0.05),
    replace(USUAL, name="loud directions (.8)", noise=0.8),
    replace(USUAL, name="a tenth of early children diverge", diverging=0.1),
    replace(USUAL, name="half of the directions see nothing", silent=0.5),
    replace(USUAL, name="a tenth of the seeds re-open at 700", reopening=0.1),
]
OTHERS = [
    replace(USUAL, name="stable from the start", plateau=0.01, median=0.0),
    replace(USUAL, name="chaotic throughout", median=math.inf),
]


def draw(world: World, steps: Array, num_seeds: int, num_directions: int, random: np.random.Generator) -> Array:
    """Simulate one study's barriers.

    Returns:
        [seeds · directions, fork steps], the directions of a seed one after the other.
    """
    logs = np.log1p(steps)
    shape = (num_seeds, 1, 1)
    plateau = world.plateau * np.exp(random.normal(0.0, 0.3, shape))
    width = world.octaves * math.log(2.0) / (2 * math.log(9.0))
    centre = math.log1p(world.median) if math.isfinite(world.median) and world.median else math.log1p(MEDIAN)
    crossing = centre + world.spread * random.standard_normal(shape)
    # The logistic passes the threshold at the crossing: plateau / (1 + exp((u − c) / w)) = threshold at u = crossing.
    middle = crossing - width * np.log(np.maximum(plateau / THRESHOLD - 1.0, 1e-9))
    curve = plateau / (1.0 + np.exp((logs - middle) / width))
    if math.isinf(world.median):
        curve = np.broadcast_to(plateau, (num_seeds, 1, len(steps))).copy()
    if world.reopening:
        is_open = random.random(shape) < world.reopening
        curve = curve + is_open * 0.5 * np.exp(-(((logs - math.log1p(700.0)) / 0.3) ** 2))
    noise = random.normal(-0.5 * world.noise**2, world.noise, (num_seeds, num_directions, len(steps)))
    seen = curve * np.exp(noise)
    seen *= random.random((num_seeds, num_directions, 1)) >= world.silent
    is_lost = (random.random(seen.shape) < world.diverging) & (curve > plateau / 2)
    values: Array = np.where(is_lost, np.inf, seen).reshape(-1, len(steps))
    return values


def estimates(
    world: World, grid: tuple[int, ...], num_seeds: int, num_draws: int, num_directions: int = 2
) -> Iterator[Transition]:
    """Locate the transition of many simulated studies, always the same ones."""
    steps = np.asarray(grid, dtype=np.float64)
    groups = np.repeat(np.arange(num_seeds), num_directions).tolist()
    random = np.random.default_rng([len(grid), num_seeds, *world.name.encode()])
    for _ in range(num_draws):
        values = draw(world, steps, num_seeds, num_directions, random)
        yield locate_transition(steps, values, threshold=THRESHOLD, groups=groups)


@dataclass(frozen=True)
class Score:
    """What many estimates of one world come to.

    Attributes:
        coverage: Share of the intervals that hold the truth.
        octaves: Median width of the intervals in octaves of 1 + t; inf where more than half are open.
        oracle_octaves: The same of an interval that knows the spread over seeds and sees every crossing exactly.
        right: Share of the verdicts that are right.
        bias: Median estimate over the truth, in octaves; NaN where none was located.
    """

    coverage: float
    octaves: float
    oracle_octaves: float
    right: float
    bias: float


def score(world: World, grid: tuple[int, ...], num_seeds: int, num_draws: int) -> Score:
    """Hold estimates against the truth."""
    found = list(estimates(world, grid, num_seeds, num_draws))
    expected = "located"
    if not 0 < world.median < math.inf:
        expected = "stable_from_start" if world.median == 0 else "chaotic_throughout"
    right = float(np.mean([one.verdict == expected for one in found]))
    located = [one for one in found if one.verdict == "located"]
    if expected != "located" or not located:
        return Score(math.nan, math.nan, math.nan, right, math.nan)
    # A verdict of another kind gives no interval that could hold the truth: it counts as a miss, as does a NaN.
    holds = [one.low <= world.median <= one.high for one in found]
    with np.errstate(divide="ignore"):
        widths = [math.log2((1 + one.high) / (1 + one.low)) for one in located]
    oracle = 2 * float(norm.ppf(0.975)) * world.spread / math.sqrt(num_seeds) / math.log(2.0)
    bias = float(np.median([math.log2((1 + one.step) / (1 + world.median)) for one in located]))
    return Score(float(np.mean(holds)), float(np.median(widths)), oracle, right, bias)


def table(num_draws: int) -> str:
    """The whole comparison as Markdown."""
    lines = [
        "# Coverage of the transition's interval",
        "",
        f"Made by `python -m benchmarks.coverage`: {num_draws:,} simulated studies per cell, two directions per seed,",
        f"threshold {THRESHOLD}, truth {MEDIAN:g}; coarse grid of {len(COARSE)} fork steps, fine {len(FINE)}.",
        "Each cell: share of the 95 % intervals that hold the truth (an estimate that isn't located counts as a miss);",
        "their median width in octaves, in brackets that of an oracle that knows the spread over seeds and sees every",
        "crossing exactly; the share of right verdicts.",
        "",
        "| world | grid | 3 seeds | 5 seeds | 8 seeds | median error, octaves (8 seeds) |",
        "|---|---|---|---|---|---|",
    ]
    for world in LOCATED:
        for name, grid in (("coarse", COARSE), ("fine", FINE)):
            scores = [score(world, grid, seeds, num_draws) for seeds in (3, 5, 8)]
            cells = [
                f"{one.coverage:.3f} · {one.octaves:.2f} ({one.oracle_octaves:.2f}); {one.right:.3f}" for one in scores
            ]
            lines.append(f"| {world.name} | {name} | {' | '.join(cells)} | {scores[-1].bias:+.2f} |")
    lines += ["", "| world | grid | right verdicts: 3 seeds | 5 seeds | 8 seeds |", "|---|---|---|---|---|"]
    for world in OTHERS:
        for name, grid in (("coarse", COARSE), ("fine", FINE)):
            cells = [f"{score(world, grid, seeds, num_draws).right:.3f}" for seeds in (3, 5, 8)]
            lines.append(f"| {world.name} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Coverage of the transition's interval.")
    parser.add_argument("--draws", type=int, default=1000, help="simulated studies per cell")
    TABLE.write_text(table(parser.parse_args().draws), encoding="utf-8")
    print(TABLE.read_text(encoding="utf-8"))
