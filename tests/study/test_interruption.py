"""Ctrl-C in a terminal, which all processes in the foreground get: once what runs ends, twice nothing runs any more."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from pandas.testing import assert_frame_equal

import results
from study import cli
from study.interruption import Interruption, first_ctrl_c_only_asks
from study.nodes import Node, num_fitting
from study.progress import Progress

from .conftest import TINY
from .test_kill import TABLES, family

NUM_TRIALS = 5
CHAOS = {"fork_steps": [0, 20, 40], "magnitudes": [1e-2], "num_directions": 1, "train_sample": 256}
PLAIN = {
    "name": "asked",
    "base": {**TINY["base"], "num_steps": 240, "model": "mlp", "depth": 2, "width": 16},
    "seeds": NUM_TRIALS,
    "chaos": CHAOS,
}
REFINING = {**PLAIN, "chaos": {**CHAOS, "fork_steps": {"refine": {"start": [0, 120], "factor": 2, "most": 2}}}}
SOUGHT = {
    **PLAIN,
    "axes": {"lr": {"loguniform": [0.01, 0.3]}},
    "seeds": 2,
    "search": {
        "goals": [{"goal": "transition_step", "direction": "minimize"}],
        "num_settings": 5,
        "sampler": "random",
    },
}
CTRL_C, SECONDS = b"\x03", 120
# A process whose terminal it is, so that the terminal's Ctrl-C goes to it and to all that it starts.
ATTACH = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"


@dataclass
class Terminal:
    """A command in a terminal of its own."""

    driver: subprocess.Popen
    keyboard: int
    shown: bytes = b""
    reader: threading.Thread = field(init=False)

    def __post_init__(self):
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        try:
            while text := os.read(self.keyboard, 4096):
                self.shown += text
        except OSError:  # how Linux tells that the other end is closed
            return

    def type(self, keys):
        os.write(self.keyboard, keys)

    def wait_for(self, condition):
        until = time.monotonic() + SECONDS
        while not condition():
            assert self.driver.poll() is None, self.shown
            assert time.monotonic() < until, self.shown
            time.sleep(0.02)

    def end(self):
        code = self.driver.wait(SECONDS)
        self.reader.join(SECONDS)
        return code, self.shown.decode()


@contextmanager
def terminal(command, folder):
    keyboard, screen = pty.openpty()
    argv = [sys.executable, "-c", ATTACH, sys.executable, "-m", "study.cli", *command]
    driver = subprocess.Popen(
        argv, cwd=folder, stdin=screen, stdout=screen, stderr=screen, start_new_session=True, env=os.environ
    )
    os.close(screen)
    try:
        yield Terminal(driver, keyboard)
    finally:
        if driver.poll() is None:
            os.killpg(driver.pid, signal.SIGKILL)
            driver.wait()
        os.close(keyboard)


def commits(folder: Path) -> set[str]:
    return {path.name.partition("-")[0] for path in (folder / "runs" / "asked" / "_commits").glob("*.json")}


def beating(folder: Path) -> set[str]:
    names = (path.name for path in (folder / "runs" / "asked" / "_running").glob("[!.]*.json"))
    return {re.split(r"[-.]", name)[0] for name in names}


def interrupt(folder: Path, command: list[str], times: int) -> None:
    """Press Ctrl-C when there is a commit and another trial has begun."""
    with terminal(command, folder) as seen:
        seen.wait_for(lambda: commits(folder) and beating(folder) - commits(folder))
        below, running, there = family(seen.driver), beating(folder), commits(folder)
        seen.type(CTRL_C)
        seen.wait_for(lambda: b"Ctrl-C again stops now" in seen.shown)
        if times == 2:
            seen.type(CTRL_C)
        code, shown = seen.end()
    assert code == 130, shown
    assert shown.count("twophase: interrupted; what was committed is kept, the same command goes on") == 1
    assert "Traceback" not in shown
    assert len(re.findall(r"twophase: finishing (the running trial|2 running trials); Ctrl-C again", shown)) == 1
    _, alive = psutil.wait_procs(below, timeout=15)
    assert alive == []
    if times == 1:
        assert running <= commits(folder), "what ran has ended"
        assert len(commits(folder) - running - there) <= 2, "and of each worker what it began as the key was pressed"
    study = results.open(folder / "runs" / "asked")
    assert set(study.table("trials")["trial_key"]) == commits(folder)
    assert set(study.table("trials")["status"]) == {"ok"}
    assert not study.table("transitions").empty
    assert results.check(study) == []


def equal(left: results.Study, right: results.Study) -> None:
    for name in TABLES:
        drop = {"columns": ["wall_seconds", "lane_steps", "lane_width"], "errors": "ignore"}
        ours, theirs = (study.table(name).drop(**drop) for study in (left, right))
        assert_frame_equal(ours, theirs, check_exact=True)


@pytest.mark.parametrize(
    ("space", "times"),
    [
        (PLAIN, 1),
        pytest.param(PLAIN, 2, marks=pytest.mark.slow),
        pytest.param(REFINING, 1, marks=pytest.mark.slow),
        pytest.param(REFINING, 2, marks=pytest.mark.slow),
    ],
)
def test_once_or_twice_and_the_same_command_again(space, times, tmp_path, in_process):
    (tmp_path / "asked.yaml").write_text(json.dumps(space))
    interrupt(tmp_path, ["run", "asked.yaml", "--workers", "2"], times)
    assert len(commits(tmp_path)) < NUM_TRIALS
    for root in ("runs", "undisturbed"):
        assert cli.main(["run", str(tmp_path / "asked.yaml"), "--root", str(tmp_path / root)]) == 0
    equal(results.open(tmp_path / "runs" / "asked"), results.open(tmp_path / "undisturbed" / "asked"))
    assert cli.main(["check", str(tmp_path / "runs" / "asked")]) == 0


@pytest.mark.slow
def test_a_search_that_was_asked_to_end_goes_on(tmp_path, in_process, capsys):
    (tmp_path / "asked.yaml").write_text(json.dumps(SOUGHT))
    interrupt(tmp_path, ["search", "asked.yaml", "--workers", "2"], times=1)
    study = results.open(tmp_path / "runs" / "asked")
    before = study.table("trials")
    assert len(before) < 10
    command = ["search", str(tmp_path / "asked.yaml"), "--root", str(tmp_path / "runs"), "--json"]
    assert cli.main(command) == 0
    found = json.loads(capsys.readouterr().out)
    trials = study.table("trials")
    assert (len(found["settings"]), len(trials)) == (5, 10)
    assert set(before["trial_key"]) < set(trials["trial_key"])
    assert cli.main(["check", str(study.path)]) == 0


def test_the_first_only_asks_and_the_second_raises():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), first_ctrl_c_only_asks() as interruption:  # noqa: PT012 - what is tested
        os.kill(os.getpid(), signal.SIGINT)
        assert interruption.is_asked
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("the second did nothing")
    assert signal.getsignal(signal.SIGINT) is before


def test_nothing_runs_yet():
    interruption = Interruption()
    progress = Progress(5, 100, interruption=interruption)
    progress.on_step_begin(0, [])
    interruption.is_asked = True
    with pytest.raises(KeyboardInterrupt):
        progress.on_step_begin(0, [])


def test_room_is_that_of_each_machine():
    machines = [Node(8.0, 2.0), Node(3.0), Node(16.0, 1.0)]
    assert num_fitting(machines, 1, 0) == 27
    assert num_fitting(machines, 2, 0) == 4 + 1 + 8
    assert num_fitting(machines, 1, 0.25) == 8 + 0 + 4
    assert num_fitting(machines, 4, 0.3) == 2 + 0 + 3, "a share is of a single GPU"
    assert num_fitting(machines, 1, 2) == 1
    assert num_fitting([], 1, 0) == 0
