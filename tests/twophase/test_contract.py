"""What every model keeps on every kind of input: what chaos rests on. A new model is tested by being added."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from samples import NUM_TEST, NUM_TRAIN, SHAPES, small_dataset, small_setting

from twophase import lanes
from twophase.comparison import compare
from twophase.config import NORM_LAYERS, Protocol, Trial
from twophase.data import DATA
from twophase.evaluation import Evaluator
from twophase.experiment import SENTINEL, Child, Experiment, Todo
from twophase.models import MODELS
from twophase.optimizers import OPTIMIZERS
from twophase.perturb import NO_DOSE, perturb
from twophase.snapshot import from_bytes, to_bytes
from twophase.subject import Subject
from twophase.training import LaneTrainer, build_model, control_order, initial_state, reference_order

BUILDS = ("conv", "gru", "lstm", "mixer", "tied")
NORMS = {model: entry.choices.get("norm_layer", NORM_LAYERS) for model, entry in MODELS.items() if model != "custom"}
NETS = [(model, {"norm_layer": norm}) for model in sorted(NORMS) for norm in NORMS[model]]
NETS += [("custom", {"build": f"custom_nets:{build}"}) for build in BUILDS]

# Every net with and without dropout (a module of one's own brings its own), every model on every shape.
CASES = [
    (model, leaves if model == "custom" else {**leaves, "dropout": dropout}, list(SHAPES)[(i + j) % 4])
    for i, (model, leaves) in enumerate(NETS)
    for j, dropout in enumerate((0.0, 0.3))
]
OPTIONS = [{}, {"warmup_steps": 10, "optimizer": "adamw", "clip_norm": 0.5}, {"precision": "bfloat16"}]

every_model = pytest.mark.parametrize("model", sorted(MODELS))
every_shape = pytest.mark.parametrize("input_shape", SHAPES.values(), ids=list(SHAPES))
every_case = pytest.mark.parametrize(("model", "leaves", "shape"), CASES, ids=lambda part: str(part).replace(" ", ""))


def many_lanes(setting, dataset, num_lanes):
    """Lane 0 and 2 are the start, the others pushed."""
    start = initial_state(setting, dataset, seed=1)
    subject = Subject(setting, dataset, seed=1)
    pushed = [perturb(start, "gaussian", 0.1, subject, fork_step=0, direction=i)[0] for i in range(num_lanes)]
    return lanes.stack([start, pushed[1], start, *pushed[3:]])


@every_case
def test_sentinels_stay_bitwise_equal(model, leaves, shape):
    number = CASES.index((model, leaves, shape))
    options = OPTIONS[(number + number // 2) % 3]
    end = 50 if number % 2 else 20
    setting = small_setting(model, **leaves, **options, augmentation="shift", num_steps=end)
    dataset = small_dataset(SHAPES[shape])
    children = [Child(t, "gaussian", m) for t in (0, 5, 14) for m in (1e-2, 1e-5)]
    controls = [Child(end - 5, "order", 0.0, 0)]
    measured = {SENTINEL: (10, end), **dict.fromkeys((*children, *controls), (end,))}
    trial = Trial(setting, 0, Protocol(train_sample=32, path_points=3))
    outcome = Experiment(trial, Todo(measured, frozenset(children[:1]), is_trajectory_wanted=False), dataset).run()

    assert outcome.summary["is_sentinel_exact"] is True
    rows = outcome.rows["chaos"]
    sentinels = [row for row in rows if row["perturbation"] == "none"]
    assert [row["measure_step"] for row in sentinels] == [10, end]
    assert all(row["distance"] == 0.0 == row["relative_distance"] for row in sentinels)
    assert all(row["cosine_dissimilarity"] == 0.0 == row["disagreement"] for row in sentinels)
    others = [row for row in rows if row["perturbation"] != "none"]
    assert len(others) == len(children) + len(controls)
    assert all(row["distance"] > 0 for row in others)

    # A batch that grew has the reference of one that didn't.
    alone = LaneTrainer(setting, dataset, lanes.take(initial_state(setting, dataset, 0), [0] * 4), seed=0)
    alone.advance(end, [reference_order(setting, 0)])
    assert lanes.state_digest(alone.state) == outcome.summary["reference_digest"]


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
@every_model
def test_a_snapshot_of_one_lane_is_all_that_training_goes_on_from(model, optimizer):
    leaves = {"build": "custom_nets:conv"} if model == "custom" else {"dropout": 0.3}
    setting, dataset = small_setting(model, optimizer=optimizer, **leaves), small_dataset((1, 12))
    order = [reference_order(setting, 0)]
    trainer = LaneTrainer(setting, dataset, many_lanes(setting, dataset, 5), seed=0)
    trainer.advance(3, order)
    kept = to_bytes(lanes.fork(trainer.state), {})
    trainer.advance(6, order)
    back = from_bytes(kept, initial_state(setting, dataset, 1))
    again = LaneTrainer(setting, dataset, lanes.take(back, [0] * 4), seed=0, step=3)
    again.advance(6, order)
    assert lanes.state_digest(again.state) == lanes.state_digest(trainer.state)


@every_case
def test_scores_do_not_depend_on_how_many_are_scored_together(model, leaves, shape):
    setting, dataset = small_setting(model, **leaves), small_dataset(SHAPES[shape])
    evaluator = Evaluator(Trial(setting, 0, Protocol(train_sample=32)), dataset)
    trainer = LaneTrainer(setting, dataset, many_lanes(setting, dataset, 9), seed=0)
    trainer.advance(5, [reference_order(setting, 0)])
    state = trainer.state

    def seen(lane, num_lanes):
        """Everything that is computed of a lane, put last among others."""
        few = lanes.take(state, [*range(num_lanes - 1), lane])
        values = [evaluator.test_outputs(few)[0][-1].flatten().double()]
        for recompute in (True, False):
            scores = evaluator.scores(few, recompute=recompute)
            values.append(torch.stack([part[-1] for part in vars(scores).values()]))
        return torch.cat(values)

    together = [seen(lane, 9) for lane in (0, 1, 8)]
    assert all(values.isfinite().all() for values in together)
    assert torch.equal(seen(0, 1), together[0])
    assert torch.equal(seen(1, 5), together[1])
    assert torch.equal(seen(8, 6), together[2])
    assert not torch.equal(together[0], together[1])


@pytest.mark.parametrize("model", ["cnn", "mlp"])
def test_what_is_said_of_a_child_does_not_depend_on_who_is_compared_with_it(model):
    """As when children are added to a study: every column of its row, to the last bit."""
    setting, dataset = small_setting(model, depth=8), small_dataset()
    evaluator = Evaluator(Trial(setting, 0, Protocol(train_sample=32, path_points=3)), dataset)
    state = many_lanes(setting, dataset, 31)

    def rows(children):
        found, _ = compare(lanes.take(state, [0, *children]), evaluator, [NO_DOSE] * len(children), 3)
        return {child: str(row) for child, row in zip(children, found, strict=True)}

    together = rows(range(1, 31))
    for children in ([7], [7, 9, 20], range(4, 14)):
        assert all(together[child] == row for child, row in rows(children).items())


# In a process of its own: the checker that conftest.py installs draws from Python's generator itself.
TOUCHING = """
import random, sys
from pathlib import Path
import numpy as np, torch
from samples import small_setting
from twophase import lanes
from twophase.data import DATA
from twophase.models import MODELS
from twophase.optimizers import OPTIMIZERS
from twophase.subject import Subject
from twophase.training import LaneTrainer, initial_state, reference_order
from tests import cifar_samples
import mnist1d.data, sklearn.datasets

def state():
    return random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()

class Patch:
    setitem = staticmethod(dict.__setitem__)

for name in cifar_samples.NAMES:
    cifar_samples.make_small(name, Patch)
    cifar_samples.write_binary(name, Path(sys.argv[1]))
before = state()
for name, model in [*((name, "mlp") for name in DATA), *(("synthetic", model) for model in MODELS)]:
    dataset = DATA[name].load(60, 20, 3, Path(sys.argv[1]))
    leaves = {"build": "custom_nets:conv"} if model == "custom" else {"dropout": 0.5}
    setting = small_setting(model, num_train=60, num_test=20, **leaves)
    trainer = LaneTrainer(setting, dataset, lanes.take(initial_state(setting, dataset, 0), [0] * 4), seed=0)
    trainer.advance(3, [reference_order(setting, 0)])
    print([new == old for new, old in zip(state(), before)])
"""


def test_no_global_random_state_is_touched(tmp_path):
    places = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])
    command = [sys.executable, "-c", TOUCHING, str(tmp_path)]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": places}, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == ["[True, True, True]"] * (len(DATA) + len(MODELS)), done.stdout + done.stderr


@every_shape
@every_model
def test_shared_inputs_are_the_same_inputs_for_every_lane(model, input_shape):
    setting, dataset = small_setting(model, precision="float64"), small_dataset(input_shape)
    network = build_model(setting, dataset, seed=0)
    lanes.write(many_lanes(setting, dataset, 5), network)
    inputs = dataset.train_inputs[:16].double()
    shared = network(inputs)
    assert shared.shape == (5, 16, dataset.num_classes)
    # Rounding only: a grouped convolution adds in another order than an ordinary one.
    torch.testing.assert_close(network(inputs.expand(5, *inputs.shape)), shared, rtol=1e-12, atol=1e-12)
    rolled = network(torch.stack([inputs.roll(i, 0) for i in range(5)]))
    unrolled = torch.stack([logits.roll(-i, 0) for i, logits in enumerate(rolled)])
    torch.testing.assert_close(unrolled, shared, rtol=1e-12, atol=1e-12)


@every_model
def test_a_seed_is_one_network_in_every_precision(model):
    dataset = small_dataset()
    single, double = (initial_state(small_setting(model, precision=p), dataset, 5) for p in ("float32", "float64"))
    assert all(torch.equal(single.parameters[name].double(), value) for name, value in double.parameters.items())
    other = initial_state(small_setting(model), dataset, 6)
    assert lanes.state_digest(other) != lanes.state_digest(single)


def test_minibatches_partition_each_epoch():
    setting = small_setting()
    order, per_epoch = reference_order(setting, 0), NUM_TRAIN // setting.batch_size
    epochs = [torch.cat([order.batch(e * per_epoch + i) for i in range(per_epoch)]).tolist() for e in range(2)]
    for epoch in epochs:
        assert len(set(epoch)) == len(epoch) == per_epoch * setting.batch_size
        assert set(epoch) <= set(range(NUM_TRAIN))
    assert epochs[0] != epochs[1]
    assert torch.equal(reference_order(setting, 0).batch(23), order.batch(23))
    assert not torch.equal(reference_order(setting, 1).batch(23), order.batch(23))
    control = control_order(setting, 0, fork_step=10, number=0)
    assert not torch.equal(control.batch(10), order.batch(10))
    assert not torch.equal(control.batch(10), control_order(setting, 0, 10, 1).batch(10))
    assert small_dataset().test_inputs.shape[0] == NUM_TEST
