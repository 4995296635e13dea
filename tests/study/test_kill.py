"""A killed driver, worker or daemon of Ray's, SIGTERM: nothing is lost, doubled, or left running.

The slow run kills all of them at random moments, in twenty rounds of one study.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
from pandas.testing import assert_frame_equal

import results
import study
from study import cli
from study.status import read_status, status_text

from .conftest import COMMAND, TINY, without_ray

SPACE = {**TINY, "name": "killed"}
NUM_TRIALS = 4
TABLES = ("trials", "trajectory", "chaos", "divergence", "path", "cone", "kernel", "transitions", "boundary")
SECONDS = 120
REFINING = {
    "name": "killed",
    "base": {**TINY["base"], "model": "mlp", "depth": 2, "width": 16, "num_steps": 200},
    "seeds": 5,
    "chaos": {
        "fork_steps": {"refine": {"start": [0, 10, 100], "factor": 1.25, "most": 4}},
        "magnitudes": [1e-2],
        "num_directions": 1,
        "train_sample": 256,
    },
}
# Enough of it that a run hasn't ended when the signal comes, on any machine and under any load.
LONG = {**SPACE, "seeds": 60}
MANY = {
    "name": "killed",
    "base": {**TINY["base"], "num_steps": 40, "num_train": 200, "num_test": 50, "depth": 1, "width": 8},
    "axes": {"lr": {"log": [0.01, 0.5], "num": 10}},
    "seeds": 20,
    "chaos": {"fork_steps": [0, 20], "magnitudes": [1e-2], "num_directions": 1, "train_sample": 100},
}
VICTIMS = ("driver", "worker", "raylet", "driver", "everything", "worker", "gcs_server", "driver", "worker", "raylet")
NUM_ROUNDS = 20


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, _own_cache):
    with without_ray():
        return study.launch(SPACE, tmp_path_factory.mktemp("unbroken"))


def start(folder: Path, space=SPACE) -> subprocess.Popen:
    file = folder / "killed.yaml"
    file.write_text(json.dumps(space))
    command = [*COMMAND, "run", str(file), "--root", str(folder / "runs")]
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


def beating(folder: Path) -> list[Path]:
    return list((folder / "runs" / "killed" / "_running").glob("[!.]*.json"))


def family(driver: subprocess.Popen) -> list[psutil.Process]:
    try:
        return psutil.Process(driver.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def workers(driver: subprocess.Popen) -> list[psutil.Process]:
    """Processes that do jobs; Ray titles them by the class, or by the wrapper that has its resources."""
    return [p for p in family(driver) if "JobRunner" in command_line(p) or "ResourceTrainable" in command_line(p)]


def command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # it ended while we looked, which is no failure of the run
        return ""


def assert_whole(
    folder: Path, unbroken: results.Study, num_trials: int = NUM_TRIALS, but: tuple[str, ...] = ("wall_seconds",)
) -> None:
    again = results.open(folder / "runs" / "killed")
    for name in TABLES:
        drop = {"columns": list(but), "errors": "ignore"}
        assert_frame_equal(again.table(name).drop(**drop), unbroken.table(name).drop(**drop), check_exact=True)
    assert len(again.table("trials")) == num_trials
    assert cli.main(["check", str(again.path)]) == 0


def rounds(folder: Path) -> Counter[str]:
    """How many parts of each trial are committed."""
    return Counter(path.name.partition("-")[0] for path in commits(folder))


def test_sigkill_of_a_refining_run_and_all_below_it_and_the_same_command(tmp_path, in_process, capsys):
    run = start(tmp_path, REFINING)
    folder = tmp_path / "runs" / "killed"
    wait_for(lambda: max(rounds(tmp_path).values(), default=0) > 1, run)
    wait_for(lambda: counted(folder, capsys)["running"], run)
    there = rounds(tmp_path)
    os.killpg(run.pid, signal.SIGKILL)
    run.communicate()
    after = counted(folder, capsys)
    assert after["running"] == 0
    assert after["planned"] > 0, "not all of it was there"
    assert "driver: none; run the study's space again" in status_text(read_status(results.open(folder)))

    undisturbed = study.launch(REFINING, tmp_path / "undisturbed")
    assert study.launch(REFINING, tmp_path / "runs").path == folder
    assert sum(there.values()) < sum(rounds(tmp_path).values())
    assert len(undisturbed.table("chaos")["fork_step"].unique()) > 3, "it refines"
    # A round that was killed may leave a snapshot, from which the same round then goes on, for less.
    assert_whole(tmp_path, undisturbed, num_trials=5, but=("wall_seconds", "lane_steps"))


def counted(folder: Path, capsys) -> dict[str, int]:
    capsys.readouterr()
    assert cli.main(["status", str(folder), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_killed_worker(unbroken, tmp_path):
    run = start(tmp_path)
    wait_for(lambda: workers(run) and beating(tmp_path), run)
    workers(run)[0].kill()
    _, error = run.communicate(timeout=SECONDS)
    assert run.returncode == 0, error
    assert_whole(tmp_path, unbroken)


# Without Ray, test_failures.py sees how SIGTERM ends; Ray's own handlers are seen here, in the slow run.
@pytest.mark.slow
def test_sigterm_keeps_what_is_there_and_leaves_nothing_running(tmp_path):
    run = start(tmp_path, LONG)
    wait_for(lambda: commits(tmp_path), run)
    below = family(run)
    run.terminate()
    _, error = run.communicate(timeout=SECONDS)
    assert run.returncode == 128 + signal.SIGTERM
    assert error.count(b"twophase: ") == error.count(b"twophase: terminated") == 1
    assert b"Traceback" not in error
    _, alive = psutil.wait_procs(below, timeout=15)
    assert alive == []
    assert len(results.open(tmp_path / "runs" / "killed").table("trials")) >= 1


def daemon(driver: subprocess.Popen, name: str) -> list[psutil.Process]:
    return [p for p in family(driver) if psutil.pid_exists(p.pid) and p.name() == name]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["raylet", "gcs_server"])
def test_a_killed_daemon_of_ray_ends_the_run_in_one_line(unbroken, tmp_path, name):
    run = start(tmp_path)
    wait_for(lambda: workers(run) and commits(tmp_path), run)
    below = family(run)
    daemon(run, name)[0].kill()
    _, error = run.communicate(timeout=SECONDS)
    assert run.returncode == 3
    assert error.count(b"twophase: Ray's process") == error.count(b"twophase: ") == 1
    assert b"Traceback" not in error
    _, alive = psutil.wait_procs(below, timeout=15)
    assert alive == []
    assert cli.main(["check", str(tmp_path / "runs" / "killed")]) == 0
    assert cli.main(["run", str(tmp_path / "killed.yaml"), "--root", str(tmp_path / "runs")]) == 0
    assert_whole(tmp_path, unbroken)


@pytest.mark.slow
def test_a_killed_desk_ends_the_run_in_one_line(tmp_path):
    run = start(tmp_path, LONG)
    wait_for(lambda: workers(run) and commits(tmp_path), run)
    below = family(run)
    (desk,) = [process for process in below if "Desk" in command_line(process)]
    desk.kill()
    _, error = run.communicate(timeout=SECONDS)
    assert run.returncode == 3, error
    assert error.count(b"hands out jobs was killed") == error.count(b"twophase: ") == 1
    assert b"Traceback" not in error
    _, alive = psutil.wait_procs(below, timeout=15)
    assert alive == []
    assert cli.main(["check", str(tmp_path / "runs" / "killed")]) == 0


def strike(run: subprocess.Popen, victim: str, chance: random.Random) -> None:
    """Kill one of a kind; what the death of a worker leaves running dies a moment later as well."""
    if victim == "everything":
        os.killpg(run.pid, signal.SIGKILL)
        return
    for _ in range(2 if victim == "worker" else 0):
        wait_for(lambda: workers(run), run)
        time.sleep(chance.uniform(0, 0.5))
        chance.choice(workers(run) or [psutil.Process(run.pid)]).kill()
        time.sleep(chance.uniform(0, 0.5))
    for process in daemon(run, victim) or [psutil.Process(run.pid)]:
        process.kill()


@pytest.mark.slow
def test_twenty_rounds_of_kills_at_random_moments(tmp_path):
    undisturbed = study.launch(MANY, tmp_path / "undisturbed")
    chance, seen, grown = random.Random(2), [], []
    for number in range(NUM_ROUNDS):
        victim, before = VICTIMS[number % len(VICTIMS)], len(commits(tmp_path))
        run = start(tmp_path, MANY)
        if number % 4:  # each fourth round is struck as it starts
            enough = before + chance.randint(1, 3)
            wait_for(lambda: len(commits(tmp_path)) >= enough, run)  # noqa: B023 - called at once
        time.sleep(chance.uniform(0, 0.5))
        seen += family(run)
        strike(run, victim, chance)
        _, error = run.communicate(timeout=SECONDS)
        assert run.returncode in ({3, -9} if victim in ("raylet", "gcs_server") else {-9}), error
        grown.append(len(commits(tmp_path)) - before)
    print(f"commits of the rounds: {grown}")
    assert sum(map(bool, grown)) >= 3 * NUM_ROUNDS // 4
    assert sum(grown) < 200
    assert cli.main(["run", str(tmp_path / "killed.yaml"), "--root", str(tmp_path / "runs")]) == 0
    assert_whole(tmp_path, undisturbed, num_trials=200)
    _, alive = psutil.wait_procs(seen, timeout=60)
    assert alive == []
    shutil.rmtree(tmp_path)
