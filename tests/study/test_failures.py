"""Trials that raise: committed with their cause, told, left alone, and run again when asked. Ray is stood in for."""

import json
from dataclasses import asdict

import pytest

import results
import study
from study import cli, driver, trainable
from study.cluster import EnvironmentFault
from study.trainable import JobRunner
from study.worker import Place
from twophase import __version__
from twophase.data import DATA

SPACE = {
    "name": "fails",
    "base": {"data": "digits", "num_steps": 20, "num_train": 200, "num_test": 50, "depth": 1, "width": 8},
    "seeds": 2,
    "chaos": {"fork_steps": [0, 10], "magnitudes": [1e-2], "num_directions": 1, "train_sample": 100},
}
DISK_FULL = OSError(28, "No space left on device")


class Sabotage:
    """Makes the trials of chosen seeds raise; remembers which were run."""

    def __init__(self):
        self.error: Exception | None = None
        self.seeds: set[int] = set()
        self.ran: list[int] = []


def do(job, place: Place, *, version: str = __version__) -> dict:
    """What Ray does with one job, in this process; the runner's last report."""
    work = {"job": json.dumps(job.to_json()), "place": asdict(place), "version": version}
    runner = JobRunner({"work": work})
    try:
        report = runner.step()
        while not report["done"]:
            report = runner.step()
    finally:
        runner.stop()
    return report


@pytest.fixture
def sabotage(monkeypatch, tmp_path):
    """Runs are done in this process, one job after another."""
    plot = Sabotage()
    run_job = trainable.run_job

    def run_or_raise(job, place):
        plot.ran.append(job.trial.seed)
        if plot.error and job.trial.seed in plot.seeds:
            yield 1, 2
            raise plot.error
        yield from run_job(job, place)

    def run_jobs(jobs, place, **_):
        for job in jobs:
            report = do(job, place)
            if report["fault"]:
                raise EnvironmentFault(report["fault"])
        return {}

    monkeypatch.setattr(trainable, "prepare_process", lambda: None)
    monkeypatch.setattr(trainable, "run_job", run_or_raise)
    monkeypatch.setattr(driver, "run_jobs", run_jobs)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fails.yaml").write_text(json.dumps(SPACE))
    return plot


def run(*options) -> int:
    return cli.main(["run", "fails.yaml", *options])


def rows(table="trials"):
    return results.open("runs/fails").table(table)


def test_a_trial_that_raises_is_committed_told_and_left_alone(sabotage, capsys):
    sabotage.error, sabotage.seeds = ValueError("the first line\nand a second"), {1}
    assert run() == 1
    error = capsys.readouterr().err
    trials = rows().set_index("seed")
    assert trials.status.to_dict() == {0: "ok", 1: "failed"}
    assert trials.error.to_dict() == {0: "", 1: "ValueError: the first line"}
    assert f"trial {trials.trial_key[1]} (seed 1) failed: ValueError: the first line\n" in error
    assert "Traceback" not in error
    assert set(rows("chaos").seed) == {0}

    sabotage.ran.clear()
    assert run() == 1, "the failure still stands"
    assert sabotage.ran == []


def test_check_finds_nothing_wrong_with_a_store_that_holds_a_failure(sabotage):
    sabotage.error, sabotage.seeds = ValueError("once"), {1}
    assert run() == 1
    assert cli.main(["check", "fails"]) == 0


def test_retry_failed_runs_it_again_and_only_it(sabotage, capsys):
    sabotage.error, sabotage.seeds = ValueError("once"), {1}
    assert run() == 1
    sabotage.error = None
    sabotage.ran.clear()
    assert run("--retry-failed") == 0
    assert sabotage.ran == [1]
    assert set(rows().status) == {"ok"}
    assert set(rows().error) == {""}
    assert set(rows("chaos").seed) == {0, 1}
    sabotage.ran.clear()
    assert run("--retry-failed") == 0
    assert sabotage.ran == []


def test_a_retry_that_fails_again_tells_the_new_cause(sabotage):
    sabotage.error, sabotage.seeds = ValueError("once"), {1}
    assert run() == 1
    sabotage.error = RuntimeError("twice")
    assert run("--retry-failed") == 1
    assert rows().set_index("seed").error[1] == "RuntimeError: twice"
    assert len(rows()) == 2


def test_all_trials_failed(sabotage, capsys):
    sabotage.error, sabotage.seeds = ValueError("all"), {0, 1}
    assert run() == 1
    assert set(rows().status) == {"failed"}
    assert "no transition was measured" in capsys.readouterr().out
    assert rows("chaos").empty


def test_a_failed_extension_keeps_the_rows_that_were_there(sabotage):
    assert run() == 0
    before = rows("chaos")
    sabotage.error, sabotage.seeds = ValueError("extension"), {0}
    assert run("--set", "chaos.magnitudes=[1e-2,1e-3]") == 1
    after = rows("chaos")
    assert (after.magnitude[after.seed == 0] != 1e-3).all()
    assert (after.magnitude[after.seed == 1] == 1e-3).any()
    assert len(after[after.magnitude != 1e-3]) == len(before)
    assert rows().set_index("seed").status.to_dict() == {0: "failed", 1: "ok"}


def test_a_dataset_that_cannot_be_made_fails_its_trials(sabotage, monkeypatch):
    def load(*_):
        raise RuntimeError("no such archive")

    broken = type(DATA["digits"])(**{**vars(DATA["digits"]), "load": load})
    monkeypatch.setitem(DATA, "digits", broken)
    assert run() == 1
    assert set(rows().error) == {"RuntimeError: no such archive"}


def test_a_full_disk_is_the_environment_s_fault_and_no_trial_s(sabotage, capsys):
    sabotage.error, sabotage.seeds = DISK_FULL, {0}
    assert run() == 3
    error = capsys.readouterr().err
    assert "No space left on device" in error
    assert "Traceback" not in error
    assert "failed" not in set(rows().status)
    sabotage.error = None
    assert run() == 0
    assert len(rows()) == 2


def test_a_worker_of_another_version_computes_nothing(sabotage, tmp_path):
    from search_spaces import load
    from study.columns import setting_columns
    from study.planner import make_plan

    results.create(tmp_path / "fails", study="fails", setting_columns=setting_columns())
    with results.Lease.acquire(tmp_path / "fails") as lease:
        place = Place(str(tmp_path / "fails"), str(tmp_path / "cache"), lease.id)
        report = do(make_plan(load(SPACE)).jobs[0], place, version="0.0.0")
    assert "0.0.0" in report["fault"]
    assert __version__ in report["fault"]
    assert results.read_commits(results.open(tmp_path / "fails")) == []


def test_launch_returns_the_study_with_its_failures(sabotage, tmp_path):
    sabotage.error, sabotage.seeds = ValueError("again"), {0}
    made = study.launch(SPACE, tmp_path / "other")
    assert made.table("trials").set_index("seed").status.to_dict() == {0: "failed", 1: "ok"}
    sabotage.error = None
    made = study.launch(SPACE, tmp_path / "other", retry_failed=True)
    assert set(made.table("trials").status) == {"ok"}
