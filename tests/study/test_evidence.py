"""Nothing is called stable on the strength of nothing, and every estimate says what it leaves out."""

import math

import numpy as np
import pandas as pd
import pytest

from study.analysis import transitions
from study.evidence import Evidence, unlearned_trials
from study.manifest import Declared
from study.protocols import UNKNOWN, Protocols, protocol_text, protocol_words, read_protocol, read_protocols
from tests.study.rows import OTHER, POINT, SETTLES, frame, healthy, rows_of, sentinel, trials_of
from twophase.config import Protocol

DECLARED = Declared(magnitudes=(1e-2,))
FLAT = (0.0, 0.0, 0.0)
COARSE = Protocol(path_points=5)


def primary(chaos, evidence=None, by=None):
    found = transitions(chaos, DECLARED, by=by, evidence=evidence)
    (row,) = found[found.is_primary].to_dict("records")
    return row


def test_a_push_below_the_resolution_is_no_stability():
    stable = primary(healthy(curve=FLAT))
    assert (stable["verdict"], stable["reason"]) == ("stable_from_start", "")
    lost = primary(healthy(curve=FLAT, changed=0.0))
    assert (lost["verdict"], lost["num_seeds"]) == ("undetermined", 0)
    assert "the push changed no weight at some fork steps in 3 of 3 seeds" in lost["reason"]
    assert "float32" in lost["reason"]
    # Biases of 0 take a push at the start that everything else rounds away: no more evidence than none.
    assert primary(healthy(curve=FLAT, changed=(0.01, 0.0, 0.0)))["verdict"] == "undetermined"
    # Controls change no weight either, and are evidence.
    controls = transitions(healthy(kind="order", magnitude=0.0, curve=FLAT), DECLARED)
    assert set(controls.verdict) == {"stable_from_start"}


def test_a_net_that_never_learned_is_no_stability():
    keys = set(healthy(curve=FLAT).trial_key)
    row = primary(healthy(curve=FLAT), Evidence(unlearned=frozenset(keys)))
    assert (row["verdict"], row["num_seeds"]) == ("undetermined", 0)
    assert "the reference learned nothing in 3 of 3 seeds" in row["reason"]
    one = sorted(keys)[0]
    row = primary(healthy(), Evidence(unlearned=frozenset({one})))
    assert (row["verdict"], row["num_seeds"]) == ("located", 2)
    assert row["reason"].startswith("the reference learned nothing in 1 of 3 seeds")


@pytest.mark.parametrize(
    ("accuracy", "start", "end", "is_unlearned"),
    [
        (0.8, 2.4, 0.5, False),
        (0.10, 2.4, 2.303, True),  # a constant answer: the loss falls to log 10
        (0.20, 2.4, 2.39, True),  # a lucky start that stays where it was
        (0.10, 2.4, 0.01, False),  # its training set by heart
        (0.13, 2.4, 2.2, False),  # 1/10 + 3 √(.09 / 1000) = .128
        (0.127, 2.4, 2.2, True),
        (math.nan, 2.4, math.nan, False),  # diverged: not the same
    ],
)
def test_which_references_learned_nothing(accuracy, start, end, is_unlearned):
    trials = trials_of(POINT, seeds=1, test_accuracy=accuracy)
    assert trials.num_test.tolist() == [1000]
    (key,) = trials.trial_key
    curve = pd.DataFrame({"trial_key": [key] * 2, "step": [0, 200], "num_steps": 200, "train_loss": [start, end]})
    assert unlearned_trials(trials, curve) == (frozenset({key}) if is_unlearned else frozenset())


@pytest.mark.parametrize(
    ("chaos", "words"),
    [
        (healthy(seeds=1), "only one seed tells anything (located), a verdict takes two"),
        (frame(rows_of(POINT, 0, SETTLES), rows_of(POINT, 1, (1, 1, 1)), sentinel(POINT, 0), sentinel(POINT, 1)),
         "seeds disagree: 1 chaotic throughout, 1 located"),
        (healthy(curve=(math.nan, 0.0, 0.0)), "not all seeds tell something at fork step 0"),
        (healthy(curve=(math.nan,) * 3), "no seed tells anything; the indicator is unknown in all their rows"),
        (healthy(curve=FLAT).query("fork_step > 0 or perturbation == 'none'"), "but none of them is step 0"),
    ],
    ids=["one seed", "disagree", "a hole", "unknown", "no start"],
)  # fmt: skip
def test_reasons(chaos, words):
    row = primary(chaos)
    assert row["verdict"] == "undetermined"
    assert words in row["reason"]


def test_a_clear_estimate_needs_no_reason_and_failed_trials_are_told():
    assert primary(healthy())["reason"] == ""
    assert primary(healthy(), Evidence(failures={POINT.key: 2}))["reason"] == "2 trials failed"


def both(curve_of_coarse=(1.0, 1.0, 1.0)):
    chaos = pd.concat([healthy(), healthy(curve=curve_of_coarse, protocol=COARSE)], ignore_index=True)
    trials = pd.concat([trials_of(POINT), trials_of(POINT, protocol=COARSE)], ignore_index=True)
    return chaos, trials


@pytest.mark.parametrize("pinned", [Protocol(), COARSE])
def test_protocols_are_never_pooled(pinned):
    chaos, trials = both()
    declared = Declared(magnitudes=(1e-2,), protocol=pinned)
    row = primary(chaos, Evidence(read_protocols(trials, declared)))
    alone = primary(healthy() if pinned == Protocol() else healthy(curve=(1.0, 1.0, 1.0)))
    for column in ("transition_step", "verdict", "num_seeds", "ci_low", "ci_high"):
        assert row[column] == alone[column] or np.isnan(alone[column])
    assert row["protocol"] == protocol_text(pinned)
    assert row["reason"].startswith("3 trials measured with path_points")
    assert primary(chaos, Evidence(read_protocols(trials, declared)), by=["model"])["verdict"] == alone["verdict"]


def test_a_setting_of_another_protocol_is_no_primary_and_says_so():
    chaos = pd.concat([healthy(), healthy(OTHER, protocol=COARSE)], ignore_index=True)
    trials = pd.concat([trials_of(POINT), trials_of(OTHER, protocol=COARSE)], ignore_index=True)
    evidence = Evidence(read_protocols(trials, Declared(protocol=Protocol())))
    found = transitions(chaos, DECLARED, evidence=evidence).query("indicator == 'test_barrier'").set_index("lr")
    assert found.is_primary.to_dict() == {0.1: True, 0.2: False}
    assert found.reason[0.2] == "measured with path_points 5 (not 11), other than the primary"


def test_figures_show_one_protocol():
    chaos, trials = both()
    protocols = read_protocols(trials, Declared(protocol=Protocol()))
    assert set(protocols.one_each(chaos).trial_key) == set(trials_of(POINT).trial_key)
    assert protocols.one_each(chaos.iloc[:0]).empty


def test_a_study_that_kept_no_protocols_takes_them_from_its_spaces():
    source = {"name": "s", "base": {"num_steps": 200}, "seeds": 3, "chaos": {"path_points": 5, "fork_steps": [0]}}
    trials = trials_of(POINT, protocol=COARSE).assign(protocol="unknown")
    found = read_protocols(trials, Declared(spaces=(source,)))
    assert set(found.of_trial) == set(trials.trial_key)
    assert {protocol.path_points for protocol in found.of_trial.values()} == {5}
    nothing = read_protocols(trials, Declared())
    assert nothing == Protocols({}, None)
    assert primary(healthy(protocol=COARSE), Evidence(nothing))["verdict"] == "located"


def test_a_protocol_is_read_as_it_was_written():
    odd = Protocol(train_sample=7, path_points=5, probe_size=3, probe_seed=2)
    assert read_protocol(protocol_text(odd)) == odd
    assert read_protocol("{}") == Protocol()


def test_a_protocol_in_words_fits_a_line_s_wrapping():
    words = protocol_words(protocol_text(Protocol(path_points=5)))
    assert words.startswith("train sample 2048, path points 5, ")
    assert words.count(", ") == len(vars(Protocol())) - 1
    assert protocol_words(UNKNOWN) == UNKNOWN


def test_one_fork_step_is_told():
    row = primary(healthy().query("fork_step == 10"))
    assert row["verdict"] == "chaotic_throughout"
    assert row["reason"] == "only one fork step tells anything, a transition takes two to lie between"
