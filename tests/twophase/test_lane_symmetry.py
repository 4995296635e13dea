"""Equal lanes stay bitwise equal at every position of a batch of any width, whatever the size of their layers."""

import pytest
import torch

from twophase import lanes
from twophase.config import setting
from twophase.data import Dataset
from twophase.training import LaneTrainer, initial_state, reference_order

# Odd widths put lanes at addresses of every alignment; those of 8 and 16 fill a vector.
NETS = [
    ("mlp", "none", 2, 5),
    ("mlp", "none", 2, 33),
    ("mlp", "batch", 3, 7),
    ("mlp", "batch", 2, 10),
    ("cnn", "batch", 3, 5),
    ("cnn", "batch", 2, 8),
    ("cnn", "batch", 4, 7),
    ("cnn", "none", 3, 6),
    ("cnn", "batch", 8, 16),
    ("resnet", "batch", 8, 5),
    ("resnet", "batch", 14, 8),
    ("resnet", "none", 8, 6),
    ("vgg", "batch", 11, 5),
    ("vgg", "none", 13, 4),
]


def noise(shape: tuple[int, ...]) -> Dataset:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(128, *shape, generator=generator)
    labels = torch.randint(0, 10, (128,), generator=generator)
    return Dataset(inputs, labels, inputs[:32], labels[:32], 10)


@pytest.mark.parametrize("shape", [(1, 40), (3, 8, 8)], ids=str)
@pytest.mark.parametrize(("model", "norm_layer", "depth", "width"), [NETS[1], NETS[3], NETS[4], NETS[9]])
@pytest.mark.parametrize("leaves", [{"optimizer": "adamw"}, {"optimizer": "nesterov", "clip_norm": 0.1}], ids=str)
def test_no_update_rule_changes_a_bit_either(model, norm_layer, depth, width, shape, leaves):
    net = {"model": model, "norm_layer": norm_layer, "depth": depth, "width": width}
    point = setting({**net, **leaves, "num_train": 128, "num_test": 32, "batch_size": 16, "num_steps": 20})
    assert_one_digest(point, noise(shape), is_shared=True)


@pytest.mark.parametrize("shape", [(1, 12), (1, 40), (3, 40), (3, 8, 8)], ids=str)
@pytest.mark.parametrize(("model", "norm_layer", "depth", "width"), NETS)
@pytest.mark.parametrize("is_shared", [True, False], ids=["one order", "order per lane"])
def test_position_and_width_change_no_bit(model, norm_layer, depth, width, shape, is_shared):
    leaves = {"model": model, "norm_layer": norm_layer, "depth": depth, "width": width}
    point = setting({**leaves, "num_train": 128, "num_test": 32, "batch_size": 16, "num_steps": 20})
    assert_one_digest(point, noise(shape), is_shared=is_shared)


def assert_one_digest(point, data, *, is_shared):
    start = initial_state(point, data, seed=0)
    digests = set()
    for num_lanes in (4, 5, 7, 8, 11):
        trainer = LaneTrainer(point, data, lanes.take(start, [0] * num_lanes), seed=0)
        trainer.advance(5, [reference_order(point, 0)] * (1 if is_shared else num_lanes))
        digests |= {lanes.state_digest(trainer.state, lane) for lane in range(num_lanes)}
    assert len(digests) == 1
