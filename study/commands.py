"""What each command does: arguments in, answers on stdout, exit status out."""

import argparse
import sys
from pathlib import Path

import pandas as pd

import results
import search_spaces
from study import driver, manifest
from study.analysis import select, transitions
from study.driver import Means, derive, read_space, study_plan
from study.planner import Plan, make_plan
from study.report import FILE as REPORT_FILE
from study.report import write_report
from study.status import read_status, status_text
from study.summary import aligned, control_text, headline_text, records, to_json, transition_text, varying_axes
from twophase.config import LEAVES
from twophase.errors import BadInput, unknown

DONE, FOUND = 0, 1
BYTES_PER_ROW = 30
BYTES_PER_PART = 70_000


def run(arguments: argparse.Namespace) -> int:
    """Run a space and print the transitions."""
    means = Means(arguments.workers, arguments.gpus_per_trial, arguments.address, arguments.retry_failed)
    space = read_space(arguments.space, search_spaces.parse_overrides(arguments.set), name=arguments.name, means=means)
    study = driver.run(space, Path(arguments.root), means)
    trials = study.table("trials")
    _print_transitions(study.table("transitions"))
    written = ",".join(name for name in study.tables if (study.path / name).is_dir())
    print(f"\ntables:  {study.path}/{{{written}}}/*.parquet")
    _print_written(study, study.path / REPORT_FILE)
    failed = trials[trials["status"] == "failed"]
    for row in failed.to_dict("records"):
        print(f"twophase: trial {row['trial_key']} (seed {row['seed']}) failed: {row['error']}", file=sys.stderr)
    return FOUND if len(failed) else DONE


def _print_transitions(found: pd.DataFrame) -> None:
    axes = varying_axes(found, list(LEAVES))
    shown = select(found, None, None)
    print(headline_text(shown))
    print(transition_text(shown, axes))
    controls = control_text(found, shown, axes)
    if controls:
        print(f"\n{controls}")


def plan(arguments: argparse.Namespace) -> int:
    """Count what a space would run."""
    means = Means(gpus_per_trial=arguments.gpus_per_trial)
    space = read_space(arguments.space, search_spaces.parse_overrides(arguments.set), name=arguments.name, means=means)
    counted = study_plan(space, Path(arguments.root))
    if not arguments.json:
        print(_plan_text(space.name, counted))
        return DONE
    counts = {
        "trials": counted.num_trials,
        "children": counted.num_children,
        "lane_steps": counted.lane_steps,
        "pair_lane_steps": counted.pair_lane_steps,
        "todo_lane_steps": counted.todo_lane_steps,
        "disk_bytes": _disk_bytes(counted),
        "planned": len(counted.jobs),
        "done": counted.num_done,
        "failed": counted.num_failed,
        "running": 0,
    }
    print(to_json(study=space.name, **counts))
    return DONE


def _disk_bytes(plan: Plan) -> int:
    return plan.num_rows * BYTES_PER_ROW + plan.num_trials * BYTES_PER_PART


def _plan_text(name: str, plan: Plan) -> str:
    saved = plan.pair_lane_steps / plan.lane_steps if plan.lane_steps else 1.0
    return "\n".join(
        [
            f"study {name}: {plan.num_trials} trials, one per setting and seed; perturbation time, magnitude and",
            "direction are folded into them: a trial trains its reference once and all its children beside it",
            f"children      {plan.num_children:,}, controls included",
            f"lane-steps    {plan.lane_steps:,} ({plan.pair_lane_steps:,} as independent pairs, {saved:.1f}× as many)",
            f"kernels       {plan.num_kernels:,}",
            f"growth        {plan.num_growths:,} windows",
            f"disk          about {_disk_bytes(plan) / 1e6:.1f} MB",
            f"there         {plan.num_done} trials done, {plan.num_failed} failed",
            f"to run        {len(plan.jobs)} trials, {plan.todo_lane_steps:,} lane-steps",
        ]
    )


def locate(arguments: argparse.Namespace) -> int:
    """Print the transition of each setting."""
    study = _open(arguments)
    declared = manifest.read_declared(study.path) or manifest.Declared()
    chaos = study.table("chaos")
    if chaos.empty:
        raise BadInput(f"study '{study.name}' has no chaos rows yet; run it first")
    derive(study, declared)
    by = list(dict.fromkeys(arguments.by or ()))
    found = transitions(chaos, declared, by=by) if by else study.table("transitions")
    shown = select(found, arguments.indicator, arguments.magnitude)
    if arguments.json:
        print(to_json(transitions=records(shown)))
        return DONE
    axes = by or varying_axes(found, list(LEAVES))
    print(headline_text(shown))
    print(transition_text(shown, axes))
    controls = control_text(found, shown, axes)
    if controls:
        print(f"\n{controls}")
    return DONE


def check(arguments: argparse.Namespace) -> int:
    """Prove a study's store whole."""
    study = _open(arguments)
    findings = results.check(study)
    for finding in findings:
        print(f"{finding.table}: {finding.what}: {finding.where}")
    if findings:
        print(f"{len(findings)} findings; run the study's space again to mend what a kill left behind")
        return FOUND
    trials = study.table("trials")
    print(f"study {study.name}: {len(trials)} trials, every key once, no half file, every sentinel exact")
    return DONE


def spaces(arguments: argparse.Namespace) -> int:
    """List the presets with what each costs, or print one as YAML."""
    if arguments.name is not None:
        if arguments.name not in search_spaces.preset_names():
            raise unknown("preset", arguments.name, search_spaces.preset_names())
        print(search_spaces.preset_text(arguments.name), end="")
        return DONE
    rows = [["preset", "trials", "children", "kernels", "lane-steps", "disk", "for"]]
    for name in search_spaces.preset_names():
        counted = make_plan(search_spaces.load(name))
        numbers = (counted.num_trials, counted.num_children, counted.num_kernels, counted.lane_steps)
        disk = f"{_disk_bytes(counted) / 1e6:.1f} MB"
        rows.append([name, *(f"{number:,}" for number in numbers), disk, search_spaces.preset_summary(name)])
    print(aligned(rows))
    print(
        "\ntwophase spaces NAME > my_sweep.yaml   prints one, to start from; twophase plan NAME counts what is missing"
    )
    return DONE


def status(arguments: argparse.Namespace) -> int:
    """Print how far a study is; failures make the exit status 1."""
    found = read_status(_open(arguments))
    print(to_json(study=found.study, **found.counts()) if arguments.json else status_text(found))
    return FOUND if found.failures else DONE


def report(arguments: argparse.Namespace) -> int:
    """Write the report and its figures."""
    study = _open(arguments)
    derive(study)
    _print_written(study, write_report(study))
    return DONE


def _print_written(study: results.Study, page: Path) -> None:
    for figure in sorted((study.path / "figures").glob("*.png")):
        print(f"figure:  {figure}")
    print(f"report:  {page}")


def _open(arguments: argparse.Namespace) -> results.Study:
    """Open a study by its folder or by its name under the root."""
    named = Path(arguments.study)
    is_folder = (named / "_schema.json").exists()
    return results.open(named if is_folder else Path(arguments.root) / named)
