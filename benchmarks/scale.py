"""Large sweeps: planning, the driver's memory, scheduling and storing, reading what many trials left.

python -m benchmarks.scale [--stored 10000] [--planned 1000 5000] [--trials 400] [--workers 4] [--rounds 2]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import results
import search_spaces
from benchmarks.side_by_side import heading, write
from study.columns import setting_columns
from study.planner import make_plan
from twophase.config import Trial, setting

WHAT = [
    "Memory: resident, of the driver's process when all has ended; its trials fail at once, which is",
    "all the same to it.",
    "Scheduling and storing: simulated work, `benchmarks/sleeping_net.py`, a network whose passes sleep, so that there",
    "can be more workers than cores; each trial is the same work either way, plain tasks keep nothing. Both at once,",
    "so that other work on the machine slows both. Seconds of a worker for a trial, commits included, from when each",
    "worker has done one: Ray's start is left out.",
    "Stored trials are made by the store's own writer, a commit and six chaos rows each.",
]


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


def simulated(*arms: str, **options: float) -> list[dict[str, Any]]:
    """What simulated sweeps say of themselves, at the same time in a process each; see `simulated_sweep`."""
    given = [f"--{name}={value:g}" for name, value in options.items()]
    commands = [[sys.executable, "-m", "benchmarks.simulated_sweep", arm, *given] for arm in arms]
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    running = [subprocess.Popen(command, **quiet) for command in commands]  # type: ignore[call-overload]
    told = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        raise RuntimeError(f"one of {arms} failed")
    return [json.loads(text.splitlines()[-1]) for text in told]


def memory_rows(planned: list[int]) -> list[str]:
    """What a driver holds when so many trials have ended."""
    sizes = {number: simulated("sweep", trials=number, workers=2, seconds=-1)[0]["bytes"] for number in sorted(planned)}
    rows = [
        f"| a driver, {number:,} trials planned, run and ended | {size / 1e6:.0f} MB |"
        for number, size in sizes.items()
    ]
    (few, low), *_, (many, high) = sizes.items()
    each = (high - low) / (many - few) / 1e3
    return [*rows, f"| of each trial between {few:,} and {many:,} | **{each:.1f} kB** |"]


def overhead_rows(num_trials: int, num_workers: int, rounds: int) -> list[str]:
    """Scheduling and storing beside plain Ray tasks that do the same work and keep nothing, at the same time."""
    options = {"trials": num_trials, "workers": num_workers, "seconds": 2}
    taken = [[found["each"] for found in simulated("tasks", "sweep", **options)] for _ in range(rounds)]
    plain, ours = (", ".join(f"{seconds:.3f}" for seconds in arm) for arm in zip(*taken, strict=True))
    more = ", ".join(f"{100 * (sweep / tasks - 1):.1f} %" for tasks, sweep in taken)
    return [
        f"| {num_trials:,} trials of 2 s on {num_workers} workers as plain Ray tasks, each | {plain} s |",
        f"| the same as a sweep, scheduled and stored | {ours} s |",
        f"| scheduling and storing | **{more}** |",
    ]


def stored_rows(num_trials: int) -> list[str]:
    """Reading what many trials left, before and after compaction."""
    with tempfile.TemporaryDirectory() as folder:
        study = store(Path(folder), num_trials)
        filtered, whole, found = reads(study)
        compacting = taken(lambda: compact(study))
        quick, all_rows, again = reads(study)
        if again != found:
            raise RuntimeError(f"{again} rows in place of {found}")
    return [
        f"| `table('chaos', filters=…)` on {num_trials:,} stored trials, {found:,} rows found | {filtered:.2f} s |",
        f"| the same after compaction | **{quick:.2f} s** (a {filtered / quick:.0f}th) |",
        f"| all {6 * num_trials:,} rows, before and after | {whole:.1f} s, {all_rows:.2f} s |",
        f"| compaction | {compacting:.0f} s |",
    ]


def main() -> None:
    """Write `scale.md`."""
    parser = argparse.ArgumentParser(description="Large sweeps: planning, driving, reading.")
    parser.add_argument("--stored", type=int, default=10_000)
    parser.add_argument("--planned", type=int, nargs="+", default=[1000, 5000])
    parser.add_argument("--trials", type=int, default=400)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    asked = parser.parse_args()
    space = search_spaces.load(space_of(asked.stored))
    rows = [f"| planning {asked.stored:,} trials | {taken(lambda: make_plan(space)):.1f} s |"]
    for more in (
        partial(overhead_rows, asked.trials, asked.workers, asked.rounds),
        partial(memory_rows, asked.planned),
        partial(stored_rows, asked.stored),
    ):
        rows += more()
        print("\n".join(rows), file=sys.stderr)
    write("scale", "\n".join([heading("Large sweeps"), *WHAT, "", "| | |", "|---|---|", *rows, ""]))


def compact(study: results.Study) -> None:
    """Compact as the command does."""
    with results.Lease.acquire(study.path) as lease:
        results.compact(study, lease_id=lease.id)


if __name__ == "__main__":
    main()
