"""Linearised training against the network's own gradient, an explicit Jacobian, a closed form, and itself."""

import math
from dataclasses import replace

import pytest
import torch
from samples import NUM_CLASSES, small_dataset, small_setting
from torch import nn
from torch.func import functional_call, jacrev

from twophase import lanes
from twophase.children import LINEARISED_LANES, Todo, switch_lane_steps
from twophase.config import Protocol, Trial
from twophase.data import Dataset
from twophase.experiment import Experiment
from twophase.kernel import entk
from twophase.linearised import Expansion, LinearisedTrainer
from twophase.models import MODELS, OneLane
from twophase.seeding import stream
from twophase.training import (
    LaneTrainer,
    build_model,
    initial_state,
    lane_losses,
    learning_rate,
    minibatch_inputs,
    reference_order,
)
from twophase.update_map import RULES, clipped

DATASET = small_dataset()
DOUBLE = DATASET.to(torch.device("cpu"), torch.float64)
PROTOCOL = Protocol(train_sample=64)
NOTHING = Todo({}, is_trajectory_wanted=False)


def trained(point, data, steps, seed=0):
    """Lanes of one reference at several steps."""
    start = lanes.take(initial_state(point, data, seed), [0] * 4)
    trainer, states = LaneTrainer(point, data, start, seed=seed), []
    for step in steps:
        trainer.advance(step, [reference_order(point, seed)])
        states.append(lanes.fork(trainer.state))
    return lanes.stack(states)


def switched(point, *steps, data=DATASET, **how):
    trial = Trial(point, 0, PROTOCOL)
    made = Experiment(trial, replace(NOTHING, switch_steps=frozenset(steps)), data, **how)
    outcome = made.run()
    assert made.lane_steps == made.total_lane_steps == outcome.summary["lane_steps"]
    return {row["switch_step"]: row for row in outcome.switch_rows}, outcome


@pytest.mark.parametrize("model", sorted(MODELS))
def test_the_expansion_is_of_first_order(model):
    """At the centre the network's own gradient, to rounding; beside it an error that shrinks as the square."""
    point = small_setting(model, precision="float64", **({} if model == "custom" else {"activation": "gelu"}))
    centre = trained(point, DOUBLE, (0, 3, 7, 12))
    expansion = Expansion(build_model(point, DOUBLE, 0), centre)
    inputs, labels = DOUBLE.train_inputs[:20], DOUBLE.train_labels[:20]
    found = expansion.gradient(centre.parameters, inputs, labels, lane_losses)
    network = build_model(point, DOUBLE, 0)
    lanes.write(centre, network)
    names, values = zip(*network.eval().named_parameters(), strict=True)
    wanted = torch.autograd.grad(lane_losses(network(inputs), labels).sum(), values, allow_unused=True)
    for name, gradient in zip(names, wanted, strict=True):
        torch.testing.assert_close(found[name], gradient, rtol=1e-12, atol=1e-14)
    unit = {n: torch.randn(v.shape, generator=stream(0, n), dtype=v.dtype) for n, v in centre.parameters.items()}
    errors = []
    for size in (1e-3, 1e-4):
        moved = {name: value + size * unit[name] for name, value in centre.parameters.items()}
        lanes.write(replace(centre, parameters=moved), network)
        errors.append(float((network(inputs) - expansion.logits(moved, inputs)).detach().norm()))
    # A hundredth, but for terms of third order; were the derivative wrong it would be a tenth.
    assert errors[1] < errors[0] / 50


RECIPES = [
    {"momentum": 0.9, "weight_decay": 1e-2, "clip_norm": 0.5, "warmup_steps": 6},
    {"optimizer": "nesterov", "weight_decay": 1e-2},
    {"optimizer": "adamw", "lr": 1e-2},
]


@pytest.mark.parametrize("recipe", RECIPES, ids=["sgd", "nesterov", "adamw"])
def test_against_an_explicit_jacobian(recipe):
    """A net of a page with its Jacobian written out, trained by the rules as they are written in `update_map`."""
    point = small_setting("mlp", precision="float64", augmentation="shift", norm_layer="batch", **recipe)
    start = trained(point, DOUBLE, (5,))
    order, network = reference_order(point, 0), build_model(point, DOUBLE, 0)
    lanes.write(start, network)
    one = OneLane(network).eval()
    centre = {f"network.{name}": value.clone() for name, value in start.parameters.items()}
    theta = dict(start.parameters)
    moments = {}
    for (name, quantity), value in start.optimizer.items():
        moments.setdefault(quantity, {})[name] = value

    for step in range(5, 9):
        indices = order.batch(step)
        inputs = minibatch_inputs(point, DOUBLE, indices, 0, step)
        jacobian = jacrev(lambda at, x=inputs: functional_call(one, at, (x,)))(centre)
        moved = sum((jacobian[f"network.{n}"] * (theta[n] - start.parameters[n])).flatten(2).sum(2) for n in theta)
        logits = one(inputs) + moved
        pull = (logits.softmax(1) - nn.functional.one_hot(DOUBLE.train_labels[indices], NUM_CLASSES)) / len(indices)
        gradient = {n: torch.einsum("bc,bc...->...", pull, jacobian[f"network.{n}"]).detach() for n in theta}
        gradient = clipped(gradient, point.clip_norm) if point.clip_norm else gradient
        rate = learning_rate(point, step)
        theta, moments = RULES[point.optimizer](theta, gradient, moments, point.rates, rate, step)
    trainer = LinearisedTrainer(point, DOUBLE, start, replace(start, optimizer={}), seed=0, step=5)
    trainer.advance(9, order)
    for name, value in theta.items():
        torch.testing.assert_close(trainer.state.parameters[name], value, rtol=1e-10, atol=1e-13)


def test_least_squares_is_the_kernel_s_closed_form():
    """Gradient descent on ½ ‖f − y‖² / N in function space: f_t = y + (1 − η H / N)^t (f_0 − y)."""
    count = 24
    data = Dataset(*(part[:count] for part in (DOUBLE.train_inputs, DOUBLE.train_labels) * 2), NUM_CLASSES)
    leaves = {"num_train": count, "batch_size": count, "num_test": count, "schedule": "constant", "lr": 0.05}
    point = small_setting("mlp", precision="float64", momentum=0.0, weight_decay=0.0, **leaves)
    start = initial_state(point, data, 0)
    wanted = nn.functional.one_hot(data.train_labels, NUM_CLASSES).double()

    def squared(logits, labels):
        return 0.5 * (logits - nn.functional.one_hot(labels, NUM_CLASSES)).square().sum(2).mean(1)

    trainer = LinearisedTrainer(point, data, start, start, seed=0, step=0, losses=squared)
    before = trainer.logits(data.train_inputs)[0]
    network = build_model(point, data, 0)
    kernel = entk(OneLane(network), data.train_inputs, "full", dtype=torch.float64)
    shrink = torch.eye(len(kernel), dtype=torch.float64) - point.lr / count * kernel
    trainer.advance(40, reference_order(point, 0))
    expected = wanted + (torch.linalg.matrix_power(shrink, 40) @ (before - wanted).flatten()).view_as(wanted)
    assert float((expected - before).norm()) > 0.5, "it has moved"
    torch.testing.assert_close(trainer.logits(data.train_inputs)[0], expected, rtol=1e-9, atol=1e-11)


def test_a_linear_model_does_not_notice_the_switch(monkeypatch):
    def build(input_shape, num_classes):
        return nn.Sequential(nn.Flatten(), nn.Linear(torch.Size(input_shape).numel(), num_classes))

    monkeypatch.setattr("custom_nets.linear_net", build, raising=False)
    point = small_setting("custom", build="custom_nets:linear_net", num_steps=24, precision="float64", momentum=0.9)
    rows, outcome = switched(point, 0, 5, 17, 24)
    assert set(rows) == {0, 5, 17, 24}
    assert rows[24]["test_loss"] == outcome.summary["test_loss"]
    for row in rows.values():
        # Rounding of 24 steps.
        assert row["train_loss"] == pytest.approx(rows[24]["train_loss"], abs=1e-12)
        assert row["test_loss"] == pytest.approx(rows[24]["test_loss"], abs=1e-12)


@pytest.mark.parametrize(("model", "engine"), [("cnn", "lanes"), ("resnet", "lanes"), ("mlp", "loop")])
def test_a_row_does_not_depend_on_the_others(model, engine):
    """Bitwise, also in batches of other widths, so that a switch step may be added later."""
    leaves = {"augmentation": "shift", "optimizer": "adamw"} if model == "cnn" else {}
    point = small_setting(model, num_steps=24, engine=engine, **leaves)
    whole, outcome = switched(point, 0, 3, 8, 15, 16, 24)
    assert sorted(whole) == [0, 3, 8, 15, 16, 24]
    assert len({row["train_loss"] for row in whole.values()}) == 6
    assert whole[24]["test_accuracy"] == outcome.summary["test_accuracy"]
    for steps, how in (((8,), {}), ((0, 16, 24), {}), ((0, 3, 8, 15, 16), {"lane_width": 4})):
        rows, _ = switched(point, *steps, **how)
        assert rows == {step: whole[step] for step in steps}


def test_lane_steps_by_hand():
    point = small_setting("mlp", num_steps=20)
    todo = replace(NOTHING, switch_steps=frozenset({0, 4, 6, 10, 12, 20}))
    # Four lanes up to step 12, then five; one by one without padding.
    assert switch_lane_steps(point, todo) == LINEARISED_LANES * (12 * 4 + 8 * 5)
    assert switch_lane_steps(replace(point, engine="loop"), todo) == LINEARISED_LANES * (20 + 16 + 14 + 10 + 8)
    assert switch_lane_steps(point, replace(todo, switch_steps=frozenset({20}))) == 0


def test_a_run_that_diverges_is_an_outcome():
    """At such a rate normalisation keeps the net itself finite, but not its expansion."""
    point = small_setting("cnn", num_steps=24, lr=2e14, momentum=0.0, weight_decay=0.0, schedule="constant")
    rows, outcome = switched(point, 1, 24)
    assert (rows[1]["diverged"], rows[24]["diverged"], outcome.summary["status"]) == (True, False, "ok")
    assert all(math.isnan(rows[1][name]) for name in ("train_loss", "test_loss", "test_accuracy"))
    assert rows[24]["test_loss"] == outcome.summary["test_loss"]
