"""Size and power of the tests of kernels, by simulation: ``python -m benchmarks.confinement``, some minutes.

Paths of known kind are drawn, tested, and counted; the tables stand in docs/cone.md.
"""

import math
from collections import Counter
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from twophase.cone import checkpoint_steps
from twophase.confinement import confinement, walk_test
from twophase.kernel_transition import kernel_break
from twophase.sphere_walk import isotropic_walks

Array = NDArray[np.float64]
DRAWN = np.random.default_rng(0)
NUM_SIZE, NUM_POWER, NUM_BREAK = 500, 200, 400


def walk(num: int, dimension: int, end: float = 1.0) -> Array:
    """A random walk on the sphere whose steps shrink to a share of the first."""
    return isotropic_walks(0.3 * np.linspace(1.0, end, num), dimension, 1, DRAWN)[0]


def jitter(num: int, dimension: int, memory: float = 0.0, end: float = 1.0, walks: float = 0.0) -> Array:
    """Jitter about an axis with a correlation from checkpoint to checkpoint; shrinking; the axis may walk."""
    noise = DRAWN.standard_normal((num + 1, dimension))
    for k in range(1, num + 1):
        noise[k] = memory * noise[k - 1] + math.sqrt(1 - memory**2) * noise[k]
    axis = walks * DRAWN.standard_normal((num + 1, dimension)).cumsum(axis=0)
    moved = noise * np.linspace(1.0, end, num + 1)[:, None] + axis
    return on_sphere(np.column_stack([np.ones(num + 1), 0.3 / math.sqrt(dimension) * moved]))


def straight(num: int, dimension: int) -> Array:
    """A great circle walked at even speed, with some noise."""
    angle = np.linspace(0.0, 1.0, num + 1)
    noise = 0.1 / math.sqrt(dimension) * DRAWN.standard_normal((num + 1, dimension))
    return on_sphere(np.column_stack([np.cos(angle), np.sin(angle), noise]))


def on_sphere(points: Array) -> Array:
    """Unit vectors."""
    return np.asarray(points / np.linalg.norm(points, axis=1, keepdims=True))


PATHS: dict[str, Callable[[int, int], Array]] = {
    "walk, even steps": walk,
    "walk, steps shrinking to 1/20": lambda num, dimension: walk(num, dimension, 0.05),
    "straight": straight,
    "jitter": jitter,
    "jitter shrinking to 1/20": lambda num, dimension: jitter(num, dimension, end=0.05),
    "jitter, memory 0.5": lambda num, dimension: jitter(num, dimension, memory=0.5),
    "jitter, memory 0.8": lambda num, dimension: jitter(num, dimension, memory=0.8),
    "jitter, axis walks 0.3 of it a step": lambda num, dimension: jitter(num, dimension, walks=0.3),
    "jitter, axis walks as much": lambda num, dimension: jitter(num, dimension, walks=1.0),
}


def size_table() -> None:
    """Share of walks with p <= 5 %."""
    print("| walks | checkpoints after τ | 2 dimensions | 10 | 50 |\n|---|---|---|---|---|")
    for name in list(PATHS)[:2]:
        for num in (8, 12, 16):
            shares = [
                np.mean([walk_test(PATHS[name](num, d), DRAWN)[0] <= 0.05 for _ in range(NUM_SIZE)])
                for d in (2, 10, 50)
            ]
            print(f"| {name} | {num} | {' | '.join(f'{share:.1%}' for share in shares)} |", flush=True)


def power_table() -> None:
    """Shares of verdicts."""
    columns = [(num, d) for num in (8, 16) for d in (2, 20)]
    print(f"\n| path | {' | '.join(f'{num} later, {d} dimensions' for num, d in columns)} |\n|---|---|---|---|---|")
    for name, make in PATHS.items():
        cells = []
        for num, d in columns:
            counts: Counter[str] = Counter()
            for seed in range(NUM_POWER):
                points = make(num, d)
                counts[confinement(points @ points.T, np.arange(num + 1.0), 0.0, seed=seed).verdict] += 1
            shares = [counts[verdict] / NUM_POWER for verdict in ("confined", "not_confined", "undetermined")]
            cells.append(" / ".join(f"{100 * share:.0f}" for share in shares))
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def break_table() -> None:
    """Shares of choices between break, drift and no change."""
    end, at = 1500, 150
    print("\n| angle per gap g | checkpoints | schedule | break | drift | no change | unknown |")
    print("|---|---|---|---|---|---|---|")
    for logs, linear in ((10, 12), (12, 16)):
        steps = np.array(checkpoint_steps(end, logs, linear), dtype=float)
        gaps = np.diff(steps)
        middle = np.expm1((np.log1p(steps[1:]) + np.log1p(steps[:-1])) / 2)
        for schedule in ("constant", "cosine"):
            each = np.ones(end) if schedule == "constant" else 0.5 * (1 + np.cos(np.pi * np.arange(end) / end))
            clock = np.concatenate([[0.0], np.cumsum(each)])[steps.astype(int)]
            rate = np.diff(clock) / gaps
            laws = {
                "g": gaps,
                "g η": gaps * rate,
                "√g η": np.sqrt(gaps) * rate,
                "η (jitter)": rate,
                "g (1+t)^-0.7 η": gaps * (1 + middle) ** -0.7 * rate,
                "g / (1 + t/50) η": gaps / (1 + middle / 50) * rate,
                **{f"g η, {f}-fold fall at {at}": gaps * rate * np.where(middle < at, 1, 1 / f) for f in (3, 5, 10)},
            }
            for name, law in laws.items():
                counts = Counter(_break(law, steps, clock) for _ in range(NUM_BREAK))
                cells = " | ".join(f"{counts[k] / NUM_BREAK:.1%}" for k in ("break", "drift", "constant", "unknown"))
                print(f"| {name} | {len(steps)} | {schedule} | {cells} |", flush=True)


def _break(law: Array, steps: Array, clock: Array) -> str:
    """The choice for angles that follow a law but for 20 % of noise, each into a new direction."""
    turned = law * np.exp(0.2 * DRAWN.standard_normal(len(law)))
    turned *= 0.8 / turned.max()
    points = np.eye(len(steps))
    for k, angle in enumerate(turned):
        points[k + 1] = math.sin(angle) * points[k + 1] + math.cos(angle) * points[k]
    return kernel_break(points @ points.T, steps, clock).kind


if __name__ == "__main__":
    size_table()
    power_table()
    break_table()
