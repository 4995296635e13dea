"""Trials that raise: committed with their cause, told, left alone, and run again when asked. Ray is stood in for."""

import errno
import json
import os
import re
import shutil
import signal
import socket
import sys

import pytest
from pandas.testing import assert_frame_equal

import results
import study
from results import files
from study import cli, closing, cluster_address, driver, packages, trainable
from study.cluster import EnvironmentFault, config_of
from study.interruption import Terminated, sigterm_handler_kept, terminated_as_interrupt
from study.nodes import num_processors
from study.progress import Progress
from study.report import write_report
from study.trainable import JobRunner
from study.worker import Place
from twophase import __version__
from twophase.data import DATA

from .conftest import OneJob, given

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
    desk = OneJob(job)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainable, "desk_called", lambda _: desk)
        runner = JobRunner({**config_of("desk", place), "version": version})
        try:
            report = runner.step()
            while not report["done"]:
                report = runner.step()
        finally:
            runner.stop()
    assert [told["name"] for told in desk.ended] == ([] if report["fault"] else [job.name])
    return report


@pytest.fixture
def sabotage(monkeypatch, tmp_path):
    """Runs are done in this process, one job after another, and without the report, which has tests of its own."""
    plot = Sabotage()
    run_job = trainable.run_job

    def run_or_raise(job, place, write):
        plot.ran.append(job.trial.seed)
        if plot.error and job.trial.seed in plot.seeds:
            yield 1, 2
            raise plot.error
        yield from run_job(job, place, write)

    def run_jobs(jobs, crew):
        for job in given(jobs):
            report = do(job, crew.place)
            if report["fault"]:
                raise EnvironmentFault(report["fault"])

    monkeypatch.setattr(trainable, "prepare_process", lambda: None)
    monkeypatch.setattr(trainable, "run_job", run_or_raise)
    monkeypatch.setattr(driver, "run_jobs", run_jobs)
    monkeypatch.setattr(closing, "write_report", lambda _: None)
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
    assert "1 trial failed; the same run with --retry-failed does those again" in error
    assert "Traceback" not in error
    assert set(rows("chaos").seed) == {0}

    sabotage.ran.clear()
    assert run() == 1, "the failure still stands"
    assert sabotage.ran == []


def test_an_answer_without_some_trials_says_so(sabotage, capsys):
    partial = "twophase: partial: the answer rests on 1 of 2 planned trials, and on what is committed of the others"
    sabotage.error, sabotage.seeds = ValueError("once"), {1}
    assert run() == 1
    assert f"{partial} (1 failed)\n" in capsys.readouterr().err
    assert cli.main(["locate", "fails", "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == f"{partial} (1 failed)\n"
    assert set(json.loads(out)) == {"transitions"}
    for commit in results.read_commits(results.open("runs/fails")):
        if commit.status == "failed":
            (results.open("runs/fails").commits_path / f"{commit.stem}.json").unlink()
    assert cli.main(["locate", "fails"]) == 0
    assert capsys.readouterr().err == f"{partial} (1 waiting)\n"
    sabotage.error = None
    assert run() == 0
    assert "partial" not in capsys.readouterr().err


def test_many_failures_of_one_cause_are_one_line(sabotage, capsys):
    sabotage.error, sabotage.seeds = ValueError("all"), {0, 1}
    assert run() == 1
    error = capsys.readouterr().err
    assert error.count("ValueError: all") == 1
    assert "(seed 0) and 1 more failed: ValueError: all\n" in error or "(seed 1) and 1 more failed" in error
    assert "2 trials failed; the same run with --retry-failed" in error
    assert cli.main(["status", "fails"]) == 1
    told = capsys.readouterr().out
    assert told.count("ValueError: all") == 2, "each with its setting and seed"
    assert "--retry-failed" in told


@pytest.mark.parametrize(
    ("options", "cache", "words"),
    [
        (["--set", "data=mnist1d"], "fails.yaml", ["data sets can't be kept", "fails.yaml", "TWOPHASE_CACHE"]),
        (["--set", "data=mnist1d"], "fails.yaml/in", ["data sets can't be kept", "Not a directory"]),
        (["--address", "127.0.0.1:1"], "cache", ["no Ray cluster answers at 127.0.0.1:1", "refused"]),
        (["--address", "ray://127.0.0.1:1"], "cache", ["no Ray cluster answers at ray://127.0.0.1:1"]),
    ],
)
def test_what_the_machine_lacks_is_told_before_anything_is_made(
    sabotage, monkeypatch, tmp_path, capsys, options, cache, words
):
    monkeypatch.setenv("TWOPHASE_CACHE", str(tmp_path / cache))
    assert run(*options) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert all(word in line for word in words), line
    assert not (tmp_path / "runs").exists()


def test_an_address_at_which_something_else_listens(monkeypatch):
    monkeypatch.setattr(cluster_address, "JOIN_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(EnvironmentFault, match=f"no Ray cluster answers at {address} within"):
            cluster_address.nodes_at(address)


def test_more_workers_than_processors_are_cut(sabotage, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(driver, "run_jobs", lambda _, crew: asked.append(crew.workers))
    assert run("--workers", "1000000000000") == 0
    assert asked == [num_processors()]
    assert f"workers: {num_processors()}, the processors of this machine" in capsys.readouterr().err


def test_sigterm_ends_a_run_like_ctrl_c(sabotage, monkeypatch, capsys):
    run_jobs = driver.run_jobs

    def two_signals(jobs, crew):
        do(jobs.next_job(), crew.place)
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(driver, "run_jobs", two_signals)
    before = signal.getsignal(signal.SIGTERM)
    assert run() == 143
    assert capsys.readouterr().err.splitlines()[1:] == [
        "twophase: terminated; what was committed is kept, the same command goes on"
    ]
    assert signal.getsignal(signal.SIGTERM) is before
    assert len(rows()) == 1
    assert cli.main(["check", "fails"]) == 0
    monkeypatch.setattr(driver, "run_jobs", run_jobs)
    sabotage.ran.clear()
    assert run() == 0
    assert len(sabotage.ran) == 1


def test_sigterm_is_ours_although_ray_takes_it():
    """Ray puts handlers that exit in place of ours while it starts, and raises interrupts anew as the plain kind."""

    def of_ray(*_):
        raise SystemExit(1)

    with pytest.raises(Terminated), terminated_as_interrupt():  # noqa: PT012 - the block is what is tested
        with sigterm_handler_kept():
            signal.signal(signal.SIGTERM, of_ray)
            signal.signal(signal.SIGUSR1, signal.getsignal(signal.SIGUSR1))
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except KeyboardInterrupt:
            raise KeyboardInterrupt from None


def test_ctrl_c_stays_ctrl_c():
    with pytest.raises(KeyboardInterrupt) as told, terminated_as_interrupt():
        raise KeyboardInterrupt
    assert told.type is KeyboardInterrupt


def test_a_reader_who_goes_away_ends_a_command_quietly(monkeypatch, capsys):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert cli.main(["spaces", "quick"]) == 141
        monkeypatch.undo()
    assert capsys.readouterr().err == ""


def test_progress_counts_running_trials_when_another_took_the_place(capsys):
    line = "{}/5 trials done, {} failed, {} running;"
    progress = Progress(5, 100)
    progress.setup()

    def told(event, *arguments):
        event(*arguments)
        return [text.partition(" lane-steps")[0].rpartition(" ")[0] for text in capsys.readouterr().err.splitlines()]

    end, failed = {"failure": "", "lane_steps": 20}, {"failure": "why", "lane_steps": 20}
    assert told(progress.began, "a", 1) == [line.format(0, 0, 1)]
    assert told(progress.began, "b", 2) == []
    assert told(progress.ended, "a", end, 1) == []
    at_b = {"name": "b", "lane_steps": 10, "fault": ""}
    assert told(progress.on_trial_result, 0, [], None, at_b) == [], "the place of a is still vacant"
    assert told(progress.began, "c", 2) == [line.format(1, 0, 2)]
    assert told(progress.began, "d", 2) == [], "b is only being committed"
    assert told(progress.ended, "b", end, 2) == [line.format(2, 0, 2)]
    assert told(progress.ended, "c", failed, 1) == []
    assert told(progress.began, "e", 2) == [line.format(2, 1, 2)]
    assert told(progress.ended, "d", end, 1) == [line.format(3, 1, 1)], "nothing waits"
    assert told(progress.ended, "e", end, 0) == [line.format(4, 1, 0)]


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
    assert write_report(results.open("runs/fails")).stat().st_size > 0


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


@pytest.mark.parametrize(("number", "num_writes"), [(errno.ENOSPC, 2), (errno.EROFS, 6), (errno.ENOSPC, 9)])
def test_a_disk_that_fails_in_the_middle(sabotage, monkeypatch, capsys, number, num_writes):
    """As a full file system does, or one that turns read-only: every write from one on fails, the tables' too."""
    write, written = files.write_flushed, []

    def write_or_fail(path, data):
        written.append(path)
        if len(written) > num_writes:
            raise OSError(number, os.strerror(number), str(path.parent))
        write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_flushed", write_or_fail)
        assert run() == 3
    (line,) = [line for line in capsys.readouterr().err.splitlines() if not re.match(r"[\d,]+ trials: ", line)]
    assert line.startswith(f"twophase: [Errno {number}] {os.strerror(number)}: ")
    assert str(results.open("runs/fails").path) in line
    assert run() == 0
    assert cli.main(["check", "fails"]) == 0
    assert run("--name", "undisturbed") == 0
    for table in ("trials", "chaos", "trajectory", "path", "transitions"):
        ours, theirs = (results.open(f"runs/{name}").table(table) for name in ("fails", "undisturbed"))
        drop = {"columns": ["study", "wall_seconds"], "errors": "ignore"}
        assert_frame_equal(ours.drop(**drop), theirs.drop(**drop), check_exact=True)


def test_a_failed_write_says_where(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match=rf"No space left on device: '{tmp_path}'"):
        files.write_flushed(tmp_path / "new", b"data")


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


def test_a_worker_that_imports_another_results_package_computes_nothing(sabotage, tmp_path, monkeypatch, capsys):
    stray = tmp_path / "stray" / "results"
    stray.mkdir(parents=True)
    (stray / "__init__.py").write_text("def write_part(*_, **__): ...\n")
    driver_s = packages.ours()
    monkeypatch.setattr(trainable.packages, "ours", lambda: {**driver_s, "results": packages.read(stray)})
    assert run() == 3
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("twophase: ")]
    assert f"worker imports results from {stray}, which differs from the driver's in {driver_s['results'][0]}" in line
    assert sabotage.ran == []
    assert results.read_commits(results.open("runs/fails")) == []


def test_the_same_code_in_another_place_is_the_same(tmp_path):
    copy = tmp_path / "elsewhere"
    shutil.copytree(packages.ours()["results"][0], copy, ignore=shutil.ignore_patterns("__pycache__"))
    there = {**packages.ours(), "results": packages.read(copy)}
    assert packages.difference(there) == ""
    (copy / "store.py").write_text("# older\n")
    assert "worker imports results from" in packages.difference({**there, "results": packages.read(copy)})


def test_launch_returns_the_study_with_its_failures(sabotage, tmp_path):
    sabotage.error, sabotage.seeds = ValueError("again"), {0}
    made = study.launch(SPACE, tmp_path / "other")
    assert made.table("trials").set_index("seed").status.to_dict() == {0: "failed", 1: "ok"}
    sabotage.error = None
    made = study.launch(SPACE, tmp_path / "other", retry_failed=True)
    assert set(made.table("trials").status) == {"ok"}
