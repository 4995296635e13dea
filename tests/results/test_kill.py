"""A writer is killed at random moments, over and over, while a reader looks on."""

import multiprocessing
import os
import random
import signal
import time

from sample_study import SETTING_COLUMNS, Writer, rows_of

import results

NUM_TRIALS = 6
NUM_PARTS = 5
NUM_ROWS = 40
TABLES = ("kernel", "cone", "divergence")


def rows_for(trial, part, generation):
    """Rows that only this part of this generation has."""
    first = 1000 * generation + 100 * part + 10_000 * trial
    return {table: rows_of(table, first=first, count=NUM_ROWS) for table in TABLES}


def planned():
    """Trial, generation, part, in the order of writing: every third trial is written, then superseded."""
    for trial in range(NUM_TRIALS):
        for generation in range(2 if trial % 3 == 0 else 1):
            yield from ((trial, generation, part) for part in range(NUM_PARTS))


def write_what_is_missing(path, journal):
    """One driver: sweeps, writes what is missing, and notes what was acknowledged."""
    study = results.open(path)
    with results.Lease.acquire(path) as lease, open(journal, "a", buffering=1, encoding="utf-8") as notes:
        results.sweep(study, lease_id=lease.id)
        write = Writer(study, lease.id)
        there = {(commit.trial_key, commit.part): commit.generation for commit in results.read_commits(study)}
        newest = {trial_key: generation for (trial_key, _), generation in there.items()}
        for trial, generation, part in planned():
            key = (f"t{trial}", f"p{part}")
            if generation >= newest.get(key[0], 0) and there.get(key, -1) < generation:
                tables = rows_for(trial, part, generation)
                write(key[1], tables, trial_key=key[0], generation=generation, covers=[trial, part])
                notes.write(f"{key[0]} {key[1]} {generation}\n")
            if part == NUM_PARTS - 1:
                results.sweep(study, lease_id=lease.id)


def expected_rows(commits, table):
    key = results.TABLES[table].keys[-1]
    rows = [rows_for(*commit.covers, commit.generation)[table] for commit in commits]
    return sorted((commit.trial_key, row[key]) for commit, part in zip(commits, rows, strict=True) for row in part)


def look(study, journal):
    """Every acknowledged part is there with all its rows, unless a newer generation is; nothing is there twice."""
    acknowledged = [line.split() for line in journal.read_text().splitlines()] if journal.exists() else []
    commits = results.read_commits(study)
    live = {(commit.trial_key, commit.part): commit.generation for commit in commits}
    newest = {commit.trial_key: commit.generation for commit in commits}
    for trial_key, part, generation in acknowledged:
        assert newest[trial_key] > int(generation) or live[trial_key, part] >= int(generation)
    for table in TABLES:
        key = results.TABLES[table].keys[-1]
        frame = study.table(table, columns=["trial_key", key])
        assert sorted(frame.itertuples(index=False, name=None)) == expected_rows(commits, table)


def num_acknowledged(journal):
    return journal.read_text().count("\n") if journal.exists() else 0


def wait_for_progress(process, journal, num_parts):
    """Waits for parts, not for time: on a busy machine a writer may get nothing done for long."""
    goal = num_acknowledged(journal) + num_parts
    while process.exitcode is None and num_acknowledged(journal) < goal:
        time.sleep(0.001)


def test_killed_at_random_moments(tmp_path):
    study = results.create(tmp_path / "sample", study="sample", setting_columns=SETTING_COLUMNS)
    journal = tmp_path / "journal"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pytest", "results"])
    moments = random.Random(0)
    kills = 0
    while True:
        process = context.Process(target=write_what_is_missing, args=(study.path, journal))
        process.start()
        wait_for_progress(process, journal, moments.randint(1, 6))
        process.join(moments.uniform(0.0, 0.02))
        if process.exitcode is None:
            os.kill(process.pid, signal.SIGKILL)
            process.join()
        look(study, journal)
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL, "the writer failed"
        kills += 1
    assert kills >= 3, "too fast to be killed"
    assert len(results.read_commits(study)) == NUM_TRIALS * NUM_PARTS
    assert results.check(study) == []
