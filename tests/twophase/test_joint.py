"""Children and controls that train as one batch: not a bit differs from batches of their own."""

import pytest
from samples import SHAPES, SMALL, small_dataset, small_setting

from twophase import batch
from twophase.children import Child, Todo
from twophase.config import Protocol, Trial
from twophase.experiment import SENTINEL, Experiment
from twophase.training import LaneTrainer

CHILDREN = [Child(t, "gaussian", 1e-2) for t in (0, 6)]
CONTROLS = [Child(t, "order", direction=i) for t in (2, 6) for i in (0, 1)]
TODO = Todo({SENTINEL: (12,), **dict.fromkeys(CHILDREN + CONTROLS, (12,))}, frozenset(CHILDREN + CONTROLS))
LEAVES = {
    "plain": {},
    "noisy": {"augmentation": "shift", "optimizer": "adamw", "clip_norm": 0.5},
    "float64": {"precision": "float64"},
}


def outcome_of(point, dataset, lane_width=0):
    made = Experiment(Trial(point, 0, Protocol(train_sample=32, path_points=3)), TODO, dataset, lane_width=lane_width)
    found = made.run()
    assert made.lane_steps == made.total_lane_steps
    return found


@pytest.fixture
def widths(monkeypatch):
    """Numbers of lanes of all steps that are trained."""
    seen = []
    update = LaneTrainer._update

    def counted(self, indices):
        seen.append(self.num_lanes)
        update(self, indices)

    monkeypatch.setattr(LaneTrainer, "_update", counted)
    return seen


CASES = [(model, shape, "noisy" if shape == "1d" else "plain") for model in sorted(SMALL) for shape in ("1d", "2d-3")]


@pytest.mark.parametrize(("model", "shape", "leaves"), [*CASES, ("cnn", "1d", "float64"), ("cnn", "1d-3", "plain")])
def test_joined_batches_give_the_rows_of_separate_ones(model, shape, leaves, widths, monkeypatch):
    dropout = {"dropout": 0.2} if leaves == "noisy" and model != "custom" else {}
    point = small_setting(model, num_steps=12, **LEAVES[leaves], **dropout)
    dataset = small_dataset(SHAPES[shape])
    joined = outcome_of(point, dataset)
    # Four of each batch, which sentinels and copies fill up.
    assert max(widths) == (4 if model in ("cnn", "resnet", "vgg") and shape == "2d-3" else 8)
    widths.clear()
    monkeypatch.setattr(batch.Joint, "advance", lambda _, batches, until: [some.advance(until) for some in batches])
    separate = outcome_of(point, dataset)
    assert max(widths) == 4
    for table, rows in joined.rows.items():
        assert str(rows) == str(separate.rows[table])
    same = ("reference_digest", "is_sentinel_exact", "lane_steps", "lane_width", "test_loss")
    assert [joined.summary[name] for name in same] == [separate.summary[name] for name in same]


@pytest.mark.parametrize(("lane_width", "most"), [(4, 4), (7, 4), (8, 8)])
def test_no_more_lanes_train_together_than_asked_for(lane_width, most, widths):
    outcome_of(small_setting("mlp", num_steps=12), small_dataset(), lane_width)
    assert max(widths) == most


@pytest.mark.parametrize("leaves", [{"model": "mlp", "precision": "bfloat16"}, {"model": "cnn", "norm_layer": "group"}])
def test_what_is_not_known_to_be_exact_trains_separately(leaves, widths):
    outcome_of(small_setting(num_steps=12, **leaves), small_dataset())
    assert max(widths) == 4
