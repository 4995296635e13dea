"""Several studies, and studies of earlier versions, read as one."""

import hashlib
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import results
from study import cli
from study.analysis import compare, transitions
from study.crossings import crossings
from study.manifest import Declared, write_declared
from study.together import read_together
from tests.study.rows import OTHER, POINT, USUAL, frame, healthy, rows_of, sentinel, trials_of
from twophase.config import LEAVES
from twophase.errors import BadInput

DECLARED = Declared(magnitudes=(1e-2,), primary=replace(Declared().primary, magnitude=1e-2), protocol=USUAL)
WIDER = replace(USUAL, probe_size=32)
NO_ROWS = {"cone": ["trial_key", "kernel"], "trajectory": ["trial_key", "step", "num_steps", "train_loss"]}


@dataclass
class Tables:
    """A study in memory."""

    name: str
    path: Path
    tables: dict[str, pd.DataFrame]

    def table(self, name):
        return self.tables[name]


def study_of(folder, chaos, trials, *, digest="d", declared=DECLARED):
    folder.mkdir()
    write_declared(folder, declared)
    tables = {name: pd.DataFrame(columns=columns, dtype=object) for name, columns in NO_ROWS.items()}
    named = {"chaos": chaos.assign(reference_digest=digest), "trials": trials}
    return Tables(
        folder.name, folder, {**tables, **{key: rows.assign(study=folder.name) for key, rows in named.items()}}
    )


def children(seeds, point=POINT, curve=(1.0, 0.4, 0.0), **how):
    protocol = how.get("protocol", USUAL)
    return frame(*(rows_of(point, s, curve, **how) + sentinel(point, s, protocol=protocol) for s in seeds))


def primary(read):
    return read.transitions[read.transitions["is_primary"]]


def test_seeds_of_one_setting_are_joined_and_trials_count_once(tmp_path):
    first = study_of(tmp_path / "a", children([0, 1, 2]), trials_of(POINT, seeds=3))
    # Seed 2 of both is one trial.
    later = study_of(tmp_path / "b", children([2, 3, 4]), trials_of(POINT, seeds=5).iloc[2:])
    read = read_together([first, later])
    (row,) = primary(read).to_dict("records")
    assert (row["num_seeds"], row["study"], len(read.trials)) == (5, "a + b", 5)
    assert read.notes == ()
    assert primary(read_together([later, first]))["num_seeds"].tolist() == [5]


@pytest.mark.parametrize(("digest", "kinds", "num_notes"), [("d", {"gaussian", "order"}, 0), ("e", {"gaussian"}, 1)])
def test_children_of_one_trial_are_joined_where_their_references_are_the_same(tmp_path, digest, kinds, num_notes):
    first = study_of(tmp_path / "a", children([0, 1]), trials_of(POINT, seeds=2))
    controls = children([0, 1], kind="order", magnitude=0.0)
    read = read_together([first, study_of(tmp_path / "b", controls, trials_of(POINT, seeds=2), digest=digest)])
    assert set(read.chaos["perturbation"]) == {*kinds, "none"}
    assert not read.chaos.duplicated(["trial_key", "perturbation", "fork_step", "measure_step"]).any()
    assert len(read.notes) == num_notes


def test_each_study_s_own_protocol_is_a_declared_one(tmp_path):
    first = study_of(tmp_path / "a", children([0, 1]), trials_of(POINT, seeds=2))
    declared = replace(DECLARED, protocol=WIDER)
    other = children([0, 1], OTHER, protocol=WIDER)
    later = study_of(tmp_path / "b", other, trials_of(OTHER, seeds=2, protocol=WIDER), declared=declared)
    assert sorted(primary(read_together([first, later]))["lr"]) == [0.1, 0.2]
    # But never of one setting: there the first study's speak.
    same = children([2, 3], protocol=WIDER)
    again = study_of(tmp_path / "c", same, trials_of(POINT, seeds=4, protocol=WIDER).iloc[2:], declared=declared)
    (row,) = primary(read_together([first, again])).to_dict("records")
    assert row["num_seeds"] == 2
    assert "2 trials measured with probe_size 32 (not 128) left out" in row["reason"]


def test_a_trial_that_failed_in_one_study_only_did_not_fail(tmp_path):
    failed = trials_of(POINT, seeds=2, status="failed", error="out of memory")
    first = study_of(tmp_path / "a", children([0, 1]).iloc[:0], failed)
    read = read_together([first, study_of(tmp_path / "b", children([0, 1]), trials_of(POINT, seeds=2))])
    assert read.trials["status"].tolist() == ["ok", "ok"]
    assert primary(read)["reason"].tolist() == [""]


def forget(folder, leaf):
    """Make a study one that was written before a leaf existed."""
    schema = json.loads((folder / "_schema.json").read_text())
    schema["setting_columns"] = [column for column in schema["setting_columns"] if column["name"] != leaf]
    (folder / "_schema.json").write_text(json.dumps(schema))
    for path in (folder / "_commits").glob("*.json"):
        commit = json.loads(path.read_text())
        del commit["keys"][leaf]
        for file in commit["files"]:
            data = folder / file["table"] / file["name"]
            pq.write_table(pq.read_table(data).drop_columns([leaf]), data)
            file["num_bytes"] = data.stat().st_size
            file["sha256"] = hashlib.sha256(data.read_bytes()).hexdigest()
        path.write_text(json.dumps(commit))
    for name in results.TABLES:
        (folder / name / f"{name}.parquet").unlink(missing_ok=True)


def test_a_study_written_before_a_leaf_existed(whole, tmp_path, capsys):
    old = tmp_path / "old"
    shutil.copytree(whole.path, old)
    forget(old, "dropout")
    assert results.check(results.open(old)) == []
    commands = [
        ["locate", "--json"],
        ["compare", "--by", "model", "--json"],
        ["more"],
        ["status"],
        ["check"],
    ]
    for command, *options in commands:
        assert cli.main([command, str(old), *options]) == 0, command
        capsys.readouterr()
    # Beside one that has it: the same trials, which count once.
    for studies in ([old], [old, whole.path], [whole.path, old]):
        assert cli.main(["locate", *map(str, studies), "--json"]) == 0
        rows = json.loads(capsys.readouterr().out)["transitions"]
        assert [(row["dropout"], row["num_seeds"]) for row in rows] == [(0.0, 2), (0.0, 2)]
    # A leaf that always was can't be made up; one that isn't known yet is of a newer version.
    forget(old, "lr")
    assert cli.main(["locate", str(old), str(whole.path)]) == 2
    assert "'lr' is new and needs `fill`" in capsys.readouterr().err
    newer = tmp_path / "newer"
    shutil.copytree(whole.path, newer)
    schema = json.loads((newer / "_schema.json").read_text())
    schema["setting_columns"].append(
        {"name": "label_noise", "type": "float", "unit": "1", "description": "", "fill": 0.0}
    )
    (newer / "_schema.json").write_text(json.dumps(schema))
    assert cli.main(["locate", str(whole.path), str(newer)]) == 2
    err = capsys.readouterr().err
    assert err == f"twophase: study {newer} has setting column label_noise, unknown to this version; upgrade twophase\n"


def test_frames_of_different_versions():
    known, other = healthy(), healthy(OTHER)
    expected = transitions(pd.concat([known, other]), DECLARED)
    old = known.drop(columns=["dropout", "shortcut"])
    for chaos in (pd.concat([old, other]), pd.concat([old, other.drop(columns="dropout")])):
        pd.testing.assert_frame_equal(transitions(chaos, DECLARED), expected, check_column_type=False)
    assert set(crossings(old, DECLARED)["dropout"]) == {0.0}
    assert LEAVES["dropout"].old_value == 0.0
    lacking = pd.concat([known.drop(columns="lr"), other])
    with pytest.raises(BadInput, match="chaos must have no row without lr; were tables of other columns put together"):
        transitions(lacking, DECLARED)
    for table in (known.drop(columns="lr"), known.drop(columns=["lr", "fork_step"]), pd.DataFrame({"lr": np.ones(2)})):
        with pytest.raises(
            BadInput, match=r"chaos must have the columns of that table, docs/tables\.md; missing: "
        ) as said:
            compare(table, ["depth"], DECLARED)
        assert "\n" not in str(said.value)
