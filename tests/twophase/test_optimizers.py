"""Lanes under every update rule are single networks under torch's own; and what each carries forks with it."""

import pytest
import torch
from samples import plain, small_dataset, small_setting
from torch.nn.functional import cross_entropy

from twophase import lanes
from twophase.config import Protocol, Trial
from twophase.experiment import SENTINEL, Child, Experiment, Todo
from twophase.optimizers import OPTIMIZERS, clip_lanes
from twophase.training import LaneTrainer, initial_state, learning_rate, reference_order

EXACT = {"rtol": 1e-10, "atol": 1e-12}
"""Sums of a few hundred terms of order 1 in float64, in another order."""

NUM_LANES = 5


def torchs(name, parameters, setting):
    """The rule as a user of torch would write it."""
    if name == "adamw":
        betas = (setting.momentum, setting.beta2)
        return torch.optim.AdamW(parameters, lr=setting.lr, betas=betas, weight_decay=setting.weight_decay)
    return torch.optim.SGD(
        parameters,
        lr=setting.lr,
        momentum=setting.momentum,
        weight_decay=setting.weight_decay,
        nesterov=name == "nesterov",
    )


@pytest.mark.parametrize("clip_norm", [0.0, 0.05])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_lanes_are_single_networks(name, clip_norm):
    setting = small_setting("mlp", precision="float64", optimizer=name, clip_norm=clip_norm, weight_decay=0.1)
    dataset = small_dataset().to(torch.device("cpu"), torch.float64)
    state = lanes.stack([initial_state(setting, dataset, seed=k) for k in range(NUM_LANES)])
    order = reference_order(setting, 0)
    trainer = LaneTrainer(setting, dataset, state, seed=0)
    trainer.advance(8, [order])
    for k in range(NUM_LANES):
        network = plain(setting, (1, 12), state, k)
        optimizer = torchs(name, network.parameters(), setting)
        for step in range(8):
            optimizer.param_groups[0]["lr"] = learning_rate(setting, step)
            optimizer.zero_grad()
            chosen = order.batch(step)
            cross_entropy(network(dataset.train_inputs[chosen]), dataset.train_labels[chosen]).backward()
            if clip_norm:
                assert torch.nn.utils.clip_grad_norm_(network.parameters(), clip_norm) > clip_norm
            optimizer.step()
        for parameter_name, parameter in network.named_parameters():
            found = trainer.state.parameters[parameter_name][k].reshape(parameter.shape)
            torch.testing.assert_close(found, parameter.detach(), **EXACT)


def test_only_lanes_with_large_gradients_are_clipped():
    parameter = torch.nn.Parameter(torch.zeros(3, 2))
    parameter.grad = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]])
    clip_lanes([parameter], 1.0)
    torch.testing.assert_close(parameter.grad, torch.tensor([[0.6, 0.8], [0.3, 0.4], [0.0, 0.0]]))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_late_control_goes_on_as_the_reference_would(name, monkeypatch):
    """A control given the reference's own order ends where the reference does: nothing of its state was left behind."""
    from twophase import experiment

    setting, dataset = small_setting("mlp", optimizer=name, precision="float64"), small_dataset()
    monkeypatch.setattr(experiment, "control_order", lambda point, seed, *_: reference_order(point, seed))
    control = Child(15, "order")
    trial = Trial(setting, 0, Protocol(train_sample=32, path_points=3))
    outcome = Experiment(trial, Todo({SENTINEL: (40,), control: (40,)}), dataset).run()
    (row,) = [row for row in outcome.rows["chaos"] if row["perturbation"] == "order"]
    # Another minibatch layout adds in another order: rounding of float64, grown over 25 steps.
    assert row["relative_distance"] < 1e-9


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_state_is_there_from_step_0(name):
    setting, dataset = small_setting("mlp", optimizer=name), small_dataset()
    state = initial_state(setting, dataset, 0)
    trainer = LaneTrainer(setting, dataset, lanes.take(state, [0] * 4), seed=0)
    trainer.advance(3, [reference_order(setting, 0)])
    assert set(state.optimizer) == set(trainer.state.optimizer)
    assert len(state.optimizer) == len(state.parameters) * len(OPTIMIZERS[name].moments(setting.momentum))
    assert all(bool(value.any()) for value in trainer.state.optimizer.values())
