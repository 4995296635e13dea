"""Growth rates against closed forms, the update map against torch's optimisers, and two activations told apart."""

import math
from dataclasses import asdict, astuple, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from samples import small_dataset, small_setting

from twophase import lanes
from twophase.children import growth_lane_steps
from twophase.config import Protocol, Trial, setting
from twophase.data import DATA
from twophase.directions import scaled, standard_normal
from twophase.experiment import SENTINEL, Child, Experiment, Todo
from twophase.growth import Window, agree, linearised, measure_growth
from twophase.seeding import stream
from twophase.training import LaneTrainer, initial_state, reference_order
from twophase.update_map import point_of, update_map

CURVATURES = torch.tensor([0.2, 1.0, 7.0], dtype=torch.float64)
LONG = Window(length=200, burn_in=100)


def quadratic(lr, momentum=0.0):
    """Gradient descent on ½ Σ h (x − c)², from its minimum: elsewhere the reference might outgrow its twins' digits."""
    centre = torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64)

    def update(point, step):
        theta, moments = point
        gradient = CURVATURES * (theta["x"] - centre)
        if momentum == 0:
            return {"x": theta["x"] - lr * gradient}, {}
        buffer = momentum * moments["m"]["x"] + gradient
        return {"x": theta["x"] - lr * buffer}, {"m": {"x": buffer}}

    return update, ({"x": centre}, {"m": {"x": torch.zeros(1, 3, dtype=torch.float64)}} if momentum else {})


def directions(point, number):
    return [scaled(standard_normal(point[0], stream(0, "test", i))) for i in range(number)]


@pytest.mark.parametrize("lr", [0.1, 0.3], ids=["contracts", "grows"])
def test_gradient_descent_on_a_quadratic(lr):
    update, start = quadratic(lr)
    expected = float((1 - lr * CURVATURES).abs().log().max())
    found = measure_growth(update, start, directions(start, 2), 0, LONG)
    assert len(found) == 2
    for growth in found:
        # What is left of the other eigenvectors after the burn-in is below 1e-3, over 100 steps.
        assert growth.tangent_rate == pytest.approx(expected, abs=1e-4)
        assert growth.growth_rate == growth.tangent_rate
        # The map is linear, so twins are only rounding away: 1e-16 of coordinates of order 1, against 1e-6.
        assert growth.twin_rate_low == pytest.approx(growth.tangent_rate, abs=1e-6)
        assert growth.twin_rate_high == pytest.approx(growth.tangent_rate, abs=1e-6)
        assert growth.is_exponential


@pytest.mark.parametrize(("lr", "momentum"), [(0.05, 0.5), (0.3, 0.9), (0.6, 0.9)], ids=["real", "complex", "unstable"])
def test_momentum_on_a_quadratic(lr, momentum):
    update, start = quadratic(lr, momentum)
    radii = [max(abs(np.linalg.eigvals([[1 + momentum - lr * h, -momentum], [1, 0]]))) for h in CURVATURES.tolist()]
    (growth,) = measure_growth(update, start, directions(start, 1), 0, LONG)
    # Complex eigenvalues turn as they shrink: the norm's logarithm swings by a few nats, over 100 steps.
    assert growth.tangent_rate == pytest.approx(math.log(max(radii)), abs=0.03)
    assert growth.is_exponential


def test_amplification_and_waiting_of_one_direction_by_hand():
    update, start = quadratic(0.3)
    along = {"x": torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)}
    (growth,) = measure_growth(update, start, [along], 0, Window(length=25, burn_in=7))
    rate = math.log(0.3 * 7 - 1)
    assert growth.amplification == pytest.approx(25 * rate, rel=1e-12)
    assert growth.waiting_steps == math.ceil(math.log(10) / rate) > 20
    # Stretches of 7, 3, 10 and 5 steps.
    assert growth.jump == pytest.approx(10 * rate, rel=1e-6)
    short = measure_growth(update, start, [along], 0, Window(length=20, burn_in=7))
    assert short[0].waiting_steps == math.inf


def test_agreement_near_zero_is_over_the_whole_stretch():
    # Rates of about 0: a fifth of the larger says nothing, e^0.2 over the stretch does.
    assert agree(1e-4, -1e-4, 150)
    assert not agree(3e-3, 1e-3, 150)
    assert agree(0.2 / 150, 0.0, 150)
    assert agree(0.119, 0.1, 150)
    assert not agree(0.121, 0.1, 150)
    assert not agree(math.nan, 0.1, 150)
    assert not agree(0.1, math.nan, 150)


def test_rotation_neither_grows_nor_is_refused():
    turn = torch.tensor([[0.6, 0.8], [-0.8, 0.6]], dtype=torch.float64)
    start = {"x": torch.tensor([[1.0, 2.0]], dtype=torch.float64)}, {}
    (growth,) = measure_growth(lambda z, _: ({"x": z[0]["x"] @ turn}, {}), start, directions(start, 1), 0, Window())
    assert growth.growth_rate == pytest.approx(0.0, abs=1e-9)
    assert (growth.is_exponential, growth.waiting_steps) == (True, math.inf)


def test_kinks_are_no_exponential():
    """Nothing moves but what crosses a kink, which is thrown: the tangent never sees it."""
    start = {"x": torch.tensor([[1.0, 1.0]], dtype=torch.float64)}, {}

    def update(point, step):
        x = point[0]["x"]
        is_across = (x[:, :1] > 1 + 1e-5) | (x[:, :1] < 1 - 1e-5)
        return {"x": torch.where(is_across, x + 1e-3 * (x - 1).sign(), x)}, {}

    along = {"x": torch.tensor([[1.0, 0.0]], dtype=torch.float64)}
    (growth,) = measure_growth(update, start, [along], 0, Window())
    assert (growth.tangent_rate, growth.amplification) == (0.0, 0.0)
    assert growth.twin_rate_low == pytest.approx(0.0, abs=1e-9)
    assert growth.twin_rate_high > 0.1
    assert not growth.is_exponential
    assert math.isnan(growth.growth_rate)
    # The push is √2·1e-4 and one throw 1e-3: after two it is over ten times as far.
    assert growth.waiting_steps == 2


def test_a_reference_that_diverges_has_no_growth():
    start = {"x": torch.tensor([[2.0, 1.0]], dtype=torch.float64)}, {}
    (growth,) = measure_growth(lambda z, _: ({"x": z[0]["x"] ** 3}, {}), start, directions(start, 1), 0, Window())
    assert not growth.is_exponential
    rates = (growth.tangent_rate, growth.twin_rate_low, growth.twin_rate_high, growth.growth_rate)
    assert all(math.isnan(value) for value in (*rates, growth.amplification, growth.jump))


CASES = [
    ("mlp", {"optimizer": "sgd", "momentum": 0.0}),
    ("mlp", {"norm_layer": "batch", "optimizer": "nesterov", "clip_norm": 0.5}),
    ("cnn", {"optimizer": "adamw", "augmentation": "shift"}),
    ("resnet", {"activation": "gelu", "clip_norm": 0.5, "warmup_steps": 5}),
    ("vit", {"dropout": 0.2, "optimizer": "adamw"}),
    ("custom", {}),
]


@pytest.mark.parametrize(("model", "leaves"), CASES, ids=["sgd", "nesterov", "adamw", "clipped", "dropout", "custom"])
def test_the_update_map_is_what_training_does_and_its_tangent_a_difference(model, leaves):
    point_setting = small_setting(model, precision="float64", **leaves)
    data = small_dataset().to(torch.device("cpu"), torch.float64)
    trainer = LaneTrainer(point_setting, data, lanes.take(initial_state(point_setting, data, 1), [0] * 4), seed=1)
    update, order = update_map(point_setting, data, 1), [reference_order(point_setting, 1)]
    trainer.advance(3, order)
    theta, moments = point_of(trainer.state)
    unit = {name: torch.randn(v.shape, generator=stream(0, name), dtype=v.dtype) for name, v in theta.items()}
    rest = {q: {name: 1e-3 * unit[name] for name in named} for q, named in moments.items() if q != "exp_avg_sq"}
    rest |= {
        q: {name: torch.zeros_like(v) for name, v in named.items()} for q, named in moments.items() if q not in rest
    }

    def pushed(by):
        return (
            {name: v + by * unit[name] for name, v in theta.items()},
            {q: {name: v + by * rest[q][name] for name, v in named.items()} for q, named in moments.items()},
        )

    after, tangent = linearised(update, (theta, moments), (unit, rest), 3)
    # No kink is crossed in the nearest 1e-7; the quotient's error is its square times a third derivative.
    ahead, behind = update(pushed(1e-7), 3)[0], update(pushed(-1e-7), 3)[0]
    for name in theta:
        quotient = (ahead[name] - behind[name]) / 2e-7
        torch.testing.assert_close(tangent[0][name], quotient, rtol=1e-4, atol=1e-5)
    trainer.advance(4, order)
    expected = point_of(trainer.state)
    for group, wanted in [(after[0], expected[0]), *((after[1][q], expected[1][q]) for q in moments)]:
        for name, value in wanted.items():
            torch.testing.assert_close(group[name], value, rtol=1e-10, atol=1e-13)


def growth_of(activation, data, window, fork_step, **leaves):
    point_setting = setting({"activation": activation, **leaves})
    trainer = LaneTrainer(point_setting, data, lanes.take(initial_state(point_setting, data, 0), [0] * 4), seed=0)
    trainer.advance(fork_step, [reference_order(point_setting, 0)])
    point = point_of(lanes.fork(trainer.state))
    return measure_growth(update_map(point_setting, data, 0), point, directions(point, 2), fork_step, window)


@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_gelu_grows_exponentially_and_relu_does_not(activation):
    sizes = {"num_train": 300, "num_test": 40, "batch_size": 32, "depth": 3, "width": 32, "num_steps": 200}
    for growth in growth_of(activation, small_dataset(), Window(40, 10), 5, **sizes):
        assert growth.is_exponential == (activation == "gelu"), astuple(growth)


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["gelu", "tanh", "relu"])
def test_growth_of_the_mnist1d_mlp(activation, tmp_path):
    defaults = DATA["mnist1d"].defaults
    data = DATA["mnist1d"].load(defaults["num_train"], defaults["num_test"], defaults["data_seed"], Path(tmp_path))
    for fork_step in (0, 400):
        for growth in growth_of(activation, data, Window(), fork_step):
            assert growth.is_exponential == (activation != "relu"), astuple(growth)
            if growth.is_exponential:
                # 20- to 500-fold, most of it after the burn-in.
                assert 2 < growth.amplification < 7
                assert growth.jump < 1
            else:
                assert growth.amplification < 1
                assert growth.jump > 3


def test_rows_of_growth_leave_the_run_as_it_was():
    point_setting, data = small_setting(num_steps=24, activation="gelu"), small_dataset()
    child = Child(8, "gaussian", 1e-2)
    protocol = Protocol(train_sample=32, path_points=3, growth_window=12, growth_burn_in=3)
    plain = Todo({SENTINEL: (24,), child: (24,)})
    grown = replace(plain, growth=frozenset({(8, 1), (0, 0), (8, 4)}))
    alone, outcome = (Experiment(Trial(point_setting, 2, protocol), todo, data).run() for todo in (plain, grown))
    # By text, which is the same for NaN as well.
    assert repr(alone.rows["chaos"]) == repr(outcome.rows["chaos"])
    assert alone.growth_rows == []
    # Naive: from the state that a plain run of the reference has at step 8.
    trainer = LaneTrainer(point_setting, data, lanes.take(initial_state(point_setting, data, 2), [0] * 4), seed=2)
    trainer.advance(8, [reference_order(point_setting, 2)])
    point = point_of(lanes.fork(trainer.state))
    units = [scaled(standard_normal(point[0], stream(2, "growth", 8, number))) for number in (1, 4)]
    wanted = measure_growth(update_map(point_setting, data, 2), point, units, 8, Window(12, 3))
    rows = outcome.growth_rows
    assert [(row["fork_step"], row["direction"], row["window"]) for row in rows] == [(0, 0, 12), (8, 1, 12), (8, 4, 12)]
    for row, growth in zip(rows[1:], wanted, strict=True):
        seen = {name: row[name] for name in asdict(growth)}
        assert seen == pytest.approx(asdict(growth), nan_ok=True, rel=1e-12)
    spent = growth_lane_steps(1, 12) + growth_lane_steps(2, 12)
    assert outcome.growth_lane_steps == spent == 12 * (4 + 3 * 4) + 12 * (7 + 3 * 4)
    assert outcome.summary["lane_steps"] == alone.summary["lane_steps"] + spent
