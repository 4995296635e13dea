"""How far a study is, from its folder alone: any terminal, any machine."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

import results
from study import manifest
from study.planner import Plan
from study.refinement import refined_plan
from study.summary import aligned, records

_UNFINISHED = {"running": "running", "planned": "waiting", "failed": "failed"}


@dataclass(frozen=True)
class Status:
    """What is planned, done, failed and running.

    Attributes:
        study: Name of the study.
        plan: All spaces that were run, held against what is there.
        running: Heartbeats of trials, or pieces of trials, being worked on, with the seconds since each was heard.
        failures: Rows of the `trials` table that failed.
        driver: The process that runs it now, in words; empty if none does.
        is_space_known: Whether the study says which spaces it was run with; if not, only what is there can be counted.
        num_made: Trials that have rows or failed.
        speeds: Setting key -> lane-steps per second of its finished trials.
    """

    study: str
    plan: Plan
    running: list[tuple[results.Heartbeat, float]]
    failures: list[dict[str, Any]]
    driver: str
    is_space_known: bool
    num_made: int
    speeds: Mapping[str, float] = field(default_factory=dict)

    @property
    def num_waiting(self) -> int:
        """Trials of which something is missing and that nobody is at."""
        return len({job.trial.key for job in self.plan.jobs} - self._running_trials)

    @property
    def _running_trials(self) -> set[str]:
        return {heartbeat.trial_key for heartbeat, _ in self.running}

    def counts(self) -> dict[str, int]:
        """The contract's counts; trials are planned (and not begun), running, done or failed."""
        if not self.is_space_known:
            failed = len(self.failures)
            made = {"trials": self.num_made, "done": self.num_made - failed, "failed": failed}
            return {**made, "children": 0, "lane_steps": 0, "planned": 0, "running": len(self._running_trials)}
        return {
            "trials": self.plan.num_trials,
            "children": self.plan.num_children,
            "lane_steps": self.plan.lane_steps,
            "planned": self.num_waiting,
            "done": self.plan.num_done,
            "failed": self.plan.num_failed,
            "running": len(self._running_trials),
        }


def read_status(study: results.Study) -> Status:
    """Read how far a study is; touches nothing.

    Raises:
        StudyError: A commit or the declarations are damaged.
    """
    declared = manifest.read_declared(study.path) or manifest.Declared()
    commits = results.read_commits(study)
    plan = refined_plan(manifest.declared_spaces(study.path, declared), study, commits, is_ordered=False)
    holder = results.live_holder(study.path)
    trials = study.table("trials")
    running = results.running(study)
    if declared.spaces:
        # A worker whose last rows are committed is heard of for a moment longer.
        left = {job.trial.key for job in plan.jobs}
        running = [(heartbeat, silent) for heartbeat, silent in running if heartbeat.trial_key in left]
    return Status(
        study.name,
        plan,
        running,
        records(trials[trials["status"] == "failed"]),
        f"host {holder.host}, pid {holder.pid}, since {holder.since}" if holder else "",
        bool(declared.spaces),
        len(trials),
        _speeds(trials),
    )


def _speeds(trials: pd.DataFrame) -> dict[str, float]:
    done = trials[(trials["wall_seconds"] > 0) & (trials["lane_steps"] > 0)]
    sums = done.groupby("setting_key")[["lane_steps", "wall_seconds"]].sum()
    return {str(key): float(speed) for key, speed in (sums["lane_steps"] / sums["wall_seconds"]).items()}


def seconds_left(status: Status) -> float:
    """Estimate the time that is left, if as many trials and pieces of trials as now go on side by side.

    A trial's speed is that of its setting's finished and running trials, or the mean of all settings where it has none.

    Returns:
        Seconds; NaN where nothing runs or no speed is known.
    """
    # By trial: what is left of one is cut into other pieces than those that are at work.
    left_of: Counter[str] = Counter()
    for job in status.plan.jobs:
        left_of[job.trial.key] += job.lane_steps
    for heartbeat, _ in status.running:
        left_of[heartbeat.trial_key] -= heartbeat.lane_steps
    setting_of = {job.trial.key: job.trial.setting.key for job in status.plan.jobs}
    running = {
        setting_of.get(beat.trial_key, ""): beat.lane_steps / beat.seconds
        for beat, _ in status.running
        if beat.seconds and beat.lane_steps
    }
    speeds = {**running, **status.speeds}
    if not speeds or not status.running:
        return float("nan")
    usual = sum(speeds.values()) / len(speeds)
    left = 0.0
    for trial_key, steps in left_of.items():
        left += max(steps, 0) / speeds.get(setting_of.get(trial_key, ""), usual)
    return left / len(status.running)


def status_text(status: Status) -> str:
    """Lay a status out for a terminal: counts, who runs it, each running trial, each failure with its cause."""
    counts = status.counts()
    lines = [
        f"study {status.study}: {counts['trials']} trials: {counts['done']} done, {counts['running']} running, "
        f"{counts['planned']} waiting, {counts['failed']} failed"
    ]
    if not status.is_space_known:
        lines.append(
            f"what was planned isn't known: {manifest.FILE} is missing, or of a version that didn't keep it; run the "
            "study's space again"
        )
    left = seconds_left(status)
    if not math.isnan(left):
        lines.append(f"about {_duration(left)} left")
    if status.driver:
        lines.append(f"driver: {status.driver}")
    elif status.num_waiting:
        lines.append("driver: none; run the study's space again to go on")
    if status.running:
        lines += ["", _running_text(status)]
    if status.failures:
        header = ["failed", *_trial_header(), "cause"]
        rows = [[str(row["trial_key"]), *_trial_cells(row), str(row["error"])] for row in status.failures]
        lines += ["", aligned([header, *rows]), "", *failure_lines(status.failures, len(rows))]
    return "\n".join(lines)


def failure_lines(failures: Sequence[Mapping[str, object]], num_shown: int = 0) -> list[str]:
    """What failed and why, in one line for each cause, and how to run it again.

    Args:
        failures: Rows of the `trials` table that failed.
        num_shown: How many have been told of singly; the causes of all are then known.
    """
    causes: dict[str, list[Mapping[str, object]]] = {}
    for row in failures:
        causes.setdefault(str(row["error"]), []).append(row)
    lines = []
    for cause, rows in causes.items() if num_shown < len(failures) else ():
        first = f"trial {rows[0]['trial_key']} (seed {rows[0]['seed']})"
        others = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
        lines.append(f"{first}{others} failed: {cause}")
    if failures:
        what = "1 trial" if len(failures) == 1 else f"{len(failures)} trials"
        lines.append(f"{what} failed; the same run with --retry-failed does those again, and nothing that is done")
    return lines


def partial_text(status: Status) -> str:
    """Say on how many of the planned trials an answer rests; empty where on all, or where the plan isn't known."""
    counts = status.counts()
    if not status.is_space_known or counts["done"] == counts["trials"]:
        return ""
    rest = ", ".join(f"{counts[name]} {word}" for name, word in _UNFINISHED.items() if counts[name])
    rests = f"the answer rests on {counts['done']} of {counts['trials']} planned trials"
    return f"partial: {rests}, and on what is committed of the others ({rest})"


def _running_text(status: Status) -> str:
    known = {job.trial.key: job.trial for job in status.plan.jobs}
    rows = [["running", *_trial_header(), "done", "lane-steps/s", "left", "heard"]]
    for heartbeat, silent in status.running:
        trial = known.get(heartbeat.trial_key)
        cells = _trial_cells({**trial.setting.values(), "seed": trial.seed}) if trial else ["?", "?"]
        speed = heartbeat.lane_steps / heartbeat.seconds if heartbeat.seconds else 0.0
        remaining = max(heartbeat.total_lane_steps - heartbeat.lane_steps, 0)
        share = heartbeat.lane_steps / max(heartbeat.total_lane_steps, 1)
        left = f"{remaining / speed:.0f} s" if speed else "?"
        name = "-".join(filter(None, (heartbeat.trial_key, heartbeat.piece)))
        rows.append([name, *cells, f"{min(share, 1):.0%}", f"{speed:,.0f}", left, f"{silent:.0f} s ago"])
    return aligned(rows)


def _duration(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes > 1 else f"{seconds:.0f} s"


def _trial_header() -> list[str]:
    return ["setting", "seed"]


def _trial_cells(row: Mapping[str, object]) -> list[str]:
    """A trial in two cells: the leaves that most sweeps vary, and its seed."""
    parts = [str(row["model"]), *(f"{name} {row[name]}" for name in ("depth", "width", "lr"))]
    return [", ".join(parts), str(row["seed"])]
