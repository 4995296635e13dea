"""A killed driver, a killed worker, Ctrl-C, SIGTERM: nothing is lost, nothing doubled, nothing left running."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from pandas.testing import assert_frame_equal

import results
import study
from study import cli

from .conftest import TINY

SPACE = {**TINY, "name": "killed", "base": {**TINY["base"], "num_steps": 400}}
TABLES = ("trials", "trajectory", "chaos", "divergence", "path", "cone", "kernel", "transitions", "boundary")
SECONDS = 120


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, _own_cache):
    return study.launch(SPACE, tmp_path_factory.mktemp("unbroken"))


def start(folder: Path) -> subprocess.Popen:
    file = folder / "killed.yaml"
    file.write_text(json.dumps(SPACE))
    command = [sys.executable, "-m", "study.cli", "run", str(file), "--root", str(folder / "runs")]
    return subprocess.Popen(
        command, cwd=folder, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=os.environ
    )


def wait_for(condition, driver: subprocess.Popen):
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        assert driver.poll() is None, f"the driver ended too early: {driver.stderr.read()!r}"
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"nothing after {SECONDS} s")


def commits(folder: Path) -> list[Path]:
    return list((folder / "runs" / "killed" / "_commits").glob("*.json"))


def workers(driver: subprocess.Popen) -> list[psutil.Process]:
    return [p for p in psutil.Process(driver.pid).children(recursive=True) if "JobRunner" in command_line(p)]


def command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # it ended while we looked, which is no failure of the run
        return ""


def assert_whole(folder: Path, unbroken: results.Study) -> None:
    again = results.open(folder / "runs" / "killed")
    for name in TABLES:
        drop = {"columns": ["wall_seconds"], "errors": "ignore"}
        assert_frame_equal(again.table(name).drop(**drop), unbroken.table(name).drop(**drop), check_exact=True)
    assert len(again.table("trials")) == 4
    assert cli.main(["check", str(again.path)]) == 0


def test_sigkill_of_the_whole_group_and_the_same_command_at_once(unbroken, tmp_path):
    first = start(tmp_path)
    wait_for(lambda: commits(tmp_path), first)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    first.stderr.close()
    assert len(commits(tmp_path)) < 4 * 2
    assert cli.main(["run", str(tmp_path / "killed.yaml"), "--root", str(tmp_path / "runs")]) == 0
    assert_whole(tmp_path, unbroken)


def test_a_killed_worker(unbroken, tmp_path):
    run = start(tmp_path)
    victim = wait_for(lambda: workers(run), run)[0]
    victim.kill()
    _, error = run.communicate(timeout=SECONDS)
    assert run.returncode == 0, error
    assert_whole(tmp_path, unbroken)


# Without Ray, test_failures.py sees how SIGTERM ends; Ray's own handlers are seen here, in the slow run.
@pytest.mark.parametrize(
    ("number", "word"),
    [(signal.SIGINT, b"interrupted"), pytest.param(signal.SIGTERM, b"terminated", marks=pytest.mark.slow)],
)
def test_ctrl_c_and_sigterm_keep_what_is_there_and_leave_nothing_running(tmp_path, number, word):
    run = start(tmp_path)
    wait_for(lambda: commits(tmp_path), run)
    family = psutil.Process(run.pid).children(recursive=True)
    run.send_signal(number)
    _, error = run.communicate(timeout=SECONDS)
    assert run.returncode == 128 + number
    assert error.count(b"twophase: ") == error.count(b"twophase: " + word) == 1
    assert b"Traceback" not in error
    _, alive = psutil.wait_procs(family, timeout=15)
    assert alive == []
    assert len(results.open(tmp_path / "runs" / "killed").table("trials")) >= 1
