"""The kernel's own transition: a clear break is found, smooth drift isn't called one, and the seeds are joined."""

import math

import numpy as np
import pytest

from twophase.cone import checkpoint_steps
from twophase.kernel_transition import LEAST_DROP, kernel_break, kernel_transition

STEPS = np.array(checkpoint_steps(1500, 12, 16), dtype=float)
GAPS = np.diff(STEPS)
MIDDLE = np.expm1((np.log1p(STEPS[1:]) + np.log1p(STEPS[:-1])) / 2)
COSINE = np.cumsum(np.concatenate([[0.0], 0.5 * (1 + np.cos(np.pi * np.arange(1500) / 1500))]))[STEPS.astype(int)]


def gram_of(turned):
    """Kernels that turn by given angles, every time into a new direction."""
    points = np.zeros((len(turned) + 1, len(turned) + 1))
    points[0, 0] = 1.0
    for k, angle in enumerate(turned):
        points[k + 1] = math.cos(angle) * points[k]
        points[k + 1, k + 1] = math.sin(angle)
    return points @ points.T


def found(velocity, drawn=None, noise=0.2, power=1.0, lr=COSINE):
    turned = velocity * GAPS**power
    turned = turned if drawn is None else turned * np.exp(noise * drawn.standard_normal(len(GAPS)))
    return kernel_break(gram_of(0.8 * turned / turned.max()), STEPS, lr)


SMOOTH = {
    "constant": (np.ones_like(GAPS), 1.0),
    "power law": ((1 + MIDDLE) ** -0.7, 1.0),
    "bending": (1 / (1 + MIDDLE / 50), 1.0),
    "jitter that follows the schedule": (np.diff(COSINE) / GAPS, 0.0),
    "diffusion": (np.diff(COSINE) / GAPS, 0.5),
}


@pytest.mark.parametrize("law", SMOOTH)
def test_smooth_laws_are_not_called_breaks(law):
    velocity, power = SMOOTH[law]
    drawn = np.random.default_rng(1)
    kinds = [found(velocity, drawn, power=power).kind for _ in range(200)]
    # 5 % would be 10; 200 draws have a standard error of 3.
    assert kinds.count("break") <= 12
    assert kinds.count("constant" if law == "constant" else "drift") >= 160


def test_a_clear_break_is_found_where_it_is():
    drawn = np.random.default_rng(2)
    rate = np.diff(COSINE) / GAPS
    breaks = [found(rate * np.where(MIDDLE < 150, 1.0, 0.1), drawn) for _ in range(50)]
    assert all(seed.kind == "break" for seed in breaks)
    assert np.mean([seed.low <= 150 <= seed.high for seed in breaks]) >= 0.95
    assert np.median([seed.factor for seed in breaks]) == pytest.approx(0.1, rel=0.3)
    # The same jump upwards, or a small one, is no break into a slower regime.
    assert all(found(np.where(MIDDLE < 150, 0.1, 1.0), drawn).kind == "drift" for _ in range(5))
    assert found(np.where(MIDDLE < 150, 1.0, 0.9 / LEAST_DROP * 1.2)).kind != "break"


def test_a_fall_of_the_learning_rate_is_not_the_kernel_s_own():
    rate = np.where(STEPS[:-1] < 750, 1.0, 0.2)
    clock = np.concatenate([[0.0], np.cumsum(rate * GAPS)])
    drawn = np.random.default_rng(3)
    assert all(found(rate, drawn, lr=clock).kind != "break" for _ in range(20))
    assert found(rate, drawn, lr=None).kind == "break"


def test_a_kernel_that_hardly_moves_is_still_and_too_little_is_unknown():
    still = kernel_break(gram_of(np.full(len(GAPS), 0.005)), STEPS)
    assert (still.kind, math.isnan(still.step)) == ("still", True)
    assert "within 5°" in still.reason
    few = kernel_break(gram_of(np.full(8, 0.2)), np.arange(9.0))
    assert few.kind == "unknown"
    assert "only 8 gaps" in few.reason
    gram = gram_of(np.full(len(GAPS), 0.2))
    gram[3, 3] = math.nan
    assert kernel_break(gram, STEPS).reason == "a kernel isn't finite"
    twice = np.full(len(GAPS), 0.2)
    twice[5] = 0.0
    assert kernel_break(gram_of(twice), STEPS).kind == "unknown"


def test_seeds_are_joined_by_the_rules_of_every_transition():
    drawn = np.random.default_rng(4)
    broken = [found(np.where(at > MIDDLE, 1.0, 0.05), drawn, noise=0.1) for at in (40, 150, 150)]
    drifting = found((1 + MIDDLE) ** -0.7, drawn, noise=0.05)
    still = kernel_break(gram_of(np.full(len(GAPS), 0.005)), STEPS)
    unknown = kernel_break(gram_of(np.full(8, 0.2)), np.arange(9.0))
    joined, words = kernel_transition(broken)
    assert joined.verdict == "located"
    assert joined.step == np.median([seed.step for seed in broken])
    assert joined.low <= joined.step <= joined.high < math.inf
    assert words == "break into a slower regime"
    joined, words = kernel_transition([*broken, drifting, unknown])
    assert (joined.verdict, joined.num_seeds, joined.high) == ("located", 4, math.inf)
    assert words.startswith("seeds differ: 3 break into a slower regime, 1 ")
    never, words = kernel_transition([drifting, drifting])
    assert (never.verdict, never.low, never.high) == ("chaotic_throughout", drifting.last_step, math.inf)
    assert words == "smooth drift, no break"
    assert kernel_transition([still, still])[0].verdict == "stable_from_start"
    assert kernel_transition([still, drifting])[0].verdict == "undetermined"
    assert kernel_transition([unknown, unknown])[0].num_seeds == 0
