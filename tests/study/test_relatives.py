"""Indicators relative to controls as rows of `transitions`, and as a choice of `locate` and `compare`."""

import json
import math

import pandas as pd
import pytest

from study import cli
from study.analysis import select, transitions
from study.comparing import compare
from study.manifest import Declared
from tests.study.rows import OTHER, POINT, SETTLES, frame, healthy, rows_of
from twophase.chaos import INDICATORS
from twophase.errors import BadInput
from twophase.relative import RELATIVE_INDICATORS

DECLARED = Declared(magnitudes=(1e-2,))


def with_controls(curve, controls, point=POINT, seeds=3, **child):
    """Children of three seeds, with one control or several, their curves given."""
    made = [
        rows_of(point, seed, of_control, kind="order", magnitude=0.0, direction=number)
        for seed in range(seeds)
        for number, of_control in enumerate(controls)
    ]
    return pd.concat([healthy(point, seeds, curve, **child), frame(*made)])


def row_of(chaos, indicator, declared=DECLARED):
    found = transitions(chaos, declared)
    (row,) = found[(found["indicator"] == indicator) & (found["perturbation"] == "gaussian")].to_dict("records")
    return row


def test_a_share_of_the_control_by_hand():
    """1 / 2, then .4 / 2 and 0 / 2: at or below .5 from the first fork step on."""
    assert row_of(with_controls(SETTLES, [(2.0, 2.0, 2.0)]), "test_barrier_over_control")["verdict"] == (
        "stable_from_start"
    )
    row = row_of(with_controls(SETTLES, [(1.0, 0.5, 0.5)]), "test_barrier_over_control")
    # 1, .8, 0 in log(1 + t): .5 is reached 3/8 of the way from 10 to 100.
    by_hand = math.expm1(math.log(11) + 3 / 8 * (math.log(101) - math.log(11)))
    assert row["transition_step"] == pytest.approx(by_hand)
    assert (row["threshold"], row["is_primary"], row["num_seeds"]) == (0.5, False, 3)
    # Two controls count by their mean.
    assert row_of(with_controls(SETTLES, [(1.5, 0.9, 0.3), (0.5, 0.1, 0.7)]), "test_barrier_over_control") == row


def test_where_controls_connect_too_it_is_unknown_and_says_so():
    """The share is .7 for as long as controls part: never seen to fall, and not 0 where nothing parts."""
    row = row_of(with_controls((0.7, 0.35, 0.0), [(1.0, 0.5, 0.01)]), "test_barrier_over_control")
    assert (row["verdict"], row["ci_low"], row["ci_high"]) == ("chaotic_throughout", 10, math.inf)
    assert "controls are connected themselves at fork step 100 of some seeds, where it is unknown" in row["reason"]
    # The level at which a control is connected is the declared one.
    strict = Declared(DECLARED.primary.__class__(threshold=0.005), magnitudes=(1e-2,))
    known = row_of(with_controls((0.7, 0.35, 0.0), [(1.0, 0.5, 0.01)]), "test_barrier_over_control", strict)
    assert known["verdict"] == "located"
    nothing = row_of(with_controls((0.0, 0.0, 0.0), [(0.0, 0.01, 0.02)]), "test_barrier_over_control")
    assert (nothing["verdict"], nothing["num_seeds"]) == ("undetermined", 0)


def test_divergence():
    """A diverged child is not connected; a diverged control says nothing of its share."""
    gone = (1.0, 0.5, math.nan)
    chaos = with_controls(gone, [(1.0, 0.5, 0.5)], diverged=(100,))
    assert row_of(chaos, "excess_disagreement")["verdict"] == "chaotic_throughout"
    controls = frame(*(rows_of(POINT, s, gone, kind="order", magnitude=0.0, diverged=(100,)) for s in range(3)))
    row = row_of(pd.concat([healthy(curve=(1.0, 0.5, 0.2)), controls]), "test_barrier_over_control")
    assert (row["verdict"], row["ci_low"]) == ("chaotic_throughout", 10)
    assert "controls diverged at fork step 100" in row["reason"]


def test_other_rows_are_as_they_were_and_controls_have_none_relative_to_themselves():
    chaos = with_controls(SETTLES, [(1.0, 0.5, 0.5)])
    found = transitions(chaos, DECLARED)
    assert set(found.loc[found["perturbation"] == "order", "indicator"]) == set(INDICATORS)
    assert set(found.loc[found["perturbation"] == "gaussian", "indicator"]) == {*INDICATORS, *RELATIVE_INDICATORS}
    own = found[(found["perturbation"] == "gaussian") & found["indicator"].isin(list(INDICATORS))]
    pd.testing.assert_frame_equal(own.reset_index(drop=True), transitions(healthy(), DECLARED))


def test_without_controls_it_cannot_be_asked_for():
    with pytest.raises(BadInput, match="excess_disagreement needs controls, and this study has none"):
        select(transitions(healthy(), DECLARED), "excess_disagreement", None)
    both = pd.concat([healthy(), healthy(OTHER)])
    with pytest.raises(BadInput, match="excess_disagreement needs controls that part, and no seed has one"):
        compare(both, ["lr"], DECLARED, indicator="excess_disagreement")


def test_settings_are_compared_by_it():
    controls = [(1.0, 1.0, 1.0)]
    chaos = pd.concat([with_controls((1.0, 0.2, 0.1), controls), with_controls((1.0, 0.9, 0.1), controls, OTHER)])
    (row,) = compare(chaos, ["lr"], DECLARED, indicator="test_barrier_over_control").ratios.to_dict("records")
    assert row["ratio"] > 3
    assert (row["threshold"], row["of_controls"]) == (0.5, "not known")


def test_the_command(whole, capsys):
    assert cli.main(["locate", str(whole.path), "--indicator", "disagreement_over_control", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["transitions"]
    assert {row["indicator"] for row in rows} == {"disagreement_over_control"}
    assert not any(row["is_primary"] for row in rows)
    stored = whole.table("transitions")
    assert set(RELATIVE_INDICATORS) < set(stored["indicator"])
