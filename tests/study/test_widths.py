"""The width of a batch of lanes: measured once, pinned, within memory, and of no effect on any row."""

import json

import pandas as pd
import pytest
import torch

import study
from study import widths
from twophase import width
from twophase.config import setting
from twophase.data import DATA

SPACE = {
    "name": "wide",
    "base": {"data": "digits", "num_steps": 10, "num_train": 200, "num_test": 50, "batch_size": 32},
    "settings": [{"model": "mlp", "depth": 1, "width": 8}],
    "seeds": 2,
    "chaos": {"fork_steps": [0, 5], "magnitudes": [1e-2, 1e-3], "num_directions": 3, "train_sample": 64},
}


def test_a_width_is_measured_once_and_pinned(tmp_path, in_process, monkeypatch):
    monkeypatch.setattr(widths, "ALWAYS_TOGETHER", 4)
    monkeypatch.setattr(width, "CANDIDATES", (6,))
    # Wider costs more per child: six lanes it is, whatever this machine makes of it.
    monkeypatch.setattr(width, "step_seconds", lambda *arguments: float(arguments[-1] ** 2))
    found = study.launch(SPACE, tmp_path)
    (pinned,) = found.path.glob(f"{widths.FOLDER}/*.json")
    content = json.loads(pinned.read_text())
    assert content["lane_width"] == 6
    assert set(content["seconds_per_child"]) == {"6", "14"}
    assert content["bytes_per_lane"] > 0
    assert (found.table("trials").lane_width == 6).all()

    def never(*_, **__):
        raise AssertionError("measured again")

    monkeypatch.setattr(widths, "measure_width", never)
    more = study.launch({**SPACE, "seeds": 3}, tmp_path)
    assert (more.table("trials").lane_width == 6).all()
    whole = study.launch({**SPACE, "seeds": 3, "training": {"lane_width": 32}}, tmp_path / "whole")
    assert (whole.table("trials").lane_width == 14).all()
    for table in ("chaos", "divergence", "path"):
        pd.testing.assert_frame_equal(more.table(table), whole.table(table), check_exact=True)


@pytest.mark.parametrize(("memory_lanes", "expected"), [(0, 4), (9, 9), (1000, 20)])
def test_a_width_stays_within_memory(tmp_path, monkeypatch, memory_lanes, expected):
    monkeypatch.setattr(width, "step_seconds", lambda *_: 1.0)
    point = setting({**SPACE["base"], **SPACE["settings"][0]})
    dataset = DATA["digits"].load(200, 50, point.data_seed, tmp_path)
    cpu = torch.device("cpu")
    each = width.bytes_per_lane(point, dataset, cpu)
    found = width.measure_width(point, dataset, cpu, most=20, memory_bytes=memory_lanes * each)
    assert found.lane_width == expected
    # At the least its parameters, their gradients and momentum.
    weights = 64 * 8 + 8 + 8 * 10 + 10
    assert each >= 3 * 4 * weights
