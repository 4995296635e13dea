"""What `run` and `locate` print: named, once, honest about what is missing."""

import pandas as pd

from search_spaces import Primary
from study.analysis import select, transitions
from study.labels import setting_labels, varying_axes
from study.manifest import Declared
from study.plots import barrier_figure, primary_children
from study.summary import located_text
from tests.study.rows import OTHER, POINT, healthy, sentinel, trials_of
from twophase.config import LEAVES, setting

DECLARED = Declared(magnitudes=(1e-2, 1e-3))
BATCH = (64, 128)


def everything():
    parts = [healthy(point) for point in (POINT, OTHER)]
    parts += [healthy(point, magnitude=1e-3) for point in (POINT, OTHER)]
    parts += [healthy(point, kind="order", magnitude=0.0) for point in (POINT, OTHER)]
    return pd.concat(parts).drop_duplicates()


def text(chaos, trials, indicator=None, magnitude=None, declared=DECLARED, by=None):
    found = transitions(chaos, declared, by=by)
    axes = by or varying_axes(trials, list(LEAVES))
    return located_text(found, select(found, indicator, magnitude), axes, declared, trials)


def test_another_indicator_is_named_with_its_threshold_and_controls_come_once():
    lines = text(everything(), trials_of(POINT, OTHER), "disagreement").splitlines()
    assert lines[0].startswith(
        "transition (exploratory, not declared before running): the step from which disagreement"
    )
    assert "at or below 0.05" in lines[0]
    first, second = "\n".join(lines).split("controls (")
    assert "order" not in first
    assert len(second.splitlines()) == 1 + 1 + 2


def test_the_primary_among_others_is_told_from_them():
    shown = text(everything(), trials_of(POINT, OTHER), "test_barrier")
    rows = [line for line in shown.partition("\n\n")[0].splitlines() if line.startswith("mlp")]
    assert [line.split()[-1] for line in rows] == ["exploratory", "primary"] * 2
    assert "only the rows marked primary were declared" in shown
    own = text(everything(), trials_of(POINT, OTHER), None, 1e-2)
    assert own.startswith("transition: the step from which test_barrier stays at or below 0.05 for good, gaussian at")


def test_controls_are_those_of_the_primary_s_measure_step():
    late = everything()
    early = late.assign(measure_step=150)
    shown = text(pd.concat([late, early]), trials_of(POINT, OTHER), declared=Declared(
        magnitudes=(1e-2, 1e-3), measures=("end", "150")
    ))  # fmt: skip
    assert len(shown.partition("controls (")[2].splitlines()) == 1 + 1 + 2


def test_settings_without_a_row_of_the_primary_are_named():
    failed = trials_of(OTHER, status="failed", error="ValueError: no")
    shown = text(healthy(), pd.concat([trials_of(POINT), failed]))
    assert "mlp · lr 0.2 has no row of the primary: all 3 trials failed: ValueError: no" in shown
    smaller = pd.concat([healthy(), healthy(OTHER, magnitude=1e-3)])
    assert "mlp · lr 0.2 has no row of the primary: no gaussian child of magnitude 0.01 was run" in text(
        smaller, trials_of(POINT, OTHER)
    )


def test_nothing_measured_is_not_called_exploratory():
    failed = trials_of(POINT, status="failed", error="ValueError: no")
    shown = text(healthy().iloc[:0], failed)
    assert shown == "no transition was measured: all 3 trials failed; most often: ValueError: no"


def test_pooled_counts_are_of_settings_and_of_seeds():
    chaos = pd.concat([healthy(curve=(0, 0, 0)), healthy(OTHER)])
    shown = text(chaos, trials_of(POINT, OTHER), by=["model"])
    header, row = shown.splitlines()[1:3]
    assert header.split()[-2:] == ["settings", "seeds"]
    assert row.split()[-2:] == ["2", "3"]
    assert "note: mlp: the pooled settings differ (1 located, 1 stable from start)" in shown


def epochs(size, steps):
    point = setting({"num_steps": 200, "batch_size": size, "num_train": 64 * 40})
    sentinels = pd.concat([pd.DataFrame(sentinel(point, seed)) for seed in range(3)])
    children = healthy(point).query("perturbation != 'none'")
    rows = [part.assign(measure_step=step) for part in (sentinels, children) for step in steps]
    return pd.concat(rows).query("measure_step > fork_step or perturbation == 'none'")


def test_epochs_are_each_setting_s_own():
    """Three epochs are 120 steps of 64 examples, 60 of 128: neither stands for the other."""
    chaos = pd.concat([epochs(64, (60, 120)), epochs(128, (60, 120))], ignore_index=True)
    declared = Declared(Primary(), measure="3ep", magnitudes=(1e-2,), measures=("3ep", "120"))
    found = transitions(chaos, declared)
    assert not found.duplicated(["setting_key", "indicator", "perturbation", "magnitude", "measure"]).any()
    headline = found.query("is_primary").set_index("batch_size")
    assert headline.measure.to_dict() == {64: "120", 128: "60"}
    trials = trials_of(*(setting({"num_steps": 200, "batch_size": b, "num_train": 64 * 40}) for b in BATCH))
    axes = varying_axes(trials, list(LEAVES))
    assert "measured at 3ep (step 60, 120)" in located_text(found, found.query("is_primary"), axes, declared, trials)
    shown = primary_children(chaos, found)
    assert set(zip(shown.batch_size, shown.measure_step, strict=True)) == {(64, 120), (128, 60)}
    figure = barrier_figure(chaos, found, axes)
    assert [panel.get_ylabel().split()[-1] for panel in figure.axes] == ["120", "60"]
    pooled = transitions(chaos, declared, by=["model"]).query("is_primary")
    assert pooled.measure.tolist() == ["3ep"]


def test_labels_keep_what_tells_settings_apart():
    def labels(*changes):
        trials = trials_of(*(setting({"num_steps": 200, **change}) for change in changes))
        return list(setting_labels(trials, varying_axes(trials, list(LEAVES))))

    assert labels({"momentum": 0.0}, {"momentum": 0.9}) == ["mlp · momentum 0", "mlp · momentum 0.9"]
    assert labels({"norm_layer": "none"}, {"norm_layer": "batch"}) == [
        "mlp · norm layer batch",
        "mlp · norm layer none",
    ]
    # What a model doesn't have isn't named; numbers too near for six digits get the start of their key.
    near = labels({"lr": 0.1}, {"lr": 0.1 + 1e-12})
    assert len(set(near)) == 2
    shapes = ({"model": "resnet", "depth": 8}, {"model": "resnet", "depth": 8, "shortcut": "B"}, {})
    assert labels(*shapes) == ["mlp", "resnet · shortcut A", "resnet · shortcut B"]
