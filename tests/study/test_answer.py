"""The answer in sentences says what its numbers say; sensitivity is located on its own data."""

import math

import pandas as pd
import pytest

from study.answer import against_controls, answer_lines, ratio_lines, sensitivity_lines, trend_lines
from study.evidence import Evidence
from study.manifest import Declared
from study.overview import own_axes, own_ratios
from study.sensitivity import beside_connectivity, growth_nats, sensitivities

from .rows import OTHER, POINT, healthy

DECLARED = Declared(magnitudes=(1e-2,))


def estimate(key, verdict, step=math.nan, low=math.nan, high=math.nan):
    ends = {"stable_from_start": (0.0, 0.0), "chaotic_throughout": (100.0, math.inf)}.get(verdict, (low, high))
    return {"setting_key": key, "verdict": verdict, "transition_step": step, "ci_low": ends[0], "ci_high": ends[1]}


@pytest.mark.parametrize(
    ("own", "control", "words"),
    [
        (estimate("a", "located", 10, 5, 20), estimate("a", "located", 50, 30, 80), "earlier"),
        (estimate("a", "located", 10, 5, 30), estimate("a", "located", 50, 30, 80), "not told apart"),
        (estimate("a", "located", 90, 85, math.inf), estimate("a", "located", 50, 30, 80), "later"),
        (estimate("a", "located", 10, 5, 20), estimate("a", "chaotic_throughout"), "earlier"),
        (estimate("a", "located", 10, 5, 20), estimate("a", "stable_from_start"), "later"),
        (estimate("a", "located", 10, 5, 20), estimate("a", "undetermined"), "unknown"),
        (estimate("a", "stable_from_start"), estimate("a", "stable_from_start"), "neither parts"),
        (estimate("a", "stable_from_start"), estimate("a", "located", 50, 30, 80), "earlier"),
        (estimate("a", "located", 10, 5, 20), None, "no control"),
    ],
)
def test_children_against_controls(own, control, words):
    assert against_controls(own, control) == words


def test_the_answer_counts_verdicts_and_what_controls_say():
    primary = pd.DataFrame(
        [
            estimate("a", "located", 10, 5, 20),
            estimate("b", "located", 70, 60, 90),
            estimate("c", "stable_from_start"),
            estimate("d", "undetermined"),
        ]
    )
    controls = pd.DataFrame([estimate("a", "located", 50, 30, 80), estimate("b", "located", 80, 60, 90)])
    first, *others = answer_lines(primary, controls, {key: f"setting {key}" for key in "abcd"})
    assert first == (
        "Of 4 settings: 2 located between steps 10 and 70 (setting a, setting b); 1 stable from the start (setting c); "
        "1 undetermined (setting d)."
    )
    starts = {line.partition(":")[0]: line for line in others}
    assert "can't part any more" in starts["1 of 3 with a verdict (setting b)"]
    assert "no longer parts them" in starts["1 of 3 with a verdict (setting a)"]
    assert "no controls were run" in starts["1 of 3 with a verdict (setting c)"]
    assert answer_lines(primary.iloc[:0], controls, {}) == []


def test_what_was_swept_is_compared_unasked():
    chaos = pd.concat([healthy(seeds=4), healthy(OTHER, seeds=4, curve=(1.0, 1.0, 0.0))])
    rows, notes = own_ratios(chaos, DECLARED, Evidence())
    assert not notes
    (line,) = ratio_lines(rows)
    ratio = rows["ratio"].iloc[0]
    assert line.startswith(f"lr 0.2 against 0.1: ×{ratio:.3g} ")
    assert "seeds ever chaotic: 4 of 4 at 0.1 and 4 of 4 at 0.2" in line
    assert own_ratios(healthy(seeds=1), DECLARED, Evidence())[1] == []


def test_axes_that_go_along_are_compared_once():
    both = pd.DataFrame(
        [{**POINT.values(), "model": m, "depth": d, "lr": lr} for m, d in (("mlp", 2), ("cnn", 5)) for lr in (0.1, 0.2)]
    )
    assert own_axes(both) == ["model", "lr"]


def test_trends_in_words():
    row = {"axis": "num_steps", "held": "", "unit": "steps", "per_octave": 2.0, "ci_low": 1.5, "ci_high": math.inf}
    row |= {"verdict": "later", "p_holm": 0.0001, "adjusted_for": "batch_size", "of_controls": "shared", "reason": ""}
    unknown = {**row, "per_octave": math.nan, "reason": "too few"}
    (line,) = trend_lines(pd.DataFrame([row, {**row, "unit": "epochs"}, unknown]))
    assert line == (
        "num steps: each doubling is ×2 [1.5, ∞) on the transition step, later (p < 0.001, Holm, adjusted for batch "
        "size); of controls: shared."
    )


def growth(curves, *, is_exponential=True, jump=0.0):
    """Amplification at steps 0, 10, 20, 40, a row of numbers per seed."""
    return pd.DataFrame(
        [
            {
                **{"setting_key": "a", "window": 8, "seed": seed, "trial_key": f"a/{seed}", "direction": 0},
                **{"fork_step": step, "amplification": value, "jump": jump, "is_exponential": is_exponential},
            }
            for seed, curve in enumerate(curves)
            for step, value in zip((0, 10, 20, 40), curve, strict=True)
        ]
    )


def test_sensitivity_is_where_growth_ends_for_good():
    found = sensitivities(growth([(2.0, 1.0, 0.1, -0.1)] * 3)).iloc[0]
    assert found["verdict"] == "located"
    assert 10 < found["transition_step"] < 20
    assert sensitivities(growth([(0.1, 0.0, -0.2, 0.1)] * 2)).iloc[0]["verdict"] == "stable_from_start"
    assert sensitivities(growth([(0.1, 0.0, -0.2, 0.3)] * 2)).iloc[0]["verdict"] == "chaotic_throughout"
    # A tangent that sees no kink is no proof of stability.
    kinks = growth([(0.1, 0.0, -0.2, 0.1)] * 2, is_exponential=False, jump=2.5)
    assert sensitivities(kinks).iloc[0]["verdict"] == "chaotic_throughout"
    assert growth_nats(growth([(math.nan,) * 4])).isna().all()
    assert sensitivities(growth([(math.nan,) * 4] * 2)).iloc[0]["verdict"] == "undetermined"


def test_sensitivity_stands_beside_connectivity():
    primary = pd.DataFrame([{**estimate("a", "located", 10, 5, 20), "is_primary": True}])
    rows = beside_connectivity(sensitivities(growth([(2.0, 1.0, 0.1, -0.1)] * 3)), primary)
    (line,) = sensitivity_lines(rows, {"a": "mlp"})
    assert line.startswith("mlp: sensitivity 1")
    assert line.endswith("(window of 8 steps, 3 seeds), connectivity 10 [5, 20].")
    (line,) = sensitivity_lines(
        beside_connectivity(sensitivities(growth([(0.0,) * 4])), primary.iloc[:0]), {"a": "mlp"}
    )
    assert line.endswith("1 seed), connectivity not measured.")
