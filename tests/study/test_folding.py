"""Trials in pieces: the same rows, whatever the pieces and the order in which they run."""

import json
from dataclasses import replace

import pytest
from pandas.testing import assert_frame_equal

import results
import search_spaces
from study import cli, worker
from study.columns import setting_columns
from study.dispatch import Dispatch
from study.planner import Job, covers_of, make_plan, pieces_of, todo_of
from study.references import common_digest
from study.snapshots import SHARED_FOLDER
from study.status import Status, seconds_left, status_text
from study.worker import Place, commit_failure, run_job
from twophase.perturb import ORDER

SPACE = {
    "name": "cut",
    "base": {"data": "digits", "num_steps": 24, "num_train": 200, "num_test": 50, "batch_size": 32},
    "settings": [{"model": "mlp", "depth": 2, "width": 8, "norm_layer": "batch"}],
    "seeds": 1,
    "chaos": {
        "fork_steps": [0, 8, 16],
        "perturbation": ["gaussian", "ulp"],
        "magnitudes": [1e-2, 1e-3],
        "num_directions": 1,
        "train_sample": 64,
        "path_points": 3,
        "measure_steps": ["end", 20],
    },
    "cone": {"kernel": "trace", "probe_size": 8, "steps": [0, 12, 24], "sketch": 16, "children": [8]},
    "growth": {"fork_steps": [8], "window": 4, "burn_in": 1},
    "switch": {"steps": [8, 24]},
}
NUM_CHILDREN = 3 * 4
FOLDS = {"fork_step": 3, "cell": 9, "children": 4}
COSTS = ["wall_seconds", "lane_steps", "lane_width"]


def space(fold="all", **parts):
    return search_spaces.load({**SPACE, **parts, "fold": {"children": 3} if fold == "children" else fold})


def jobs_of(fold, **parts):
    return make_plan(space(fold, **parts)).jobs


@pytest.fixture
def place(tmp_path):
    results.create(tmp_path / "cut", study="cut", setting_columns=setting_columns())
    with results.Lease.acquire(tmp_path / "cut") as lease:
        yield Place(str(tmp_path / "cut"), str(tmp_path / "cache"), lease.id)


def do(job, place):
    for _ in run_job(Job.from_json(job.to_json()), place):
        pass


def missing(place, fold="cell"):
    return make_plan(space(fold), results.read_commits(results.open(place.study))).jobs


def tables(place):
    study = results.open(place.study)
    assert results.check(study) == []
    results.write_trials(study)
    return {name: study.table(name).drop(columns=COSTS, errors="ignore") for name in study.tables}


@pytest.fixture(scope="module")
def unfolded(tmp_path_factory):
    """Tables of the trial run whole."""
    folder = tmp_path_factory.mktemp("unfolded")
    results.create(folder / "cut", study="cut", setting_columns=setting_columns())
    with results.Lease.acquire(folder / "cut") as lease:
        made = Place(str(folder / "cut"), str(folder / "cache"), lease.id)
        (job,) = jobs_of("all")
        do(job, made)
        found = tables(made)
    filled = ["trials", "trajectory", "chaos", "divergence", "path", "cone", "kernel", "sketch", "growth", "switch"]
    assert all(len(found[name]) for name in filled)
    return found


def assert_same(found, wanted):
    for name, table in wanted.items():
        assert_frame_equal(found[name], table, check_exact=True)


@pytest.mark.parametrize("fold", FOLDS)
def test_pieces_are_the_trial_and_share_nothing(fold):
    (whole,) = jobs_of("all")
    pieces = jobs_of(fold)
    assert len(pieces) == FOLDS[fold]
    assert len({piece.name for piece in pieces}) == len(pieces)
    claimed = [(child, step) for piece in pieces for child, steps in piece.todo.measure_steps.items() for step in steps]
    assert sorted(claimed) == sorted((c, step) for c, steps in whole.todo.measure_steps.items() for step in steps)
    for name in ("divergence", "sketch_steps"):
        parts = [getattr(piece.todo, name) for piece in pieces]
        assert sum(map(len, parts)) == len(getattr(whole.todo, name)) > 0
        assert set().union(*parts) == set(getattr(whole.todo, name))
    (first,) = [piece for piece in pieces if piece.is_first]
    alone = ("is_trajectory_wanted", "kernel_steps", "growth", "switch_steps")
    for piece in pieces:
        assert all(bool(getattr(piece.todo, name)) == (piece is first) for name in alone)
        assert piece.whole == whole.todo
        # Through JSON, as a worker gets it.
        assert Job.from_json(piece.to_json()) == piece
        assert todo_of(covers_of(piece.todo)) == piece.todo
    assert [getattr(first.todo, name) for name in alone] == [getattr(whole.todo, name) for name in alone]


def test_what_a_piece_holds():
    children = [piece.todo.trained for piece in jobs_of("cell")]
    assert all(len({(c.fork_step, c.magnitude) for c in own if c.perturbation != ORDER}) == 1 for own in children)
    # Controls have no magnitude: they go with the largest of their fork step.
    assert all(
        {c.magnitude for c in own} == {0.0, 1e-2} for own in children if any(c.perturbation == ORDER for c in own)
    )
    assert [len(own) for own in children].count(2) == 3
    assert {len(piece.todo.trained) for piece in jobs_of("children")} == {3}
    assert len(make_plan(search_spaces.load({**SPACE, "fold": {"children": NUM_CHILDREN}})).jobs) == 1


def test_the_reference_is_shared_where_that_is_cheaper():
    plan = make_plan(space("cell"))
    starts = sorted(job.start for job in plan.jobs)
    assert starts == [0] * 3 + [8] * 3 + [16] * 3
    assert [job.shared_steps for job in plan.jobs if job.is_first] == [(8, 16)]
    assert plan.whole_lane_steps < plan.lane_steps < plan.apart_lane_steps
    # What is saved: four lanes (the fewest) from the start to each fork, of three pieces at 8 and three at 16.
    assert plan.apart_lane_steps - plan.lane_steps == 4 * (3 * 8 + 3 * 16)
    early = make_plan(space("cell", chaos={**SPACE["chaos"], "fork_steps": [0]}, cone=None))
    assert {job.start for job in early.jobs} == {0}
    assert early.lane_steps == early.apart_lane_steps


def test_an_extension_is_cut_as_well():
    (job,) = jobs_of("all")
    late = replace(job, todo=todo_of({**covers_of(job.todo), "kernels": {}, "trajectory": False}))
    pieces = pieces_of(late, search_spaces.Fold("fork_step"))
    assert [piece.start for piece in pieces] == [0, 8, 16]


@pytest.mark.parametrize(
    "fold", ["cell", *(pytest.param(fold, marks=pytest.mark.slow) for fold in ("children", "fork_step"))]
)
def test_pieces_leave_the_rows_of_the_whole_trial(place, unfolded, fold):
    plan = make_plan(space(fold))
    for job in plan.jobs:
        do(job, place)
    assert missing(place, "all") == []
    assert_same(tables(place), unfolded)
    assert int(results.open(place.study).table("trials").lane_steps.sum()) == plan.lane_steps
    assert list(results.open(place.study).path.glob(f"{SHARED_FOLDER}/*/*"))


def test_pieces_at_once_killed_and_taken_up_in_other_pieces(place, unfolded):
    """All side by side, none waiting for the first; then half of them are lost, and the rest is cut otherwise."""
    running = [run_job(Job.from_json(job.to_json()), place) for job in missing(place, "children")]
    for number in range(4000):
        mine = running[number % len(running)]
        if next(mine, None) is None:
            running.remove(mine)
        if len(running) == 2:
            break
    for lost in running:
        lost.close()
    left = missing(place, "fork_step")
    assert 0 < len(left) <= 3
    for job in left:
        do(job, place)
    assert_same(tables(place), unfolded)


def test_a_piece_that_trained_another_reference_computes_the_whole_trial(place, unfolded):
    first, *others = missing(place)
    others = others[:2]
    key, study = first.trial.key, results.open(place.study)
    common_digest(study.path, key, 0, "0123456789abcdef", lease_id=place.lease_id)
    do(others[0], place)
    assert {commit.generation for commit in results.read_commits(study)} == {1}
    assert_same(tables(place), unfolded)
    names = {commit.stem for commit in results.read_commits(study)}
    for job in (first, others[1]):
        do(job, place)
    # Its rows were there already.
    assert {commit.stem for commit in results.read_commits(study)} == names
    with pytest.raises(results.LeaseLost):
        common_digest(study.path, key, 2, "abc", lease_id="another")


def test_a_failed_piece_is_one_failure_and_done_again_alone(place, unfolded, monkeypatch):
    first, failing, *others = missing(place, "children")
    commit_failure(failing, place, "RuntimeError: out of luck")
    for job in (first, *others):
        do(job, place)
    study = results.open(place.study)
    results.write_trials(study)
    assert study.table("trials")[["status", "error"]].to_numpy().tolist() == [["failed", "RuntimeError: out of luck"]]
    assert missing(place, "children") == []
    (failed,) = [commit for commit in results.read_commits(study) if commit.status == "failed"]
    results.remove_commit(study, failed, lease_id=place.lease_id)
    trained = []

    class Watched(worker.Experiment):
        def __init__(self, trial, todo, *rest, **options):
            trained.append(todo)
            super().__init__(trial, todo, *rest, **options)

    monkeypatch.setattr(worker, "Experiment", Watched)
    for job in missing(place, "children"):
        do(job, place)
    assert [todo.measure_steps.keys() for todo in trained] == [failing.todo.measure_steps.keys()]
    assert_same(tables(place), unfolded)


def test_others_wait_until_the_first_piece_has_passed_their_fork(tmp_path, monkeypatch):
    from study import dispatch

    monkeypatch.setattr(dispatch, "LOOK_SECONDS", 0.0)
    jobs = jobs_of("fork_step", seeds=2)
    assert [job.is_first for job in jobs] == [True, True, False, False, False, False]
    dead = []
    given = Dispatch(jobs, tmp_path, lambda job, death: dead.append((job, death)))
    firsts = [given.next_job(), given.next_job()]
    assert firsts == jobs[:2]
    assert given.next_job() is None
    # The first one leaves its reference at step 8.
    folder = tmp_path / SHARED_FOLDER / firsts[0].trial.key
    folder.mkdir(parents=True)
    (folder / f"8-{'0' * 16}.safetensors").write_bytes(b"")
    early = given.next_job()
    assert (early.trial, early.start) == (firsts[0].trial, 8)
    assert given.next_job() is None
    given.end(early, "")
    assert given.next_job() is None
    # The other one dies: its pieces go on without.
    given.end(firsts[1], "no memory")
    assert dead == [(firsts[1], "no memory")]
    assert {given.next_job().trial.key, given.next_job().trial.key} == {firsts[1].trial.key}
    given.end(firsts[0], "")
    assert given.next_job().start == 16
    assert given.next_job() is None


def test_a_stored_reference_is_reproduced_by_the_first_piece_before_the_others_begin(tmp_path):
    jobs = [replace(job, reference_digest="abc") for job in jobs_of("cell", cone=None)]
    given = Dispatch(jobs, tmp_path, lambda *_: None)
    assert given.next_job().is_first
    assert given.next_job() is None


def test_pieces_at_work_are_one_running_trial():
    plan = make_plan(space("fork_step"))
    beats = [
        (results.Heartbeat(job.trial.key, "lease", "host", 1, 40, job.lane_steps, 4.0, job.piece), 0.0)
        for job in plan.jobs[:2]
    ]
    found = Status("cut", plan, beats, [], "host", True, 0)
    assert (found.counts()["trials"], found.counts()["running"], found.counts()["planned"]) == (1, 1, 0)
    # Two side by side at ten lane-steps per second.
    assert seconds_left(found) == pytest.approx((plan.todo_lane_steps - 80) / 10 / 2)
    assert all(job.name in status_text(found) for job in plan.jobs[:2])


def test_plan_says_how_it_is_cut(tmp_path, capsys):
    (tmp_path / "cut.yaml").write_text(json.dumps(SPACE))
    texts = {}
    asked = {"all": ["fold=all"], "cell": ["fold=cell"], "early": ["fold=cell", "chaos.fork_steps=[0]", "cone=null"]}
    for name, pairs in asked.items():
        options = [word for pair in pairs for word in ("--set", pair)]
        assert cli.main(["plan", str(tmp_path / "cut.yaml"), "--root", str(tmp_path), *options]) == 0
        texts[name] = capsys.readouterr().out
    assert "folded into them" in texts["all"]
    plan = make_plan(space("cell"))
    assert "1 trials, one per setting and seed, in 9 pieces (fold cell)" in texts["cell"]
    assert "reference shared" in texts["cell"]
    assert all(
        f"{number:,}" in texts["cell"] for number in (plan.lane_steps, plan.apart_lane_steps, plan.whole_lane_steps)
    )
    assert "to run        1 trials in 9 pieces" in texts["cell"]
    assert "reference not shared" in texts["early"]
