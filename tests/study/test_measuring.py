"""`plan --measure`: what a few steps took, times what is to be run."""

import json
from dataclasses import replace

import pytest
import torch

from search_spaces import load, parse_overrides
from study import cli, measuring
from study.planner import make_plan
from twophase.width import step_seconds

SMALL = ["num_steps=20", "num_train=128", "num_test=20", "chaos.fork_steps=[0,5]", "seeds=2"]


def jobs_of(*overrides):
    return make_plan(load("quick", parse_overrides([*SMALL, *overrides]))).jobs


def test_hours_are_lane_steps_times_what_one_took(monkeypatch):
    monkeypatch.setattr(measuring, "step_seconds", lambda setting, *_: 3.6 if setting.model == "cnn" else 0.36)
    found = measuring.measure(jobs_of())
    assert [one.setting.model for one in found] == ["cnn", "mlp"], "the most costly first"
    for one, seconds in zip(found, (3.6, 0.36), strict=True):
        own = [job.lane_steps for job in jobs_of() if job.trial.setting.model == one.setting.model]
        assert one.lane_steps == sum(own)
        assert one.num_lanes == 2 + 4, "reference, sentinel, and two children at each of two forks"
        assert one.hours == pytest.approx(sum(own) * seconds / one.num_lanes / 3600, rel=1e-12)
    (*_, total) = measuring.measured_lines(found)
    assert total.startswith(f"training      about {sum(one.hours for one in found):.3g} processor hours; ")
    short = [replace(found[0], seconds=1e-3, lane_steps=5000)]
    assert measuring.measured_lines(short)[-1].startswith("training      about 0.00139 processor hours (5 seconds); ")


def test_settings_that_cost_alike_are_timed_once(monkeypatch):
    timed = []
    monkeypatch.setattr(measuring, "step_seconds", lambda setting, *_: timed.append(setting) or 1.0)
    measuring.measure(jobs_of("axes.lr=[0.05,0.1,0.2]"))
    assert sorted(one.model for one in timed) == ["cnn", "mlp"]


def test_real_steps_are_timed_on_inputs_of_the_data_s_shape_without_its_files():
    (job,) = make_plan(
        load(
            "cifar10_resnet20",
            parse_overrides(
                [
                    "device=cpu",
                    "width=2",
                    "depth=8",
                    "batch_size=4",
                    "seeds=1",
                    "chaos.fork_steps=[0]",
                    "chaos.measure_steps=[end]",
                ]
            ),
        )
    ).jobs
    (found,) = measuring.measure([job])
    assert found.seconds > 0
    made = measuring.made_up(job.trial.setting)
    assert made.input_shape == (3, 32, 32)


def test_the_command_tells_it_and_refuses_a_gpu_that_is_not_there(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    sets = [word for one in SMALL for word in ("--set", one)]
    assert cli.main(["plan", "quick", *sets, "--measure", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["training_hours"] > 0
    assert cli.main(["plan", "cifar10_vgg16", "--measure"]) == 2
    assert "--measure needs a GPU here for device 'cuda'" in capsys.readouterr().err


def test_kinds_of_one_width_are_told_apart(capsys, tmp_path):
    axes = {"norm_layer": ["batch", "none"], "lr": [0.1, 0.2]}
    base = {"model": "cnn", "depth": 2, "width": 4, "num_steps": 10, "num_train": 64, "num_test": 20, "batch_size": 8}
    space = {"name": "two", "base": base, "axes": axes, "chaos": {"fork_steps": [0], "train_sample": 32}}
    (tmp_path / "two.yaml").write_text(json.dumps(space))
    assert cli.main(["plan", str(tmp_path / "two.yaml"), "--root", str(tmp_path), "--measure"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("measured")]
    named = sorted(line.removeprefix("measured").split(":")[0].strip() for line in lines)
    assert named == ["cnn · width 4 · norm layer batch on cpu", "cnn · width 4 · norm layer none on cpu"]


def test_slow_steps_are_timed_less_often(monkeypatch):
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr("twophase.width.time.perf_counter", lambda: next(clock))
    point = jobs_of()[0].trial.setting
    data = measuring.made_up(point)
    state = measuring.initial_state(point, data, seed=0)
    assert step_seconds(point, data, state, 4) == 10
    assert next(clock) == 20, "one step of ten seconds was enough"
