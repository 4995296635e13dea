"""Status, from the study's folder alone: while it runs, after a kill, after failures; on all four architectures."""

import json
import math
from dataclasses import replace
from itertools import count

import pytest

import results
import search_spaces
from study import cli, driver, trainable
from study.cluster import config_of
from study.columns import setting_columns
from study.planner import make_plan
from study.status import Status, read_status, seconds_left, status_text
from study.trainable import JobRunner
from twophase.children import total_lane_steps

from .conftest import OneJob, given, without_ray

ZOO = {
    "name": "zoo",
    "base": {"data": "digits", "num_steps": 40, "num_train": 300, "num_test": 60, "batch_size": 32},
    "settings": [
        {"model": "mlp", "depth": 2, "width": 8},
        {"model": "cnn", "depth": 2, "width": 4},
        {"model": "resnet", "depth": 8, "width": 4, "augmentation": "shift"},
        {"model": "vgg", "depth": 11, "width": 4, "warmup_steps": 5},
    ],
    "axes": {"lr": [0.05, 0.1]},
    "seeds": 1,
    "chaos": {"fork_steps": [0, 10], "magnitudes": [1e-2], "num_directions": 1, "train_sample": 128},
    "cone": {"probe_size": 10, "steps": [0, 20, 40]},
}
NUM_TRIALS = 8


def status(path, capsys):
    """What `--json` prints, and the exit status."""
    capsys.readouterr()
    code = cli.main(["status", str(path), "--json"])
    return json.loads(capsys.readouterr().out), code


def test_time_left_goes_by_each_settings_own_speed():
    space = search_spaces.load({**ZOO, "settings": ZOO["settings"][:2], "axes": {}, "seeds": 2})
    plan = make_plan(space)
    first, second = (point.key for point in space.settings)
    cost = {job.trial.key: total_lane_steps(job.trial, job.todo) for job in plan.jobs}
    (key, *_) = (job.trial.key for job in plan.jobs if job.trial.setting.key == second)
    beat = results.Heartbeat(key, "lease", "host", 1, 50, cost[key], 5.0)
    found = Status("zoo", plan, [(beat, 0.0)], [], "host", True, 0, {first: 20.0})
    of_first = sum(cost[job.trial.key] for job in plan.jobs if job.trial.setting.key == first)
    of_second = sum(cost[job.trial.key] for job in plan.jobs if job.trial.setting.key == second)
    assert seconds_left(found) == pytest.approx(of_first / 20 + (of_second - 50) / 10)
    assert f"about {seconds_left(found):.0f} s left" in status_text(found) or "min left" in status_text(found)
    assert math.isnan(seconds_left(replace(found, running=[])))
    assert "left" not in status_text(replace(found, running=[]))


def test_while_it_runs_after_it_was_broken_off_and_when_done(tmp_path, capsys, monkeypatch):
    """Of a run on Ray, and after SIGKILL, test_kill.py asks the same."""
    (tmp_path / "zoo.yaml").write_text(json.dumps(ZOO))
    folder, seen = tmp_path / "runs" / "zoo", []

    def look():
        counts, code = status(folder, capsys)
        assert code == 0
        assert counts["trials"] == NUM_TRIALS == sum(counts[k] for k in ("planned", "done", "failed", "running"))
        assert "driver: host" in status_text(read_status(results.open(folder)))
        seen.append((counts["done"], counts["running"]))

    def broken_off(jobs, crew):
        for number, job in enumerate(given(jobs)):
            monkeypatch.setattr(trainable, "desk_called", lambda _, job=job: OneJob(job))
            runner = JobRunner(config_of("desk", crew.place))
            for step in count():
                if runner.step()["done"]:
                    break
                # At times, and when the last rows are committed, but the worker isn't done.
                if step % 20 == 0 or runner._lane_steps == runner._total:
                    look()
                if number == 2:
                    raise KeyboardInterrupt

    monkeypatch.setattr(trainable, "REPORT_SECONDS", 0.0)
    monkeypatch.setattr(trainable, "prepare_process", lambda: None)
    command = ["run", str(tmp_path / "zoo.yaml"), "--root", str(tmp_path / "runs")]
    with monkeypatch.context() as patch:
        patch.setattr(driver, "run_jobs", broken_off)
        assert cli.main(command) == 130
    assert {(0, 1), (1, 1), (2, 1)} <= set(seen)

    counts, _ = status(folder, capsys)
    assert counts["running"] == 0
    assert 0 < counts["planned"] < NUM_TRIALS
    assert "driver: none; run the study's space again to go on" in status_text(read_status(results.open(folder)))

    with without_ray():
        assert cli.main(command) == 0
    counts, code = status(folder, capsys)
    assert code == 0
    assert (counts["done"], counts["planned"], counts["running"], counts["failed"]) == (NUM_TRIALS, 0, 0, 0)
    assert cli.main(["check", str(folder)]) == 0
    trials = results.open(folder).table("trials")
    assert trials.is_sentinel_exact.all()
    assert set(trials.model) == {"mlp", "cnn", "resnet", "vgg"}
    capsys.readouterr()
    assert cli.main(["locate", str(folder), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["transitions"]) == NUM_TRIALS


def test_a_study_whose_spaces_are_not_known_counts_what_is_there(tmp_path, capsys):
    made = results.create(tmp_path / "old", study="old", setting_columns=setting_columns())
    counts, code = status(made.path, capsys)
    assert (counts["trials"], code) == (0, 0)
    assert "isn't known" in status_text(read_status(made))


def test_heartbeats_of_a_driver_that_is_gone_are_no_news(tmp_path):
    made = results.create(tmp_path / "s", study="s", setting_columns=setting_columns())
    heartbeat = results.Heartbeat("abc", "some lease", "host", 1, 10, 100, 2.0)
    results.beat(made, heartbeat)
    assert results.running(made) == []
    with results.Lease.acquire(made.path) as lease:
        assert results.running(made) == []
        mine = results.Heartbeat("abd", lease.id, "host", 1, 10, 100, 2.0)
        results.beat(made, mine)
        ((found, silent),) = results.running(made)
        assert found == mine
        assert 0 <= silent < 60
        results.end_beat(made, "abd")
        assert results.running(made) == []
        results.beat(made, mine)
        results.sweep(made, lease_id=lease.id)
        assert results.running(made) == []
        assert list((made.path / "_running").iterdir()) == []
