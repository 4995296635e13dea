"""Large sweeps: planning, reading what many trials left, and the driver's memory.

    python -m benchmarks.scale [--stored 10000] [--planned 1000 5000]

Stored trials are made by the store's own writer, a commit and six chaos rows each.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import results
import search_spaces
from benchmarks.side_by_side import heading, write
from study.columns import setting_columns
from study.planner import make_plan
from twophase.config import Trial, setting


def space_of(num_trials: int) -> dict[str, object]:
    """A space of so many small trials."""
    return {
        "name": f"scale{num_trials}",
        "base": {"data": "synthetic", "num_train": 40, "num_test": 20, "model": "mlp", "depth": 1, "width": 2}
        | {"num_steps": 2, "batch_size": 20},
        "axes": {"lr": {"log": [0.001, 0.5], "num": max(1, num_trials // 10)}},
        "seeds": min(10, num_trials),
        "chaos": {"fork_steps": [0], "magnitudes": [1e-2], "num_directions": 1, "train_sample": 20, "path_points": 3},
    }


def taken(run: Callable[[], object]) -> float:
    """Wall seconds."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def store(root: Path, num_trials: int) -> results.Study:
    """A study of so many trials, six chaos rows each."""
    study = results.create(root / "stored", study="stored", setting_columns=setting_columns())
    columns = [column.name for column in results.TABLES["chaos"].columns]
    with results.Lease.acquire(study.path) as lease:
        for number in range(num_trials):
            trial = Trial(setting({"lr": 0.001 * (1 + number // 10)}), number % 10)
            rows = [
                {**dict.fromkeys(columns, 0), "perturbation": "gaussian", "reference_digest": "d"} for _ in range(6)
            ]
            for row, fork in zip(rows, range(6), strict=True):
                row |= {"fork_step": fork, "magnitude": 1e-2, "measure_step": 100, "diverged": False}
            keys = {"study": "stored", "setting_key": trial.setting.key, "seed": trial.seed, **trial.setting.values()}
            results.write_part(
                study,
                trial_key=trial.key,
                part="a",
                tables={"chaos": rows},
                covers={},
                trial={"lane_steps": 1, "reference_digest": "d"},
                keys=keys,
                status="ok",
                lease_id=lease.id,
            )
    return study


def reads(study: results.Study) -> tuple[float, float, int]:
    """Seconds of a filtered read and of a whole one, and the rows of the former."""
    some = [("lr", "<", 0.05), ("fork_step", "==", 0)]
    found = len(study.table("chaos", filters=some))
    filtered = min(taken(lambda: study.table("chaos", filters=some)) for _ in range(3))
    return filtered, taken(lambda: study.table("chaos")), found


PLANNING = """
import json, sys, psutil, search_spaces
from study.planner import make_plan
before = psutil.Process().memory_info().rss
jobs = make_plan(search_spaces.load(json.loads(sys.argv[1]))).jobs
print(len(jobs), psutil.Process().memory_info().rss - before)
"""


def planned_bytes(num_trials: int) -> int:
    """Memory that a driver holds for its planned trials, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", PLANNING, json.dumps(space_of(num_trials))], capture_output=True, text=True, check=True
    )
    return int(done.stdout.split()[1])


def main() -> None:
    """Write `scale.md`."""
    parser = argparse.ArgumentParser(description="Large sweeps: planning, reading, memory.")
    parser.add_argument("--stored", type=int, default=10_000)
    parser.add_argument("--planned", type=int, nargs="+", default=[1000, 5000])
    asked = parser.parse_args()
    rows = []
    space = search_spaces.load(space_of(asked.stored))
    rows.append(f"| planning {asked.stored:,} trials | {taken(lambda: make_plan(space)):.1f} s |")
    sizes = {number: planned_bytes(number) for number in asked.planned}
    for number, size in sizes.items():
        rows.append(f"| a driver's plan and work of {number:,} trials | {size / 1e6:.1f} MB |")
    if len(sizes) > 1:
        (few, low), *_, (many, high) = sorted(sizes.items())
        rows.append(f"| of each trial between {few:,} and {many:,} | {(high - low) / (many - few) / 1e3:.1f} kB |")
    with tempfile.TemporaryDirectory() as folder:
        study = store(Path(folder), asked.stored)
        filtered, whole, found = reads(study)
        compacting = taken(lambda: compact(study))
        quick, all_rows, again = reads(study)
        if again != found:
            raise RuntimeError(f"{again} rows in place of {found}")
    rows += [
        f"| `table('chaos', filters=…)` on {asked.stored:,} stored trials, {found:,} rows found | {filtered:.2f} s |",
        f"| the same after compaction | **{quick:.2f} s** (a {filtered / quick:.0f}th) |",
        f"| all {6 * asked.stored:,} rows, before and after | {whole:.1f} s, {all_rows:.2f} s |",
        f"| compaction | {compacting:.0f} s |",
    ]
    text = [
        heading("Large sweeps"),
        "Trials without work: one commit and six chaos rows each. Memory: resident, of a process that plans and writes",
        "out what workers are told, beyond what it had when it began.",
        "",
        "| | |",
        "|---|---|",
        *rows,
        "",
    ]
    write("scale", "\n".join(text))


def compact(study: results.Study) -> None:
    """Compact as the command does."""
    with results.Lease.acquire(study.path) as lease:
        results.compact(study, lease_id=lease.id)


if __name__ == "__main__":
    main()
