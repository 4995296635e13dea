"""Snapshots: what is added forks from them, and nothing about them is trusted."""

import pandas as pd
import pytest

import study
from study import driver, worker
from study.snapshots import FOLDER, StoredSnapshots, sweep_snapshots
from twophase.config import setting
from twophase.data import DATA
from twophase.training import initial_state

from .conftest import given

SPACE = {
    "name": "kept",
    "base": {"data": "digits", "num_steps": 40, "num_train": 300, "num_test": 50, "batch_size": 32},
    "settings": [{"model": "cnn", "depth": 2, "width": 4}],
    "seeds": 1,
    "chaos": {"fork_steps": [0, 20, 30], "magnitudes": [1e-2], "num_directions": 1, "train_sample": 64},
    "training": {"snapshots": True, "lane_width": 4},
}
MORE = {**SPACE, "chaos": {**SPACE["chaos"], "fork_steps": [0, 20, 25, 30], "num_directions": 2}}
LATE = {**SPACE, "chaos": {**SPACE["chaos"], "fork_steps": [25], "num_directions": 2}}


def rows(found, table="chaos"):
    return found.table(table).drop(columns="study").reset_index(drop=True)


def added_lane_steps(found, before):
    return int(found.table("trials").lane_steps.sum() - before)


@pytest.fixture
def first(tmp_path, in_process):
    return study.launch(SPACE, tmp_path)


def test_what_is_added_costs_less_and_is_the_same(tmp_path, first, in_process):
    before = first.table("trials").lane_steps.sum()
    assert [path.name.split("-")[0] for path in sorted(first.path.glob(f"{FOLDER}/*/*"))] == ["0", "20", "30"]
    grown = study.launch(LATE, tmp_path)
    cost = added_lane_steps(grown, before)
    # From the snapshot at 20: four lanes to the end, and four of the control's batch from 25.
    assert cost == 4 * 20 + 4 * 15
    grown = study.launch(MORE, tmp_path)
    fresh = study.launch({**MORE, "training": {}}, tmp_path / "fresh")
    for table in ("chaos", "divergence", "path", "trajectory"):
        pd.testing.assert_frame_equal(rows(grown, table), rows(fresh, table), check_exact=True)
    assert grown.table("trials").is_sentinel_exact.all()


@pytest.mark.parametrize("damage", ["cut", "flipped", "foreign", "renamed"])
def test_a_bad_snapshot_is_refused_and_computed_again(tmp_path, first, in_process, caplog, damage):
    paths = {int(path.name.split("-")[0]): path for path in first.path.glob(f"{FOLDER}/*/*")}
    data = bytearray(paths[20].read_bytes())
    if damage == "cut":
        paths[20].write_bytes(data[:-5])
    elif damage == "flipped":
        data[-1] ^= 1
        paths[20].write_bytes(data)
    elif damage == "foreign":
        point = setting({"data": "digits", "num_train": 300, "num_test": 50, "model": "mlp"})
        state = initial_state(point, DATA["digits"].load(300, 50, 0, tmp_path), 0)
        StoredSnapshots(first.path, "other", is_kept=True).keep(20, state)
        (made,) = (first.path / FOLDER / "other").iterdir()
        paths[20].unlink()
        made.rename(paths[20].parent / made.name)
    else:
        paths[30].rename(paths[30].with_name(paths[30].name.replace("30-", "20-")))
        paths[20].unlink()
    before = first.table("trials").lane_steps.sum()
    grown = study.launch(LATE, tmp_path)
    assert "is refused and computed again" in caplog.text
    # From the snapshot at 0: 20 more steps of four lanes.
    assert added_lane_steps(grown, before) == 4 * 40 + 4 * 15
    fresh = study.launch(LATE, tmp_path / "fresh")
    late = rows(grown)[rows(grown).fork_step == 25].reset_index(drop=True)
    pd.testing.assert_frame_equal(late, rows(fresh)[rows(fresh).fork_step == 25].reset_index(drop=True))


def test_a_reference_that_is_not_reproduced_forgets_the_snapshots(tmp_path, first, in_process):
    """A sound snapshot of another training: the trial is computed anew, whole, and leaves its own snapshots."""
    (zero,) = first.path.glob(f"{FOLDER}/*/0-*")
    trial_key = zero.parent.name
    point = setting({**SPACE["base"], **SPACE["settings"][0]})
    dataset = DATA["digits"].load(300, 50, point.data_seed, tmp_path)
    for path in first.path.glob(f"{FOLDER}/*/20-*"):
        path.unlink()
    StoredSnapshots(first.path, trial_key, is_kept=True).keep(20, initial_state(point, dataset, 5))
    grown = study.launch(LATE, tmp_path)
    assert grown.table("chaos").reference_digest.nunique() == 1
    fresh = study.launch({**MORE, "chaos": {**MORE["chaos"], "num_directions": 1}}, tmp_path / "fresh")
    mine = rows(grown).merge(rows(fresh).reference_digest.drop_duplicates(), on="reference_digest")
    assert len(mine) == len(grown.table("chaos"))
    assert not any(path.name.startswith(".") for path in zero.parent.iterdir())


def test_what_a_killed_worker_left_is_swept(first):
    folder = next(first.path.glob(f"{FOLDER}/*"))
    (folder / ".20-x.safetensors.abc.tmp").write_bytes(b"half")
    before = len(list(folder.iterdir()))
    sweep_snapshots(first.path)
    assert len(list(folder.iterdir())) == before - 1


def test_a_killed_trial_goes_on_from_its_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "CHECKPOINT_SECONDS", 0.0)
    space = {**SPACE, "cone": {"kernel": "trace", "probe_size": 8, "steps": [0, 10, 40]}}
    trained = []

    def killed(jobs, crew):
        for job in given(jobs):
            for done, total in worker.run_job(job, crew.place):
                if not trained and done > 0.7 * total:
                    trained.append(done)
                    return
                if trained:
                    trained.append(done)

    monkeypatch.setattr(driver, "run_jobs", killed)
    first = study.launch(space, tmp_path)
    assert first.table("chaos").empty
    (path,) = first.path.glob(f"{FOLDER}/*/checkpoint-*")
    again = study.launch(space, tmp_path)
    assert trained[1] > trained[0], "what was trained is not trained again"
    assert not path.exists()
    fresh = study.launch(space, tmp_path / "fresh")
    for table in ("chaos", "divergence", "path", "trajectory", "cone", "kernel"):
        pd.testing.assert_frame_equal(rows(again, table), rows(fresh, table), check_exact=True)
    assert again.table("trials").lane_steps.tolist() == fresh.table("trials").lane_steps.tolist()
