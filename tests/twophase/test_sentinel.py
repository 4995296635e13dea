"""Sentinels must catch a fork that isn't exact: each mutation of it turns `is_sentinel_exact` off."""

import math
from dataclasses import replace

import pytest
import torch
from samples import small_dataset, small_setting, start_of

from twophase import experiment
from twophase.config import Protocol, Trial
from twophase.experiment import SENTINEL, Child, Experiment, Todo, fork_child

SETTING = small_setting("cnn", num_steps=24)
DATASET = small_dataset()
FORK_STEPS = (0, 8, 16)


def outcome():
    children = {Child(t, "gaussian", 1e-3): (24,) for t in FORK_STEPS}
    trial = Trial(SETTING, 0, Protocol(train_sample=16, path_points=3))
    return Experiment(trial, Todo({SENTINEL: (24,), **children}), DATASET).run()


def one_ulp(state):
    name = "head.weight"
    moved = state.parameters[name].clone()
    moved[0, 0, 0] = torch.nextafter(moved[0, 0, 0], torch.tensor(math.inf))
    return replace(state, parameters={**state.parameters, name: moved})


def without_momentum(state):
    return replace(state, optimizer={key: torch.zeros_like(value) for key, value in state.optimizer.items()})


def stale_buffers(state):
    return replace(state, buffers=start_of(SETTING, DATASET).buffers)


def test_an_exact_fork_is_exact():
    assert outcome().summary["is_sentinel_exact"] is True


# At step 0 momentum and statistics are those of the start: there is nothing to lose.
@pytest.mark.parametrize(
    ("mutation", "fork_step"),
    [
        (one_ulp, 0),
        (one_ulp, 8),
        (one_ulp, 16),
        (without_momentum, 8),
        (without_momentum, 16),
        (stale_buffers, 8),
        (stale_buffers, 16),
    ],
)
def test_a_mutated_fork_is_caught(monkeypatch, mutation, fork_step):
    mutated = []

    def broken(state, child, subject):
        made, dose = fork_child(state, child, subject)
        if child.perturbation == "none" and child.fork_step == fork_step:
            mutated.append(child)
            made = mutation(made)
        return made, dose

    monkeypatch.setattr(experiment, "fork_child", broken)
    summary = outcome().summary
    assert mutated
    assert summary["is_sentinel_exact"] is False
    assert summary["status"] == "ok"


@pytest.mark.parametrize("fork_step", FORK_STEPS)
def test_weights_moved_show_in_the_sentinels_distance(monkeypatch, fork_step):
    """The sentinel's row holds the greatest distance of any stretch, also of one before its last fork."""

    def broken(state, child, subject):
        made, dose = fork_child(state, child, subject)
        is_target = child.perturbation == "none" and child.fork_step == fork_step
        return (one_ulp(made) if is_target else made), dose

    monkeypatch.setattr(experiment, "fork_child", broken)
    (row,) = [row for row in outcome().rows["chaos"] if row["perturbation"] == "none"]
    assert 0 < row["distance"] < 1e-2
