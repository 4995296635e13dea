"""What each command does: arguments in, answers on stdout, exit status out."""

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import pandas as pd

import results
import search_spaces
from study import comparing, driver, manifest, searching
from study.advice import advice, advice_text, lines
from study.analysis import select, transitions
from study.closing import is_derived, up_to_date, write_report
from study.cluster import EnvironmentFault
from study.columns import setting_columns
from study.comparison_text import comparison_text
from study.driver import Means, read_space, study_plan
from study.evidence import read_evidence
from study.interruption import terminated_as_interrupt
from study.kernel_transitions import with_kernels
from study.labels import varying_axes
from study.measuring import measure, measured_lines
from study.planner import Plan, make_plan
from study.proposer import FILE as JOURNAL
from study.search_summary import search_records, search_text
from study.status import failure_lines, partial_text, read_status, status_text
from study.summary import aligned, located_text, records, to_json
from study.terminal import is_live
from study.together import Together, read_together
from twophase.config import LEAVES
from twophase.errors import BadInput, unknown

DONE, FOUND = 0, 1
ROOT = "runs"
WATCH_SECONDS = 2.0
BYTES_PER_ROW = 30
BYTES_PER_PART = 70_000


def run(arguments: argparse.Namespace) -> int:
    """Run a space and print the transitions."""
    means = _means(arguments)
    space = read_space(arguments.space, search_spaces.parse_overrides(arguments.set), name=arguments.name, means=means)
    study = driver.run(space, _root(arguments), means)
    trials = study.table("trials")
    declared = manifest.read_declared(study.path) or manifest.Declared()
    found = study.table("transitions")
    print(_transitions_text(trials, declared, found, select(found, None, None)))
    written = ",".join(name for name in study.tables if (study.path / name).is_dir())
    print(f"\ntables:  {study.path}/{{{written}}}/*.parquet")
    _print_written(study, study.path / manifest.REPORT_FILE)
    failed = trials[trials["status"] == "failed"]
    _warn(partial_text(read_status(study)))
    for line in failure_lines(records(failed)):
        _warn(line)
    return FOUND if len(failed) else DONE


def search(arguments: argparse.Namespace) -> int:
    """Search a space and print what was found."""
    means = _means(arguments)
    overrides = search_spaces.parse_overrides(arguments.set)
    asked, study, proposer = searching.search(
        arguments.space, _root(arguments), name=arguments.name, overrides=overrides, means=means
    )
    failed = study.table("trials", filters=[("status", "==", "failed")])
    if arguments.json:
        print(to_json(**search_records(asked, proposer)))
        return FOUND if len(failed) else DONE
    print(search_text(asked, proposer, str(study.path / JOURNAL)))
    _print_written(study, study.path / manifest.REPORT_FILE)
    for line in failure_lines(records(failed)):
        _warn(line)
    return FOUND if len(failed) else DONE


def _means(arguments: argparse.Namespace) -> Means:
    retried, cpus = arguments.retry_failed, arguments.cpus_per_trial
    return driver.located(Means(arguments.workers, arguments.gpus_per_trial, arguments.address, retried, cpus))


def _warn(line: str) -> None:
    if line:
        print(f"twophase: {line}", file=sys.stderr)


def _transitions_text(
    trials: pd.DataFrame,
    declared: manifest.Declared,
    found: pd.DataFrame,
    shown: pd.DataFrame,
    by: Sequence[str] = (),
) -> str:
    return located_text(found, shown, by or varying_axes(trials, list(LEAVES)), declared, trials)


def plan(arguments: argparse.Namespace) -> int:
    """Count what a space would run."""
    means = driver.located(Means(gpus_per_trial=arguments.gpus_per_trial, cpus_per_trial=arguments.cpus_per_trial))
    space = read_space(arguments.space, search_spaces.parse_overrides(arguments.set), name=arguments.name, means=means)
    counted = study_plan(space, _root(arguments))
    lacking = driver.lacks(space, driver.settled(means, [space]))
    _warn(f"run would be refused on this machine: {lacking}" if lacking else "")
    found = measure(counted.jobs) if arguments.measure else []
    if not arguments.json:
        print("\n".join([_plan_text(space.name, counted, space.fold), *measured_lines(found)]))
        return DONE
    counts: dict[str, float] = {
        "trials": counted.num_trials,
        "pieces": counted.num_pieces,
        "children": counted.num_children,
        "lane_steps": counted.lane_steps,
        "pair_lane_steps": counted.pair_lane_steps,
        "todo_lane_steps": counted.todo_lane_steps,
        "disk_bytes": _disk_bytes(counted),
        "planned": counted.num_todo,
        "done": counted.num_done,
        "failed": counted.num_failed,
        "running": 0,
    }
    if arguments.measure:
        counts["training_hours"] = sum(one.hours for one in found)
    print(to_json(study=space.name, **counts))
    return DONE


def _disk_bytes(plan: Plan) -> int:
    return plan.num_rows * BYTES_PER_ROW + plan.num_sketch_bytes + plan.num_trials * BYTES_PER_PART


def _plan_text(name: str, plan: Plan, fold: search_spaces.Fold) -> str:
    in_pieces = f" in {len(plan.jobs)} pieces" if len(plan.jobs) > plan.num_todo else ""
    saved = plan.pair_lane_steps / plan.lane_steps if plan.lane_steps else 1.0
    return "\n".join(
        [
            *_fold_lines(name, plan, fold),
            f"children      {plan.num_children:,}, controls included",
            f"lane-steps    {plan.lane_steps:,} ({plan.pair_lane_steps:,} as independent pairs, {saved:.1f}× as many)",
            *([f"kernels       {plan.num_kernels:,}"] if plan.num_kernels else []),
            *([f"growth        {plan.num_growths:,} windows"] if plan.num_growths else []),
            *([f"switches      {plan.num_switches:,} linearised runs"] if plan.num_switches else []),
            f"disk          about {_disk_bytes(plan) / 1e6:.1f} MB",
            f"there         {plan.num_done} trials done, {plan.num_failed} failed",
            f"to run        {plan.num_todo} trials{in_pieces}, {plan.todo_lane_steps:,} lane-steps",
        ]
    )


def _fold_lines(name: str, plan: Plan, fold: search_spaces.Fold) -> list[str]:
    """Say what is folded into a trial, or how it is cut, and what becomes of its reference then."""
    if plan.num_pieces == plan.num_trials:
        return [
            f"study {name}: {plan.num_trials} trials, one per setting and seed; perturbation time, magnitude and",
            "direction are folded into them: a trial trains its reference once and all its children beside it",
        ]
    if plan.lane_steps < plan.apart_lane_steps:
        how = "reference shared: the first piece of a trial trains it whole, the others fork from its snapshots"
        costs = f"{plan.lane_steps:,} lane-steps, {plan.apart_lane_steps:,} with a reference of each piece's own"
    else:
        how = "reference not shared: each piece trains its own, for snapshots would save nothing"
        costs = f"{plan.lane_steps:,} lane-steps"
    return [
        f"study {name}: {plan.num_trials} trials, one per setting and seed, in {plan.num_pieces} pieces (fold {fold})",
        how,
        f"({costs}, {plan.whole_lane_steps:,} with fold all)",
    ]


def locate(arguments: argparse.Namespace) -> int:
    """Print the transition of each setting."""
    read = _read(arguments)
    by = list(dict.fromkeys(arguments.by or ()))
    found = read.transitions
    if by:
        pooled = transitions(read.chaos, read.declared, by=by, evidence=read.evidence)
        found = with_kernels(pooled, read.cone, read.evidence.protocols, by)
    shown = select(found, arguments.indicator, arguments.magnitude)
    if arguments.json:
        print(to_json(transitions=records(shown)))
        return DONE
    print(_transitions_text(read.trials, read.declared, found, shown, by))
    return DONE


def compare(arguments: argparse.Namespace) -> int:
    """Print ratios between settings, and trends over numeric axes."""
    read = _read(arguments)
    found = comparing.compare(
        read.chaos,
        list(dict.fromkeys(arguments.by)),
        read.declared,
        evidence=read.evidence,
        indicator=arguments.indicator,
        magnitude=arguments.magnitude,
        trajectory=read.trajectory,
        transitions=read.transitions,
    )
    if arguments.json:
        tables = {"clocks": found.clocks, "agreements": found.agreements}
        beside = {name: records(table) for name, table in tables.items()}
        print(to_json(ratios=records(found.ratios), trends=records(found.trends), **beside))
        return DONE
    print(comparison_text(found))
    return DONE


def _read(arguments: argparse.Namespace) -> Together:
    """One study or several as one, their derived tables brought up to date."""
    with ExitStack() as scratch:
        studies = []
        for name in dict.fromkeys(arguments.study):
            study = _open(arguments, name)
            _require_chaos(study)
            studies.append(scratch.enter_context(up_to_date(study)))
            _warn(partial_text(read_status(study)))
        read = read_together(studies)
    for words in read.notes:
        _warn(words)
    return read


def more(arguments: argparse.Namespace) -> int:
    """Say which seeds and fork steps to add for a wanted precision."""
    study = _open(arguments)
    chaos = _require_chaos(study)
    declared = manifest.require_declared(study.path)
    said = advice(chaos, declared, read_evidence(study, declared), arguments.ratio)
    found = lines(study, said, declared)
    _warn(partial_text(read_status(study)))
    if arguments.json:
        print(to_json(advice=records(said), lines=[asdict(line) for line in found]))
        return DONE
    print(advice_text(said, found, arguments.ratio))
    return DONE


def check(arguments: argparse.Namespace) -> int:
    """Prove a study's store whole."""
    study = _open(arguments)
    findings = [*manifest.find_damage(study), *results.check(study)]
    for finding in findings:
        print(f"{finding.table}: {finding.what}: {finding.where}" + (f"; {finding.mend}" if finding.mend else ""))
    if findings:
        print("1 finding" if len(findings) == 1 else f"{len(findings)} findings")
        return FOUND
    trials = study.table("trials")
    print(f"study {study.name}: {len(trials)} trials, every key once, no half file, every sentinel exact")
    return DONE


def compact(arguments: argparse.Namespace) -> int:
    """Put a study's many files into few; the rows stay the same."""
    study = _open(arguments)
    before = sum(len(list((study.path / table).glob("[!.]*.parquet"))) for table in study.tables)
    with terminated_as_interrupt(), results.Lease.acquire(study.path) as lease:
        results.create(study.path, study=study.name, setting_columns=setting_columns())
        results.require_files(study, results.read_commits(study))
        results.sweep(study, lease_id=lease.id)
        results.compact(results.open(study.path), lease_id=lease.id)
        results.sweep(study, lease_id=lease.id)
    after = sum(len(list((study.path / table).glob("[!.]*.parquet"))) for table in study.tables)
    print(f"study {study.name}: {before:,} data files before, {after:,} now, the same rows")
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
        counted = _preset_plan(name)
        numbers = (counted.num_trials, counted.num_children, counted.num_kernels, counted.lane_steps)
        disk = f"{_disk_bytes(counted) / 1e6:.1f} MB"
        rows.append([name, *(f"{number:,}" for number in numbers), disk, search_spaces.preset_summary(name)])
    print(aligned(rows))
    print(
        "\ntwophase spaces NAME > my_sweep.yaml   prints one, to start from; twophase plan NAME counts what is missing"
    )
    return DONE


def _preset_plan(name: str) -> Plan:
    """What a preset would run; of one to be searched, as many settings as it asks for, each like its first example."""
    if "search" not in search_spaces.read_source(name):
        return make_plan(search_spaces.load(name))
    asked = search_spaces.load_search(name)
    return make_plan(asked.space(asked.examples()[:1])).times(asked.search.num_settings)


def status(arguments: argparse.Namespace) -> int:
    """Print how far a study is; failures make the exit status 1."""
    study = _open(arguments)
    found = read_status(study)
    while arguments.watch:
        clear = "\x1b[H\x1b[J" if is_live(sys.stdout) else ""
        print(f"{clear}{status_text(found)}", flush=True)
        if not found.driver:
            return FOUND if found.failures else DONE
        time.sleep(WATCH_SECONDS)
        found = read_status(study)
    print(to_json(study=found.study, **found.counts()) if arguments.json else status_text(found))
    return FOUND if found.failures else DONE


def report(arguments: argparse.Namespace) -> int:
    """Write the report and its figures."""
    study = _open(arguments)
    if not is_derived(study):
        raise EnvironmentFault(f"nothing can be written to {study.path}; report on a copy of the study")
    _print_written(study, write_report(study))
    return DONE


def _print_written(study: results.Study, page: Path) -> None:
    for figure in sorted((study.path / "figures").glob("*.png")):
        print(f"figure:  {figure}")
    print(f"report:  {page}")


def _require_chaos(study: results.Study) -> pd.DataFrame:
    chaos = study.table("chaos")
    if chaos.empty:
        failed = int((study.table("trials")["status"] == "failed").sum())
        why = f"its {failed} trials failed, see twophase status {study.name}" if failed else "run it first"
        raise BadInput(f"study '{study.name}' has no chaos rows yet; {why}")
    return chaos


def _root(arguments: argparse.Namespace) -> Path:
    return results.place(ROOT if arguments.root is None else arguments.root)


def _open(arguments: argparse.Namespace, name: str | None = None) -> results.Study:
    """Open a study by its folder or by its name under the root; a root that was named goes before this folder."""
    named = results.place(name or arguments.study)
    is_name = len(named.parts) == 1 and not results.is_remote(named)
    if (arguments.root is not None and is_name) or not results.is_study(named):
        named = _root(arguments) / named
    return results.open(named, setting_columns=setting_columns())
