"""Adaptive fork steps against a dense grid of the same resolution, on the settings of preset `quick`.

Both are run in full, snapshots included, by the program's own command, one after the other; what is compared is
counted, not timed: lane-steps as the trials report them, references, sentinels and padding included. A seed's bracket
is the cell in which it settles, between the last fork step at which it is chaotic and the next.

    python -m benchmarks.refine [--seeds 3]
"""

import argparse
import tempfile
from pathlib import Path

import pandas as pd

import results
from benchmarks.side_by_side import heading, write
from study import launch, manifest
from study.refinement import Bracket, brackets, lattice

FACTOR = 1.25
LAST = 800
START = (0, 25, 100, 400, LAST)
CHAOS = {"chaos.controls": 0, "cone": None}


def dense_grid() -> list[int]:
    """The lattice that adaptive grids are cut on, and the steps that they start from."""
    return sorted({*lattice(FACTOR, LAST), *START})


def run(fork_steps: object, seeds: int, root: Path, name: str) -> tuple[pd.DataFrame, dict[tuple[str, int], Bracket]]:
    """Run one way; its trials, and every seed's bracket."""
    overrides = {**CHAOS, "seeds": seeds, "chaos.fork_steps": fork_steps, "training": {"snapshots": True}}
    study = launch("quick", root, name=name, overrides=overrides)
    assert results.check(study) == []
    return study.table("trials"), brackets(study.table("chaos"), manifest.require_declared(study.path))


def main() -> None:
    """Write `refine.md`."""
    parser = argparse.ArgumentParser(description="Adaptive fork steps against a dense grid.")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of each setting")
    seeds = parser.parse_args().seeds
    with tempfile.TemporaryDirectory() as folder:
        root, grid = Path(folder), dense_grid()
        refine = {"refine": {"start": list(START), "factor": FACTOR}}
        trials, adaptive = run(refine, seeds, root, "adaptive")
        others, dense = run(grid, seeds, root, "dense")
    both = trials.merge(others, on=["model", "seed", "setting_key"], suffixes=("", "_dense")).sort_values(
        ["model", "seed"]
    )
    lines = []
    for row in both.to_dict("records"):
        key = (str(row["setting_key"]), int(row["seed"]))
        own, other = adaptive.get(key), dense.get(key)
        share = row["lane_steps"] / row["lane_steps_dense"]
        lines.append(
            f"| {row['model']} | {row['seed']} | {_text(own)} | {_text(other)} | {row['lane_steps']:,} "
            f"| {row['lane_steps_dense']:,} | {share:.2f} |"
        )
    sums = both.groupby("model")[["lane_steps", "lane_steps_dense"]].sum()
    totals = [f"{model} {row['lane_steps'] / row['lane_steps_dense']:.2f}" for model, row in sums.iterrows()]
    text = [
        heading("Adaptive fork steps against a dense grid"),
        "Settings of preset `quick`, without controls and kernels, two directions, magnitude 0.01, threshold 0.05.",
        f"Adaptive: from {', '.join(map(str, START))} on, each seed's bracket cut, by steps of one lattice, until",
        f"(1 + high) / (1 + low) ≤ {FACTOR} or nothing lies between.",
        f"Dense: {len(grid)} fork steps no more than that apart: {', '.join(map(str, grid))}.",
        "Lane-steps as trials report them, references, sentinels, padding and repeated stretches included.",
        "",
        "| net | seed | adaptive: bracket | dense: bracket | adaptive: lane-steps | dense: lane-steps | share |",
        "|---|---|---|---|---|---|---|",
        *lines,
        "",
        f"Share of all seeds together: {', '.join(totals)}.",
        "",
    ]
    write("refine", "\n".join(text))


def _text(bracket: Bracket | None) -> str:
    return "none" if bracket is None else f"{bracket.low}–{bracket.high} ({bracket.ratio:.2f})"


if __name__ == "__main__":
    main()
