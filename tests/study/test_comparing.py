"""Comparisons between settings, on crossings and rows made by hand."""

import json
import math
import shutil

import numpy as np
import pandas as pd
import pytest

from study import cli
from study.boundary import boundary
from study.clocks import clocks
from study.comparing import all_trends, compare
from study.comparison_text import comparison_text
from study.crossings import crossings
from study.dating import agreements
from study.evidence import Evidence
from study.forest import forest_figure, forest_words
from study.manifest import Declared
from study.ratios import ratios
from study.trends import trends
from tests.study.rows import OTHER, POINT, frame, healthy, rows_of, sentinel
from twophase.config import setting
from twophase.errors import BadInput
from twophase.training import learning_rate

GRID = np.array([0, 10, 25, 50, 100, 200, 400], dtype=float)
LOST = pd.concat([frame(rows_of(p, 0, (1.0, 0.0, 0.0)), sentinel(p, 0, diverged=True)) for p in (POINT, OTHER)])
DECLARED = Declared(magnitudes=(1e-2, 1e-3))


def crossing_rows(point, steps, *, kind="gaussian", magnitude=1e-2):
    """Crossings of one setting's seeds at steps: 0 stable from the start, inf never settled."""
    rows = []
    for seed, step in enumerate(steps):
        cell = int(np.searchsorted(GRID, step))
        outcome = "stable_from_start" if step == 0 else "located" if step <= GRID[-1] else "chaotic_throughout"
        rows.append(
            {
                **{"study": "s", "setting_key": point.key, **point.values(), "seed": seed},
                **{"indicator": "test_barrier", "threshold": 0.05, "perturbation": kind, "magnitude": magnitude},
                **{"measure": "end", "kernel": "none", "is_primary_measure": True, "outcome": outcome},
                "step": step if step <= GRID[-1] else math.inf,
                "low": 0.0 if step == 0 else max(1.0, GRID[cell - 1]),
                "high": 0.0 if step == 0 else GRID[cell] if step <= GRID[-1] else math.inf,
                "steps_per_epoch": point.num_train // point.batch_size,
            }
        )
    return rows


def table(*groups):
    return pd.DataFrame([row for group in groups for row in group])


def point(**leaves):
    return setting({"num_steps": 600, **leaves})


NONE = table(crossing_rows(point(), [1.0])).iloc[:0]


def test_two_levels_and_their_controls():
    pushes = table(crossing_rows(point(lr=0.1), [8, 12, 20, 30]), crossing_rows(point(lr=0.2), [90, 120, 150, 220]))
    controls = table(
        crossing_rows(point(lr=0.1), [20, 30, 40, 60], kind="order", magnitude=0.0),
        crossing_rows(point(lr=0.2), [110, 120, 150, 210], kind="order", magnitude=0.0),
    )
    (row,) = ratios(pushes, controls, "lr").to_dict("records")
    assert (row["level_a"], row["level_b"], row["unit"], row["held"]) == (0.1, 0.2, "steps", "")
    assert 5 < row["ratio"] < 11
    assert 1 < row["ci_low"] < row["ratio"] < row["ci_high"] < 40
    assert (row["verdict"], row["of_controls"]) == ("later", "shared")
    assert row["p_holm"] == row["p_value"] < 0.05
    assert (row["num_shared_seeds"], row["is_paired"]) == (4, False)
    assert row["correlation"] > 0.9
    assert (row["num_chaotic_a"], row["chaotic_share_a"], row["fisher_p"]) == (4, 1.0, 1.0)


def test_more_shared_seeds_that_go_together_are_pairs_and_other_draws_never_are():
    first, later = [8, 12, 22, 30, 45, 80], [40, 60, 110, 150, 220, 390]
    paired = ratios(table(crossing_rows(point(), first), crossing_rows(point(lr=0.2), later)), NONE, "lr").iloc[0]
    assert paired["is_paired"]
    assert paired["degrees"] == 5
    apart = ratios(table(crossing_rows(point(), first), crossing_rows(point(width=128), later)), NONE, "width").iloc[0]
    assert not apart["is_paired"]
    assert math.isnan(apart["correlation"])
    assert paired["p_value"] < apart["p_value"]


def test_a_level_that_is_never_chaotic_is_the_first_part_s():
    points = [point(lr=lr, depth=depth) for depth in (2, 3) for lr in (0.05, 0.2)]
    steps = [[0, 0, 0, 0], [90, 120, 150, 220], [0, 0, 0, 0], [90, 120, 150, 220]]
    found = ratios(table(*map(crossing_rows, points, steps)), NONE, "lr")
    assert found["ratio"].isna().all()
    assert found["reason"].str.contains("no seed of lr 0.05 is ever chaotic").all()
    assert found["held"].tolist() == ["depth 2", "depth 3", "all"]
    assert found["fisher_p"].tolist() == pytest.approx([2 / 70, 2 / 70, 2 / 70**2])
    assert found["fisher_p_holm"].tolist() == pytest.approx([4 / 70, 4 / 70, 2 / 70**2])


def test_a_level_that_never_settles_has_an_open_ratio():
    pushes = table(crossing_rows(point(), [20, 30, 40, 60]), crossing_rows(point(lr=0.2), [math.inf] * 4))
    row = ratios(pushes, NONE, "lr").iloc[0]
    assert row["ratio"] == row["ci_high"] == math.inf
    assert row["ci_low"] > 1
    assert row["num_unsettled_b"] == 4


def test_a_longer_run_has_another_ratio_as_a_fraction_of_it():
    pushes = table(crossing_rows(point(), [20, 30, 40, 60]), crossing_rows(point(num_steps=1200), [40, 60, 80, 120]))
    found = ratios(pushes, NONE, "num_steps").set_index("unit")
    assert list(found.index) == ["steps", "fraction"]
    assert found.loc["fraction", "ratio"] == pytest.approx(found.loc["steps", "ratio"] / 2, rel=1e-3)


def test_leaves_that_go_along_with_an_axis_are_named_and_one_that_never_varies_alone_is_refused():
    one, other = point(model="mlp", depth=5), point(model="cnn", depth=8, width=16)
    pushes = table(crossing_rows(one, [90, 120, 150]), crossing_rows(other, [8, 12, 30]))
    (row,) = ratios(pushes, NONE, "model").to_dict("records")
    assert "depth, width" in row["goes_with"]
    apart = [point(depth=2, lr=0.1), point(depth=2, lr=0.2), point(depth=3, lr=0.3), point(depth=3, lr=0.4)]
    pushes = table(*(crossing_rows(p, [9.0]) for p in apart))
    with pytest.raises(BadInput, match="no two settings differ in depth and agree in lr"):
        ratios(pushes, NONE, "depth")


def test_a_trend_is_a_power_of_the_axis():
    rng = np.random.default_rng(0)
    made = [
        crossing_rows(
            point(lr=lr, depth=depth), 50 * (lr / 0.1) ** 1.5 * (depth / 4) * np.exp(0.1 * rng.normal(size=4))
        )
        for lr in (0.05, 0.1, 0.2)
        for depth in (2, 4, 8)
    ]
    found = trends(table(*made), NONE, ["lr", "depth"]).set_index("axis")
    assert found.loc["lr", "exponent"] == pytest.approx(1.5, abs=0.3)
    assert found.loc["lr", "ci_low"] < 2**1.5 < found.loc["lr", "ci_high"]
    assert found.loc["depth", "ci_low"] < 2 < found.loc["depth", "ci_high"]
    assert found.loc["lr", "adjusted_for"] == "depth"
    assert found.loc["lr", "degrees"] == 9 - 3  # settings, not seeds
    assert found.loc["lr", "verdict"] == "later"


@pytest.mark.parametrize(
    ("small", "large", "words"),
    [
        ([150, 160, 170, 180], [150, 160, 170, 180], "flat"),
        ([12, 14, 16, 18], [220, 230, 240, 250], "steep"),
        ([0, 0, 0, 60], [150, 160, 170, 180], "a boundary"),
    ],
)
def test_a_trend_over_magnitudes_in_words(small, large, words):
    pushes = table(crossing_rows(point(), small, magnitude=1e-4), crossing_rows(point(), large, magnitude=1e-2))
    (row,) = trends(pushes, NONE, ["magnitude"]).to_dict("records")
    assert row["words"].startswith(words)
    assert row["units_of_evidence"] == "seeds"


def trajectory_of(points, losses):
    rows = [
        {
            "setting_key": p.key,
            "seed": seed,
            **p.values(),
            "step": step,
            "train_loss": loss(step),
            "sharpness": math.nan,
        }
        for p, loss in zip(points, losses, strict=True)
        for seed in range(4)
        for step in (0, 1, 4, 16, 64, 150, 300, 450, 600)
    ]
    return pd.DataFrame(rows).assign(sharpness=math.nan)


def test_the_clock_that_rules_is_found_and_not_by_its_coefficient_of_variation():
    """Every run turns stable once its learning rates have come to 20 in sum."""
    points = [point(lr=lr, schedule="constant") for lr in (0.1, 0.2, 0.4, 0.8)]
    steps = [20 / p.lr for p in points]
    # A loss that hardly moves tells nothing, yet its readings vary least.
    losses = [lambda step, i=i: 2.0 - 1e-4 * step + 0.01 * (i % 2) for i in range(4)]
    found = clocks(table(*(crossing_rows(p, [step] * 4) for p, step in zip(points, steps, strict=True))),
                   trajectory_of(points, losses))  # fmt: skip
    assert found["clock"].iloc[0] == "learning-rate integral"
    assert found["error_octaves"].iloc[0] < 0.05
    assert found["reading"].iloc[0] == pytest.approx(20, rel=0.01)
    of_loss = found[found["clock"] == "training loss"].iloc[0]
    assert of_loss["error_octaves"] > 1
    assert of_loss["coefficient_of_variation"] < 0.01
    # A constant step foretells the median of the others: 100 for those at 25 and at 50, 50 for those at 100 and at 200.
    of_steps = found[found["clock"] == "steps"].iloc[0]
    assert of_steps["error_octaves"] == pytest.approx(math.sqrt((4 + 1 + 1 + 4) / 4), abs=0.02)
    assert learning_rate(points[0], 3) == 0.1
    assert clocks(table(crossing_rows(points[0], [9.0] * 4)), trajectory_of(points, losses)).empty


def test_crossings_are_those_of_the_transitions():
    chaos = pd.concat([healthy(), healthy(OTHER, curve=(1.0, 1.0, 1.0))])
    found = crossings(chaos, DECLARED)
    of_point = found[found["setting_key"] == POINT.key]
    assert of_point[["low", "high", "outcome"]].drop_duplicates().to_numpy().tolist() == [[10.0, 100.0, "located"]]
    assert set(found.loc[found["setting_key"] == OTHER.key, "step"]) == {math.inf}
    # What is chaotic at step 0 settles at step 1 at the earliest.
    assert set(crossings(healthy(curve=(1.0, 0.0, 0.0)), DECLARED)["low"]) == {1.0}


def test_a_comparison_from_chaos_rows_in_words():
    chaos = pd.concat(
        [healthy(), healthy(OTHER, curve=(1.0, 1.0, 0.0)), healthy(kind="order", magnitude=0.0),
         healthy(magnitude=1e-3, curve=(0.0, 0.0, 0.0))]
    ).drop_duplicates()  # fmt: skip
    found = compare(chaos, ["lr", "magnitude"], DECLARED)
    text = comparison_text(found)
    assert "test_barrier stays at or below 0.05 for good, gaussian, measured at end" in text
    assert "0.2 / 0.1" in text
    assert "most seeds are connected from the start at 0.001" in text
    assert all_trends(chaos, DECLARED, Evidence()) is not None
    edges = boundary(chaos, DECLARED).query("indicator == 'test_barrier' and fork_step == 0").set_index("lr")
    assert edges.loc[0.1, "censoring"] == "none"
    assert 1e-3 < edges.loc[0.1, "critical_magnitude"] < 1e-2
    assert edges.loc[0.2, "censoring"] == "left"


@pytest.mark.parametrize(
    ("chaos", "axes", "how", "words"),
    [
        (healthy(), ["rl"], {}, "unknown axis 'rl'"),
        (LOST, ["lr"], {}, "no gaussian children measured at end tell anything yet"),
        (healthy(), ["lr"], {}, "among the settings that tell anything, lr has only 0.1; nothing was swept"),
        (
            pd.concat([healthy(seeds=1), healthy(OTHER, seeds=1)]),
            ["lr"],
            {},
            "at least two .*; run it with --set seeds",
        ),
        (pd.concat([healthy(), healthy(OTHER)]), ["lr"], {"magnitude": 0.5}, r"one that was run \(0.01\), got 0.5"),
        (pd.concat([healthy(), healthy(OTHER)]), ["lr"], {"indicator": "barier"}, "unknown indicator"),
    ],
)
def test_what_cannot_be_compared_is_told_in_one_line(chaos, axes, how, words):
    with pytest.raises(BadInput, match=words) as caught:
        compare(chaos, axes, DECLARED, **how)
    assert "\n" not in str(caught.value)


def transition_rows(steps, kernel_steps):
    rows = []
    for number, (step, of_kernel) in enumerate(zip(steps, kernel_steps, strict=True)):
        leaves = point(lr=0.1 * (number + 1))
        for indicator, perturbation, where in (
            ("test_barrier", "gaussian", step), ("kernel_velocity", "none", of_kernel), ("test_barrier", "order", 300)
        ):  # fmt: skip
            rows.append(
                {
                    **{"setting_key": leaves.key, **leaves.values(), "indicator": indicator, "measure": "end"},
                    **{"perturbation": perturbation, "is_primary": perturbation == "gaussian", "reason": "why"},
                    **{"kernel": "full" if indicator == "kernel_velocity" else "none", "transition_step": where},
                    **{"ci_low": 0.5 * where, "ci_high": math.inf if where == 300 else 2 * where},
                    "verdict": "located" if math.isfinite(where) else "undetermined",
                }
            )
    return pd.DataFrame(rows)


def test_chaos_and_cone_side_by_side():
    (row,) = agreements(transition_rows([20, 40, 80], [40, 80, math.nan])).to_dict("records")
    assert (row["kernel"], row["num_settings"], row["num_both"], row["only_first"]) == ("full", 3, 2, 1)
    assert row["ratio"] == pytest.approx(2)
    assert agreements(transition_rows([20], [40]).query("kernel == 'none'")).empty


def test_the_forest_has_a_row_for_each_setting_and_says_what_has_no_point(tmp_path):
    rows = transition_rows([20, 40, math.nan], [1, 1, 1])
    figure = forest_figure(rows, rows, ["model", "lr"], 400.0)
    (panel,) = figure.axes
    assert [label.get_text() for label in panel.get_yticklabels()] == ["mlp · lr 0.1", "mlp · lr 0.2", "mlp · lr 0.3"]
    points = [line.get_xdata()[0] for line in panel.get_lines() if line.get_marker() == "o" and len(line.get_xdata())]
    assert sorted(points) == [20, 40, 300, 300, 300]
    assert sum(line.get_marker() == ">" for line in panel.get_lines()) == 3
    assert [text.get_text() for text in panel.texts] == ["why"]
    figure.savefig(tmp_path / "forest.png")
    assert "control 300 [150, ∞)" in forest_words(rows, {rows["setting_key"].iloc[0]: "one"})
    assert forest_figure(rows[rows["lr"] == 0.1], rows, ["lr"], 400.0) is None


def test_the_command_reads_several_studies_as_one(whole, tmp_path, capsys):
    copy = tmp_path / "again"
    shutil.copytree(whole.path, copy)
    both = ["compare", str(whole.path), str(copy)]
    assert cli.main([*both, "--by", "model", "--by", "magnitude", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert {"ratios", "trends"} <= set(said)
    assert {row["axis"] for row in said["ratios"]} == {"model", "magnitude"}
    # The same trials twice are no more evidence.
    assert {row["num_seeds_a"] for row in said["ratios"] if row["num_contexts"] == 1} == {2}
    assert not whole.table("boundary").empty
    assert cli.main([*both, "--by", "lr"]) == 2
    assert cli.main(both) == 2
    declared = json.loads((copy / "_declared.json").read_text())
    declared["primary"]["threshold"] = 0.5
    (copy / "_declared.json").write_text(json.dumps(declared))
    assert cli.main([*both, "--by", "model"]) == 2
    assert "must declare the same primary" in capsys.readouterr().err
