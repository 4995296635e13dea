"""Real runs on Ray: what is kept, and that it doesn't depend on how it came about."""

import json
from copy import deepcopy

import pandas as pd
import psutil
import pytest
from pandas.testing import assert_frame_equal

import results
import study
from study import cli, driver

from .conftest import TINY

TABLES = ("trials", "trajectory", "chaos", "divergence", "path", "transitions")


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
    assert not [name for name in names if "ray" in name.lower()]


def test_another_root_and_one_worker_give_equal_tables(whole, tmp_path):
    again = study.launch(TINY, tmp_path, workers=1)
    assert_equal_studies(whole, again, but=["wall_seconds"])


def test_an_extended_study_equals_one_run_at_once(whole, tmp_path):
    first = deepcopy(TINY)
    first["chaos"]["magnitudes"] = [1e-3]
    study.launch(first, tmp_path)
    extended = study.launch(TINY, tmp_path)
    assert_equal_studies(whole, extended, but=["wall_seconds", "lane_steps", "lane_width"])
    assert len(results.read_commits(extended)) == 8


def test_a_done_study_runs_nothing(whole, monkeypatch, capsys):
    def refuse(*_, **__):
        raise AssertionError("jobs were run again")

    monkeypatch.setattr(driver, "run_jobs", refuse)
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
