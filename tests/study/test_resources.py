"""What a trial gets of a machine: checked before anything starts, and the right GPU where there are several."""

import json
import os
from dataclasses import replace

import pytest
import torch
from pandas.testing import assert_frame_equal

import results
import search_spaces
import study
from study import cli, cluster, driver, nodes, planner, resources
from study.costs import lane_bytes, step_flops
from study.driver import Means, located, settled
from study.nodes import Node
from study.planner import make_plan
from twophase.config import setting
from twophase.data import DATA
from twophase.errors import BadInput
from twophase.width import bytes_per_lane

from .conftest import TINY

SMALL = {**TINY, "settings": [{"model": "mlp", "depth": 2, "width": 16}], "cone": None, "growth": None, "switch": None}
NODES = [Node(8, 2), Node(16, 0)]


@pytest.mark.parametrize(
    ("cpus", "gpus", "words"),
    [
        (1, 0, ""),
        (16, 0, ""),
        (8, 2, ""),
        (1, 4, "gpus_per_trial must be <= 2, the GPUs of the cluster's largest node, got 4"),
        (17, 0, "cpus_per_trial must be <= 16, the processors of the cluster's largest node, got 17"),
        (9, 0.5, "no node of the cluster has 9 processors and 0.5 GPUs at once"),
    ],
)
def test_what_no_node_has(cpus, gpus, words):
    assert resources.lacking(NODES, cpus, gpus, is_cluster=True) == words


def test_a_share_is_the_largest_that_as_many_trials_fit_into(monkeypatch):
    monkeypatch.setattr(resources, "trial_bytes", lambda _, point: 100.0 * point.width)
    space = search_spaces.load({**SMALL, "settings": [{"model": "mlp", "width": width} for width in (4, 10)]})
    share = lambda memory, cpus=1, has=NODES: resources.share_of_gpu([space], has, cpus, memory)  # noqa: E731
    assert share(1999) == 1
    assert share(3999) == 1 / 3
    # Four processors for each GPU, then two for each trial.
    assert share(10**6) == 1 / 4
    assert share(10**6, 2) == 1 / 2
    assert share(10**6, 1, [Node(8, 0)]) == 0


def test_memory_of_a_trial_is_that_of_its_largest_piece():
    space = search_spaces.load(SMALL)
    (point,) = space.settings
    # Three fork steps of two magnitudes and a control each; reference and sentinel beside them.
    data = 4 * (point.num_train + point.num_test) * 64
    least = resources.RESERVED_BYTES + data
    assert resources.trial_bytes(space, point) == least + resources.HEADROOM * (2 + 6 + 3) * lane_bytes(point)
    cut = replace(space, fold=search_spaces.Fold("cell"))
    assert resources.trial_bytes(cut, point) == least + resources.HEADROOM * (2 + 1 + 1) * lane_bytes(point)
    with pytest.raises(BadInput, match="gpus_per_trial must be a number for model 'custom'"):
        resources.trial_bytes(space, replace(point, model="custom"))


@pytest.mark.parametrize(
    "leaves",
    [
        {"model": "mlp", "depth": 3, "width": 64},
        {"model": "cnn", "depth": 4, "width": 8, "norm_layer": "batch"},
        {"model": "vit", "depth": 1, "optimizer": "adamw", "dropout": 0.1},
    ],
)
def test_a_lane_s_memory_is_about_what_is_measured(leaves, tmp_path):
    point = setting({"data": "digits", "num_train": 100, "num_test": 20, **leaves})
    dataset = DATA["digits"].load(100, 20, 0, tmp_path)
    measured = bytes_per_lane(point, dataset, torch.device("cpu"))
    # The count leaves out what losses and labels keep.
    assert 0.75 * measured < lane_bytes(point) < 1.1 * measured


def test_flops_of_an_mlp_are_those_of_its_matrices():
    point = setting({"data": "digits", "model": "mlp", "depth": 3, "width": 32, "batch_size": 16, "lr": 0.2})
    assert step_flops(point) == 3 * 16 * 2 * (64 * 32 + 2 * 32 * 32 + 32 * 10)


def test_the_longest_trials_come_first_by_arithmetic_not_by_layers():
    """Twice as wide is four times as long, half as wide and four times as deep is not; convolutions count places."""
    settings = [
        {"model": "mlp", "depth": 8, "width": 64, "num_steps": 100},
        {"model": "mlp", "depth": 2, "width": 160, "num_steps": 100},
        {"model": "mlp", "depth": 8, "width": 64, "num_steps": 300},
        {"model": "cnn", "depth": 4, "width": 32, "num_steps": 100},
    ]
    chaos = {"fork_steps": [0], "magnitudes": [1e-2]}
    space = search_spaces.load({"name": "s", "base": {"data": "digits"}, "settings": settings, "chaos": chaos})
    jobs = make_plan(space).jobs
    order = [(job.trial.setting.width, job.trial.setting.num_steps) for job in jobs]
    assert list(dict.fromkeys(order)) == [(32, 100), (64, 300), (160, 100), (64, 100)]
    costs = [planner.job_cost(job) for job in jobs]
    assert costs == sorted(costs, reverse=True)


def test_auto_is_no_gpu_where_there_is_none_and_a_share_where_there_are(monkeypatch):
    space = search_spaces.load(SMALL)
    means = located(Means(gpus_per_trial="auto"))
    assert (driver.device_of(means), settled(means, [space]).gpus_per_trial) == ("cpu", 0)
    monkeypatch.setattr(nodes, "num_local_gpus", lambda: 2)
    monkeypatch.setattr(nodes, "num_processors", lambda: 8)
    monkeypatch.setattr(resources, "local_memory_bytes", lambda: 80 * 2**30)
    means = located(Means(gpus_per_trial="auto", cpus_per_trial=2))
    assert (driver.device_of(means), settled(means, [space]).gpus_per_trial) == ("cuda", 0.5)


def test_what_was_asked_for_is_what_the_crew_gets(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(driver, "run_jobs", lambda _, crew: asked.append(crew))
    monkeypatch.setattr(driver, "num_processors", lambda: 6)
    monkeypatch.setattr(nodes, "num_processors", lambda: 6)
    study.launch(SMALL, tmp_path, workers=5, cpus_per_trial=2, gpus_per_trial="auto")
    (crew,) = asked
    assert (crew.workers, crew.cpus_per_trial, crew.gpus_per_trial, crew.place.gpu_share) == (3, 2, 0, 1)


BUILD = """
import math, os, pathlib, time
from torch import nn

def net(input_shape, num_classes):
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        seen = pathlib.Path(os.environ["SEEN"])
        (seen / str(os.getpid())).write_text(os.environ["CUDA_VISIBLE_DEVICES"])
        until = time.monotonic() + 120
        while len(list(seen.iterdir())) < 4 and time.monotonic() < until:
            time.sleep(0.1)
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(input_shape), num_classes))
"""


@pytest.mark.slow
def test_pieces_on_a_cluster_of_logical_gpus(tmp_path, monkeypatch, capsys):
    """Two pieces to each of two GPUs, which see it alone; more than there are is refused; rows are whole trials'."""
    from ray.cluster_utils import Cluster

    for name, value in cluster.BEFORE_IMPORT.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "seen").mkdir()
    monkeypatch.setenv("SEEN", str(tmp_path / "seen"))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "seen_nets.py").write_text(BUILD)
    space = {**SMALL, "settings": [{"model": "custom", "build": "seen_nets:net"}], "fold": "cell", "seeds": 4}
    space["base"] = {**SMALL["base"], "device": "cpu"}
    (tmp_path / "space.json").write_text(json.dumps(space))
    here = Cluster(initialize_head=True, head_node_args={"num_cpus": 8, "num_gpus": 2})
    try:
        options = ["--address", here.address, "--root", str(tmp_path / "runs")]
        assert cli.main(["run", str(tmp_path / "space.json"), *options, "--gpus-per-trial", "4"]) == 2
        assert "gpus_per_trial must be <= 2, the GPUs of the cluster's largest node" in capsys.readouterr().err
        assert not (tmp_path / "runs").exists()
        assert cli.main(["run", str(tmp_path / "space.json"), *options, "--gpus-per-trial", "0.5"]) == 0
    finally:
        here.shutdown()
    assert sorted(file.read_text() for file in (tmp_path / "seen").iterdir()) == ["0", "0", "1", "1"]
    found = results.open(tmp_path / "runs" / "tiny")
    assert results.check(found) == []
    whole = study.launch({**space, "fold": "all"}, tmp_path / "whole")
    for name in ("trajectory", "chaos", "divergence", "path"):
        assert_frame_equal(found.table(name), whole.table(name), check_exact=True)
