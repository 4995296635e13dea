"""A module of the user's in the working folder, through the command and in a worker's process."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from study import cli

NETS = """
from torch import nn

def gru(input_shape, num_classes):
    return Recurrent(num_classes)

class Recurrent(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.cell, self.head = nn.GRUCell(8, 12), nn.Linear(12, num_classes)

    def forward(self, x):
        state = x.new_zeros(len(x), 12)
        for row in x.flatten(1, 2).unbind(1):
            state = self.cell(row, state)
        return self.head(state)
"""

SPACE = """
name: mine
base: {data: digits, num_steps: 20, num_train: 300, num_test: 60, batch_size: 32, model: custom, build: "%s:gru"}
seeds: 1
chaos: {fork_steps: [0, 10], magnitudes: [1e-2], num_directions: 1, train_sample: 64, path_points: 3}
cone: {probe_size: 4, steps: [0, 20]}
"""


def write(folder, module):
    (folder / f"{module}.py").write_text(NETS, encoding="utf-8")
    (folder / "mine.yaml").write_text(SPACE % module, encoding="utf-8")


def test_it_is_a_setting_like_any_other(tmp_path, monkeypatch, in_process, capsys):
    write(tmp_path, "nets_of_this_process")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["run", "mine.yaml"]) == 0
    (trial,) = pd.read_parquet("runs/mine/trials").to_dict("records")
    assert (trial["status"], trial["is_sentinel_exact"]) == ("ok", True)
    assert (trial["model"], trial["build"], trial["width"]) == ("custom", "nets_of_this_process:gru", 0)
    assert len(trial["build_digest"]) == 16
    assert len(pd.read_parquet("runs/mine/cone")) == 4
    capsys.readouterr()
    assert cli.main(["check", "mine"]) == 0


def test_bad_ones_are_told_before_anything_starts(tmp_path, monkeypatch, capsys):
    write(tmp_path, "nets_not_there")
    (tmp_path / "nets_not_there.py").unlink()
    monkeypatch.chdir(tmp_path)
    assert cli.main(["run", "mine.yaml"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("twophase: build 'nets_not_there:gru' can't be imported: ModuleNotFoundError")
    assert captured.err.count("\n") == 1
    assert not Path("runs").exists()


@pytest.mark.slow
def test_workers_find_it_too(tmp_path):
    """By the console script's way in, which doesn't put the working folder on the path."""
    write(tmp_path, "nets_of_workers")
    program = "import sys; sys.path.pop(0); from study.cli import main; sys.exit(main(['run', 'mine.yaml']))"
    there = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=there, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (trial,) = pd.read_parquet(tmp_path / "runs/mine/trials").to_dict("records")
    assert (trial["status"], trial["is_sentinel_exact"]) == ("ok", True)
