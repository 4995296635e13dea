"""Whether Ray lives is seen from its daemons, or from its answers; leaving it never waits for what is gone."""

import shutil
import subprocess
import threading
import time

import pytest

from study import vitals
from study.nodes import Node
from study.progress import Progress
from study.vitals import ClusterVitals, LocalVitals, RayGone


@pytest.fixture
def daemons(tmp_path):
    """Two children of this process that are called as Ray's daemons are."""
    started = []
    for name in vitals.DAEMONS:
        shutil.copy("/bin/sleep", tmp_path / name)
        started.append(subprocess.Popen([tmp_path / name, "60"]))
    yield started
    for process in started:
        process.kill()
        process.wait()


def test_a_killed_daemon_ends_the_sweep_and_the_other_is_taken_along(daemons):
    watched = LocalVitals()
    progress = Progress(1, 1, watched.fault)
    assert watched.fault() == ""
    progress.on_step_begin(0, [])
    daemons[0].kill()
    # Not waited for: as Ray's would, it stays a zombie until somebody does.
    until = time.monotonic() + 10
    while not watched.fault() and time.monotonic() < until:
        time.sleep(0.01)
    assert watched.fault() == f"Ray's process {daemons[0].pid} on this machine was killed"
    with pytest.raises(RayGone, match=str(daemons[0].pid)):
        progress.on_step_begin(0, [])
    left = []
    watched.leave(lambda: left.append("Ray"))
    assert left == ["Ray"]
    assert daemons[1].wait(10) == -9


def test_a_living_ray_is_left_as_it_wants(daemons):
    left = []
    LocalVitals().leave(lambda: left.append("Ray"))
    assert left == ["Ray"]
    assert [process.poll() for process in daemons] == [None, None]


def until_fault(watched: ClusterVitals) -> str:
    until = time.monotonic() + 10
    while not (fault := watched.fault()) and time.monotonic() < until:
        time.sleep(0.01)
    return fault


def node(name):
    return {"NodeID": name, "Alive": True, "Resources": {"CPU": 4.0}}


def is_mine(nodes):
    return nodes == [node("mine")]


def refused():
    raise ConnectionError("refused\nand more")


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        (lambda: [node("other")], "the node of the Ray cluster at head:6379 that the driver joined is gone"),
        (refused, "the Ray cluster at head:6379 doesn't answer: refused"),
        (threading.Event().wait, "the Ray cluster at head:6379 was last heard of 0 s ago"),
    ],
)
def test_a_cluster_that_goes_is_told(monkeypatch, nodes, words):
    monkeypatch.setattr(vitals, "PULSE_SECONDS", 0.01)
    monkeypatch.setattr(vitals, "SILENT_SECONDS", 0.2)
    monkeypatch.setattr(vitals, "SHUTDOWN_SECONDS", 0.1)
    # The first answer came while the cluster was joined.
    answers = iter([[node("mine")]])
    watched = ClusterVitals(lambda: next(answers, None) or nodes(), "head:6379", is_mine)
    assert until_fault(watched) == words
    watched.leave(threading.Event().wait)  # and doesn't wait for it


def test_a_cluster_that_answers_is_no_fault(monkeypatch):
    monkeypatch.setattr(vitals, "PULSE_SECONDS", 0.01)
    asked = []
    watched = ClusterVitals(lambda: asked.append(1) or [node("mine")], "auto", is_mine)
    until = time.monotonic() + 10
    while len(asked) < 3 and time.monotonic() < until:
        time.sleep(0.01)
    assert len(asked) >= 3
    assert watched.fault() == ""
    assert watched.machines == (Node(4.0),)
    watched.leave(lambda: None)
