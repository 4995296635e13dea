"""The figure of linearised training: its interval by hand, and what it shows of runs that diverged."""

import math

import pandas as pd
import pytest

from study.switch_plot import mean_interval, per_seed, switch_figure, switch_words
from tests.study.rows import POINT, frame, keys_of

REACHED = {0: (0.3, 0.4, 0.5), 50: (0.6, 0.7, 0.8), 200: (0.9, 0.9, 0.9)}


def switch_rows(diverged=()):
    def row(step, seed, accuracy):
        is_lost = (step, seed) in diverged
        found = {"test_accuracy": math.nan, "test_loss": math.nan} if is_lost else {"test_accuracy": accuracy}
        return {**keys_of(POINT, seed), "switch_step": step, "test_loss": 1 / accuracy, **found, "diverged": is_lost}

    return frame([row(step, seed, value) for step, values in REACHED.items() for seed, value in enumerate(values)])


def crosses(figure):
    return [line.get_xdata().tolist() for line in figure.axes[0].lines if line.get_label() == "diverged"]


def test_the_interval_is_student_s():
    mean, low, high = mean_interval(pd.DataFrame([[1.0, 2.0, 3.0], [1.0, 2.0, math.nan]]))
    # t of 2 degrees of freedom at 97.5 % is 4.30265, the standard deviation 1.
    assert (mean[0], high[0] - 2.0, 2.0 - low[0]) == pytest.approx((2.0, *[4.30265 / math.sqrt(3)] * 2), rel=1e-5)
    assert all(math.isnan(part[1]) for part in (mean, low, high)), "a seed that diverged is not averaged away"


def test_runs_that_diverged_are_crosses_and_gaps():
    assert crosses(switch_figure(switch_rows(), ["model"])) == []
    lost = switch_rows(diverged={(50, 1)})
    figure = switch_figure(lost, ["model"])
    assert crosses(figure) == [[50]]
    figure.draw_without_rendering()
    assert switch_words(lost, ["model"]) == "mlp: 0.40 from step 0, diverged in some seed from step 50, 0.90 unswitched"
    everything = {(step, seed) for step in REACHED for seed in range(3)}
    figure = switch_figure(switch_rows(everything), ["model"])
    assert "every run diverged" in [text.get_text() for text in figure.axes[0].texts]
    assert len(per_seed(switch_rows(everything), "test_loss")) == len(REACHED)
