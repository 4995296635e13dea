import dataclasses

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from sample_study import SETTING_COLUMNS, keys_of, rows_of

import results
from results import Column, StudyError

CLIP = Column("clip", "float", "1", "gradient clipping", fill=0.5)


@pytest.fixture
def filled(study, write):
    for seed, trial_key in enumerate(["t2", "t0", "t1"]):
        rows = rows_of("kernel", count=4)
        write("z", {"kernel": rows[:2]}, trial_key=trial_key, keys=keys_of(seed))
        write("a", {"kernel": rows[:1:-1]}, trial_key=trial_key, keys=keys_of(seed))
    return study


def test_rows_are_sorted_by_trial_and_keys_with_a_fresh_index(filled):
    frame = filled.table("kernel")
    assert frame.index.equals(pd.RangeIndex(12))
    assert frame["trial_key"].tolist() == ["t0"] * 4 + ["t1"] * 4 + ["t2"] * 4
    assert frame["step"].tolist() == [0, 1, 2, 3] * 3
    # Sorted by keys that were not asked for, too.
    assert filled.table("kernel", columns=["seed"])["seed"].tolist() == [1] * 4 + [2] * 4 + [0] * 4


def test_columns_come_as_asked(filled):
    assert list(filled.table("kernel").columns) == filled.schema("kernel").names
    assert list(filled.table("kernel", columns=["step", "lr"]).columns) == ["step", "lr"]


@pytest.mark.parametrize("table", ["kernel", "trials"])
def test_filters_work_on_columns_not_selected(filled, table):
    frame = filled.table(table, columns=["trial_key"], filters=[("seed", ">", 0), ("trial_key", "!=", "t1")])
    assert set(frame["trial_key"]) == {"t0"}
    either = filled.table(table, columns=["trial_key"], filters=[[("seed", "==", 0)], [("seed", "in", [1])]])
    assert set(either["trial_key"]) == {"t0", "t2"}
    assert list(frame.columns) == ["trial_key"]
    assert frame.index.equals(pd.RangeIndex(len(frame)))


@pytest.mark.parametrize("table", results.TABLES)
def test_empty_tables_have_the_right_types(study, table):
    frame = study.table(table)
    assert frame.empty
    texts = pd.Series(["x"]).dtype
    kinds = {"string": texts, "int64": "int64", "double": "float64", "bool": "bool", "list<item: float>": object}
    for field in study.schema(table):
        assert frame[field.name].dtype == kinds[str(field.type)]


def test_strings_are_plain(filled):
    assert filled.table("kernel")["model"].dtype == pd.Series(["x"]).dtype


def test_tables_lists_all(study):
    assert study.tables == tuple(results.TABLES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "kernels"}, "unknown table 'kernels'; did you mean 'kernel'\\? known: boundary, chaos, cone"),
        ({"name": "kernel", "columns": ["norn"]}, "unknown column 'norn'; did you mean 'norm'\\? known: .*velocity"),
        ({"name": "kernel", "filters": [("sed", "==", 1)]}, "unknown column 'sed'; did you mean 'seed'"),
        ({"name": "kernel", "filters": [("seed", 1)]}, "filters must be a list of"),
        ({"name": "kernel", "filters": "seed == 1"}, "filters must be a list of"),
        ({"name": "kernel", "filters": [("seed", "~", 1)]}, "cannot filter by"),
        ({"name": "kernel", "filters": [("seed", "==", "x")]}, "cannot read table 'kernel'"),
    ],
)
def test_mistakes_are_told_in_one_line(filled, arguments, message):
    with pytest.raises(StudyError, match=message) as caught:
        filled.table(**arguments)
    assert "\n" not in str(caught.value)


def test_uncommitted_files_are_not_seen(filled):
    folder = filled.path / "kernel"
    (folder / "t5-a.parquet").write_bytes((folder / "t0-a.parquet").read_bytes())
    (folder / "t6-a.parquet").write_bytes(b"torn")
    assert len(filled.table("kernel")) == 12


def test_swept_study_is_readable_by_plain_pandas(filled, write, lease):
    write("a", {"kernel": rows_of("kernel", first=7)}, trial_key="t1", generation=1)
    results.sweep(filled, lease_id=lease.id)
    results.write_trials(filled)
    for table in ("kernel", "trials"):
        plain = pd.read_parquet(filled.path / table)
        key = list(results.TABLES[table].row_key)
        pd.testing.assert_frame_equal(plain.sort_values(key, ignore_index=True), filled.table(table))
    assert len(filled.table("kernel")) == 11


def test_file_swept_between_listing_and_reading(filled, write, lease, monkeypatch):
    listed = results.query.read_commits

    def then_supersede(study, trial_key):
        commits = listed(study, trial_key)
        monkeypatch.undo()
        write("a", {"kernel": rows_of("kernel", count=1)}, trial_key="t1", generation=1)
        results.sweep(filled, lease_id=lease.id)
        return commits

    monkeypatch.setattr(results.query, "read_commits", then_supersede)
    assert len(filled.table("kernel")) == 9


def test_file_that_is_truly_lost_is_named(filled):
    (filled.path / "kernel" / "t0-a.parquet").unlink()
    with pytest.raises(StudyError, match=r"kernel/t0-a\.parquet is missing.*remove .*_commits/t0-a\.json") as caught:
        filled.table("kernel")
    assert "\n" not in str(caught.value)


def test_torn_file_is_told_in_one_line(filled):
    path = filled.path / "kernel" / "t0-a.parquet"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(
        StudyError, match=r"kernel/t0-a\.parquet has 100 bytes, its commit says \d+; remove .*_commits/t0-a\.json"
    ) as caught:
        filled.table("kernel")
    assert "\n" not in str(caught.value)


class TestGrownLeaf:
    @pytest.fixture
    def grown(self, filled, write):
        study = results.create(filled.path, study="sample", setting_columns=(*SETTING_COLUMNS, CLIP))
        write.study = study
        write("n", {"kernel": rows_of("kernel", first=9)}, trial_key="t9", keys=keys_of(clip=2.0))
        return study

    @pytest.mark.parametrize("table", ["kernel", "trials"])
    def test_old_files_are_filled(self, grown, table):
        frame = grown.table(table)
        assert frame.groupby("trial_key")["clip"].unique().map(list).to_dict() == {
            "t0": [0.5],
            "t1": [0.5],
            "t2": [0.5],
            "t9": [2.0],
        }

    def test_a_reader_that_knows_more_fills_and_writes_nothing(self, filled):
        before = (filled.path / "_schema.json").read_text()
        wider = results.open(filled.path, setting_columns=(CLIP, *SETTING_COLUMNS))
        assert set(wider.table("kernel")["clip"]) == {0.5}
        assert {commit.keys["clip"] for commit in results.read_commits(wider)} == {0.5}
        assert results.check(wider) == results.check(filled) == []
        assert (filled.path / "_schema.json").read_text() == before
        with pytest.raises(StudyError, match="has setting columns depth, augment, unknown to this version"):
            results.open(filled.path, setting_columns=SETTING_COLUMNS[:2])
        with pytest.raises(results.SchemaError, match="'clip' is new and needs `fill`"):
            results.open(filled.path, setting_columns=(dataclasses.replace(CLIP, fill=None), *SETTING_COLUMNS))

    def test_filters_see_the_filled_value(self, grown):
        assert len(grown.table("kernel", columns=["step"], filters=[("clip", "==", 0.5)])) == 12
        assert len(grown.table("kernel", filters=[("clip", ">", 1.0), ("step", ">", 9)])) == 2


def test_a_notebook_shows_what_there_is(filled):
    shown = filled._repr_html_()
    assert "<code>kernel</code></td><td>12</td>" in shown
    assert "<code>trials</code></td><td>3</td>" in shown
    assert "effective_rank" in shown
    assert "<code>cone</code>" not in shown
    assert repr(filled) == f"<Study {filled.name} in {filled.path}>"


def test_a_notebook_shows_an_empty_study_and_escapes_its_name(study):
    assert "No rows yet" in study._repr_html_()
    assert "<b>&lt;i&gt;</b>" in dataclasses.replace(study, name="<i>")._repr_html_()


def test_a_trial_s_rows_are_read_from_its_own_files(study, write):
    for key in ("t0", "t1", "t2"):
        write(trial_key=key)
    whole = study.table("kernel")
    mine = [("trial_key", "==", "t1"), ("step", ">=", 1)]
    expected = whole[(whole["trial_key"] == "t1") & (whole["step"] >= 1)].reset_index(drop=True)
    assert_frame_equal(study.table("kernel", filters=mine), expected)
    assert study.table("kernel", filters=[("trial_key", "==", "t*")]).empty, "no pattern"
    for path in study.path.glob("kernel/t0-*"):
        path.write_bytes(b"damaged, and nobody looks")
    assert_frame_equal(study.table("kernel", filters=mine), expected)
    assert study.table("kernel", filters=[("trial_key", "==", "t9")]).empty
    assert list(study.table("trials", filters=mine[:1])["trial_key"]) == ["t1"]
