"""Eigenvalues against closed forms and against the dense Hessian."""

import math

import numpy as np
import pytest
import torch
from samples import plain, small_dataset, small_setting

from twophase import lanes
from twophase.config import Protocol, Trial
from twophase.experiment import Experiment, Todo
from twophase.seeding import stream
from twophase.sharpness import TOLERANCE, SharpnessProbe, stability_bound, top_eigenvalue
from twophase.training import LaneTrainer, initial_state, reference_order


@pytest.mark.parametrize(
    "values", [[5.0, 1, 0, -2], [3.0, -7, 1, 2], [-1.0, -2, -3, -4], [2.0, 2, 2, 2], [0.0, 0, 0, 0]], ids=str
)
def test_a_quadratic_in_closed_form(values):
    generator = stream(0, "basis")
    basis, _ = torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64))
    matrix = basis @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ basis.T
    found = top_eigenvalue(lambda v: matrix @ v, torch.randn(4, generator=generator, dtype=torch.float64))
    assert found == pytest.approx(max(values), rel=TOLERANCE, abs=1e-12)


def test_the_greatest_of_many():
    values = torch.linspace(-1, 1, 400, dtype=torch.float64)
    found = top_eigenvalue(lambda v: values * v, torch.randn(400, generator=stream(0, "many")).double())
    assert found == pytest.approx(1.0, rel=TOLERANCE)


def test_what_is_not_finite_is_unknown():
    assert math.isnan(top_eigenvalue(lambda v: v * math.nan, torch.ones(3)))


@pytest.mark.parametrize(("norm_layer", "num_steps"), [("none", 0), ("none", 20), ("batch", 20)])
def test_against_the_dense_hessian(norm_layer, num_steps):
    setting = small_setting(norm_layer=norm_layer, activation="gelu", precision="float64")
    data = small_dataset().to(torch.device("cpu"), torch.float64)
    trainer = LaneTrainer(setting, data, lanes.take(initial_state(setting, data, 0), [0] * 4), seed=0)
    trainer.advance(num_steps, [reference_order(setting, 0)])
    before = trainer.state
    # All 300 examples: a batch of 256 and one of 44.
    found = SharpnessProbe(Trial(setting, 0, Protocol(train_sample=300)), data).measure(before, num_steps)
    network = plain(setting, data.input_shape, before, 0).train()
    names = [name for name, _ in network.named_parameters()]

    def loss(*values):
        at, total = dict(zip(names, values, strict=True)), 0.0
        for x, y in zip(data.train_inputs.split(256), data.train_labels.split(256), strict=True):
            logits = torch.func.functional_call(network, at, (x,))
            total = total + torch.nn.functional.cross_entropy(logits, y, reduction="sum") / 300
        return total

    blocks = torch.autograd.functional.hessian(loss, tuple(p.detach() for p in network.parameters()))
    sizes = [p.numel() for p in network.parameters()]
    rows = [
        [block.reshape(a, b) for block, b in zip(row, sizes, strict=True)] for row, a in zip(blocks, sizes, strict=True)
    ]
    dense = torch.cat([torch.cat(row, 1) for row in rows])
    assert found == pytest.approx(float(torch.linalg.eigvalsh(dense)[-1]), rel=TOLERANCE)
    assert found > 0.1


@pytest.mark.parametrize("optimizer", ["sgd", "nesterov"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_bound_is_where_a_quadratic_becomes_unstable(optimizer, momentum):
    lr = 0.3
    bound = stability_bound(optimizer, lr, momentum)
    for factor, is_stable in ((0.999, True), (1.001, False)):
        h = factor * bound
        look = momentum if optimizer == "nesterov" else 0.0
        # (x, m) -> x − η (h x + β m) with m the new buffer β m + h x, or x − η m.
        x_row = [1 - lr * h * (1 + look), -lr * (momentum * look if look else momentum)]
        assert (max(abs(np.linalg.eigvals([x_row, [h, momentum]]))) < 1) == is_stable
    assert stability_bound("sgd", 0.0, 0.9) == math.inf
    assert math.isnan(stability_bound("adamw", 1e-3, 0.9))


@pytest.mark.parametrize("is_wanted", [False, True])
def test_the_learning_curve_has_it_where_asked(is_wanted):
    setting, data = small_setting("cnn", num_steps=4), small_dataset()
    trial = Trial(setting, 3, Protocol(train_sample=64, sharpness=is_wanted))
    rows = Experiment(trial, Todo({}), data).run().rows["trajectory"]
    assert [row["step"] for row in rows] == list(range(5))
    bounds = [stability_bound("sgd", row["learning_rate"], 0.9) for row in rows]
    assert [row["stability_bound"] for row in rows] == bounds
    assert bounds[0] == pytest.approx(38.0)
    assert bounds[-1] == math.inf
    first = SharpnessProbe(trial, data).measure(initial_state(setting, data, 3), 0)
    seen = [row["sharpness"] for row in rows]
    assert seen[0] == (pytest.approx(first) if is_wanted else pytest.approx(math.nan, nan_ok=True))
    assert all(math.isfinite(value) == is_wanted for value in seen)
