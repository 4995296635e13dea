"""Figures of the paper and of sweeps: what they draw is what the tables hold, and every axis says what it is."""

import math

import numpy as np
import pandas as pd
import pytest

from study.analysis import transitions
from study.boundary import boundary
from study.boundary_plot import boundary_figure, primary_boundary
from study.comparing import all_trends
from study.evidence import Evidence
from study.heatmaps import heatmap_figure, heatmap_words, measured_often
from study.labels import setting_labels
from study.lag_plot import lag_figure, lagged
from study.manifest import Declared
from study.pair_plots import divergence_figure, divergence_words, path_figure, path_words
from study.sweep_plots import agreement_figure, overview_figure, trend_figure
from tests.study.rows import FORKS, POINT, healthy, keys_of, trials_of
from twophase.config import setting

DECLARED = Declared(magnitudes=(1e-2,))
AXES = ["model", "lr"]
POINTS = [setting({"num_steps": 200, "lr": lr}) for lr in (0.05, 0.1, 0.2)]


def with_controls(*points, curve=(1.0, 0.4, 0.0), **child):
    parts = [healthy(point, curve=curve, **child) for point in points]
    parts += [healthy(point, kind="order", magnitude=0.0, curve=(2.0, 1.0, 0.5)) for point in points]
    return pd.concat(parts).drop_duplicates()


def lines(panel):
    return {str(line.get_label()): line for line in panel.get_lines()}


def assert_axes_are_named(figure):
    for panel in figure.axes:
        if panel.get_visible() and panel.get_label() != "<colorbar>":
            assert panel.get_xlabel(), panel
            assert panel.get_ylabel(), panel
            assert "seed" in panel.get_title(), "how many there are"


@pytest.fixture
def over_time():
    """Two measure steps before the end: the barrier at fork f and measure step m is m/1000 where that is past f."""
    rows = []
    for measured in (20, 50, 200):
        own = with_controls(POINT).assign(measure_step=measured)
        own = own[(own["perturbation"] == "none") | (own["fork_step"] < measured)]
        is_child = own["perturbation"] == "gaussian"
        rows.append(own.assign(test_barrier=own["test_barrier"].mask(is_child, measured / 1000)))
    return pd.concat(rows)


def test_a_heatmap_has_a_cell_for_each_fork_and_measure_step_and_none_before_the_fork(over_time):
    found = transitions(over_time, DECLARED)
    figure = heatmap_figure(over_time, found, ["model"], "test_barrier")
    panel, bar = figure.axes
    (image,) = panel.get_images()
    assert [label.get_text() for label in panel.get_xticklabels()] == ["20", "50", "200"]
    assert [label.get_text() for label in panel.get_yticklabels()] == ["0", "10", "100"]
    values = np.asarray(image.get_array().filled(math.nan), dtype=float)
    expected = [[0.02, 0.05, 0.2], [0.02, 0.05, 0.2], [math.nan, math.nan, 0.2]]
    np.testing.assert_allclose(values, expected, rtol=1e-12)
    assert bar.get_ylabel() == "test barrier (nats)"
    assert panel.get_title() == "mlp · 3 seeds"
    words = heatmap_words(measured_often(over_time, found), "test_barrier", setting_labels(over_time, ["model"]))
    assert words == "mlp: greatest, 0.2, forked at 0 and at 200"
    assert_axes_are_named(figure)


def test_a_child_that_diverged_is_no_colour(over_time):
    lost = over_time.assign(
        diverged=(over_time["fork_step"] == 10)
        & (over_time["measure_step"] == 50)
        & (over_time["perturbation"] == "gaussian")
    )
    lost = lost.assign(cosine_dissimilarity=lost["test_barrier"])
    figure = heatmap_figure(lost, transitions(lost, DECLARED), ["model"], "cosine_dissimilarity")
    (image,) = figure.axes[0].get_images()
    assert np.isnan(image.get_array().filled(math.nan)[1, 1])
    assert type(image.norm).__name__ == "LogNorm"


def test_studies_that_compare_once_have_no_heatmap():
    chaos = with_controls(POINT)
    assert heatmap_figure(chaos, transitions(chaos, DECLARED), ["model"], "test_barrier") is None


def parting(factor):
    """Distances that grow by a factor each step, of three seeds, from three forks; controls ten times as far."""
    rows = []
    for seed in range(3):
        for fork in FORKS:
            for lag in (1, 2, 4, 8):
                for kind, magnitude, scale in (("gaussian", 1e-2, 1.0), ("order", 0.0, 10.0)):
                    rows.append(
                        {
                            **keys_of(POINT, seed),
                            "perturbation": kind,
                            "fork_step": fork,
                            "magnitude": magnitude,
                            "direction": 0,
                            "step": fork + lag,
                            "distance": scale * 10.0 ** (seed - 1) * factor**lag,
                        }
                    )
    return pd.DataFrame(rows)


GROWTH = pd.DataFrame(
    [
        {**keys_of(POINT, seed), "fork_step": fork, "direction": 0, "window": 8, "growth_rate": rate}
        for seed in range(3)
        for fork, rate in ((0, math.log(1.5)), (10, math.nan if seed == 2 else 0.1))
    ]
)


def test_divergence_is_a_geometric_mean_over_seeds_with_a_rate_only_where_there_is_one():
    chaos = with_controls(POINT)
    figure = divergence_figure(parting(1.5), GROWTH, transitions(chaos, DECLARED), ["model"])
    (panel,) = figure.axes
    assert panel.get_xscale() == panel.get_yscale() == "log"
    drawn = lines(panel)
    assert list(drawn) == [
        "forked at 0; 0.405 per step",
        *[label for label in drawn if label.startswith("_")][:1],
        "control, forked at 0",
        "forked at 10; not exponential",
        "forked at 100",
    ]
    first = drawn["forked at 0; 0.405 per step"]
    np.testing.assert_allclose(first.get_ydata(), 1.5 ** np.array([1, 2, 4, 8]), rtol=1e-12)
    np.testing.assert_allclose(
        drawn["control, forked at 0"].get_ydata(), 10 * 1.5 ** np.array([1, 2, 4, 8]), rtol=1e-12
    )
    (slope,) = [line for line in panel.get_lines() if line.get_linestyle() == "-."]
    np.testing.assert_allclose(slope.get_ydata(), first.get_ydata(), rtol=1e-12)
    assert_axes_are_named(figure)
    words = divergence_words(parting(2.0), transitions(chaos, DECLARED), setting_labels(chaos, ["model"]))
    assert words == "mlp: × 128 from step 0 to 8, × 128 from step 100 to 108"


def test_a_path_runs_from_the_reference_to_the_child():
    rows = [
        {
            **keys_of(POINT, seed),
            "perturbation": kind,
            "fork_step": fork,
            "magnitude": magnitude,
            "direction": 0,
            "measure_step": 200,
            "alpha": alpha,
            "test_loss": 0.5 + height * alpha * (1 - alpha) + 0.01 * seed,
        }
        for seed in range(3)
        for fork in FORKS
        for kind, magnitude, height in (("gaussian", 1e-2, 4.0 if fork == 0 else 0.0), ("order", 0.0, 8.0))
        for alpha in (0.0, 0.5, 1.0)
    ]
    path, found = pd.DataFrame(rows), transitions(with_controls(POINT), DECLARED)
    figure = path_figure(path, found, ["model"])
    drawn = lines(figure.axes[0])
    np.testing.assert_allclose(drawn["forked at 0"].get_ydata(), [0.51, 1.51, 0.51], rtol=1e-12)
    np.testing.assert_allclose(drawn["forked at 100"].get_ydata(), [0.51, 0.51, 0.51], rtol=1e-12)
    np.testing.assert_allclose(drawn["control, forked at 0"].get_ydata(), [0.51, 2.51, 0.51], rtol=1e-12)
    assert_axes_are_named(figure)
    words = path_words(path, found, setting_labels(path, ["model"]))
    assert words == "mlp, forked at 0: 0.51 at the reference, 1.51 at most, 0.51 at the child"


def test_a_boundary_shows_estimates_and_what_lies_outside_the_magnitudes():
    declared = Declared(magnitudes=(1e-2, 1e-3))
    chaos = pd.concat(
        [with_controls(POINT, curve=(1.0, 0.4, 0.0)), healthy(POINT, magnitude=1e-3, curve=(1.0, 0.0, 0.0))]
    )
    chaos = chaos.drop_duplicates()
    found = transitions(chaos, declared)
    table = boundary(chaos, declared)
    assert list(primary_boundary(table, found)["censoring"]) == ["left", "none", "right"]
    figure = boundary_figure(table, found, [1e-3, 1e-2], ["model"])
    drawn = lines(figure.axes[0])
    assert list(drawn["critical magnitude"].get_xdata()) == [10]
    assert 1e-3 < drawn["critical magnitude"].get_ydata()[0] < 1e-2
    assert list(drawn["below the smallest tested"].get_xdata()) == [0]
    assert list(drawn["above the largest tested"].get_xdata()) == [100]
    assert figure.axes[0].get_yscale() == "log"
    assert_axes_are_named(figure)
    once = with_controls(POINT)
    assert boundary_figure(boundary(once, DECLARED), transitions(once, DECLARED), [1e-2], ["model"]) is None


def test_lags_take_pairs_that_many_steps_apart():
    steps = range(0, 200, 10)
    rows = [
        {
            **keys_of(POINT, seed),
            "kernel": "full",
            "step_i": i,
            "step_j": j,
            "kernel_distance": abs(i - j) / 1000 + seed,
        }
        for seed in range(2)
        for i in steps
        for j in steps
    ]
    cone = pd.DataFrame(rows)
    chosen = lagged(cone)
    assert sorted(set(chosen["named_lag"])) == [10, 20, 40, 80]
    assert ((chosen["step_j"] - chosen["step_i"] - chosen["named_lag"]).abs() <= 0.25 * chosen["named_lag"]).all()
    figure = lag_figure(cone, ["model"])
    drawn = lines(figure.axes[0])
    assert list(drawn) == ["dt 10", "dt 20", "dt 40", "dt 80"]
    np.testing.assert_allclose(drawn["dt 10"].get_ydata(), 0.01 + 0.5, rtol=1e-12)
    assert list(drawn["dt 20"].get_xdata()) == list(steps)[2:]
    assert_axes_are_named(figure)
    # Drawing warns, and warnings are errors, where a band has nothing in it.
    nothing = lag_figure(cone.assign(kernel_distance=math.nan), ["model"])
    nothing.draw_without_rendering()
    assert lines(nothing.axes[0]) == {}
    assert [text.get_text() for text in nothing.axes[0].texts] == ["no kernel is finite"]
    assert lag_figure(cone[cone["step_i"].isin([0, 10]) & cone["step_j"].isin([0, 10])], ["model"]) is None


def test_every_setting_has_a_small_panel():
    chaos = with_controls(*POINTS)
    figure = overview_figure(chaos, transitions(chaos, DECLARED), AXES, "test_barrier")
    shown = [panel for panel in figure.axes if panel.get_visible()]
    assert [panel.get_title() for panel in shown] == ["mlp · lr 0.05", "mlp · lr 0.1", "mlp · lr 0.2"]
    for panel in shown:
        control, push, *_ = panel.get_lines()
        assert list(control.get_ydata()) == [2.0, 1.0, 0.5]
        assert list(push.get_ydata()) == pytest.approx([1.0, 0.4, 0.0])
        assert panel.get_ylim() == shown[0].get_ylim()
    assert overview_figure(with_controls(*POINTS[:2]), transitions(chaos, DECLARED), AXES, "test_barrier") is None


def test_a_trend_shows_every_seed_and_the_fitted_power():
    curves = {0.05: (1.0, 0.0, 0.0), 0.1: (1.0, 0.3, 0.0), 0.2: (1.0, 1.0, 0.0)}
    chaos = pd.concat(
        [healthy(point, curve=curves[point.lr], magnitude=size) for point in POINTS for size in (1e-2, 1e-4)]
    )
    chaos = chaos.drop_duplicates()
    courses = all_trends(chaos, DECLARED, Evidence())
    figure = trend_figure(courses, "lr", chaos, AXES)
    (panel,) = figure.axes
    assert panel.get_xscale() == panel.get_yscale() == "log"
    assert panel.get_xlabel() == "lr"
    assert "for each doubling of lr" in panel.get_title()
    assert "3 settings, 9 seeds" in panel.get_title()
    law = lines(panel)["fitted power"]
    x, y = (np.asarray(data, dtype=float) for data in (law.get_xdata(), law.get_ydata()))
    slope = np.polyfit(np.log2(x), np.log(y), 1)[0]
    (row,) = courses.trends[(courses.trends["axis"] == "lr") & (courses.trends["unit"] == "steps")].to_dict("records")
    assert math.exp(slope) == pytest.approx(row["per_octave"], rel=1e-9)
    points = [line for line in panel.get_lines() if line.get_marker() == "o"]
    assert sum(len(line.get_xdata()) for line in points) == 9
    bottom, top = panel.get_ylim()
    for line in points:
        assert all(bottom < float(step) < top for step in line.get_ydata()), "every seed is in sight"
    assert trend_figure(courses, "width", chaos, AXES) is None


def test_chaos_against_cone_has_a_point_where_both_are_and_says_what_is_missing():
    chaos = with_controls(*POINTS[:2])
    found = transitions(chaos, DECLARED)
    primary = found[found["is_primary"]].sort_values("lr")
    kernel = primary.assign(
        indicator="kernel_velocity",
        kernel="full",
        is_primary=False,
        transition_step=[30.0, math.nan],
        ci_low=[20.0, math.nan],
        ci_high=[60.0, math.nan],
        verdict=["located", "undetermined"],
    )
    trials = trials_of(*POINTS[:2])
    figure = agreement_figure(pd.concat([found, kernel]), trials, AXES)
    (panel,) = figure.axes
    assert panel.get_title() == "1 of 2 have both; 3 seeds"
    drawn = lines(panel)
    assert list(drawn["identity"].get_xdata()) == list(drawn["identity"].get_ydata())
    both = drawn["mlp · lr 0.05 · full"]
    assert list(both.get_xdata()) == [primary["transition_step"].iloc[0]]
    assert list(both.get_ydata()) == [30.0]
    assert "mlp · lr 0.1 · full: barrier's alone" in drawn
    assert_axes_are_named(figure)
    assert agreement_figure(found, trials, AXES) is None, "no kernels"
