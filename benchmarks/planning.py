"""Whether following `twophase more` gives an interval about as narrow as asked: simulated studies, grown as it says.

    python -m benchmarks.planning [--draws 60]

A study of few seeds is drawn as in `benchmarks.coverage`, advice is taken, and the same seeds with as many more as it
says are seen at the old fork steps and those it adds.
"""

import argparse
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.coverage import COARSE, FINE, MEDIAN, USUAL, World, draw
from twophase.precision import advise
from twophase.transition import locate_transition

NUM_DIRECTIONS = 2
MOST_SEEDS = 120
LAST_STEP = 1280
EVERY = np.arange(0, LAST_STEP + 1, dtype=np.float64)
TABLE = Path(__file__).with_name("planning.md")


@dataclass(frozen=True)
class Outcome:
    """What one study came to.

    Attributes:
        num_seeds: Seeds after the advice.
        num_added: Fork steps added.
        width: Log of the ratio of the interval's ends over that of the ratio asked for.
        is_held: Whether the interval holds the truth.
    """

    num_seeds: int
    num_added: int
    width: float
    is_held: bool


def follow(world: World, grid: tuple[int, ...], pilot: int, ratio: float, random: np.random.Generator) -> Outcome:
    """Draw a study, take advice, follow it; advice on more than `MOST_SEEDS` seeds is followed so far."""
    values = draw(world, EVERY, MOST_SEEDS, NUM_DIRECTIONS, random)
    seeds = np.repeat(np.arange(MOST_SEEDS), NUM_DIRECTIONS)
    few = seeds < pilot
    said = advise(list(grid), values[few][:, list(grid)], ratio=ratio, last_step=LAST_STEP, groups=seeds[few].tolist())
    steps, many = sorted({*grid, *said.fork_steps}), seeds < said.num_seeds
    found = locate_transition(steps, values[many][:, steps], groups=seeds[many].tolist())
    width = math.log((1 + found.high) / (1 + found.low)) / math.log(ratio)
    return Outcome(said.num_seeds, len(said.fork_steps), width, found.low <= MEDIAN <= found.high)


def table(num_draws: int) -> str:
    """The whole comparison as Markdown."""
    lines = [
        "# Following the advice of `twophase more`",
        "",
        f"Made by `python -m benchmarks.planning`: {num_draws} simulated studies per row, two directions per seed,",
        f"truth {MEDIAN:g}; coarse grid of {len(COARSE)} fork steps, fine {len(FINE)}; at most {MOST_SEEDS} seeds.",
        "Seeds: 10 %, median and 90 % of what was said. Width: of the interval after it was followed, over what was",
        "asked for, in logs; median and 90 %; inf: open, past the last fork step. Holds: share of these intervals",
        "that hold the truth.",
        "",
        "| spread over seeds | ratio asked for | grid | pilot seeds | seeds said | fork steps added | width | holds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for spread in (0.3, 0.6):
        for ratio in (1.25, 1.5, 2.0):
            for name, grid in (("coarse", COARSE), ("fine", FINE)):
                for pilot in (3, 5):
                    random = np.random.default_rng(0)
                    world = replace(USUAL, spread=spread)
                    found = [follow(world, grid, pilot, ratio, random) for _ in range(num_draws)]
                    seeds = np.percentile([one.num_seeds for one in found], [10, 50, 90], method="lower").tolist()
                    added = np.median([one.num_added for one in found])
                    widths = np.percentile([one.width for one in found], [50, 90], method="lower")
                    held = np.mean([one.is_held for one in found])
                    lines.append(
                        f"| {spread} | {ratio} | {name} | {pilot} | {seeds[0]}, {seeds[1]}, {seeds[2]} | {added:g} "
                        f"| {widths[0]:.2f}, {widths[1]:.2f} | {held:.2f} |"
                    )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Following the advice of `twophase more`.")
    parser.add_argument("--draws", type=int, default=60, help="simulated studies per row")
    TABLE.write_text(table(parser.parse_args().draws), encoding="utf-8")
    print(TABLE.read_text(encoding="utf-8"))
