"""One real study, run once for all tests that read it."""

import json
import os
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

import study
from study import cli, closing, driver, searching
from study.desk import CLOSED
from study.worker import run_job

TINY = {
    "name": "tiny",
    "base": {"data": "digits", "num_steps": 60, "num_train": 600, "num_test": 100, "batch_size": 32},
    "settings": [{"model": "mlp", "depth": 2, "width": 16}, {"model": "cnn", "depth": 3, "width": 4}],
    "seeds": 2,
    "chaos": {"fork_steps": [0, 20, 40], "magnitudes": [1e-2, 1e-3], "num_directions": 1, "train_sample": 256},
    "cone": {"probe_size": 16, "steps": [0, 10, 30, 60], "sketch": 64, "children": [20]},
    "growth": {"fork_steps": [0, 40], "window": 8, "burn_in": 2},
    "switch": {"steps": [0, 20]},
}


# The command, in a process of its own, without the report: drawing takes longer than the trials of these tests.
NO_REPORT = """
import sys
from study import cli, closing
closing.write_report = lambda _: None
sys.exit(cli.main(sys.argv[1:]))
"""
COMMAND = [sys.executable, "-c", NO_REPORT]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """All tests of this folder in one process, where several share the test run: they share a study, and Ray.

    Those that kill runs share nothing with the others, wait for long, and are a group of their own.
    """
    for item in items:
        if Path(__file__).parent in item.path.parents:
            group = "killed" if item.path.name in ("test_kill.py", "test_interruption.py") else "study"
            item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """Data sets are generated into a folder of this session."""
    os.environ["TWOPHASE_CACHE"] = str(tmp_path_factory.mktemp("cache"))


class OneJob:
    """A desk with one job on it."""

    def __init__(self, job):
        self.slips = [(job.name, json.dumps(job.to_json()), False)]
        self.ended = []

    def fetch(self, _worker):
        return self.slips.pop() if self.slips else CLOSED

    def end(self, _worker, report):
        self.ended.append(report)


def given(jobs):
    """Jobs one after another, as they are proposed."""
    while (job := jobs.next_job()) is not None:
        yield job
        jobs.end(job, "")


@contextmanager
def without_ray():
    """Jobs run in this process, one after another, and no report ends it, where neither is what is tested."""

    def run_jobs(jobs, crew):
        for job in given(jobs):
            for _ in run_job(job, crew.place):
                pass

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(driver, "run_jobs", run_jobs)
        patch.setattr(searching, "run_jobs", run_jobs)
        patch.setattr(closing, "write_report", lambda _: None)
        yield


@pytest.fixture
def in_process():
    with without_ray():
        yield


@pytest.fixture(scope="session")
def whole(tmp_path_factory, _own_cache):
    """The tiny study, run at one go by two workers."""
    return study.launch(TINY, tmp_path_factory.mktemp("whole"), workers=2)


SPACE = """
name: tiny
base: {data: digits, num_steps: 60, num_train: 600, batch_size: 32}
settings: [{model: mlp, depth: 2, width: 16}, {model: cnn, depth: 3, width: 4}]
seeds: 2
chaos: {fork_steps: [0, 20, 40], magnitudes: [1e-2], num_directions: 1}
"""


@pytest.fixture
def answer(tmp_path, monkeypatch, capsys):
    """Run a command that must be refused, and return its one line."""

    def refuse(*_, **__):
        raise AssertionError("Ray was started")

    monkeypatch.setattr(driver, "run_jobs", refuse)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(SPACE)

    def ask(*argv: str) -> str:
        assert cli.main(argv) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        assert err.startswith("twophase: ")
        assert "Traceback" not in err
        return err

    return ask
