"""Shifts: against a naive loop, the same for all lanes at a step, another at the next; and warm-up."""

import pytest
import torch
from samples import SHAPES, small_dataset, small_setting

from twophase import lanes
from twophase.augmentation import AUGMENTATIONS, flip_shift, shift
from twophase.seeding import stream
from twophase.training import LaneTrainer, initial_state, learning_rate, reference_order


def naive(inputs, offsets):
    """Move each example position by position, zeros coming in."""
    moved = torch.zeros_like(inputs)
    for b in range(len(inputs)):
        for target in torch.cartesian_prod(*[torch.arange(size) for size in inputs.shape[2:]]).view(
            -1, inputs.dim() - 2
        ):
            source = [int(t) - int(o[b]) for t, o in zip(target, offsets, strict=True)]
            if all(0 <= s < size for s, size in zip(source, inputs.shape[2:], strict=True)):
                moved[(b, slice(None), *target.tolist())] = inputs[(b, slice(None), *source)]
    return moved


@pytest.mark.parametrize("shape", [(9, 2, 20), (9, 3, 17, 8)], ids=["1d", "2d"])
def test_a_shift_against_a_naive_loop(shape):
    inputs = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    generator = stream(0, "augmentation", 3)
    offsets = [torch.randint(-(size // 8), size // 8 + 1, (9,), generator=generator) for size in shape[2:]]
    moved = shift(inputs, len(shape) - 2, stream(0, "augmentation", 3))
    assert torch.equal(moved, naive(inputs, offsets))
    assert not torch.equal(moved, inputs)


@pytest.mark.parametrize("augment", [shift, flip_shift])
@pytest.mark.parametrize("shape", [(9, 2, 20), (9, 3, 17, 8)], ids=["1d", "2d"])
def test_every_lane_sees_the_same_draw(shape, augment):
    inputs = torch.randn(4, *shape, generator=torch.Generator().manual_seed(0))
    together = augment(inputs, len(shape) - 2, stream(0, "augmentation", 3))
    for lane in range(4):
        assert torch.equal(together[lane], augment(inputs[lane], len(shape) - 2, stream(0, "augmentation", 3)))


def test_about_half_of_the_images_are_mirrored_left_to_right_and_then_shifted():
    inputs = torch.randn(2000, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    found = flip_shift(inputs, 2, stream(0, "augmentation", 3))
    generator = stream(0, "augmentation", 3)
    is_mirrored = torch.rand(2000, generator=generator) < 0.5
    assert 900 < int(is_mirrored.sum()) < 1100  # standard deviation 22
    expected = torch.stack(
        [image.flip(-1) if mirrored else image for image, mirrored in zip(inputs, is_mirrored, strict=True)]
    )
    assert torch.equal(found, shift(expected, 2, generator))


def test_shifts_reach_an_eighth_both_ways_and_no_further():
    inputs = torch.zeros(2000, 1, 40)
    inputs[:, :, 20] = 1
    places = shift(inputs, 1, stream(1, "augmentation", 0)).argmax(-1).flatten()
    counts = places.bincount(minlength=40)
    assert counts.nonzero().flatten().tolist() == list(range(15, 26))
    # Uniform: 2000/11 = 182 each, deviation 13.
    assert counts[15:26].min() > 120


def test_each_step_has_a_draw_of_its_own_that_depends_on_nothing_else():
    setting, dataset = small_setting("mlp", augmentation="shift"), small_dataset(SHAPES["1d"])
    start = lanes.take(initial_state(setting, dataset, 0), [0] * 4)

    def digest(stops, seed=0):
        trainer = LaneTrainer(setting, dataset, start, seed=seed)
        for stop in stops:
            trainer.advance(stop, [reference_order(setting, 0)])
        return lanes.state_digest(trainer.state)

    assert digest([12]) == digest([3, 4, 12])
    assert digest([12]) != digest([12], seed=1)
    trainer = LaneTrainer(small_setting("mlp"), dataset, start, seed=0)
    trainer.advance(12, [reference_order(setting, 0)])
    assert digest([12]) != lanes.state_digest(trainer.state)


def test_none_is_no_augmentation():
    assert AUGMENTATIONS["none"] is None


@pytest.mark.parametrize("schedule", ["constant", "cosine", "step"])
def test_warm_up_rises_linearly_with_any_schedule(schedule):
    warm = small_setting(schedule=schedule, warmup_steps=9, lr=0.5)
    cold = small_setting(schedule=schedule, lr=0.5)
    for step in range(40):
        share = min(1.0, (step + 1) / 10)
        assert learning_rate(warm, step) == pytest.approx(share * learning_rate(cold, step), rel=1e-12)
