"""What is planned minus what is there."""

import json
import random
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import search_spaces
from study.planner import NOTHING, Job, covers_of, make_plan, parts_of, planned, todo_of
from study.worker import cache_folder
from twophase.children import Sketched, total_lane_steps
from twophase.data import DATA
from twophase.experiment import SENTINEL, Child, Experiment, Todo

BASE = {"data": "digits", "num_steps": 30, "num_train": 200, "num_test": 50, "depth": 1, "width": 8, "batch_size": 32}
CHAOS = {"fork_steps": [0, 10], "magnitudes": [1e-2], "num_directions": 2, "train_sample": 100}


def space(seeds=2, base=None, growth=None, switch=None, cone=None, **chaos):
    blocks = {"chaos": {**CHAOS, **chaos}, **({"growth": {"window": 4, **growth}} if growth else {}), "cone": cone}
    blocks |= {"switch": {"steps": switch}} if switch else {}
    return search_spaces.load({"name": "s", "base": base or BASE, "seeds": seeds, **blocks})


def commit(job, status="ok", generation=0):
    """What the planner reads of a commit."""
    return SimpleNamespace(
        trial_key=job.trial.key,
        status=status,
        generation=generation,
        # Through JSON, as the store keeps it.
        covers=json.loads(json.dumps(job.covers)),
        trial={"reference_digest": "" if status == "failed" else "abc"},
    )


def done(wanted, **state):
    return [commit(job, **state) for job in make_plan(wanted).jobs]


def test_nothing_there():
    plan = make_plan(space())
    assert (plan.num_trials, plan.num_done, plan.num_failed, len(plan.jobs)) == (2, 0, 0, 2)
    # Per trial: two fork steps of two directions and one control.
    assert plan.num_children == 2 * (2 * 2 + 2)
    assert plan.todo_lane_steps == plan.lane_steps > 0
    assert plan.pair_lane_steps == 2 * 30 * plan.num_children
    for job in plan.jobs:
        assert job.todo == job.whole
        assert (job.reference_digest, job.generation) == ("", 0)
        assert job.todo.is_trajectory_wanted
        assert job.todo.measure_steps[SENTINEL] == (30,)


def test_all_there():
    plan = make_plan(space(), done(space()))
    assert (plan.num_trials, plan.num_done, plan.num_failed, plan.jobs) == (2, 2, 0, [])
    assert plan.todo_lane_steps == 0
    assert plan.lane_steps == make_plan(space()).lane_steps


def test_fewer_wanted_than_there():
    assert make_plan(space(num_directions=1, fork_steps=[10]), done(space())).jobs == []


def test_more_seeds():
    plan = make_plan(space(seeds=3), done(space(seeds=2)))
    assert [job.trial.seed for job in plan.jobs] == [2]
    assert plan.num_done == 2


@pytest.mark.parametrize(
    ("more", "new"),
    [
        ({"magnitudes": [1e-2, 1e-3]}, {Child(f, "gaussian", 1e-3, d) for f in (0, 10) for d in (0, 1)}),
        (
            {"fork_steps": [0, 5, 10]},
            {Child(5, "gaussian", 1e-2, 0), Child(5, "gaussian", 1e-2, 1), Child(5, "order", 0.0, 0)},
        ),
        ({"num_directions": 3}, {Child(f, "gaussian", 1e-2, 2) for f in (0, 10)}),
        ({"controls": 2}, {Child(f, "order", 0.0, 1) for f in (0, 10)}),
    ],
)
def test_more_children_plan_the_new_ones_only(more, new):
    plan = make_plan(space(**more), done(space()))
    assert len(plan.jobs) == 2
    for job in plan.jobs:
        assert set(job.todo.measure_steps) == new
        assert job.todo.divergence == new
        assert not job.todo.is_trajectory_wanted
        assert job.reference_digest == "abc"
        assert set(job.whole.measure_steps) == set(planned(space(**more), job.trial.setting).measure_steps)
    assert 0 < plan.todo_lane_steps < plan.lane_steps


def test_another_measure_step_compares_every_child_and_the_sentinel_again():
    (job,) = make_plan(space(seeds=1, measure_steps=["end", 20]), done(space(seeds=1))).jobs
    assert set(job.todo.measure_steps.values()) == {(20,)}
    assert SENTINEL in job.todo.measure_steps
    assert job.todo.divergence == frozenset()


def test_whole_keeps_what_the_space_no_longer_asks_for():
    (job,) = make_plan(space(seeds=1, magnitudes=[1e-3]), done(space(seeds=1))).jobs
    assert {child.magnitude for child in job.whole.measure_steps} == {0.0, 1e-2, 1e-3}
    assert job.whole.is_trajectory_wanted


def test_the_next_generation_follows_the_highest_there():
    (job,) = make_plan(space(seeds=1, magnitudes=[1e-3]), done(space(seeds=1), generation=2)).jobs
    assert job.generation == 2


def test_failed_commits_are_not_planned_again():
    plan = make_plan(space(), done(space(), status="failed"))
    assert (plan.jobs, plan.num_failed, plan.num_done) == ([], 2, 0)


def test_what_a_failure_does_not_cover_is_planned():
    (job,) = make_plan(space(seeds=1, magnitudes=[1e-2, 1e-3]), done(space(seeds=1), status="failed")).jobs
    assert {child.magnitude for child in job.todo.measure_steps} == {1e-3}
    assert job.reference_digest == ""
    assert {child.magnitude for child in job.whole.measure_steps} == {0.0, 1e-2, 1e-3}


def test_a_failed_extension_leaves_the_trial_failed():
    extended = space(seeds=1, magnitudes=[1e-2, 1e-3])
    first = done(space(seeds=1))
    (extension,) = make_plan(extended, first).jobs
    plan = make_plan(extended, [*first, commit(extension, status="failed")])
    assert (plan.jobs, plan.num_failed, plan.num_done) == ([], 1, 0)


def test_trial_keys_never_depend_on_lists():
    keys = {
        trial.key
        for chaos in (
            {},
            {"fork_steps": [3, 7]},
            {"magnitudes": [0.5]},
            {"num_directions": 5},
            {"controls": 0},
            {"measure_steps": [7]},
        )
        for trial in space(seeds=1, **chaos).trials()
    }
    assert len(keys) == 1


def test_trial_keys_depend_on_seed_protocol_and_setting():
    trials = [
        *space(seeds=2).trials(),
        *space(seeds=1, path_points=5).trials(),
        *space(seeds=1, train_sample=99).trials(),
        *space(seeds=1, base={**BASE, "lr": 0.2}).trials(),
    ]
    assert len({trial.key for trial in trials}) == 5


@pytest.mark.parametrize(
    "chaos",
    [
        {},
        {"controls": 0, "num_directions": 1, "fork_steps": [10]},
        {"controls": 6, "num_directions": 1},
        {"num_directions": 5, "magnitudes": [1e-2, 1e-3]},
        {"measure_steps": [5], "fork_steps": [0, 10]},
        {"growth": {"fork_steps": [0, 7, 26], "num_directions": 2}},
        {"growth": {"fork_steps": [3], "num_directions": 5, "window": 10}},
        {"switch": [0, 3, 4, 5, 11, 30]},
        {"cone": {"probe_size": 4, "steps": [0, 20], "sketch": 16, "children": True}},
    ],
    ids=str,
)
def test_lane_steps_are_what_an_experiment_counts(chaos):
    (job,) = make_plan(space(seeds=1, **chaos)).jobs
    point = job.trial.setting
    dataset = DATA[point.data].load(point.num_train, point.num_test, point.data_seed, Path(cache_folder()))
    experiment = Experiment(job.trial, job.todo, dataset, torch.device("cpu"))
    outcome = experiment.run()
    assert experiment.lane_steps == outcome.summary["lane_steps"] == total_lane_steps(job.trial, job.todo)


def test_more_growth_plans_the_new_windows_only():
    asked = {"fork_steps": [0, 10], "num_directions": 1}
    first = done(space(seeds=1, growth=asked))
    assert make_plan(space(seeds=1, growth=asked), first).jobs == []
    (job,) = make_plan(space(seeds=1, growth={"fork_steps": [0, 20], "num_directions": 2}), first).jobs
    assert job.todo.growth == {(0, 1), (20, 0), (20, 1)}
    assert (job.todo.measure_steps, job.todo.is_trajectory_wanted) == ({}, False)
    assert job.whole.growth == {(0, 0), (0, 1), (10, 0), (20, 0), (20, 1)}
    # It is a part of its own, of another name than what was there.
    (name,) = parts_of(job.todo)
    (before,) = make_plan(space(seeds=1, growth=asked)).jobs
    assert name.startswith("growth-")
    assert name not in parts_of(before.todo)
    assert next(iter(parts_of(before.todo))).partition("-")[0] == "growth"


def test_growth_does_not_change_what_other_parts_are_called():
    long = {**BASE, "num_steps": 300}
    (plain,) = make_plan(space(seeds=1, base=long)).jobs
    (grown,) = make_plan(space(seeds=1, base=long, growth={"window": 200})).jobs
    (shorter,) = make_plan(space(seeds=1, base=long, growth={"window": 100})).jobs
    assert set(parts_of(plain.todo)) < set(parts_of(grown.todo))
    # The default window leaves the trial what it was; another makes another trial.
    assert plain.trial.key == grown.trial.key != shorter.trial.key


def test_more_switch_steps_plan_the_new_ones_only():
    (before,) = make_plan(space(seeds=1, switch=[0, 10])).jobs
    assert before.todo.switch_steps == {0, 10, 30}
    (job,) = make_plan(space(seeds=1, switch=[5, 10]), done(space(seeds=1, switch=[0, 10]))).jobs
    assert job.todo == replace(NOTHING, switch_steps=frozenset({5}))
    assert job.whole.switch_steps == {0, 5, 10, 30}
    (name,) = parts_of(job.todo)
    assert name.startswith("switch-")
    assert name not in parts_of(before.todo)
    (plain,) = make_plan(space(seeds=1)).jobs
    assert set(parts_of(plain.todo)) < set(parts_of(before.todo))
    assert plain.trial.key == before.trial.key


CONE = {"kernel": ["full", "trace"], "probe_size": 8, "steps": [0, 10, 20]}
SKETCHED = {**CONE, "sketch": 64, "children": [0]}


def test_sketches_of_a_finished_trial_are_planned_by_themselves():
    first = done(space(seeds=1, cone=CONE))
    assert make_plan(space(seeds=1, cone={**CONE, "sketch": 0, "children": False}), first).jobs == []
    (job,) = make_plan(space(seeds=1, cone=SKETCHED), first).jobs
    assert (job.todo.measure_steps, job.todo.kernel_steps, job.todo.is_trajectory_wanted) == ({}, {}, False)
    assert job.todo.trained == [Child(0, "gaussian", 1e-2, 0), Child(0, "order")]
    assert job.todo.sketch_steps == {
        Sketched(kind, 64, child): steps
        for kind in ("full", "trace")
        for child, steps in {SENTINEL: (0, 10, 20), **dict.fromkeys(job.todo.trained, (10, 20))}.items()
    }
    assert [name.partition("-")[0] for name in parts_of(job.todo)] == ["sketch"]
    both = [*first, commit(job)]
    assert make_plan(space(seeds=1, cone=SKETCHED), both).jobs == []
    # What is added is what is missing: a child, a step, another size.
    (more,) = make_plan(space(seeds=1, cone={**SKETCHED, "kernel": "full", "children": True}), both).jobs
    assert set(more.todo.sketch_steps) == {Sketched("full", 64, child) for child in more.todo.trained}
    assert more.todo.fork_steps == [10]
    (larger,) = make_plan(space(seeds=1, cone={**SKETCHED, "sketch": 128}), both).jobs
    assert {key.size for key in larger.todo.sketch_steps} == {128}


def test_sketches_leave_names_and_keys_as_they_were():
    (plain,) = make_plan(space(seeds=1, cone=CONE)).jobs
    (sketched,) = make_plan(space(seeds=1, cone=SKETCHED)).jobs
    assert plain.trial.key == sketched.trial.key
    assert set(parts_of(plain.todo)) < set(parts_of(sketched.todo))


def test_covers_and_jobs_round_trip_through_json():
    asked = {"growth": {"num_directions": 2}, "switch": {"num_log": 3, "num_linear": 2}, "cone": SKETCHED}
    for job in make_plan(space(measure_steps=["end", "+3"], magnitudes=[1e-2, 1 / 3], **asked)).jobs:
        assert job.todo.growth
        assert job.todo.switch_steps
        assert job.todo.sketch_steps
        assert todo_of(json.loads(json.dumps(covers_of(job.todo)))) == job.todo
        assert Job.from_json(json.loads(json.dumps(job.to_json()))) == job


def test_part_names_depend_on_the_work_not_on_its_order():
    (job,) = make_plan(space(seeds=1)).jobs
    entries = list(job.todo.measure_steps.items())
    random.Random(0).shuffle(entries)
    shuffled = Todo(dict(entries), frozenset(sorted(job.todo.divergence, reverse=True)), job.todo.is_trajectory_wanted)
    assert entries != list(job.todo.measure_steps.items())
    assert set(parts_of(shuffled)) == set(parts_of(job.todo))
    (other,) = make_plan(space(seeds=1, num_directions=1)).jobs
    assert set(parts_of(other.todo)).isdisjoint(parts_of(job.todo))


def test_the_most_costly_job_comes_first():
    wanted = search_spaces.load({"name": "s", "base": BASE, "axes": {"width": [8, 64, 16]}, "chaos": CHAOS, "seeds": 1})
    assert [job.trial.setting.width for job in make_plan(wanted).jobs] == [64, 16, 8]
