"""From chaos rows to transitions and figures, on rows made by hand."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from search_spaces import Primary
from study.analysis import select, transitions
from study.curves import curve_matrix
from study.manifest import Declared
from study.plots import MAX_PANELS, barrier_figure, learning_figure
from study.summary import records, to_json, transition_text
from tests.study.rows import FORKS, OTHER, POINT, SETTLES, frame, healthy, rows_of, sentinel
from twophase.chaos import INDICATORS
from twophase.config import setting
from twophase.errors import BadInput
from twophase.transition import locate_transition

DECLARED = Declared(Primary(), magnitudes=(1e-2, 1e-3))


def primary(chaos, declared=DECLARED, by=None):
    found = transitions(chaos, declared, by=by)
    (row,) = found[found.is_primary].to_dict("records")
    return row


def test_a_transition_by_hand():
    row = primary(healthy())
    # log(1 + t) linear between (10, 0.4) and (100, 0): 0.05 is reached 7/8 of the way.
    by_hand = math.expm1(math.log(11) + 7 / 8 * (math.log(101) - math.log(11)))
    assert row["transition_step"] == pytest.approx(by_hand, rel=1e-9)
    assert (row["verdict"], row["num_seeds"], row["threshold"], row["measure"]) == ("located", 3, 0.05, "end")
    assert row["ci_low"] == 10
    assert row["ci_high"] == 100


def test_a_diverged_child_of_a_fine_reference_is_not_connected():
    # The measurement itself is NaN, as it is when a child diverges.
    chaos = healthy(curve=(1.0, 0.0, math.nan), diverged=(100,))
    assert primary(chaos)["verdict"] == "chaotic_throughout"
    # Without the divergence, what is unknown is not what is not connected.
    assert primary(healthy(curve=(1.0, 0.0, 0.0)))["verdict"] == "located"


def test_one_diverged_direction_makes_its_seed_s_fork_step_infinite():
    chaos = frame(
        *(rows_of(POINT, seed, (0, 0, 0)) + sentinel(POINT, seed) for seed in range(3)),
        *(rows_of(POINT, seed, (0, 0, 0), direction=1, diverged=(10,)) for seed in range(3)),
    )
    row = primary(chaos)
    assert row["verdict"] == "located"
    # An infinite side has no place to interpolate from: the upper end.
    assert row["transition_step"] == 100


def test_a_diverged_reference_is_unknown_and_its_seed_is_not_counted():
    broken = rows_of(POINT, 3, (math.nan,) * 3, diverged=FORKS) + sentinel(POINT, 3, diverged=True)
    chaos = pd.concat([healthy(), frame(broken)])
    assert primary(chaos) == {**primary(healthy()), "reason": "the reference diverged in 1 of 4 seeds"}
    alone = frame(broken, rows_of(POINT, 4, (math.nan,) * 3, diverged=FORKS) + sentinel(POINT, 4, diverged=True))
    row = primary(alone)
    assert (row["verdict"], row["num_seeds"]) == ("undetermined", 0)
    assert math.isnan(row["transition_step"])


def test_the_sentinel_itself_is_no_child():
    assert set(transitions(healthy(), DECLARED).perturbation) == {"gaussian"}


def test_one_primary_row_per_setting():
    chaos = pd.concat(
        [
            healthy(),
            healthy(magnitude=1e-3),
            healthy(kind="order", magnitude=0.0),
            healthy(OTHER),
            healthy(OTHER, magnitude=1e-3),
        ]
    ).drop_duplicates()
    found = transitions(chaos, DECLARED)
    marked = found[found.is_primary]
    assert sorted(marked.setting_key) == sorted([POINT.key, OTHER.key])
    assert set(marked.indicator) == {"test_barrier"}
    assert set(marked.magnitude) == {1e-2}
    assert set(marked.perturbation) == {"gaussian"}
    named = transitions(chaos, Declared(Primary("disagreement", 0.5, 1e-3), magnitudes=(1e-2, 1e-3)))
    marked = named[named.is_primary]
    assert len(marked) == 2
    assert set(marked.indicator) == {"disagreement"}
    assert set(marked.magnitude) == {1e-3}
    assert set(marked.threshold) == {0.5}


def test_every_indicator_has_its_row_and_its_threshold():
    found = transitions(healthy(), Declared(Primary(threshold=0.3), magnitudes=(1e-2,)))
    assert dict(zip(found.indicator, found.threshold, strict=True)) == {**INDICATORS, "test_barrier": 0.3}


def test_controls_appear_beside_the_children():
    controls = healthy(kind="order", magnitude=0.0, curve=(2.0, 2.0, 2.0))
    found = transitions(pd.concat([healthy(), controls]).drop_duplicates(), DECLARED)
    of_controls = found[found.perturbation == "order"]
    assert len(of_controls) == len(INDICATORS)
    assert set(of_controls.verdict) == {"chaotic_throughout"}
    assert not of_controls.is_primary.any()


def test_settings_are_apart_unless_pooled():
    chaos = pd.concat([healthy(curve=(0, 0, 0)), healthy(OTHER, curve=(1, 1, 1))])
    apart = transitions(chaos, DECLARED).query("is_primary").set_index("lr").verdict
    assert apart.to_dict() == {0.1: "stable_from_start", 0.2: "chaotic_throughout"}
    pooled = primary(chaos, by=["model"])
    # Seed 0 of one setting and seed 0 of another are two replicates, not one: three stable, three chaotic.
    assert (pooled["model"], pooled["num_curves"], pooled["verdict"]) == ("mlp", 6, "undetermined")
    # …and no more than three seeds and two settings, which don't agree.
    assert (pooled["num_seeds"], pooled["num_settings"]) == (3, 2)
    assert "the pooled settings differ (1 chaotic throughout, 1 stable from start)" in pooled["reason"]
    assert "lr" not in transitions(chaos, DECLARED, by=["model"])


def test_pooling_over_an_unknown_axis():
    with pytest.raises(BadInput, match="unknown axis 'lrr'; did you mean 'lr'"):
        transitions(healthy(), DECLARED, by=["lrr"])


def test_directions_are_nested_in_seeds():
    """Four directions of two seeds are two seeds: their curves are averaged before anything crosses."""
    curves = [(1.0, 0.0, 0.0), (1.0, 0.2, 0.0), (1.0, 0.8, 0.0), (1.0, 0.2, 0.0)]
    directions = [rows_of(POINT, seed, curve, direction=d) for seed in (0, 1) for d, curve in enumerate(curves)]
    nested = frame(*directions, sentinel(POINT, 0), sentinel(POINT, 1))
    row = primary(nested)
    assert row["num_seeds"] == 2
    means = locate_transition(np.array(FORKS), np.array([[1.0, 0.3, 0.0]] * 2), groups=["a", "b"])
    assert (row["transition_step"], row["ci_low"], row["ci_high"]) == pytest.approx((means.step, means.low, means.high))


def test_a_curve_matrix_has_a_row_per_replicate_and_a_column_per_fork_step():
    rows = frame(rows_of(POINT, 0, SETTLES), rows_of(POINT, 0, (3, 2, 1), direction=1)).assign(lost="")
    curves = curve_matrix(rows, "test_barrier")
    assert list(curves.columns) == list(FORKS)
    assert curves.to_numpy().tolist() == [[1.0, 0.4, 0.0], [3.0, 2.0, 1.0]]


def test_measures_are_kept_apart():
    early = healthy(curve=(5, 5, 5)).query("perturbation != 'none'")
    early = early.assign(measure_step=early.fork_step + 20)
    # Each measured step has its sentinel.
    early_sentinels = pd.concat(
        [healthy().query("perturbation == 'none'").assign(measure_step=fork + 20) for fork in FORKS]
    )
    chaos = pd.concat([healthy(), early, early_sentinels])
    found = transitions(chaos, Declared(magnitudes=(1e-2,), measures=("end", "+20")))
    verdicts = found[found.indicator == "test_barrier"].set_index("measure").verdict
    assert verdicts.to_dict() == {"end": "located", "+20": "chaotic_throughout"}


def test_what_is_printed_is_chosen_from_what_was_measured():
    found = transitions(pd.concat([healthy(), healthy(magnitude=1e-3)]).drop_duplicates(), DECLARED)
    assert select(found, None, None).is_primary.all()
    assert set(select(found, None, 1e-3).magnitude) == {1e-3}
    assert set(select(found, "disagreement", None).indicator) == {"disagreement"}
    with pytest.raises(BadInput, match=r"magnitude must be one that was run \(0.001, 0.01\), got 0.5"):
        select(found, None, 0.5)


def test_json_has_nulls_where_numbers_are_not_finite():
    found = transitions(healthy(curve=(1, 1, 1)), DECLARED).query("is_primary")
    (row,) = json.loads(to_json(transitions=records(found)), parse_constant=pytest.fail)["transitions"]
    assert row["transition_step"] is None
    assert row["ci_high"] is None
    assert row["ci_low"] == 100


def test_the_printed_table_says_infinity_and_unknown():
    text = transition_text(transitions(healthy(curve=(1, 1, 1)), DECLARED).query("is_primary"), ["model"])
    assert text.splitlines()[1].split("  ")[0] == "mlp"
    assert "[100, ∞)" in text
    assert "nan" not in text


NOTHING_TO_SHOW = (math.nan,) * 3
CASES = {
    "one setting": healthy(),
    "two settings": pd.concat([healthy(), healthy(OTHER)]),
    "five settings": pd.concat([healthy(setting({"num_steps": 200, "lr": lr})) for lr in (0.1, 0.2, 0.3, 0.4, 0.5)]),
    "controls": pd.concat([healthy(), healthy(kind="order", magnitude=0.0)]).drop_duplicates(),
    "some NaN": healthy(curve=(1.0, math.nan, 0.0)),
    "only NaN": healthy(curve=NOTHING_TO_SHOW),
    "all diverged": healthy(curve=NOTHING_TO_SHOW, diverged=FORKS),
    "chaotic throughout": healthy(curve=(1, 1, 1)),
    "stable from start": healthy(curve=(0, 0, 0)),
    "one seed": healthy(seeds=1),
}


@pytest.mark.parametrize("chaos", CASES.values(), ids=CASES)
def test_a_barrier_figure_of_anything(chaos, tmp_path):
    figure = barrier_figure(chaos, transitions(chaos, DECLARED), ["model", "lr"])
    assert isinstance(figure, Figure)
    assert sum(panel.get_visible() for panel in figure.axes) == chaos.setting_key.nunique()
    # Drawing is where layouts and scales fail.
    figure.savefig(tmp_path / "figure.png")


def test_a_barrier_figure_of_a_study_without_the_measure_step_end(tmp_path):
    chaos = healthy().assign(measure_step=150)
    declared = Declared(measure="150", magnitudes=(1e-2,), measures=("150",))
    figure = barrier_figure(chaos, transitions(chaos, declared), ["model"])
    assert figure.axes[0].get_title() == "mlp\ntransition 76 [10, 100]"


def test_a_barrier_figure_says_what_was_found():
    def texts(chaos):
        figure = barrier_figure(chaos, transitions(chaos, DECLARED), ["model"])
        return figure.axes[0].get_title().partition("\n")[2]

    assert texts(CASES["one setting"]) == "transition 76 [10, 100]"
    assert texts(CASES["chaotic throughout"]) == "chaotic throughout"
    assert texts(CASES["only NaN"]) == "undetermined"


def test_a_diverged_child_is_a_cross_at_the_edge_and_never_a_small_number():
    chaos = healthy(curve=(1.0, 0.0, 0.0), diverged=(10,))
    (panel,) = barrier_figure(chaos, transitions(chaos, DECLARED), ["model"]).axes
    (cross,) = [line for line in panel.get_lines() if line.get_label() == "diverged"]
    assert list(cross.get_xdata()) == [10]
    (mean,) = [line for line in panel.get_lines() if line.get_label() == "gaussian 0.01"]
    assert list(mean.get_ydata()) == [1.0, math.inf, 0.0]


def test_an_empty_panel_says_why():
    broken = rows_of(POINT, 3, (math.nan,) * 3, diverged=FORKS) + sentinel(POINT, 3, diverged=True)
    chaos = frame(broken)
    (panel,) = barrier_figure(chaos, transitions(chaos, DECLARED), ["model"]).axes
    assert "the reference diverged" in panel.texts[0].get_text().replace("\n", " ")


def test_settings_past_the_panels_are_counted():
    settings = [setting({"num_steps": 200, "lr": (i + 1) / 100}) for i in range(MAX_PANELS + 2)]
    chaos = pd.concat([healthy(point, seeds=1) for point in settings])
    figure = barrier_figure(chaos, transitions(chaos, DECLARED), ["lr"])
    assert len([panel for panel in figure.axes if panel.get_visible()]) == MAX_PANELS
    assert figure.get_suptitle() == "2 more settings are not shown"


@pytest.mark.parametrize("value", [0.5, math.nan])
@pytest.mark.parametrize("points", [(POINT,), (POINT, OTHER)])
def test_a_learning_figure(points, value, tmp_path):
    rows = [
        {"setting_key": point.key, "seed": seed, "step": step, **point.values()}
        for point in points
        for seed in (0, 1)
        for step in (0, 1, 200)
    ]
    trajectory = pd.DataFrame(rows).assign(train_loss=value, test_loss=value, test_accuracy=value)
    figure = learning_figure(trajectory, ["model", "lr"])
    lines = [len(panel.get_lines()) for panel in figure.axes if panel.get_visible()]
    assert sorted(lines) == sorted([2, 4] * len(points)), "two losses on one axis, accuracy on its own"
    figure.savefig(tmp_path / "figure.png")
