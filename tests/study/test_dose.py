"""The dose figure: a line per fork step over magnitudes, a grid of settings, controls beside."""

import math

import numpy as np
import pandas as pd
import pytest

from study.analysis import transitions
from study.dose import dose_figure, dose_words, doses
from study.labels import setting_labels
from study.manifest import Declared
from tests.study.rows import healthy
from twophase.config import setting

DECLARED = Declared(magnitudes=(1e-2, 1e-3))
GRID = [
    setting({"num_steps": 200, "activation": activation, "lr": lr})
    for activation in ("gelu", "relu", "tanh")
    for lr in (0.1, 0.2)
]


def study_of(points, small=(0.5, 0.2, 0.0), diverged=()):
    parts = [healthy(point, magnitude=1e-2, diverged=diverged) for point in points]
    parts += [healthy(point, magnitude=1e-3, curve=small) for point in points]
    parts += [healthy(point, kind="order", magnitude=0.0, curve=(2.0, 1.0, 0.5)) for point in points]
    return pd.concat(parts).drop_duplicates()


def figure_of(chaos, axes=("model", "activation", "lr")):
    return dose_figure(chaos, transitions(chaos, DECLARED), axes)


def line(panel, label):
    (found,) = [line for line in panel.get_lines() if line.get_label() == label]
    return dict(zip(np.asarray(found.get_xdata(), dtype=float).tolist(), found.get_ydata(), strict=True))


def test_two_leaves_make_the_grid_and_lines_are_means(tmp_path):
    figure = figure_of(study_of(GRID))
    titles = [panel.get_title() for panel in figure.axes]
    assert titles == [f"mlp · {activation} · lr {lr}" for lr in (0.1, 0.2) for activation in ("gelu", "relu", "tanh")]
    assert figure.axes[0].get_gridspec().ncols == 3
    for panel in figure.axes:
        assert line(panel, "forked at 0") == pytest.approx({1e-3: 0.5, 1e-2: 1.0})
        assert line(panel, "forked at 10") == pytest.approx({1e-3: 0.2, 1e-2: 0.4})
        assert set(line(panel, "control, forked at 0").values()) == {2.0}
        assert set(line(panel, "threshold 0.05").values()) == {0.05}
        diamonds = [float(found.get_ydata()[0]) for found in panel.get_lines() if found.get_marker() == "D"]
        assert diamonds == [2.0, 1.0, 0.5]
    figure.savefig(tmp_path / "figure.png")


def test_a_diverged_child_is_a_cross_and_a_gap():
    panel = figure_of(study_of(GRID[:1], diverged=(0,))).axes[0]
    assert math.isinf(line(panel, "forked at 0")[1e-2])
    assert list(line(panel, "diverged")) == [1e-2]


def test_one_magnitude_has_no_dose_figure():
    assert figure_of(healthy()) is None


@pytest.mark.parametrize("points", [GRID[:1], GRID[:2], GRID[:3], [GRID[0], GRID[3]]])
def test_any_number_of_settings(points, tmp_path):
    figure = figure_of(study_of(points))
    assert sum(panel.get_visible() for panel in figure.axes) == len(points)
    figure.savefig(tmp_path / "figure.png")


def test_words_hold_the_numbers():
    chaos = study_of(GRID[:1])
    shown = doses(chaos, transitions(chaos, DECLARED), "test_barrier")
    words = dose_words(shown, dict(setting_labels(chaos, ["model", "activation"])))
    assert words == ("Forked at step 0, means over seeds. mlp · gelu: 0.50 at 0.001, 1.00 at 0.01, 2.00 for controls")


def test_one_panel_that_blows_up_leaves_the_others_readable():
    chaos = study_of(GRID)
    worst = chaos["setting_key"].unique()[2]
    chaos.loc[chaos["setting_key"] == worst, "test_barrier"] *= 100
    panels = figure_of(chaos).axes
    own = [any("scale of its own" in text.get_text() for text in panel.texts) for panel in panels]
    tops = [panel.get_ylim()[1] for panel in panels]
    assert sum(own) == 1
    for is_own, top in zip(own, tops, strict=True):
        assert 1.0 < top < 300
        assert (top > 100) == is_own
