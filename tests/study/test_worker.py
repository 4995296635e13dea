"""One job, from its JSON to committed rows, without Ray."""

from dataclasses import replace

import pandas as pd
import pytest

import results
import search_spaces
from study.columns import setting_columns
from study.planner import Job, make_plan
from study.worker import Place, run_job
from twophase.children import growth_lane_steps

SPACE = {
    "name": "one",
    "base": {"data": "digits", "num_steps": 30, "num_train": 200, "num_test": 50, "depth": 1, "width": 8},
    "seeds": 1,
    "chaos": {"fork_steps": [0, 10], "magnitudes": [1e-2], "num_directions": 1, "train_sample": 100},
}


@pytest.fixture
def place(tmp_path):
    results.create(tmp_path / "one", study="one", setting_columns=setting_columns())
    with results.Lease.acquire(tmp_path / "one") as lease:
        yield Place(str(tmp_path / "one"), str(tmp_path / "cache"), lease.id)


def do(job: Job, place: Place) -> None:
    for _ in run_job(Job.from_json(job.to_json()), place):
        pass


def missing(place: Place, growth=None, **chaos) -> list[Job]:
    blocks = {"chaos": {**SPACE["chaos"], **chaos}, **({"growth": growth} if growth else {})}
    space = search_spaces.load({**SPACE, **blocks})
    return make_plan(space, results.read_commits(results.open(place.study))).jobs


def test_a_done_job_is_no_longer_missing(place):
    (job,) = missing(place)
    do(job, place)
    assert missing(place) == []
    chaos = results.open(place.study).table("chaos")
    assert set(chaos.perturbation) == {"none", "gaussian", "order"}
    assert chaos.reference_digest.nunique() == 1


def test_an_extension_trains_only_what_is_missing_and_reproduces_the_reference(place):
    (job,) = missing(place)
    do(job, place)
    (extension,) = missing(place, magnitudes=[1e-2, 1e-3])
    assert {child.magnitude for child in extension.todo.measure_steps} == {1e-3}
    assert not extension.todo.is_trajectory_wanted
    do(extension, place)
    study = results.open(place.study)
    assert study.table("chaos").reference_digest.nunique() == 1
    assert {commit.generation for commit in results.read_commits(study)} == {0}


def test_a_reference_that_cannot_be_reproduced_supersedes_the_whole_trial(place):
    (job,) = missing(place)
    do(job, place)
    before = results.open(place.study).table("chaos")
    (extension,) = missing(place, magnitudes=[1e-2, 1e-3])
    do(replace(extension, reference_digest="0123456789abcdef"), place)
    study = results.open(place.study)
    commits = results.read_commits(study)
    assert [commit.generation for commit in commits] == [1]
    after = study.table("chaos")
    assert set(after.magnitude) == {0.0, 1e-2, 1e-3}
    keys = ["perturbation", "fork_step", "magnitude", "direction", "measure_step"]
    assert not after.duplicated(["trial_key", *keys]).any()
    kept = after.merge(before[keys], on=keys)
    pd.testing.assert_frame_equal(kept[before.columns], before)
    assert len(study.table("trajectory")) == study.table("trajectory").step.nunique()
    results.sweep(study, lease_id=place.lease_id)
    assert len(pd.read_parquet(study.path / "chaos")) == len(after)


def test_growth_is_added_by_fork_step_and_direction(place):
    (job,) = missing(place)
    do(job, place)
    before = results.open(place.study).table("chaos")
    for growth in ({"fork_steps": [5]}, {"fork_steps": [5, 20], "num_directions": 2}):
        (extension,) = missing(place, growth={"window": 8, "burn_in": 2, **growth})
        do(extension, place)
    assert missing(place, growth={"window": 8, "burn_in": 2, "fork_steps": [5, 20]}) == []
    study = results.open(place.study)
    growth = study.table("growth")
    assert list(zip(growth.fork_step, growth.direction, strict=True)) == [(5, 0), (5, 1), (20, 0), (20, 1)]
    assert set(growth.window) == {8}
    assert growth.tangent_rate.notna().all()
    assert results.check(study) == []
    commits = [commit for commit in results.read_commits(study) if commit.trial_key == extension.trial.key]
    # The window is part of the protocol: rows of another are another trial's.
    assert set(before.trial_key) != set(growth.trial_key) == {extension.trial.key}
    costs = {commit.part.partition("-")[0]: commit.trial["lane_steps"] for commit in commits}
    assert costs["growth"] > 0
    trained = sum(commit.trial["lane_steps"] for commit in commits)
    first, second = (growth_lane_steps(n, 8) for n in (1, 2))
    # Of growth one direction at step 5, then one more there and two at step 20. Beside it the whole trial (its
    # children in four lanes, controls in four more) and once more the reference alone, in four.
    assert trained - 2 * first - second == 30 * 4 + 30 * 4 + 30 * 4


def test_a_worker_whose_driver_lost_the_study_commits_nothing(place):
    (job,) = missing(place)
    with pytest.raises(results.LeaseLost):
        do(job, replace(place, lease_id="another"))
    assert results.open(place.study).table("chaos").empty
