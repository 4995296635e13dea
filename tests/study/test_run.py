"""Real runs on Ray: what is kept, and that it doesn't depend on how it came about."""

import errno
import json
import re
import shutil
from copy import deepcopy
from pathlib import Path

import pandas as pd
import psutil
import pytest
from pandas.testing import assert_frame_equal

import results
import study
from study import cli, closing, driver

from .conftest import TINY

TABLES = (
    "trials",
    "trajectory",
    "chaos",
    "divergence",
    "path",
    "cone",
    "kernel",
    "growth",
    "switch",
    "transitions",
    "confinement",
)


def assert_equal_studies(left, right, but):
    for name in TABLES:
        ours, theirs = left.table(name), right.table(name)
        assert len(ours) > 0
        assert_frame_equal(
            ours.drop(columns=but, errors="ignore"), theirs.drop(columns=but, errors="ignore"), check_exact=True
        )


def test_every_table_reads_plainly(whole):
    for name in TABLES:
        plain = pd.read_parquet(whole.path / name)
        keys = list(results.TABLES[name].row_key)
        plain = plain.sort_values(keys, ignore_index=True)
        assert_frame_equal(plain, whole.table(name).sort_values(keys, ignore_index=True))


COLUMNS = {
    "trials": "status error is_sentinel_exact wall_seconds lane_steps lane_width test_loss test_accuracy",
    "trajectory": "step train_loss test_loss test_accuracy param_norm learning_rate sharpness stability_bound",
    "chaos": "perturbation fork_step magnitude direction measure_step reference_digest noise_norm layer_noise_min "
    "layer_noise_max changed_fraction distance relative_distance cosine_dissimilarity train_barrier test_barrier "
    "barrier_over_max train_error_barrier test_error_barrier disagreement prediction_distance angular_cka "
    "aligned_test_barrier diverged",
    "divergence": "perturbation fork_step magnitude direction step distance",
    "path": "perturbation fork_step magnitude direction measure_step alpha train_loss test_loss train_error test_error",
    "cone": "kernel step_i step_j inner_product kernel_distance",
    "kernel": "kernel step norm trace effective_rank alignment velocity eigenvalue_1 eigenvalue_5",
    "sketch": "kernel size perturbation fork_step magnitude direction step norm sketch",
    "growth": "fork_step direction window tangent_rate twin_rate_low twin_rate_high growth_rate is_exponential "
    "amplification waiting_steps jump",
    "switch": "switch_step train_loss test_loss test_accuracy diverged",
    "transitions": "indicator perturbation magnitude measure kernel transition_step ci_low ci_high verdict threshold "
    "is_primary num_seeds method",
    "confinement": "kernel tau_step num_later half_angle_deg cone_half_angle_deg angle_to_end_deg walk_half_angle_deg "
    "p_walk gamma_step gamma_step_low gamma_step_high gamma_lr gamma_lr_low gamma_lr_high drift_share p_natural "
    "verdict reason",
}
LEAVES = [
    "data",
    "model",
    "depth",
    "width",
    "activation",
    "norm_layer",
    "optimizer",
    "lr",
    "batch_size",
    "num_steps",
    "schedule",
    "momentum",
    "weight_decay",
]


@pytest.mark.parametrize("name", TABLES)
def test_the_contract_s_columns(whole, name):
    table = pd.read_parquet(whole.path / name)
    keys = ["study", "setting_key", *([] if name == "transitions" else ["trial_key", "seed"]), *LEAVES]
    assert set(keys + COLUMNS[name].split()) <= set(table.columns)
    assert table[keys].notna().all(axis=None)
    assert set(table.study) == {"tiny"}
    # One row per key: a groupby counts nothing twice.
    assert not table.duplicated(list(results.TABLES[name].row_key)).any()


def test_rows_of_chaos_are_those_of_the_contract(whole):
    chaos = whole.table("chaos")
    for _, trial in chaos.groupby("trial_key"):
        assert trial.reference_digest.nunique() == 1
        found = trial.set_index(["perturbation", "fork_step", "magnitude", "direction"]).measure_step.to_dict()
        children = {("gaussian", fork, m, 0) for fork in (0, 20, 40) for m in (1e-2, 1e-3)}
        controls = {("order", fork, 0.0, 0) for fork in (0, 20, 40)}
        assert found == dict.fromkeys({("none", 0, 0.0, 0), *children, *controls}, 60)


def test_the_unswitched_row_is_the_trial_s(whole):
    switch, trials = whole.table("switch"), whole.table("trials").set_index("trial_key")
    assert set(switch.switch_step) == {0, 20, 60}
    for row in switch.query("switch_step == 60").itertuples():
        assert (row.test_accuracy, row.test_loss) == tuple(trials.loc[row.trial_key, ["test_accuracy", "test_loss"]])


def test_figures_are_drawn(whole):
    names = {file.name for file in (whole.path / "figures").iterdir() if file.stat().st_size > 1000}
    shown = {"barrier", "boundary", "comparison", "disagreement", "divergence", "dose"}
    shown |= {"kernel_distance", "learning_curves", "path", "switch"}
    assert names == {f"{name}.{kind}" for name in shown for kind in ("png", "svg")}


def test_locate_by_a_leaf_prints_one_line_each(whole, capsys):
    assert cli.main(["locate", str(whole.path), "--by", "model", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["transitions"]
    assert [(row["model"], row["num_seeds"]) for row in rows] == [("cnn", 2), ("mlp", 2)]
    assert cli.main(["locate", str(whole.path), "--by", "data", "--by", "data", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["transitions"]
    # Two models of two seeds each: four curves, yet no more than two seeds.
    assert (row["data"], row["num_settings"], row["num_seeds"], row["num_curves"]) == ("digits", 2, 2, 4)


def test_locate_by_changes_no_table(whole, capsys):
    before = whole.table("transitions")
    assert cli.main(["locate", str(whole.path), "--by", "model", "--magnitude", "0.001"]) == 0
    assert "exploratory" in capsys.readouterr().out
    assert_frame_equal(whole.table("transitions"), before, check_exact=True)


def test_the_readme_s_query(whole):
    chaos = pd.read_parquet(whole.path / "chaos")
    means = chaos.groupby(["model", "perturbation", "magnitude", "fork_step"]).test_barrier.mean()
    # Two models: three fork steps for each of two magnitudes and the control, and the sentinel.
    assert len(means) == 2 * (3 * 3 + 1)
    assert means.notna().all()


def test_every_trial_is_proved(whole, capsys):
    trials = whole.table("trials")
    assert len(trials) == 4
    assert trials.is_sentinel_exact.all()
    assert set(trials.status) == {"ok"}
    sentinels = whole.table("chaos").query("perturbation == 'none'")
    assert len(sentinels) == 4
    assert (sentinels[["distance", "test_barrier", "disagreement"]] == 0).all(axis=None)
    assert cli.main(["check", str(whole.path)]) == 0
    assert "every sentinel exact" in capsys.readouterr().out


def test_nothing_is_left_running(whole):
    names = [" ".join(child.cmdline()) for child in psutil.Process().children(recursive=True)]
    assert not [name for name in names if any(part in name for part in ("raylet", "gcs_server", "ray::", "JobRunner"))]


def test_another_root_and_one_process_give_equal_tables(whole, tmp_path, in_process):
    again = study.launch(TINY, tmp_path)
    assert_equal_studies(whole, again, but=["wall_seconds"])


def test_an_extended_study_equals_one_run_at_once(whole, tmp_path, in_process):
    first = deepcopy(TINY)
    first["chaos"]["magnitudes"] = [1e-2]  # the first run pins the primary at its largest
    first["cone"] = {"probe_size": 16, "steps": [0, 60]}
    first["growth"]["fork_steps"] = [40]
    first["switch"]["steps"] = [20]
    study.launch(first, tmp_path)
    extended = study.launch(TINY, tmp_path)
    assert_equal_studies(whole, extended, but=["wall_seconds", "lane_steps", "lane_width"])
    # Added kernel steps rewrite the one part that holds a trial's kernels; windows of growth, switch steps and sketches
    # that are added are parts of their own.
    assert len(results.read_commits(extended)) == 4 * (2 + 1 + 2 + 2 + 1)


def test_the_way_out_of_a_lost_file_leads_out(whole, tmp_path, in_process):
    """What the error says is done, and the same space run again: nothing differs but what it cost."""
    folder = tmp_path / "tiny"
    shutil.copytree(whole.path, folder)
    sorted((folder / "chaos").glob("*.parquet"))[0].unlink()
    with pytest.raises(results.StudyError) as caught:
        study.launch(TINY, tmp_path)
    Path(re.search(r"remove (\S+) to have", str(caught.value))[1]).unlink()
    mended = study.launch(TINY, tmp_path)
    assert_equal_studies(whole, mended, but=["wall_seconds"])
    assert results.check(mended) == []


def test_a_done_study_runs_nothing(whole, monkeypatch, capsys):
    def refuse(*_, **__):
        raise AssertionError("jobs were run again")

    monkeypatch.setattr(driver, "run_jobs", refuse)
    monkeypatch.setattr(closing, "write_report", lambda _: None)
    before = {name: whole.table(name) for name in TABLES}
    study.launch(TINY, whole.path.parent)
    for name, table in before.items():
        assert_frame_equal(whole.table(name), table)
    assert "4 done before" in capsys.readouterr().err


def test_locate_and_plan_as_json(whole, capsys, tmp_path, monkeypatch):
    assert cli.main(["locate", str(whole.path), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["transitions"]
    assert len(rows) == 2
    assert all(row["is_primary"] and row["magnitude"] == 0.01 for row in rows)
    assert cli.main(["locate", str(whole.path), "--by", "model", "--indicator", "disagreement"]) == 0
    assert "disagreement" not in capsys.readouterr().err
    (tmp_path / "tiny.yaml").write_text(json.dumps(TINY))
    argv = ["plan", str(tmp_path / "tiny.yaml"), "--root", str(whole.path.parent), "--json"]
    assert cli.main(argv) == 0
    counts = json.loads(capsys.readouterr().out)
    assert (counts["trials"], counts["children"], counts["done"], counts["planned"]) == (4, 36, 4, 0)
    assert counts["lane_steps"] == whole.table("trials").lane_steps.sum()


def test_a_study_that_cannot_be_written_to(whole, capsys, monkeypatch):
    given, there = results.write_trials, sorted(whole.path.rglob("*"))

    def written(study):
        if study.path == whole.path:
            raise OSError(errno.EROFS, "Read-only file system", str(study.path))
        given(study)

    for command in (["locate"], ["compare", "--by", "magnitude"]):
        argv = [command[0], str(whole.path), *command[1:]]
        assert cli.main(argv) == 0
        expected = capsys.readouterr()
        with monkeypatch.context() as patch:
            patch.setattr(results, "write_trials", written)
            assert cli.main(argv) == 0
        assert capsys.readouterr() == expected
    with monkeypatch.context() as patch:
        patch.setattr(results, "write_trials", written)
        assert cli.main(["report", str(whole.path)]) == 3
    assert capsys.readouterr().err == (
        f"twophase: nothing can be written to {whole.path}; report on a copy of the study\n"
    )
    assert sorted(whole.path.rglob("*")) == there


@pytest.mark.parametrize("kind", ["cone", "growth", "switch"])
def test_a_plan_names_what_there_is_to_do(capsys, tmp_path, kind):
    space = {name: value for name, value in TINY.items() if name not in {"cone", "growth", "switch"} - {kind}}
    (tmp_path / "some.yaml").write_text(json.dumps(space))
    assert cli.main(["plan", str(tmp_path / "some.yaml"), "--root", str(tmp_path)]) == 0
    named = {line.split()[0] for line in capsys.readouterr().out.splitlines()} & {"kernels", "growth", "switches"}
    assert named == {{"cone": "kernels", "growth": "growth", "switch": "switches"}[kind]}


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--indicator", "barrier"], ["unknown indicator 'barrier'", "test_barrier"]),
        (["--magnitude", "0.5"], ["magnitude must be one that was run (0.001, 0.01)", "0.5"]),
        (["--by", "lrr"], ["unknown axis 'lrr'", "did you mean 'lr'"]),
    ],
)
def test_locate_refuses_what_was_not_measured(whole, capsys, argv, words):
    assert cli.main(["locate", str(whole.path), *argv]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert all(word in error for word in words)
