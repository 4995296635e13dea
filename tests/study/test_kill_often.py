"""Two hundred trials, twenty kills: drivers, workers and raylets die at random moments, and the tables don't tell."""

import json
import os
import random
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

pytestmark = pytest.mark.slow

SPACE = {
    "name": "often",
    "base": {"data": "synthetic", "num_train": 200, "num_test": 50, "model": "mlp", "depth": 1, "width": 4},
    "axes": {"lr": {"log": [0.01, 0.5], "num": 20}},
    "seeds": 10,
    "chaos": {"fork_steps": [0, 5], "magnitudes": [1e-2], "num_directions": 1, "train_sample": 50, "path_points": 3},
}
SPACE["base"] |= {"num_steps": 20, "batch_size": 20}
ROUNDS = 20
TABLES = ("trials", "trajectory", "chaos", "divergence", "path", "transitions", "boundary")
VICTIMS = {"driver": "study.cli run", "worker": "JobRunner", "raylet": "/raylet/raylet", "store": "gcs_server"}
LONGEST = 12.0
"""Seconds until a kill, at most: Ray starts in about five, and all trials take some twenty."""


def family(driver: subprocess.Popen) -> list[psutil.Process]:
    try:
        leader = psutil.Process(driver.pid)
        return [leader, *leader.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def line_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def kill_one(driver: subprocess.Popen, kind: str) -> bool:
    """Kill a process of a kind, the driver if there is none; whether it was the driver."""
    chosen = [process for process in family(driver) if VICTIMS[kind] in line_of(process)]
    victim = chosen[0] if chosen and kind != "driver" else psutil.Process(driver.pid)
    victim.kill()
    return victim.pid == driver.pid


def end(driver: subprocess.Popen, members: list[psutil.Process]) -> None:
    """What a driver left behind goes as well: the machine is this test's alone."""
    for process in members:
        if process.is_running():
            process.kill()
    psutil.wait_procs(members, timeout=20)
    driver.wait()


def test_nothing_is_lost_and_nothing_doubled_whatever_dies(tmp_path: Path) -> None:
    unbroken = study.launch(SPACE, tmp_path / "unbroken")
    file = tmp_path / "often.yaml"
    file.write_text(json.dumps(SPACE))
    command = [sys.executable, "-m", "study.cli", "run", str(file), "--root", str(tmp_path / "runs")]
    drawn = random.Random(7)
    done, kinds = [], []
    for number in range(ROUNDS):
        driver = subprocess.Popen(
            command,
            cwd=tmp_path,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ,
        )
        time.sleep(drawn.uniform(2.0, LONGEST))
        kind = list(VICTIMS)[number % len(VICTIMS)]
        if driver.poll() is None:
            members = family(driver)
            is_dead = kill_one(driver, kind)
            kinds.append(kind)
            if not is_dead:  # the run may go on without it, or end; either way it is stopped a little later
                time.sleep(drawn.uniform(0.5, 3.0))
                members += family(driver)
            os.killpg(driver.pid, signal.SIGKILL)
            end(driver, members)
        done.append(len(list((tmp_path / "runs" / "often" / "_commits").glob("*.json"))))
    assert set(kinds) == set(VICTIMS), kinds
    assert cli.main(["run", str(file), "--root", str(tmp_path / "runs"), "--retry-failed"]) == 0
    again = results.open(tmp_path / "runs" / "often")
    assert results.check(again) == []
    assert len(again.table("trials")) == 200
    for name in TABLES:
        drop = {"columns": ["wall_seconds"], "errors": "ignore"}
        assert_frame_equal(again.table(name).drop(**drop), unbroken.table(name).drop(**drop), check_exact=True)
    print(f"commits after each kill: {done}; killed: {kinds}")
