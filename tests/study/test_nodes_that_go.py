"""Several Ray nodes on one machine, one of which goes in the middle of a sweep."""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import results

pytestmark = pytest.mark.slow

NUM_SEEDS, SHARE = 24, 0.25
SPACE = {
    "name": "gone",
    "base": {"data": "synthetic", "num_train": 400, "num_test": 50, "model": "mlp", "depth": 3, "width": 32},
    "seeds": NUM_SEEDS,
    "chaos": {"fork_steps": [0, 100], "magnitudes": [1e-2], "num_directions": 1, "train_sample": 50, "path_points": 3},
}
SPACE["base"] |= {"num_steps": 1500, "batch_size": 20, "device": "cpu"}
SECONDS = 300


@pytest.fixture
def cluster(monkeypatch):
    """A head without room for trials, and two nodes with one GPU each, by name alone."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = [made.add_node(num_cpus=4, num_gpus=1, include_dashboard=False) for _ in range(2)]
    yield made, nodes
    made.shutdown()


def num_workers(study: Path) -> int:
    """How many are at work; one may be heard of twice, at a trial and at the one before, which is being committed."""
    heard = set()
    for path in (study / "_running").glob("[!.]*.json"):
        with contextlib.suppress(FileNotFoundError):  # its trial ended while we looked
            heard.add(json.loads(path.read_text())["pid"])
    return len(heard)


def commits(study: Path) -> list[Path]:
    return list((study / "_commits").glob("*.json"))


def test_all_trials_are_there_once_though_a_node_went(cluster, tmp_path):
    made, (_, second) = cluster
    file = tmp_path / "gone.yaml"
    file.write_text(json.dumps(SPACE))
    folder = tmp_path / "runs" / "gone"
    command = [sys.executable, "-m", "study.cli", "run", str(file), "--root", str(tmp_path / "runs")]
    command += ["--address", made.address, "--gpus-per-trial", str(SHARE)]
    with (tmp_path / "log.txt").open("w") as log:
        driver = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=subprocess.STDOUT, env=os.environ)
    most, until = 0, time.monotonic() + SECONDS
    while len(commits(folder)) < 3:
        assert driver.poll() is None, (tmp_path / "log.txt").read_text()
        assert time.monotonic() < until, (tmp_path / "log.txt").read_text()
        most = max(most, num_workers(folder))
        time.sleep(0.1)
    made.remove_node(second, allow_graceful=False)
    assert driver.wait(timeout=SECONDS) == 0, (tmp_path / "log.txt").read_text()
    study = results.open(folder)
    trials = study.table("trials")
    assert list(trials["status"]) == ["ok"] * NUM_SEEDS
    assert sorted(trials["seed"]) == list(range(NUM_SEEDS))
    assert trials["is_sentinel_exact"].all()
    assert results.check(study) == []
    assert most == 2 * round(1 / SHARE), "four trials to each GPU"
