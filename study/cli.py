"""The command `twophase`."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import pandas as pd

import results
from search_spaces import parse_overrides
from study import manifest
from study.analysis import select, transitions
from study.cluster import EnvironmentFault
from study.driver import Means, derive, read_space, run, study_plan
from study.planner import Plan
from study.summary import control_text, headline_text, records, to_json, transition_text, varying_axes
from twophase.config import LEAVES
from twophase.errors import BadInput

DONE, FOUND, BAD_INPUT, ENVIRONMENT, INTERRUPTED = 0, 1, 2, 3, 130
BYTES_PER_ROW = 30
BYTES_PER_PART = 70_000


class Parser(argparse.ArgumentParser):
    """Answers bad arguments in one line, like every other bad input."""

    def error(self, message: str) -> NoReturn:
        """Raise what `main` prints."""
        raise BadInput(f"{message}; see {self.prog} --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Arguments; default: those of the process.

    Returns:
        Exit status: 0 done, 1 some trials failed or a check found something, 2 bad input, 3 the environment failed.
    """
    try:
        arguments = _parser().parse_args(argv)
        command: Callable[[argparse.Namespace], int] = arguments.command
        return command(arguments)
    except (BadInput, results.StudyError) as error:
        print(f"twophase: {error}", file=sys.stderr)
        return BAD_INPUT
    except (EnvironmentFault, OSError) as error:
        print(f"twophase: {error}", file=sys.stderr)
        return ENVIRONMENT
    except KeyboardInterrupt:
        print("twophase: interrupted; what was committed is kept, the same command goes on", file=sys.stderr)
        return INTERRUPTED


def _run(arguments: argparse.Namespace) -> int:
    means = Means(arguments.workers, arguments.gpus_per_trial, arguments.address, arguments.retry_failed)
    space = read_space(arguments.space, parse_overrides(arguments.set), name=arguments.name, means=means)
    study = run(space, Path(arguments.root), means)
    trials = study.table("trials")
    _print_transitions(study.table("transitions"))
    written = ",".join(name for name in study.tables if (study.path / name).is_dir())
    print(f"\ntables:  {study.path}/{{{written}}}/*.parquet")
    for figure in sorted((study.path / "figures").glob("*.png")):
        print(f"figure:  {figure}")
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


def _plan(arguments: argparse.Namespace) -> int:
    means = Means(gpus_per_trial=arguments.gpus_per_trial)
    space = read_space(arguments.space, parse_overrides(arguments.set), name=arguments.name, means=means)
    plan = study_plan(space, Path(arguments.root))
    counts = {
        "trials": plan.num_trials,
        "children": plan.num_children,
        "lane_steps": plan.lane_steps,
        "pair_lane_steps": plan.pair_lane_steps,
        "todo_lane_steps": plan.todo_lane_steps,
        "disk_bytes": plan.num_rows * BYTES_PER_ROW + plan.num_trials * BYTES_PER_PART,
        "planned": len(plan.jobs),
        "done": plan.num_done,
        "failed": plan.num_failed,
        "running": 0,
    }
    print(to_json(study=space.name, **counts) if arguments.json else _plan_text(space.name, plan, counts["disk_bytes"]))
    return DONE


def _plan_text(name: str, plan: Plan, disk_bytes: int) -> str:
    saved = plan.pair_lane_steps / plan.lane_steps if plan.lane_steps else 1.0
    return "\n".join(
        [
            f"study {name}: {plan.num_trials} trials, one per setting and seed; perturbation time, magnitude and",
            "direction are folded into them: a trial trains its reference once and all its children beside it",
            f"children      {plan.num_children:,}, controls included",
            f"lane-steps    {plan.lane_steps:,} ({plan.pair_lane_steps:,} as independent pairs, {saved:.1f}× as many)",
            f"disk          about {disk_bytes / 1e6:.1f} MB",
            f"there         {plan.num_done} trials done, {plan.num_failed} failed",
            f"to run        {len(plan.jobs)} trials, {plan.todo_lane_steps:,} lane-steps",
        ]
    )


def _locate(arguments: argparse.Namespace) -> int:
    study = _open(arguments)
    declared = manifest.read_declared(study.path) or manifest.Declared()
    chaos = study.table("chaos")
    if chaos.empty:
        raise BadInput(f"study '{study.name}' has no chaos rows yet; run it first")
    derive(study, declared)
    found = transitions(chaos, declared, by=arguments.by) if arguments.by else study.table("transitions")
    shown = select(found, arguments.indicator, arguments.magnitude)
    if arguments.json:
        print(to_json(transitions=records(shown)))
        return DONE
    axes = arguments.by or varying_axes(found, list(LEAVES))
    print(headline_text(shown))
    print(transition_text(shown, axes))
    controls = control_text(found, shown, axes)
    if controls:
        print(f"\n{controls}")
    return DONE


def _check(arguments: argparse.Namespace) -> int:
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


def _open(arguments: argparse.Namespace) -> results.Study:
    """Open a study by its folder or by its name under the root."""
    named = Path(arguments.study)
    is_folder = (named / "_schema.json").exists()
    return results.open(named if is_folder else Path(arguments.root) / named)


def _parser() -> Parser:
    parser = Parser(prog="twophase", description="Find where training goes from chaotic to stable.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND", parser_class=Parser)

    def add(
        name: str, does: str, command: Callable[[argparse.Namespace], int], example: str
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=does, description=does, epilog=f"example: {example}")
        sub.set_defaults(command=command)
        sub.add_argument("--root", default="runs", metavar="DIR", help="folder of studies (default: runs)")
        return sub

    plan = add("plan", "count what a space would run, and what is there", _plan, "twophase plan quick --set seeds=5")
    start = add(
        "run", "run a space, or what is missing of it", _run, "twophase run quick --set chaos.magnitudes=[1e-3]"
    )
    for sub in (plan, start):
        sub.add_argument("space", metavar="SPACE", help="a preset's name or a YAML file")
        sub.add_argument("--name", help="name of the study, in place of the space's own")
        sub.add_argument(
            "--set", action="append", default=[], metavar="KEY=VALUE", help="lay a value over the space; repeatable"
        )
        sub.add_argument(
            "--gpus-per-trial", type=float, default=0, metavar="F", help="GPUs of one trial, may be a fraction"
        )
    plan.add_argument("--json", action="store_true", help="print one JSON object")
    start.add_argument("--workers", type=int, metavar="N", help="most trials at a time (default: one per processor)")
    start.add_argument("--address", help="a Ray cluster's address (default: Ray here, on loopback)")
    start.add_argument("--retry-failed", action="store_true", help="run trials again that failed before")

    locate = add("locate", "print the transition of each setting", _locate, "twophase locate quick --by model --json")
    locate.add_argument("--by", action="append", metavar="AXIS", help="pool over all axes but these; repeatable")
    locate.add_argument("--indicator", help="another indicator than the primary")
    locate.add_argument("--magnitude", type=float, help="another magnitude than the primary's")
    locate.add_argument("--json", action="store_true", help="print one JSON object")
    check = add("check", "prove a study's store whole", _check, "twophase check quick")
    for sub in (locate, check):
        sub.add_argument("study", metavar="STUDY", help="a study's folder or its name under the root")
    return parser


if __name__ == "__main__":
    sys.exit(main())
