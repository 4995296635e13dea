"""From Gram matrices to the rows, words and figures of kernels, on paths made by hand."""

import json
import math
import re

import numpy as np
import pandas as pd
import pytest

import results
from study import cli
from study.analysis import ESTIMATE_COLUMNS, POOLED_COLUMNS, select, transitions
from study.closing import derive
from study.cone_plots import angle_figure, cone_figure, velocity_figure
from study.confinements import COLUMNS, confinements, setting_verdicts, tau_steps
from study.figures import pictures
from study.kernel_drift import verdict_words
from study.kernel_transitions import with_kernels
from study.manifest import Declared
from study.protocols import Protocols
from study.report import TABLES, page
from study.report_tables import confinement_table
from study.summary import headline_text, transition_text
from tests.study.rows import healthy, keys_of, trials_of
from twophase.config import LEAVES, setting
from twophase.errors import BadInput

DECLARED = Declared(magnitudes=(1e-2,))
STEPS = (0, 1, 2, 4, 7, 14, 28, 54, 94, *range(188, 1501, 94))
POINT = setting({"num_steps": 1500, "schedule": "constant"})
OTHER = setting({"num_steps": 1500, "schedule": "constant", "lr": 0.2})
NOTHING_KNOWN = pd.DataFrame(columns=COLUMNS)


def jitter(drawn, size=0.3):
    """Kernels that jitter about an axis."""
    points = np.column_stack([np.ones(len(STEPS)), size / 5 * drawn.standard_normal((len(STEPS), 25))])
    return points @ points.T * 7.0


def turning(angles):
    """Kernels that turn by given angles, every time into a new direction."""
    points = np.eye(len(STEPS))
    for k, angle in enumerate(angles):
        points[k + 1] = math.sin(angle) * points[k + 1] + math.cos(angle) * points[k]
    return points @ points.T


def broken(drawn):
    speed = np.where(np.array(STEPS[1:]) <= 188, 1.0, 0.05) * np.diff(STEPS)
    return turning(0.5 * speed / speed.max() * np.exp(0.1 * drawn.standard_normal(len(speed))))


def cone_of(point, make, seeds=3, kernel="full"):
    frames = []
    for seed in range(seeds):
        gram = make(np.random.default_rng(seed))
        norms = np.sqrt(np.diag(gram))
        frames.append(
            pd.DataFrame(
                {
                    **keys_of(point, seed),
                    "kernel": kernel,
                    "step_i": np.repeat(STEPS, len(STEPS)),
                    "step_j": np.tile(STEPS, len(STEPS)),
                    "inner_product": gram.ravel(),
                    "kernel_distance": (1 - gram / np.outer(norms, norms)).ravel(),
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


NO_CHAOS = transitions(healthy().iloc[:0], DECLARED)


def test_breaks_of_seeds_become_a_row_beside_those_of_chaos():
    cone = pd.concat([cone_of(POINT, broken), cone_of(OTHER, jitter)])
    found = with_kernels(transitions(healthy(), DECLARED), cone, Protocols())
    assert list(found.columns) == ["study", "setting_key", *LEAVES, *ESTIMATE_COLUMNS]
    assert not select(found, None, None).empty
    assert set(select(found, None, None).indicator) == {"test_barrier"}
    shown = select(found, "kernel_velocity", None).set_index("setting_key")
    assert set(shown.perturbation) == set(shown.measure) == {"none"}
    row = shown.loc[POINT.key]
    assert (row.verdict, row.kernel, row.num_seeds) == ("located", "full", 3)
    assert row.ci_low <= row.transition_step <= row.ci_high
    assert 94 <= row.transition_step <= 282
    assert row.reason == "break into a slower regime"
    assert shown.loc[OTHER.key].verdict != "located"
    text = headline_text(shown.reset_index(), DECLARED, trials_of(POINT)) + transition_text(shown, ["lr"])
    assert "the step at which its velocity breaks; median over seeds" in text
    drifting = shown.reset_index().assign(verdict="chaotic_throughout")
    assert headline_text(drifting, DECLARED, trials_of(POINT)).endswith(
        "(chaotic_throughout: it drifts without a break)"
    )
    with pytest.raises(BadInput, match="magnitude must be left out with kernel_velocity"):
        select(found, "kernel_velocity", 1e-2)
    with pytest.raises(BadInput, match="kernel_velocity needs kernels"):
        select(transitions(healthy(), DECLARED), "kernel_velocity", None)


def test_pooled_kernels_count_settings_and_seeds_apart():
    cone = pd.concat([cone_of(POINT, broken), cone_of(OTHER, broken)])
    pooled = with_kernels(transitions(healthy(), DECLARED, by=["model"]), cone, Protocols(), ["model"])
    assert list(pooled.columns) == ["study", "model", *ESTIMATE_COLUMNS, *POOLED_COLUMNS]
    (row,) = pooled.query("indicator == 'kernel_velocity'").to_dict("records")
    assert (row["num_settings"], row["num_seeds"], row["num_curves"]) == (2, 3, 6)


def test_confinement_is_tested_from_a_few_steps_and_the_transition_on():
    steps = np.array(STEPS, dtype=float)
    assert tau_steps(steps, math.nan) == [0, 28, 94, 376, 658]
    assert tau_steps(steps, 200.0) == [0, 28, 94, 282, 376, 658]
    assert tau_steps(steps, 1e6) == [0, 28, 94, 376, 658], "past the last checkpoint nothing is left"
    found = confinements(cone_of(POINT, jitter), NO_CHAOS, NOTHING_KNOWN)
    assert not found.duplicated(["trial_key", "kernel", "tau_step"]).any()
    assert set(found.verdict) == {"confined"}
    assert (found.half_angle_deg >= found.cone_half_angle_deg - 1e-9).all()
    assert found.p_natural.isna().all()

    def near(path, tau):
        return np.zeros((3, int((path.steps > tau).sum()))) if tau == 94 else None

    beside = confinements(cone_of(POINT, jitter), NO_CHAOS, NOTHING_KNOWN, near).query("tau_step == 94")
    assert set(beside.verdict) == {"not_confined"}


def test_rows_that_follow_from_the_same_numbers_are_taken_over(monkeypatch):
    cone = cone_of(POINT, jitter, seeds=1)
    before = confinements(cone, NO_CHAOS, NOTHING_KNOWN)
    marked = before.assign(reason="from before")
    again = confinements(cone, NO_CHAOS, marked)
    assert set(again.reason) == {"from before"}
    changed = cone.assign(inner_product=cone["inner_product"].mask(cone["step_i"] + cone["step_j"] == 2820, math.nan))
    assert "from before" not in set(confinements(changed, NO_CHAOS, marked).reason)


def test_seeds_are_joined_by_majority_and_said_in_words():
    cone = cone_of(POINT, jitter)
    found = confinements(cone, NO_CHAOS, NOTHING_KNOWN)
    one, two = found.trial_key.unique()[:2]
    mixed = found.assign(verdict=found.verdict.mask(found.trial_key == one, "not_confined"))
    joined = setting_verdicts(mixed)
    assert set(joined.verdict) == {"confined"}
    assert set(joined.votes) == {"2 of 3"}
    torn = mixed.assign(verdict=mixed.verdict.mask(mixed.trial_key == two, "undetermined"))
    assert set(setting_verdicts(torn).verdict) == {"undetermined"}
    assert set(setting_verdicts(found[found.trial_key == one]).verdict) == {"undetermined"}, "one seed is no majority"
    assert verdict_words(joined, POINT.key, "full") == "confined from step 0, 28, 94, 376, 658 on"
    table = confinement_table(found, {POINT.key: "mlp"})
    titles = [title for title, _ in table.columns]
    rows = [dict(zip(titles, row, strict=True)) for row in table.rows]
    assert [row["From step τ"].text for row in rows] == ["0", "28", "94", "376", "658"]
    assert {row["Verdict"].text for row in rows} == {"confined"}
    assert confinement_table(found.assign(p_walk=math.nan), {POINT.key: "mlp"}) is None


def lost(drawn):
    gram = jitter(drawn)
    gram[-1] = gram[:, -1] = math.nan
    return gram


def test_figures_of_anything():
    still = cone_of(OTHER, lambda _: np.ones((len(STEPS), len(STEPS))), 1)
    cone = pd.concat([cone_of(POINT, broken, 2), cone_of(POINT, lost, 1, kernel="trace"), still])
    found = with_kernels(NO_CHAOS, cone, Protocols())
    confinement = confinements(cone, found, NOTHING_KNOWN)
    figures = [
        velocity_figure(cone, found, ["lr"]),
        angle_figure(cone, confinement, ["lr"]),
        cone_figure(cone, confinement, ["lr"]),
    ]
    for figure in figures:
        titles = [axes.get_title() for axes in figure.axes if axes.get_visible()]
        assert [title.split(" kernel")[0] for title in titles] == ["lr 0.1 · full", "lr 0.1 · trace", "lr 0.2 · full"]
        figure.draw_without_rendering()
    assert "kernel transition" in figures[0].axes[0].get_title()


def test_a_report_gives_verdicts_in_place_of_a_description(whole, monkeypatch):
    cone = cone_of(POINT, jitter)
    tables = {name: whole.table(name) for name in TABLES}
    tables |= {"trials": trials_of(POINT), "cone": cone, "transitions": with_kernels(NO_CHAOS, cone, Protocols())}
    tables["confinement"] = confinements(cone, NO_CHAOS, NOTHING_KNOWN)
    tables |= {name: tables[name].iloc[:0] for name in ("chaos", "growth", "switch", "trajectory")}
    made = pictures(tables)
    assert [picture.name for picture in made] == [
        "kernel_distance",
        "kernel_velocity",
        "kernel_angle",
        "kernel_cone",
        "kernel_lag",
    ]
    assert made[2].alt == "mlp, full kernel: confined from step 0, 28, 94, 376, 658 on"
    for facts in ("run_facts", "computed_facts"):
        monkeypatch.setattr(f"study.report.{facts}", lambda *_: {})
    text = page(whole, tables, [])
    assert "Do the kernels stay in a cone?" in text
    assert "How the kernels move" not in text
    assert len(re.findall(r"<td[^>]*>confined</td>", text)) == 5


def test_a_real_study_has_rows_for_every_kernel_and_prints_them(whole, capsys):
    assert cli.main(["locate", str(whole.path), "--indicator", "kernel_velocity", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["transitions"]
    assert {(row["model"], row["verdict"]) for row in rows} == {("cnn", "undetermined"), ("mlp", "undetermined")}
    assert all("only 3 gaps" in row["reason"] for row in rows)
    found = whole.table("confinement")
    assert set(found.trial_key) == set(whole.table("trials").trial_key)
    assert found.reason.str.contains("checkpoints after it").all()
    before = found.to_csv()
    (whole.path / "confinement" / "confinement.parquet").write_bytes(b"damaged")
    derive(results.open(whole.path))
    assert whole.table("confinement").to_csv() == before
