"""Equal lanes stay bitwise equal at every position of a batch of any width, whatever the size of their layers."""

import pytest
import torch

from twophase import lanes
from twophase.config import setting
from twophase.data import Dataset
from twophase.perturb import perturb
from twophase.subject import Subject
from twophase.training import LaneTrainer, control_order, initial_state, reference_order

# Odd widths put lanes at addresses of every alignment; those of 8 and 16 fill a vector.
NETS = [
    ("mlp", {"norm_layer": "none", "depth": 2, "width": 5}),
    ("mlp", {"norm_layer": "none", "depth": 2, "width": 33}),
    ("mlp", {"norm_layer": "batch", "depth": 3, "width": 7}),
    ("mlp", {"norm_layer": "batch", "depth": 2, "width": 10, "dropout": 0.2}),
    ("mlp", {"norm_layer": "layer", "depth": 2, "width": 33, "dropout": 0.2}),
    ("mlp", {"norm_layer": "layer", "depth": 3, "width": 7}),
    ("cnn", {"norm_layer": "batch", "depth": 3, "width": 5}),
    ("cnn", {"norm_layer": "batch", "depth": 2, "width": 8, "dropout": 0.2}),
    ("cnn", {"norm_layer": "batch", "depth": 4, "width": 7}),
    ("cnn", {"norm_layer": "none", "depth": 3, "width": 6}),
    ("cnn", {"norm_layer": "batch", "depth": 8, "width": 16}),
    ("cnn", {"norm_layer": "group", "depth": 3, "width": 12}),
    ("cnn", {"norm_layer": "layer", "depth": 3, "width": 7}),
    ("resnet", {"norm_layer": "batch", "depth": 8, "width": 5, "dropout": 0.2}),
    ("resnet", {"norm_layer": "batch", "depth": 14, "width": 8}),
    ("resnet", {"norm_layer": "none", "depth": 8, "width": 6}),
    ("resnet", {"norm_layer": "group", "depth": 8, "width": 5, "shortcut": "B"}),
    ("vgg", {"norm_layer": "batch", "depth": 11, "width": 5}),
    ("vgg", {"norm_layer": "none", "depth": 13, "width": 4}),
    ("vgg", {"norm_layer": "group", "depth": 11, "width": 3, "dropout": 0.2}),
    ("vit", {"depth": 2, "width": 9, "num_heads": 3, "patch_size": 4}),
    ("vit", {"depth": 1, "width": 10, "num_heads": 1, "patch_size": 2, "norm_layer": "none"}),
    ("vit", {"depth": 1, "width": 32, "num_heads": 4, "patch_size": 2, "dropout": 0.2}),
    ("custom", {"build": "custom_nets:conv"}),
    ("custom", {"build": "custom_nets:mixer"}),
    ("custom", {"build": "custom_nets:gru"}),
]
SIZES = {"num_train": 128, "num_test": 32, "batch_size": 16, "num_steps": 20}

# Each net on an input of one channel and on one of three.
SHAPES = [((1, 12), (3, 8, 8)), ((1, 40), (3, 40))]
CASES = [(model, leaves, shape) for i, (model, leaves) in enumerate(NETS) for shape in SHAPES[i % 2]]


def noise(shape: tuple[int, ...]) -> Dataset:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(128, *shape, generator=generator)
    labels = torch.randint(0, 10, (128,), generator=generator)
    return Dataset(inputs, labels, inputs[:32], labels[:32], 10)


@pytest.mark.parametrize(
    ("model", "leaves", "shape"), [CASES[2 * i + j] for i in (1, 3, 4, 6, 17) for j in (0, 1)], ids=str
)
@pytest.mark.parametrize("rule", [{"optimizer": "adamw"}, {"optimizer": "nesterov", "clip_norm": 0.1}], ids=str)
def test_no_update_rule_changes_a_bit_either(model, leaves, shape, rule):
    assert_one_digest(setting({"model": model, **leaves, **rule, **SIZES}), noise(shape), num_steps=2)


@pytest.mark.parametrize(("model", "leaves", "shape"), CASES, ids=str)
def test_position_and_width_change_no_bit(model, leaves, shape):
    assert_one_digest(setting({"model": model, **leaves, **SIZES}), noise(shape), num_steps=3)


def assert_one_digest(point, data, *, num_steps):
    """Train equal lanes and pushed ones among them, on one order that they share, then on an order per lane."""
    start = initial_state(point, data, seed=0)
    subject, digests = Subject(point, data, seed=0), set()
    for num_lanes in (4, 5, 7, 16):
        pushed = [perturb(start, "gaussian", 0.1, subject, fork_step=0, direction=i)[0] for i in range(num_lanes // 3)]
        others = {3 * i + 1: state for i, state in enumerate(pushed)}
        equal = [lane for lane in range(num_lanes) if lane not in others]
        trainer = LaneTrainer(point, data, lanes.stack([others.get(lane, start) for lane in range(num_lanes)]), seed=0)
        own = [
            reference_order(point, 0) if lane in equal else control_order(point, 0, 0, lane)
            for lane in range(num_lanes)
        ]
        trainer.advance(num_steps, own[:1])
        trainer.advance(2 * num_steps, own)
        state = trainer.state
        digests |= {lanes.state_digest(state, lane) for lane in equal}
        assert not {lanes.state_digest(state, lane) for lane in others} & digests
    assert len(digests) == 1
