"""Kernels along a run: rows against kernels taken by hand from the same states."""

import math
import tempfile

import numpy as np
import pytest
import torch
from samples import NUM_CLASSES, small_dataset, small_setting

from twophase import entk, kernel_distance, lanes
from twophase.cone import checkpoint_steps, distances, movement, velocities
from twophase.config import Protocol, Trial
from twophase.data import stratified
from twophase.evaluation import Evaluator
from twophase.experiment import Experiment, Todo
from twophase.kernels.streaming import StreamingGram
from twophase.models import OneLane
from twophase.training import LaneTrainer, build_model, initial_state, reference_order

STEPS = (0, 3, 10, 40)
PROTOCOL = Protocol(train_sample=64, path_points=3, probe_size=12, probe_seed=5)


def run(model="cnn", steps=STEPS, kinds=("full", "trace"), **leaves):
    trial = Trial(small_setting(model, **leaves), 0, PROTOCOL)
    todo = Todo({}, kernel_steps=dict.fromkeys(kinds, steps))
    return Experiment(trial, todo, small_dataset()).run()


def kernels_by_hand(model="cnn", *, is_recomputed=True, **leaves):
    """The reference trained by itself, its kernels taken on the probe set."""
    setting, dataset = small_setting(model, **leaves), small_dataset()
    chosen = stratified(dataset.train_labels, 12, seed=5, purpose="probe")
    evaluator = Evaluator(Trial(setting, 0, PROTOCOL), dataset)
    trainer = LaneTrainer(setting, dataset, lanes.take(initial_state(setting, dataset, 0), [0] * 4), seed=0)
    network, taken = build_model(setting, dataset, seed=0), []
    for step in STEPS:
        trainer.advance(step, [reference_order(setting, 0)])
        state = lanes.fork(trainer.state)
        lanes.write(evaluator.recomputed(state) if is_recomputed else state, network)
        taken.append(entk(OneLane(network), dataset.train_inputs[chosen]))
    return taken


def matrix(rows, kind, column):
    found = {(row["step_i"], row["step_j"]): row[column] for row in rows if row["kernel"] == kind}
    assert len(found) == len(STEPS) ** 2
    return np.array([[found[i, j] for j in STEPS] for i in STEPS])


def test_rows_of_a_run_are_those_of_its_kernels():
    outcome = run()
    rows = outcome.kernel_rows["full"]
    taken = kernels_by_hand()
    products = [[float((a.double() * b.double()).sum()) for b in taken] for a in taken]
    np.testing.assert_allclose(matrix(rows["cone"], "full", "inner_product"), products, rtol=1e-12)
    between = matrix(rows["cone"], "full", "kernel_distance")
    np.testing.assert_allclose(between, [[kernel_distance(a, b) for b in taken] for a in taken], atol=1e-14)
    assert (np.diag(between) == 0).all()
    assert [row["step"] for row in rows["kernel"]] == list(STEPS)
    speeds = [row["velocity"] for row in rows["kernel"]]
    assert math.isnan(speeds[0])
    assert speeds[1:] == pytest.approx([between[i, i + 1] / (STEPS[i + 1] - STEPS[i]) for i in range(3)])
    for row, kernel in zip(rows["kernel"], taken, strict=True):
        assert row["norm"] == pytest.approx(float(kernel.double().norm()), rel=1e-12)
        assert 1 <= row["effective_rank"] <= 12 * NUM_CLASSES


def test_a_run_that_kept_running_statistics_would_be_seen():
    between = matrix(run().kernel_rows["full"]["cone"], "full", "kernel_distance")
    stale = kernels_by_hand(is_recomputed=False)
    apart = [[kernel_distance(a, b) for b in stale] for a in stale]
    assert np.abs(between - apart).max() > 0.05


def test_kernels_change_nothing_of_the_run():
    alone = Experiment(Trial(small_setting("cnn"), 0, PROTOCOL), Todo({}), small_dataset()).run()
    beside = run()
    assert alone.summary["reference_digest"] == beside.summary["reference_digest"]
    assert repr(alone.rows["trajectory"]) == repr(beside.rows["trajectory"])  # NaN equals itself in words


def test_a_kind_s_rows_do_not_depend_on_what_else_is_taken():
    alone, beside = run(kinds=("trace",)), run(kinds=("full", "trace"))
    assert repr(alone.kernel_rows["trace"]) == repr(beside.kernel_rows["trace"])  # NaN equals itself in words


def test_a_kernel_without_diagonal_has_no_trace():
    for row in run(kinds=("projection",)).kernel_rows["projection"]["kernel"]:
        assert math.isnan(row["trace"])
        assert math.isnan(row["effective_rank"])
        assert math.isnan(row["eigenvalue_1"])
        assert row["norm"] > 0


def test_a_run_that_diverged_has_unknown_kernels():
    outcome = run("mlp", lr=1e6)
    assert outcome.summary["status"] == "diverged"
    between = matrix(outcome.kernel_rows["full"]["cone"], "full", "kernel_distance")
    assert np.isnan(between[-1]).all()
    assert np.isnan(between[0, 1:]).any()
    assert math.isnan(outcome.kernel_rows["full"]["kernel"][-1]["norm"])


def kernels(num, size=700):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(size, size, generator=generator) for _ in range(num)]


def test_products_do_not_depend_on_where_kernels_are_kept_nor_on_later_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    taken = kernels(5)  # of several blocks each
    found = []
    for memory_bytes, num in ((1 << 30, 5), (0, 5), (2 * 4 * 700**2, 5), (0, 3)):
        gram = StreamingGram(memory_bytes)
        for kernel in taken[:num]:
            gram.add(kernel)
        found.append(gram.matrix())
        written = 0 if gram._scratch is None else gram._scratch.seek(0, 2)
        assert written == max(0, num * 4 * 700**2 - memory_bytes)
        gram.close()
        assert list(tmp_path.iterdir()) == []
    whole = found[0]
    np.testing.assert_allclose(whole, [[float((a.double() * b).sum()) for b in taken] for a in taken], rtol=1e-9)
    assert (found[1] == whole).all()
    assert (found[2] == whole).all()
    assert (found[3] == whole[:3, :3]).all()


def test_a_kernel_added_is_a_copy():
    kernel = kernels(1, 5)[0]
    gram = StreamingGram()
    gram.add(kernel)
    before = gram.matrix()[0, 0]
    kernel.mul_(2)
    gram.add(kernel)
    assert gram.matrix()[0, 1] == 2 * before


def test_geometry_from_the_gram_matrix_alone():
    taken = torch.randn(6, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 1
    gram = (taken @ taken.T).numpy()
    expected = [[kernel_distance(a.view(5, 6), b.view(5, 6)) for b in taken] for a in taken]
    between = distances(gram)
    np.testing.assert_allclose(between, expected, atol=1e-14)
    steps = np.array([0.0, 1, 3, 10, 11, 50])
    speeds = velocities(gram, steps)
    assert math.isnan(speeds[0])
    np.testing.assert_allclose(speeds[1:], [between[i, i + 1] / (steps[i + 1] - steps[i]) for i in range(5)])
    found = movement(between, [0, 1, 3, 10, 11, 50], split=4)
    assert found.split_step == 10
    assert found.early == pytest.approx((between[0, 1] + between[0, 2] + between[1, 2]) / 3)
    assert found.late == pytest.approx((between[3, 4] + between[3, 5] + between[4, 5]) / 3)
    assert found.to_end == between[3, 5]


def test_a_kernel_that_is_nothing_is_at_no_distance():
    between = distances(np.array([[1.0, 0.0], [0.0, 0.0]]))
    assert between[0, 0] == 0
    assert np.isnan(between[0, 1])
    assert np.isnan(distances(np.array([[1.0, math.nan], [math.nan, math.nan]]))[1]).all()


@pytest.mark.parametrize("num_steps", [1, 2, 7, 60, 1500, 100_000])
@pytest.mark.parametrize(("num_log", "num_linear"), [(12, 12), (0, 5), (10, 1), (30, 40)])
def test_checkpoints_begin_at_0_end_at_the_end_and_never_crowd(num_steps, num_log, num_linear):
    steps = checkpoint_steps(num_steps, num_log, num_linear)
    assert steps[0] == 0
    assert steps[-1] == num_steps
    assert list(steps) == sorted(set(steps))
    assert len(steps) <= num_log + num_linear + 1
    linear = [round(i * num_steps / num_linear) for i in range(num_linear + 1)]
    assert set(linear) <= set(steps)


def test_a_log_spaced_step_beside_a_linear_one_is_left_out():
    # Log-spaced 1, 10, 100, 1000: 100 is 25 from the linear 125, nearer than a quarter of its 90 to the one before? No.
    assert checkpoint_steps(1000, 4, 8) == (0, 1, 10, 100, 125, 250, 375, 500, 625, 750, 875, 1000)
    # 100 stands 11 from 111, less than 90/4.
    assert 100 not in checkpoint_steps(1000, 4, 9)
