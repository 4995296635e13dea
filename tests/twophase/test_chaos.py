"""Rows of an experiment against a naive transcription of each formula: one plain network at a time, in float64."""

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from samples import plain, small_dataset, small_setting
from torch import nn
from torch.nn.functional import cross_entropy

from twophase import chaos, lanes
from twophase.config import Protocol, Trial
from twophase.experiment import SENTINEL, Child, Experiment, Todo, fork_child
from twophase.subject import Subject
from twophase.training import LaneTrainer, initial_state, reference_order

NAN = math.nan
SEED, FORK_STEP, END, PATH_POINTS = 3, 5, 30, 5
CHILDREN = [Child(FORK_STEP, "gaussian", 0.5, 0), Child(FORK_STEP, "gaussian", 1e-2, 1)]
# A few hundred operations of order 1; what is rebuilt is bitwise the same, or nearly.
NEAR = 1e-9


def flat(network):
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def on_path(reference, child, alpha, train_inputs):
    """The network at a point of the line, its statistics cumulative averages over batches of 256."""
    point = copy.deepcopy(reference)
    with torch.no_grad():
        for here, a, b in zip(point.parameters(), reference.parameters(), child.parameters(), strict=True):
            here.copy_((1 - alpha) * a + alpha * b)
        for module in point.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.reset_running_stats()
                module.momentum = None
        point.train()
        for i in range(0, len(train_inputs), 256):
            point(train_inputs[i : i + 256])
    return point.eval()


def loss_and_error(network, inputs, labels):
    with torch.no_grad():
        logits = network(inputs)
        return float(cross_entropy(logits, labels)), float((logits.argmax(1) != labels).double().mean())


def features_of(network, inputs):
    seen = []
    hook = network.head.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    network.eval()(inputs)
    hook.remove()
    return seen[0] - seen[0].mean(0)


def gram_norm(features):
    return float(torch.linalg.norm(features.T @ features))


def barrier(heights):
    last = len(heights) - 1
    return max(h - ((1 - i / last) * heights[0] + i / last * heights[-1]) for i, h in enumerate(heights))


def naive_row(reference, child, data):
    a, b = flat(reference), flat(child)
    points = [on_path(reference, child, i / (PATH_POINTS - 1), data.train_inputs) for i in range(PATH_POINTS)]
    train = [loss_and_error(point, data.train_inputs, data.train_labels) for point in points]
    test = [loss_and_error(point, data.test_inputs, data.test_labels) for point in points]
    with torch.no_grad():
        p, q = (net.eval()(data.test_inputs).softmax(1) for net in (reference, child))
        x, y = (features_of(net, data.test_inputs) for net in (reference, child))
    heights = [loss for loss, _ in test]
    return {
        "distance": float((a - b).norm()),
        "relative_distance": float((a - b).norm() / a.norm()),
        "cosine_dissimilarity": float(1 - a @ b / a.norm() / b.norm()),
        "train_barrier": barrier([loss for loss, _ in train]),
        "test_barrier": barrier(heights),
        "barrier_over_max": max(h - max(heights[0], heights[-1]) for h in heights),
        "train_error_barrier": barrier([error for _, error in train]),
        "test_error_barrier": barrier([error for _, error in test]),
        "angular_cka": math.acos(float(torch.linalg.norm(y.T @ x) ** 2 / gram_norm(x) / gram_norm(y))),
        "disagreement": sum(int(x.argmax() != y.argmax()) for x, y in zip(p, q, strict=True)) / len(p),
        "prediction_distance": sum(float((x - y).abs().sum()) / 2 for x, y in zip(p, q, strict=True)) / len(p),
    }


@pytest.fixture(scope="module", params=[("mlp", "none"), ("mlp", "batch"), ("cnn", "batch")], ids="-".join)
def measured(request):
    """Rows of an experiment, and the plain networks that they are about, trained by hand."""
    model, norm_layer = request.param
    setting = small_setting(model, norm_layer=norm_layer, precision="float64", num_steps=END)
    dataset = small_dataset()
    data = dataset.to(torch.device("cpu"), torch.float64)
    todo = Todo({SENTINEL: (END,), **dict.fromkeys(CHILDREN, (END,))}, frozenset(CHILDREN))
    outcome = Experiment(Trial(setting, SEED, Protocol(path_points=PATH_POINTS)), todo, dataset).run()

    trainer = LaneTrainer(setting, data, lanes.take(initial_state(setting, data, SEED), [0] * 4), seed=SEED)
    trainer.advance(FORK_STEP, [reference_order(setting, SEED)])
    subject = Subject(setting, data, SEED)
    children = [fork_child(trainer.state, child, subject)[0] for child in CHILDREN]
    reference = lanes.fork(trainer.state)
    trainer.load(lanes.stack([reference, reference, *children]))
    trainer.advance(END, [reference_order(setting, SEED)])
    networks = [plain(setting, data.input_shape, trainer.state, lane) for lane in range(4)]
    return outcome, networks[0], dict(zip(CHILDREN, networks[2:], strict=True)), data


def row_of(outcome, table, child):
    keys = (child.perturbation, child.fork_step, child.magnitude, child.direction)
    names = ("perturbation", "fork_step", "magnitude", "direction")
    return [row for row in outcome.rows[table] if tuple(row[name] for name in names) == keys]


@pytest.mark.parametrize("child", CHILDREN, ids=lambda child: f"{child.magnitude:g}")
def test_rows_against_naive_formulas(measured, child):
    outcome, reference, networks, data = measured
    (row,) = row_of(outcome, "chaos", child)
    expected = naive_row(reference, networks[child], data)
    assert {name: row[name] for name in expected} == pytest.approx(expected, rel=NEAR, abs=NEAR)
    assert row["diverged"] is False
    assert math.isnan(row["aligned_test_barrier"])
    # What is compared is not trivial.
    assert row["distance"] > 1e-3
    assert row["prediction_distance"] > 1e-4


def test_a_barrier_is_seen(measured):
    outcome, *_ = measured
    (row,) = row_of(outcome, "chaos", CHILDREN[0])
    assert row["train_barrier"] > 1e-3
    assert row["disagreement"] > 0


@pytest.mark.parametrize("child", CHILDREN, ids=lambda child: f"{child.magnitude:g}")
def test_path_rows_against_naive_points(measured, child):
    outcome, reference, networks, data = measured
    rows = row_of(outcome, "path", child)
    assert [row["alpha"] for row in rows] == [0.0, 0.25, 0.5, 0.75, 1.0]
    for row in rows:
        point = on_path(reference, networks[child], row["alpha"], data.train_inputs)
        train = loss_and_error(point, data.train_inputs, data.train_labels)
        test = loss_and_error(point, data.test_inputs, data.test_labels)
        assert (row["train_loss"], row["train_error"]) == pytest.approx(train, rel=NEAR, abs=NEAR)
        assert (row["test_loss"], row["test_error"]) == pytest.approx(test, rel=NEAR, abs=NEAR)


@pytest.mark.parametrize("child", CHILDREN, ids=lambda child: f"{child.magnitude:g}")
def test_divergence_ends_at_the_final_distance(measured, child):
    outcome, reference, networks, _ = measured
    rows = row_of(outcome, "divergence", child)
    assert [row["step"] for row in rows] == [6, 7, 9, 13, 21, 30]
    final = float((flat(reference) - flat(networks[child])).norm())
    assert rows[-1]["distance"] == pytest.approx(final, rel=NEAR)
    assert len({row["distance"] for row in rows}) == len(rows)


def test_trajectory_ends_at_the_reference(measured):
    outcome, reference, _, data = measured
    last = outcome.rows["trajectory"][-1]
    train, _ = loss_and_error(reference.eval(), data.train_inputs, data.train_labels)
    test, error = loss_and_error(reference.eval(), data.test_inputs, data.test_labels)
    seen = (last["step"], last["train_loss"], last["test_loss"], last["test_accuracy"], last["param_norm"])
    assert seen == pytest.approx((END, train, test, 1 - error, float(flat(reference).norm())), rel=NEAR)
    assert outcome.summary["test_loss"] == last["test_loss"]


@pytest.mark.parametrize(
    ("alphas", "losses", "expected"),
    [
        ([0, 0.5, 1], [1, 4, 3], 2.0),
        ([0, 0.25, 1], [0, 3, 4], 2.0),
        ([0, 0.5, 1], [1, 1, 3], 0.0),
        ([0, 1], [5, 2], 0.0),
        ([0, 0.5, 1], [0, NAN, 0], NAN),
        ([0, 0.5, 1], [NAN, 0, 0], NAN),
        ([0, 0.5, 1], [0, 0, NAN], NAN),
        ([0, 0.5, 1], [0, math.inf, 0], math.inf),
    ],
)
def test_loss_barrier_by_hand(alphas, losses, expected):
    assert chaos.loss_barrier(alphas, losses) == pytest.approx(expected, nan_ok=True, rel=1e-15)


@pytest.mark.parametrize(
    ("losses", "expected"),
    [([1, 4, 3], 1.0), ([0, 3, 4], 0.0), ([2, 2.5, 0], 0.5), ([0, NAN, 0], NAN), ([NAN, 1, 0], NAN), ([0, NAN], NAN)],
)
def test_barrier_over_max_by_hand(losses, expected):
    assert chaos.barrier_over_max(losses) == pytest.approx(expected, nan_ok=True, rel=1e-15)


@pytest.mark.parametrize(
    ("alphas", "losses"), [([0], [1]), ([0, 1], [1, 2, 3]), ([0, 1, 0.5], [1, 2, 3]), ([0, 0, 1], [1, 2, 3])]
)
def test_loss_barrier_refuses_what_is_no_path(alphas, losses):
    with pytest.raises(ValueError, match=r"^alphas .*must "):
        chaos.loss_barrier(alphas, losses)


heights = st.lists(st.floats(0, 100), min_size=2, max_size=12)


@given(heights)
def test_barriers_against_their_formulas(losses):
    alphas = [i / (len(losses) - 1) for i in range(len(losses))]
    # Rounding of numbers up to 100.
    assert chaos.loss_barrier(alphas, losses) == pytest.approx(barrier(losses), abs=1e-12)
    assert chaos.barrier_over_max(losses) == max(h - max(losses[0], losses[-1]) for h in losses)
    assert chaos.loss_barrier(alphas, losses) >= chaos.barrier_over_max(losses) >= 0


@given(heights, st.data())
def test_one_nan_makes_every_barrier_nan(losses, data):
    losses[data.draw(st.integers(0, len(losses) - 1))] = NAN
    assert math.isnan(chaos.loss_barrier(range(len(losses)), losses))
    assert math.isnan(chaos.barrier_over_max(losses))


def small_state():
    """Three lanes: the reference, one apart, one with a NaN."""
    weight = torch.tensor([[[3.0, 0.0]], [[0.0, 4.0]], [[NAN, 1.0]]])
    return lanes.LaneState({"a.weight": weight, "a.bias": torch.zeros(3, 1)}, {}, {})


@pytest.mark.parametrize(
    ("function", "first", "second"),
    [(chaos.distance, 0.0, 5.0), (chaos.parameter_norm, 3.0, 4.0), (chaos.cosine_dissimilarity, 0.0, 1.0)],
)
def test_states_by_hand(function, first, second):
    seen = function(small_state())
    assert seen.dtype == torch.float64
    assert seen.tolist() == pytest.approx([first, second, NAN], nan_ok=True, rel=1e-15)


def test_a_nan_reference_makes_all_distances_nan():
    state = lanes.take(small_state(), [2, 0, 1])
    assert chaos.distance(state).isnan().all()
    assert chaos.cosine_dissimilarity(state).isnan().all()


@pytest.mark.parametrize(
    ("function", "second"), [(chaos.disagreement, 0.5), (chaos.prediction_distance, 0.5 * (0.6 + 0.1))]
)
def test_predictions_by_hand(function, second):
    # Two inputs, two classes; the second lane differs in the first input's argmax, by total variations .6 and .1.
    p = [[[0.9, 0.1], [0.2, 0.8]], [[0.3, 0.7], [0.3, 0.7]], [[0.9, 0.1], [NAN, NAN]]]
    probabilities = torch.tensor(p, dtype=torch.float64)
    assert function(probabilities).tolist() == pytest.approx([0.0, second, NAN], nan_ok=True, rel=1e-12)
    assert function(probabilities[[2, 0, 1]]).isnan().all()


def test_angular_cka_by_hand():
    """Centred Gram matrices diag-like by construction: XXᵀ of one feature a, YYᵀ of two, a and an orthogonal b."""
    a = torch.tensor([1.0, 1.0, -1.0, -1.0]).double()
    b = torch.tensor([1.0, -1.0, 1.0, -1.0]).double()
    features = torch.stack([torch.stack(pair, 1) for pair in [(a, 0 * a), (0 * a, b), (a, b), (3 * a + 5, 0 * a)]])
    # ⟨aaᵀ, aaᵀ + bbᵀ⟩ / (‖aaᵀ‖ ‖aaᵀ + bbᵀ‖) = 1/√2.
    expected = [0.0, math.pi / 2, math.pi / 4, 0.0]
    assert chaos.angular_cka(features).tolist() == pytest.approx(expected, abs=1e-7)  # arccos near 1
    assert chaos.angular_cka(features)[0] == 0.0


def test_angular_cka_is_blind_to_rotation_and_scale_only():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 6, generator=generator)
    rotation, _ = torch.linalg.qr(torch.randn(6, 6, generator=generator))
    stretched = x * torch.tensor([3.0, 1, 1, 1, 1, 1])
    angles = chaos.angular_cka(torch.stack([x, 2.5 * x @ rotation + 7, stretched, x * NAN, 0 * x, x]))
    # Features are float32: their rounding of 1e-7 turns them by as much.
    assert angles[:2].tolist() == pytest.approx([0.0, 0.0], abs=1e-6)
    assert angles[2] > 0.3
    assert angles[3:5].isnan().all()
    assert angles[5] == 0.0
    assert chaos.angular_cka(torch.stack([x * NAN, x])).isnan().all()


def test_cosine_keeps_its_digits():
    weight = torch.tensor([[1.0, 0.0], [1.0, 1e-9]], dtype=torch.float64)
    state = lanes.LaneState({"a.weight": weight}, {}, {})
    # 1 − cos ≈ ½ (1e-9)²; computed as 1 − cos it would be 0.
    assert float(chaos.cosine_dissimilarity(state)[1]) == pytest.approx(0.5e-18, rel=1e-6)


def test_interpolation_is_exact_at_both_ends():
    start = initial_state(small_setting(), small_dataset(), 0)
    other = initial_state(small_setting(), small_dataset(), 1)
    both = lanes.stack([start, other])
    path = chaos.interpolate(both, 1, [0.0, 0.25, 1.0])
    for name, value in both.parameters.items():
        assert torch.equal(path.parameters[name][0], value[0])
        assert torch.equal(path.parameters[name][2], value[1])
        expected = 0.75 * value[0] + 0.25 * value[1]
        torch.testing.assert_close(path.parameters[name][1], expected, rtol=1e-6, atol=1e-7)  # float32


def test_a_child_that_diverges_is_an_outcome():
    wild, tame = Child(0, "gaussian", 1e30), Child(0, "gaussian", 1e-3)
    todo = Todo({SENTINEL: (20,), wild: (20,), tame: (20,)}, frozenset([wild]))
    setting = small_setting(num_steps=20)
    outcome = Experiment(Trial(setting, 0, Protocol(path_points=3)), todo, small_dataset()).run()
    (row,) = row_of(outcome, "chaos", wild)
    assert row["diverged"] is True
    measures = [name for name in row if name.endswith("_barrier") and name != "aligned_test_barrier"]
    assert len(measures) == 4
    assert all(math.isnan(row[name]) for name in [*measures, "barrier_over_max", "disagreement"])
    for child in (tame, SENTINEL):
        (row,) = row_of(outcome, "chaos", child)
        assert row["diverged"] is False
        assert all(math.isfinite(row[name]) for name in measures)
    assert outcome.summary["status"] == "ok"
    assert outcome.summary["is_sentinel_exact"] is True


def test_a_reference_that_diverges_is_no_broken_sentinel():
    setting = small_setting(num_steps=20, lr=1e6)
    child = Child(10, "gaussian", 1e-3)
    todo = Todo({SENTINEL: (20,), child: (20,)})
    outcome = Experiment(Trial(setting, 0, Protocol(path_points=3)), todo, small_dataset()).run()
    assert outcome.summary["status"] == "diverged"
    assert outcome.summary["is_sentinel_exact"] is True
    (row,) = row_of(outcome, "chaos", child)
    assert row["diverged"] is True
    assert math.isnan(row["test_barrier"])
