"""Packing many commits into few files: the same rows, whatever is killed in between."""

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from sample_study import rows_of

import results
from results import packs, store

TABLES = ("kernel", "cone", "divergence")


def tables_for(number):
    return {table: rows_of(table, first=10 * number, count=4) for table in TABLES}


@pytest.fixture
def full(study, write):
    """Five trials of two parts each."""
    for trial in range(5):
        for part in ("a", "b"):
            number = 2 * trial + (part == "b")
            write(part, tables_for(number), trial_key=f"t{trial}", covers=[trial, part])
    return study


def everything(study):
    return {name: study.table(name) for name in (*TABLES, "trials")}


def same(study, before):
    for name, rows in before.items():
        assert_frame_equal(study.table(name), rows, check_exact=True)


def plain(study, table):
    """What a reader that knows nothing of commits sees."""
    keys = list(results.TABLES[table].row_key)
    return pd.read_parquet(study.path / table).sort_values(keys, ignore_index=True)


def num_files(study):
    return len([path for table in TABLES for path in (study.path / table).glob("[!.]*.parquet")])


def test_a_pack_has_the_same_rows_in_one_file_per_table(full, lease):
    before, commits = everything(full), results.read_commits(full)
    assert results.compact(full, lease_id=lease.id) == 10
    results.sweep(full, lease_id=lease.id)
    same(full, before)
    assert num_files(full) == len(TABLES)
    for table in TABLES:
        assert_frame_equal(plain(full, table), before[table], check_exact=True)
    packed = results.read_commits(full)
    assert [(c.stem, c.covers, c.keys, c.status) for c in packed] == [
        (c.stem, c.covers, c.keys, c.status) for c in commits
    ]
    assert all(c.pack for c in packed)
    assert results.check(full) == []
    assert results.compact(full, lease_id=lease.id) == 0
    filters = [("trial_key", "==", "t3")]
    assert_frame_equal(
        full.table("cone", filters=filters),
        before["cone"][before["cone"].trial_key == "t3"].reset_index(drop=True),
        check_exact=True,
    )


def test_what_comes_after_a_pack_counts_and_the_pack_is_cleaned(full, lease, write):
    results.compact(full, lease_id=lease.id)
    results.sweep(full, lease_id=lease.id)
    write("a", tables_for(20), trial_key="t0", covers=[0, "again"])  # a part written again
    write("c", tables_for(21), trial_key="t1", generation=1)  # a generation that supersedes two parts
    write("a", tables_for(22), trial_key="t9")  # another trial
    before = everything(full)
    assert set(before["cone"].trial_key) == {"t0", "t1", "t2", "t3", "t4", "t9"}
    assert (before["cone"].trial_key == "t1").sum() == 4
    assert [c.covers for c in results.read_commits(full) if c.stem == "t0-a"] == [[0, "again"]]
    results.sweep(full, lease_id=lease.id)
    same(full, before)
    for table in TABLES:
        assert_frame_equal(plain(full, table), before[table], check_exact=True)
    assert results.check(full) == []
    results.compact(full, lease_id=lease.id)
    results.sweep(full, lease_id=lease.id)
    same(full, before)
    assert num_files(full) == len(TABLES)


def test_a_packed_commit_can_be_taken_back(full, lease):
    results.compact(full, lease_id=lease.id)
    before = everything(full)
    (commit,) = [c for c in results.read_commits(full) if c.stem == "t2-b"]
    results.remove_commit(full, commit, lease_id=lease.id)
    assert len(results.read_commits(full)) == 9
    rows = full.table("kernel")
    assert len(rows) == len(before["kernel"]) - 4
    results.sweep(full, lease_id=lease.id)
    assert_frame_equal(plain(full, "kernel"), rows, check_exact=True)
    assert results.check(full) == []


def pack_and_sweep(study, lease):
    results.compact(study, lease_id=lease.id)
    results.sweep(study, lease_id=lease.id)


class Killed(BaseException):
    """Ends a compaction as a kill would, at a stage."""


STAGES = [(packs, "_write_table", n) for n in range(3)] + [
    (packs, "write_bytes", 0),
    (packs, "remove_files", 0),
    (store, "remove_files", 0),
    (store, "unnamed_files", 0),
]


@pytest.mark.parametrize(("module", "name", "calls"), STAGES)
@pytest.mark.parametrize("is_half_done", [False, True])
def test_a_kill_at_any_stage_loses_and_doubles_nothing(
    full, lease, write, monkeypatch, module, name, calls, is_half_done
):
    if is_half_done:  # one pack is there already, and has become stale
        results.compact(full, lease_id=lease.id)
        results.sweep(full, lease_id=lease.id)
        write("a", tables_for(30), trial_key="t0")
        write("a", tables_for(31), trial_key="t7")
    before = everything(full)
    done, original = [], getattr(module, name)

    def killed(*arguments, **options):
        if len(done) == calls:
            raise Killed
        done.append(1)
        return original(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(module, name, killed)
        with pytest.raises(Killed):
            pack_and_sweep(full, lease)
    same(full, before)
    results.sweep(full, lease_id=lease.id)
    same(full, before)
    assert results.check(full) == []
    results.compact(full, lease_id=lease.id)
    results.sweep(full, lease_id=lease.id)
    same(full, before)
    assert num_files(full) == len(TABLES)


def test_removal_killed_half_way(full, lease, monkeypatch):
    before = everything(full)

    def some(study, names):
        for file in list(names)[:4]:
            (study.commits_path / file).unlink()
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(packs, "remove_files", some)
        with pytest.raises(Killed):
            results.compact(full, lease_id=lease.id)
    same(full, before)
    assert {bool(commit.pack) for commit in results.read_commits(full)} == {False, True}
    results.sweep(full, lease_id=lease.id)
    same(full, before)
    for table in TABLES:
        assert_frame_equal(plain(full, table), before[table], check_exact=True)


def test_many_commits_are_packed_by_the_sweep(full, lease, monkeypatch):
    before = everything(full)
    monkeypatch.setattr(packs, "MOST_LOOSE", 10)
    results.sweep(full, lease_id=lease.id)
    assert num_files(full) == len(TABLES)
    same(full, before)


def test_a_damaged_pack_is_told_and_never_trusted(full, lease):
    results.compact(full, lease_id=lease.id)
    (path,) = packs.pack_paths(full)
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"t3"', b'"t4"', 1))
    with pytest.raises(results.StudyError, match=r"damaged pack .*sha256.*remove it to have its rows computed again"):
        results.read_commits(full)
    (first, *_) = results.check(full)
    assert "damaged pack" in first.what
    path.write_bytes(data)
    (file,) = (full.path / "cone").glob("pack-*.parquet")
    file.write_bytes(file.read_bytes()[:-9])
    assert any("its commit says" in finding.what for finding in results.check(full))
    with pytest.raises(results.StudyError, match="cone"):
        full.table("cone")


def test_commits_that_changed_places_in_a_pack_are_found(full, lease):
    results.compact(full, lease_id=lease.id)
    (path,) = packs.pack_paths(full)
    commits = packs.parse_pack(full, path, path.read_bytes())
    files = {file.table: file for file in commits[0].files}
    swapped = [*commits[:-1], packs.replace(commits[-1], trial_key="t0", part="z")]
    whole = {table: packs.replace(file, num_rows=file.rows_in_file) for table, file in files.items()}
    path.write_bytes(packs.pack_bytes(swapped, whole))
    assert any("are not those of commit t0-z" in finding.what for finding in results.check(full))


@pytest.mark.parametrize("failing", ["cone", "_commits"])
def test_a_pack_that_comes_to_nothing_leaves_nothing(full, lease, monkeypatch, failing):
    """A disk that is full before the last file is there: what a plain reader sees is not doubled."""
    before = {table: plain(full, table) for table in TABLES}
    write_table, write_bytes = packs._write_table, packs.write_bytes

    def table_or_full(study, table, *rest):
        if table == failing:
            raise OSError(28, "No space left on device")
        return write_table(study, table, *rest)

    def bytes_or_full(path, data, **options):
        if path.parent.name == failing:
            raise OSError(28, "No space left on device")
        write_bytes(path, data, **options)

    monkeypatch.setattr(packs, "_write_table", table_or_full)
    monkeypatch.setattr(packs, "write_bytes", bytes_or_full)
    with pytest.raises(OSError, match="No space left"):
        results.compact(full, lease_id=lease.id)
    for table in TABLES:
        assert_frame_equal(plain(full, table), before[table], check_exact=True)
    monkeypatch.undo()
    assert results.compact(full, lease_id=lease.id) == 10
