import contextlib
import hashlib
import itertools
import json
import math
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sample_study import SETTING_COLUMNS, TRIAL, Writer, keys_of, rows_of

import results
from results import LeaseLost, SchemaError, StudyError


def fingerprint(study):
    return {
        path.relative_to(study.path).as_posix(): path.read_bytes() for path in study.path.rglob("*") if path.is_file()
    }


def steps(study):
    return study.table("kernel")["step"].tolist()


class TestRoundTrip:
    @pytest.mark.parametrize("table", [name for name, table in results.TABLES.items() if not table.is_derived])
    def test_rows_come_back_in_every_table(self, study, write, table):
        rows = rows_of(table, count=4)
        write("a", {table: rows[2:]})
        write("b", {table: rows[:2]})
        frame = study.table(table)
        columns = results.TABLES[table].columns
        for column in columns:
            if column.type == "floats":
                assert {cell.dtype for cell in frame[column.name]} == {np.dtype(np.float32)}
                frame[column.name] = frame[column.name].map(list)
        assert frame[[column.name for column in columns]].to_dict("records") == rows
        for name, value in {**keys_of(), "trial_key": "t0"}.items():
            assert frame[name].tolist() == [value] * 4

    def test_file_is_where_the_contract_says_and_as_its_commit_says(self, study, write):
        commit = write("a")
        (file,) = commit.files
        path = study.path / "kernel" / "t0-a.parquet"
        data = path.read_bytes()
        assert (file.table, file.name, file.num_rows) == ("kernel", path.name, 3)
        assert (file.num_bytes, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())
        assert (study.path / "_commits" / "t0-a.json").is_file()

    def test_commit_comes_back_and_is_strict_json(self, study, write):
        trial = {"test_loss": math.inf, "test_accuracy": math.nan, "wall_seconds": 2}
        commit = write("a", covers={"any": [1, None]}, trial=trial, keys=keys_of(lr=1))

        def refuse(constant):
            raise AssertionError(constant)

        json.loads((study.path / "_commits" / "t0-a.json").read_text(), parse_constant=refuse)
        (read,) = results.read_commits(study)
        assert math.isnan(read.trial["test_accuracy"])
        assert read.trial["test_loss"] == math.inf
        assert type(read.trial["wall_seconds"]) is float
        assert type(read.keys["lr"]) is float
        assert (read.covers, read.files, read.keys) == (commit.covers, commit.files, commit.keys)
        assert (read.status, read.error, read.generation, read.lease_id) == ("ok", "", 0, write.lease_id)

    def test_failure_is_a_commit_without_files(self, study, write):
        write("a", {}, status="failed", error="out of memory")
        (commit,) = results.read_commits(study)
        assert (commit.status, commit.error, commit.files) == ("failed", "out of memory", ())
        assert study.table("kernel").empty

    def test_tables_without_rows_make_no_file(self, study, write):
        assert write("a", {"cone": [], "kernel": rows_of("kernel")}).files[0].table == "kernel"
        assert not (study.path / "cone").exists()


BAD_REQUESTS = {
    "unknown table": ({"tables": {"kernels": []}}, "unknown table 'kernels'; did you mean 'kernel'"),
    "derived table": ({"tables": {"trials": []}}, "'trials' is derived"),
    "missing column": ({"tables": {"kernel": [{"step": 1}]}}, "missing alignment, .*velocity"),
    "none in key": ({"tables": {"kernel": rows_of("kernel", step=None)}}, "'step' must be a int, got None"),
    "none measured": (
        {"tables": {"kernel": rows_of("kernel", norm=None)}},
        "'norm' must be a float, got None; unknown is NaN",
    ),
    "missing leaf": ({"keys": {name: value for name, value in keys_of().items() if name != "lr"}}, "keys: missing lr"),
    "extra leaf": ({"keys": keys_of(width=2)}, "keys: extra width"),
    "none in leaf": ({"keys": keys_of(model=None)}, "'model' must be a string, got None"),
    "nan in leaf": ({"keys": keys_of(lr=math.nan)}, "'lr' must be a float, got nan"),
    "other study": ({"keys": {**keys_of(), "study": "other"}}, "of study 'other', not 'sample'"),
    "trial": ({"trial": {"loss": 1.0}}, "trial: extra loss"),
    "trial type": ({"trial": {"lane_steps": 1.5}}, "'lane_steps' must be a int"),
    "status": ({"status": "done"}, "status must be one of ok, diverged, failed, got 'done'"),
    "failed with rows": ({"status": "failed"}, "a failed part must have no rows"),
    "part": ({"part": "a.b"}, "part must match .* got 'a.b'"),
    "path in part": ({"part": "../a"}, "part must match"),
    "trial key": ({"trial_key": "t-0"}, "trial_key must match .* got 't-0'"),
    "generation": ({"generation": -1}, "generation must be >= 0, got -1"),
    "covers": ({"covers": {"x": math.nan}}, "covers of part 'a' must be strict JSON"),
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_bad_requests_write_nothing(study, write, name):
    changes, message = BAD_REQUESTS[name]
    before = fingerprint(study)
    with pytest.raises(StudyError, match=message) as caught:
        write(**changes)
    assert "\n" not in str(caught.value)
    assert fingerprint(study) == before


class TestLease:
    def test_nothing_is_committed_without_the_lease(self, study, write, lease):
        lease.release()
        with pytest.raises(LeaseLost, match="is lost; held by nobody"):
            write("a")
        with results.Lease.acquire(study.path), pytest.raises(LeaseLost, match=f"pid {os.getpid()}"):
            write("a")
        assert results.read_commits(study) == []
        assert list(study.path.rglob("*.parquet")) == []

    def test_lease_lost_between_data_and_commit(self, study, write, lease, monkeypatch):
        # The data file is in place; the driver dies and is replaced before the commit.
        flushed = results.store.write_bytes

        def then_lose(path, data, before_replace):
            if path.suffix == ".json":
                lease.release()
            flushed(path, data, before_replace)

        monkeypatch.setattr(results.store, "write_bytes", then_lose)
        with pytest.raises(LeaseLost):
            write("a")
        assert (study.path / "kernel" / "t0-a.parquet").exists()
        assert results.read_commits(study) == []
        assert study.table("kernel").empty

    def test_a_zombie_does_not_replace_its_successors_file(self, study, write, lease):
        lease.release()
        with results.Lease.acquire(study.path) as successor:
            write("a", lease_id=successor.id)
            before = fingerprint(study)
            with pytest.raises(LeaseLost):
                write("a", {"kernel": rows_of("kernel", count=5)})
            assert fingerprint(study) == before

    @pytest.mark.parametrize("action", ["sweep", "remove"])
    def test_nothing_is_removed_without_the_lease(self, study, write, action):
        commit = write("a")
        (study.path / "kernel" / "stray.parquet").write_bytes(b"")
        before = fingerprint(study)
        remove = results.sweep if action == "sweep" else lambda *a, **k: results.remove_commit(*a, commit, **k)
        with pytest.raises(LeaseLost):
            remove(study, lease_id="other")
        assert fingerprint(study) == before


class TestRewriting:
    def test_same_rows_give_the_same_bytes(self, study, write):
        write("a")
        before = fingerprint(study)
        write("a")
        assert fingerprint(study) == before

    def test_other_rows_replace_the_part(self, study, write, lease):
        write("a")
        first = (study.path / "kernel" / "t0-a.parquet").read_bytes()
        write("a", {"kernel": rows_of("kernel", count=5)})
        assert steps(study) == [0, 1, 2, 3, 4]
        assert (study.path / "kernel" / "t0-a.parquet").read_bytes() == first, "data files are immutable"
        write("a", {"kernel": rows_of("kernel", count=6)})
        assert results.sweep(study, lease_id=lease.id) == ["kernel/t0-a.r1.parquet"]
        assert steps(study) == [0, 1, 2, 3, 4, 5]

    def test_uncommitted_leftover_is_overwritten(self, study, write):
        (study.path / "kernel").mkdir()
        (study.path / "kernel" / "t0-a.parquet").write_bytes(b"torn")
        assert write("a").files[0].name == "t0-a.parquet"
        assert steps(study) == [0, 1, 2]


class TestGenerations:
    def test_higher_generation_hides_all_parts_of_its_trial_only(self, study, write, lease):
        write("a")
        write("b", {"kernel": rows_of("kernel", first=10)})
        write("a", trial_key="other")
        write("b", {"kernel": rows_of("kernel", first=20)}, generation=1)
        assert study.table("kernel").groupby("trial_key")["step"].agg(list).to_dict() == {
            "other": [0, 1, 2],
            "t0": [20, 21, 22],
        }
        assert [(commit.trial_key, commit.generation) for commit in results.read_commits(study)] == [
            ("other", 0),
            ("t0", 1),
        ]
        assert results.sweep(study, lease_id=lease.id) == [
            "_commits/t0-a.json",
            "kernel/t0-a.parquet",
            "kernel/t0-b.parquet",
        ]
        assert len(study.table("kernel")) == 6

    def test_lower_generation_cannot_replace_a_higher_one(self, write):
        write("a", generation=2)
        with pytest.raises(StudyError, match="t0-a stands at generation 2; 1 is superseded"):
            write("a", generation=1)


class TestSweep:
    def test_removes_strays_and_temporary_files_only(self, study, write, lease):
        write("a")
        results.write_trials(study)
        kept = fingerprint(study)
        strays = [
            "kernel/t9-x.parquet",
            "trials/old.parquet",
            ".x.1.tmp",
            "_commits/.t0-a.json.1.tmp",
            "kernel/.y.2.tmp",
        ]
        for stray in strays:
            (study.path / stray).write_bytes(b"")
        (study.path / "report.html").write_text("kept")
        assert results.sweep(study, lease_id=lease.id) == sorted(strays)
        assert fingerprint(study) == {**kept, "report.html": b"kept"}
        assert results.sweep(study, lease_id=lease.id) == []

    def test_leaves_a_rival_who_is_just_asking_for_the_lease(self, study, lease):
        rival = study.path / "._lease.json.abc.tmp"
        rival.write_text("{}")
        assert results.sweep(study, lease_id=lease.id) == []
        os.utime(rival, (1, 1))
        assert results.sweep(study, lease_id=lease.id) == [rival.name]

    def test_removes_nothing_if_a_commit_is_damaged(self, study, write, lease):
        write("a")
        (study.path / "_commits" / "t0-a.json").write_text("{")
        before = fingerprint(study)
        with pytest.raises(StudyError, match=r"damaged commit file .*t0-a\.json"):
            results.sweep(study, lease_id=lease.id)
        assert fingerprint(study) == before


def test_removed_commit_counts_as_missing(study, write, lease):
    commit = write("a")
    write("b", {"kernel": rows_of("kernel", first=10)})
    results.remove_commit(study, commit, lease_id=lease.id)
    assert steps(study) == [10, 11, 12]
    assert not (study.path / "kernel" / "t0-a.parquet").exists()
    results.remove_commit(study, commit, lease_id=lease.id)


class Killed(BaseException):
    """The process ends here, and nothing that it would have done is done."""


class Killer:
    """Lets `allowed` changes of the file system happen, then no more."""

    def __init__(self, monkeypatch):
        self.allowed = 10**9
        self.done = 0
        for name in ("replace", "unlink", "mkdir"):
            monkeypatch.setattr(Path, name, self.counted(getattr(Path, name)))

    def counted(self, action):
        def maybe(*args, **kwargs):
            if self.done >= self.allowed:
                raise Killed
            self.done += 1
            return action(*args, **kwargs)

        return maybe


PARTS = {"kernel": rows_of("kernel"), "cone": rows_of("cone"), "trajectory": rows_of("trajectory")}
LONGER = {table: rows_of(table, count=5) for table in PARTS}
OTHER = {table: rows_of(table, first=10) for table in PARTS}


def rows_by_table(study):
    """The last key column of every row; text keys sort otherwise than the numbers in them, so it is sorted here."""
    return {table: sorted(study.table(table)[results.TABLES[table].keys[-1]].tolist()) for table in PARTS}


def numbers(tables):
    return {table: [row[results.TABLES[table].keys[-1]] for row in rows] for table, rows in tables.items()}


SCENARIOS = {
    "first": ([], ("a", PARTS, 0), {table: [] for table in PARTS}),
    "rewrite": ([("a", PARTS, 0)], ("a", LONGER, 0), PARTS),
    "supersede": ([("a", PARTS, 0), ("b", OTHER, 0)], ("a", LONGER, 1), {t: PARTS[t] + OTHER[t] for t in PARTS}),
}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_killed_at_every_change_of_the_disk(tmp_path, monkeypatch, scenario):
    """Writing and then sweeping, killed before each change in turn: always all the old rows or all the new ones."""
    prepared, (part, tables, generation), old = SCENARIOS[scenario]
    seen = set()
    for allowed in itertools.count():
        study = results.create(tmp_path / str(allowed), study="sample", setting_columns=SETTING_COLUMNS)
        with results.Lease.acquire(study.path) as lease, monkeypatch.context() as patch:
            write = Writer(study, lease.id)
            for name, rows, number in prepared:
                write(name, rows, generation=number)
            killer = Killer(patch)
            killer.allowed = allowed
            try:
                write(part, tables, generation=generation)
                results.sweep(study, lease_id=lease.id)
                ended = True
            except Killed:
                ended = False
            killer.allowed = 10**9
            found = rows_by_table(study)
            is_new = found == numbers(tables)
            assert is_new or found == numbers(old)
            seen.add(is_new)
            # Redone after the kill, nothing is lost, doubled or left over.
            write(part, tables, generation=generation)
            results.sweep(study, lease_id=lease.id)
            results.write_trials(study)
        assert rows_by_table(study) == numbers(tables)
        assert results.check(results.open(study.path)) == []
        if ended:
            break
    assert seen == {False, True}
    assert allowed > 6


def test_removal_killed_at_every_change_of_the_disk(tmp_path, monkeypatch):
    """The part is there or missing, and never a commit of files that are gone."""
    for allowed in range(5):
        study = results.create(tmp_path / str(allowed), study="sample", setting_columns=SETTING_COLUMNS)
        with results.Lease.acquire(study.path) as lease, monkeypatch.context() as patch:
            commit = Writer(study, lease.id)("a", PARTS)
            killer = Killer(patch)
            killer.allowed = allowed
            with pytest.raises(Killed) if allowed < 4 else contextlib.nullcontext():
                results.remove_commit(study, commit, lease_id=lease.id)
            killer.allowed = 10**9
        assert rows_by_table(study) == (numbers(PARTS) if allowed == 0 else {table: [] for table in PARTS})


TRANSITION = {
    **{name: value for name, value in keys_of().items() if name != "seed"},
    **rows_of("transitions", count=1)[0],
}


class TestDerived:
    def test_is_replaced_whole_and_comes_back(self, study):
        frame = pd.DataFrame([TRANSITION, {**TRANSITION, "measure": "end"}])[sorted(TRANSITION)]
        results.write_derived(study, "transitions", frame)
        results.write_derived(study, "transitions", frame)
        assert [path.name for path in (study.path / "transitions").iterdir()] == ["transitions.parquet"]
        read = study.table("transitions")
        assert list(read.columns) == study.schema("transitions").names
        assert read["measure"].tolist() == ["end", TRANSITION["measure"]]
        pd.testing.assert_frame_equal(
            read[sorted(TRANSITION)].iloc[::-1].reset_index(drop=True), frame, check_dtype=False
        )

    def test_empty_frame(self, study):
        results.write_derived(study, "transitions", pd.DataFrame(columns=sorted(TRANSITION)))
        assert study.table("transitions").empty

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"extra": 1}, "table 'transitions': extra extra"),
            ({"num_seeds": 1.5}, "'num_seeds' must be a int"),
            ({"magnitude": math.nan}, "key or setting 'magnitude' must be a float, got nan"),
            ({"model": None}, "'model' must be a string"),
        ],
    )
    def test_strictness(self, study, changes, message):
        with pytest.raises(SchemaError, match=message):
            results.write_derived(study, "transitions", pd.DataFrame([{**TRANSITION, **changes}]))
        assert not (study.path / "transitions").exists()

    def test_tables_of_parts_are_refused(self, study):
        with pytest.raises(
            SchemaError, match="'chaos' is written by parts; derived are trials, transitions, confinement"
        ):
            results.write_derived(study, "chaos", pd.DataFrame())

    def test_trials_file_equals_the_live_table(self, study, write):
        write("a", trial=TRIAL)
        results.write_trials(study)
        live = study.table("trials")
        write("b", {})
        written = pd.read_parquet(study.path / "trials")
        pd.testing.assert_frame_equal(written, live)
        assert study.table("trials")["lane_steps"].tolist() == [200], "the table is live, the file as old as it is"
