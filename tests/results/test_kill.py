"""A writer is killed at random moments, over and over, while a reader looks on."""

import multiprocessing
import os
import random
import signal
import time

from sample_study import SETTING_COLUMNS, Writer, rows_of

import results
from results.lease import LEASE_FILE, read_holder

NUM_PARTS = 6
NUM_ROWS = 40
TABLES = ("kernel", "cone", "divergence")


def rows_for(trial, part, generation):
    """Rows that only this part of this generation has."""
    first = 1000 * generation + 100 * part + 10_000 * trial
    return {table: rows_of(table, first=first, count=NUM_ROWS) for table in TABLES}


def write_what_is_missing(path, journal, num_trials):
    """One driver: sweeps, writes what is missing, supersedes every third trial, and notes what was acknowledged."""
    study = results.open(path)
    with results.Lease.acquire(path) as lease, open(journal, "a", buffering=1, encoding="utf-8") as notes:
        results.sweep(study, lease_id=lease.id)
        write = Writer(study, lease.id)
        for trial in range(num_trials):
            for generation in range(2 if trial % 3 == 0 else 1):
                for part in range(NUM_PARTS):
                    there = {(c.trial_key, c.part): c.generation for c in results.read_commits(study)}
                    if there.get((f"t{trial}", f"p{part}"), -1) >= generation:
                        continue
                    if generation == 0 and 1 in {g for (key, _), g in there.items() if key == f"t{trial}"}:
                        continue
                    tables = rows_for(trial, part, generation)
                    write(f"p{part}", tables, trial_key=f"t{trial}", generation=generation, covers=[trial, part])
                    notes.write(f"t{trial} p{part} {generation}\n")
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


def wait_for_lease(study, process):
    """Starting takes longer than it lives afterwards; the lease of the one killed before lies there still."""
    end = time.monotonic() + 20
    while process.exitcode is None and time.monotonic() < end:
        holder = read_holder(study.path / LEASE_FILE)
        if holder is not None and holder.pid == process.pid:
            return
        time.sleep(0.002)


def test_killed_at_random_moments(tmp_path):
    study = results.create(tmp_path / "sample", study="sample", setting_columns=SETTING_COLUMNS)
    journal = tmp_path / "journal"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pytest", "results"])
    moments = random.Random(0)
    num_trials = 12
    for kills in range(100):
        process = context.Process(target=write_what_is_missing, args=(study.path, journal, num_trials))
        process.start()
        wait_for_lease(study, process)
        process.join(moments.uniform(0.0, 0.3))
        if process.exitcode is None:
            os.kill(process.pid, signal.SIGKILL)
            process.join()
        look(study, journal)
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL, "the writer failed"
    assert kills >= 3, "too fast to be killed"
    assert len(results.read_commits(study)) == num_trials * NUM_PARTS
    assert results.check(study) == []
