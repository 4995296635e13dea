import hashlib
import io
import json
import math
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sample_study import SETTING_COLUMNS, TRIAL, Writer, keys_of, rows_of

import results
from results import Column, Finding


def sentinel(step, **changes):
    fixed = {"perturbation": "none", "fork_step": 0, "magnitude": 0.0, "direction": 0, "measure_step": step}
    return rows_of(
        "chaos", count=1, **{**fixed, "reference_digest": "d0", "distance": 0.0, "diverged": False, **changes}
    )


@pytest.fixture
def whole(study, write, lease):
    write("a", {"kernel": rows_of("kernel"), "cone": rows_of("cone")})
    write("b", {"chaos": sentinel(10) + rows_of("chaos", first=1, reference_digest="d0")})
    write("c", {}, status="failed", error="x", trial={})
    results.write_trials(study)
    lease.release()
    assert results.check(study) == []
    return study


@pytest.fixture
def lease_again(whole):
    """Writes to the whole study under another lease."""

    def write(*part, **changes):
        with results.Lease.acquire(whole.path) as lease:
            Writer(whole, lease.id)(*part, **changes)

    return write


@pytest.fixture
def data_file(whole):
    return whole.path / "kernel" / "t0-a.parquet"


def only(study):
    (finding,) = results.check(study)
    return finding


def edit_commit(study, part="a", **changes):
    path = study.path / "_commits" / f"t0-{part}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_file(study, edit, table="kernel", part="a"):
    """Rewrites a file by `edit` and lets its commit vouch for the result."""
    path = study.path / table / f"t0-{part}.parquet"
    sink = io.BytesIO()
    pq.write_table(edit(pq.read_table(path)), sink)
    data = sink.getvalue()
    path.write_bytes(data)
    files = json.loads((study.path / "_commits" / f"t0-{part}.json").read_text())["files"]
    for file in files:
        if file["table"] == table:
            file.update(sha256=hashlib.sha256(data).hexdigest(), num_bytes=len(data))
    edit_commit(study, part, files=files)


def whole_numbers(table):
    position = table.column_names.index("norm")
    return table.set_column(position, pa.field("norm", pa.int64()), [[1, 2, 3]])


def nullable_seed(table):
    position = table.column_names.index("seed")
    return table.cast(table.schema.set(position, table.schema.field(position).with_nullable(True)))


OTHER_SCHEMAS = {
    "no column 'norm'": lambda table: table.drop_columns(["norm"]),
    "unknown column 'more'": lambda table: table.append_column("more", [[1, 2, 3]]),
    "column 'norm' is int64, not double": whole_numbers,
    "column 'seed' is nullable": nullable_seed,
}


class TestFiles:
    def test_missing(self, whole, data_file):
        data_file.unlink()
        assert only(whole) == Finding("kernel", "data file is missing", "kernel/t0-a.parquet")

    def test_missing_table_folder(self, whole, data_file):
        shutil.rmtree(data_file.parent)
        assert only(whole) == Finding("kernel", "data file is missing: its table has no folder", "kernel/t0-a.parquet")

    def test_truncated(self, whole, data_file):
        data_file.write_bytes(data_file.read_bytes()[:-7])
        assert "bytes, its commit says" in only(whole).what

    def test_flipped_bit(self, whole, data_file):
        data = bytearray(data_file.read_bytes())
        data[len(data) // 2] ^= 1
        data_file.write_bytes(data)
        assert only(whole).what == "content of data file differs from its commit (sha256)"

    def test_folder_in_place_of_a_file(self, whole, data_file):
        data_file.unlink()
        data_file.mkdir()
        assert "data file cannot be read" in only(whole).what

    def test_wrong_number_of_rows(self, whole):
        edit_file(whole, lambda table: table.slice(0, 2))
        assert only(whole).what == "data file has 2 rows, its commit says 3"

    def test_vouched_for_but_no_parquet(self, whole, data_file):
        files = json.loads((whole.path / "_commits" / "t0-a.json").read_text())["files"]
        data_file.write_bytes(b"no parquet")
        digest = hashlib.sha256(b"no parquet").hexdigest()
        edit_commit(
            whole, files=[{**file, "sha256": digest, "num_bytes": 10} for file in files if file["table"] == "kernel"]
        )
        assert any("data file is no Parquet" in finding.what for finding in results.check(whole))

    @pytest.mark.parametrize("what", OTHER_SCHEMAS)
    def test_other_schema(self, whole, what):
        edit_file(whole, OTHER_SCHEMAS[what])
        finding = only(whole)
        assert (finding.where, finding.what) == ("kernel/t0-a.parquet", f"schema of data file differs: {what}")

    def test_files_from_before_a_leaf_was_added_are_fine(self, whole):
        clip = Column("clip", "float", "1", "gradient clipping", fill=0.5)
        grown = results.create(whole.path, study="sample", setting_columns=(*SETTING_COLUMNS, clip))
        assert results.check(grown) == []

    def test_damaged_derived_file(self, whole):
        (whole.path / "trials" / "trials.parquet").write_bytes(b"torn")
        assert only(whole).where == "trials/trials.parquet"


class TestLeftovers:
    @pytest.fixture
    def left(self, whole, data_file):
        (data_file.parent / "t0-z.parquet").write_bytes(data_file.read_bytes())
        (whole.path / "cone" / ".x.1.tmp").write_bytes(b"")
        (whole.path / "_commits" / ".y.1.tmp").write_bytes(b"")
        return whole

    def test_strays_and_temporary_files(self, left):
        assert sorted(results.check(left), key=lambda finding: finding.where) == [
            Finding("_commits", "temporary file left by a kill", "_commits/.y.1.tmp"),
            Finding("cone", "temporary file left by a kill", "cone/.x.1.tmp"),
            Finding("kernel", "data file that no commit names", "kernel/t0-z.parquet"),
        ]

    def test_are_a_running_drivers_business(self, left):
        with results.Lease.acquire(left.path):
            assert results.check(left) == []

    def test_superseded_commits(self, whole, write):
        with results.Lease.acquire(whole.path) as lease:
            write("d", generation=1, lease_id=lease.id)
        whats = {finding.where: finding.what for finding in results.check(whole)}
        wheres = [f"_commits/t0-{part}.json" for part in "abc"]
        assert whats == dict.fromkeys(wheres, "superseded commit not yet swept")


@pytest.mark.parametrize("text", ["", '{"part": "a"', "[]", "null", "[" * 100_000])
def test_unparsable_commit(whole, text):
    (whole.path / "_commits" / "t0-c.json").write_text(text)
    finding = only(whole)
    assert (finding.table, finding.where) == ("_commits", "_commits/t0-c.json")


def test_commit_that_is_not_text(whole):
    (whole.path / "_commits" / "t0-c.json").write_bytes(b"\xff\xfe\x00")
    assert only(whole).where == "_commits/t0-c.json"


def test_missing_commits_folder(whole):
    shutil.rmtree(whole.path / "_commits")
    assert Finding("_commits", "folder is missing", "_commits") in results.check(whole)


class TestRows:
    @pytest.fixture
    def add(self, whole, write):
        def add(part, tables, **changes):
            with results.Lease.acquire(whole.path) as lease:
                write(part, tables, lease_id=lease.id, **changes)
            results.write_trials(whole)

        return add

    def test_duplicates_across_parts(self, whole, add):
        add("d", {"kernel": rows_of("kernel", first=2, count=2, norm=0.0)})
        assert only(whole) == Finding("kernel", "row key occurs more than once", "trial_key=t0, kernel=w2, step=2")

    def test_many_duplicates_are_counted(self, whole, add):
        add("d", {"trajectory": rows_of("trajectory", count=14)})
        add("e", {"trajectory": rows_of("trajectory", count=14)})
        findings = results.check(whole)
        assert len(findings) == 11
        assert findings[-1].what == "4 more row keys occur more than once"

    def test_same_rows_of_another_trial_are_none(self, whole, add):
        add("a", {"kernel": rows_of("kernel")}, trial_key="t1", keys=keys_of(seed=1))
        assert results.check(whole) == []

    def test_inexact_sentinel_of_a_trial(self, whole, add):
        add("d", {}, trial={"is_sentinel_exact": False})
        assert only(whole) == Finding(
            "trials", "a sentinel is not bitwise equal to the reference", "trial_key=t0, part=d"
        )

    @pytest.mark.parametrize("changes", [{"distance": 1e-300}, {"distance": math.nan}])
    def test_distant_sentinel(self, whole, add, changes):
        add("d", {"chaos": sentinel(20, **changes)})
        assert only(whole).what == f"sentinel's distance is {changes['distance']}, not 0"
        assert only(whole).where == "trial_key=t0, measure_step=20"

    def test_sentinel_of_a_diverged_reference(self, whole, add):
        add("d", {"chaos": sentinel(20, distance=math.nan, diverged=True)})
        assert results.check(whole) == []

    def test_other_reference_in_rows(self, whole, add):
        add("d", {"chaos": sentinel(20, reference_digest="d1")})
        assert only(whole) == Finding("chaos", "references differ within one trial: d0, d1", "trial_key=t0")

    def test_other_reference_in_a_commit(self, whole, add):
        add("d", {}, trial={**TRIAL, "reference_digest": "d2"})
        assert only(whole).what == "references differ within one trial: d0, d2"

    def test_other_reference_of_another_trial(self, whole, add):
        add("a", {"kernel": rows_of("kernel")}, trial_key="t1", trial={"reference_digest": "d9"})
        assert results.check(whole) == []


def test_any_single_damage_is_found_and_none_crashes(whole):
    """Each file of the store, emptied, halved or removed."""
    stored = [path for path in whole.path.rglob("*") if path.suffix in {".parquet", ".json"} and path.name[0] != "_"]
    assert len(stored) == 7
    for path in stored:
        data = path.read_bytes()
        for damage in (b"", data[: len(data) // 2]):
            path.write_bytes(damage)
            assert results.check(whole)
        path.write_bytes(data)
    assert results.check(whole) == []


def test_parts_of_an_older_schema_are_read_with_nan_and_are_whole(whole, lease_again):
    """Columns added since are missing in parts that were there before: their values were not known."""
    added = {"angular_cka", "aligned_test_barrier"}
    path = whole.path / "chaos" / "t0-b.parquet"
    rows = pq.read_table(path).drop_columns(sorted(added))
    edit_file(whole, lambda _: rows, table="chaos", part="b")
    assert results.check(whole) == []
    lease_again("d", {"chaos": rows_of("chaos", first=7, count=1, reference_digest="d0")}, trial_key="t1")
    assert results.check(whole) == []
    chaos = whole.table("chaos")
    is_old = chaos.trial_key == "t0"
    assert is_old.sum() == 4
    for name in added:
        assert chaos.loc[is_old, name].isna().all()
        assert chaos.loc[~is_old, name].notna().all()
        assert len(whole.table("chaos", filters=[(name, ">", 0)])) == 1


def test_a_study_of_an_older_schema_takes_on_the_new_version(whole):
    path = whole.path / "_schema.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 1}))
    assert results.open(whole.path).version == 1
    results.create(whole.path, study="sample", setting_columns=SETTING_COLUMNS)
    assert json.loads(path.read_text())["version"] == results.VERSION == 3
