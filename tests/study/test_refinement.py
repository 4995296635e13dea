"""Adaptive fork steps: what is next follows from the rows, until brackets are narrow; nothing is done twice."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import results
import search_spaces
from study import cli, launch, manifest
from study.manifest import Declared
from study.planner import make_plan
from study.refinement import Bracket, brackets, cuts, lattice, refined_plan, wanted_beside
from study.status import read_status
from tests.study.rows import frame, rows_of, sentinel
from twophase.config import setting
from twophase.errors import BadInput

POINT = setting({"num_steps": 200})
DECLARED = Declared(magnitudes=(1e-2,))
SPACE = {
    "name": "fine",
    "base": {"num_steps": 200},
    "seeds": 3,
    "chaos": {
        "fork_steps": {"refine": {"start": [0, 10, 100], "factor": 1.25}},
        "magnitudes": [1e-2],
        "num_directions": 2,
    },
}


@given(st.floats(1.01, 3.0), st.integers(0, 3000))
def test_the_lattice_is_ascending_and_as_fine_as_asked(factor, end):
    steps = lattice(factor, end)
    assert steps == sorted(set(steps))
    assert not steps or (steps[0] == 0 and steps[-1] < end)
    for low, high in zip(steps, [*steps[1:], end], strict=False):
        assert high - low == 1 or (1 + high) / (1 + low) <= factor * (1 + 1e-6)


@given(st.integers(0, 500), st.integers(1, 500), st.floats(1.05, 2.0), st.integers(1, 4))
def test_cuts_lie_inside_and_bisecting_ends_narrow(low, width, factor, most):
    bracket = Bracket(low, low + width)
    for _ in range(60):
        found = cuts(bracket, factor, most)
        if not found:
            break
        assert len(found) <= most
        assert found == sorted(set(found))
        assert bracket.low < found[0] <= found[-1] < bracket.high
        ends = [bracket.low, *found, bracket.high]
        bracket = Bracket(*max(itertools.pairwise(ends), key=lambda cell: Bracket(*cell).ratio))
    assert not cuts(bracket, factor, most)
    assert bracket.ratio <= factor * (1 + 1e-9) or not [s for s in lattice(factor, bracket.high) if s > bracket.low]


def chaos_of(**curves):
    """Seeds by their curves over fork steps 0, 10 and 100."""
    return frame(
        *(
            rows_of(POINT, int(name[1:]), curve, protocol=search_spaces.load(SPACE).protocol)
            + sentinel(POINT, int(name[1:]), protocol=search_spaces.load(SPACE).protocol)
            for name, curve in curves.items()
        )
    )


def test_brackets_are_the_cells_in_which_seeds_settle_for_good():
    chaos = chaos_of(s0=(1.0, 0.4, 0.0), s1=(1.0, 0.0, 0.0), s2=(0.0, 1.0, 0.0), s3=(0.0, 0.0, 0.0), s4=(1.0, 1.0, 1.0))
    found = brackets(chaos, DECLARED)
    assert {seed: (bracket.low, bracket.high) for (_, seed), bracket in found.items()} == {
        0: (10, 100),
        1: (0, 10),
        2: (10, 100),
    }, "never chaotic and never settled seeds have none"
    assert brackets(chaos.iloc[:0], DECLARED) == {}


def test_only_the_primary_s_push_is_added_where_the_seed_settles():
    space = search_spaces.load(SPACE)
    chaos = chaos_of(s0=(1.0, 0.4, 0.0), s1=(0.0, 0.0, 0.0))
    wanted = wanted_beside([space], chaos, DECLARED)
    first, *_ = space.trials()
    assert set(wanted) == {first.key}, "seed 1 needs nothing, seed 2 has no rows yet"
    children = [child for child in wanted[first.key].measure_steps if child.perturbation != "none"]
    assert {child.fork_step for child in children} == set(cuts(Bracket(10, 100), 1.25))
    assert {(child.perturbation, child.magnitude) for child in children} == {("gaussian", 1e-2)}
    assert {child.direction for child in children} == {0, 1}
    plan = make_plan(space, more=wanted)
    assert plan.num_children == make_plan(space).num_children + len(children)


def test_the_first_grid_comes_first_and_most_is_the_end():
    space = search_spaces.load(SPACE)
    chaos = chaos_of(s0=(1.0, 0.4, 0.0))
    partly = chaos[chaos["fork_step"] != 10]
    assert wanted_beside([space], partly, DECLARED) == {}
    spent = search_spaces.load(SPACE, {"chaos.fork_steps.refine.most": 1})
    (todo,) = wanted_beside([spent], chaos, DECLARED).values()
    assert len({child.fork_step for child in todo.perturbed}) == 1


TINY = {
    "name": "tiny",
    "base": {"data": "digits", "num_steps": 80, "num_train": 600, "batch_size": 32, "lr": 0.1},
    "settings": [{"model": "mlp", "depth": 5, "width": 32}],
    "seeds": 2,
    "chaos": {
        "fork_steps": {"refine": {"start": [0, 5, 40], "factor": 1.4}},
        "magnitudes": [1e-2],
        "num_directions": 1,
        "train_sample": 100,
        "path_points": 3,
        "primary": {"threshold": 0.01},
    },
}


def pushed(study):
    chaos = study.table("chaos")
    chaos = chaos[chaos["perturbation"] == "gaussian"]
    return chaos.sort_values(["seed", "fork_step", "direction"])[
        ["seed", "fork_step", "reference_digest", "test_barrier"]
    ]


def test_brackets_end_narrow_and_the_same_command_does_nothing_more(in_process, tmp_path, capsys):
    study = launch(TINY, tmp_path, overrides={"seeds": 1})
    declared = manifest.require_declared(study.path)
    found = brackets(study.table("chaos"), declared)
    assert found
    assert all(not cuts(bracket, 1.4) for bracket in found.values())
    assert results.check(study) == []
    assert study.table("trials").is_sentinel_exact.all()
    status = read_status(study)
    assert (status.plan.num_done, status.plan.jobs) == (1, [])
    before = pushed(study)
    capsys.readouterr()
    assert pushed(launch(TINY, tmp_path, overrides={"seeds": 1})).equals(before)
    assert "0 to run" in capsys.readouterr().err
    # A finer factor asks for steps that aren't there yet.
    finer = {"seeds": 1, "chaos.fork_steps.refine.factor": 1.1, "chaos.fork_steps.refine.most": 30}
    plan = refined_plan(search_spaces.load(TINY, finer), study, results.read_commits(study))
    following = {child.fork_step for job in plan.jobs for child in job.todo.perturbed}
    assert following
    assert not following & set(study.table("chaos")["fork_step"])


@pytest.mark.slow
def test_stopped_early_it_goes_on_and_every_row_is_one_of_the_dense_grid_s(in_process, tmp_path):
    study = launch(TINY, tmp_path / "one")
    before = pushed(study)
    # Stopped early and gone on with: the same as at one go.
    launch(TINY, tmp_path / "two", overrides={"chaos.fork_steps.refine.most": 1})
    fewer = pushed(results.open(tmp_path / "two" / "tiny"))
    again = pushed(launch(TINY, tmp_path / "two"))
    assert len(fewer) < len(again)
    merged = again.merge(before, on=["seed", "fork_step"], suffixes=("", "_one"))
    assert (merged["test_barrier"] == merged["test_barrier_one"]).all()
    assert (merged["reference_digest"] == merged["reference_digest_one"]).all()

    # A dense grid takes what is there.
    dense = sorted({*lattice(1.4, 40), 0, 5, 40})
    launch(TINY, tmp_path / "one", overrides={"chaos.fork_steps": dense})
    rows = pushed(study)
    assert set(rows["fork_step"]) == set(dense)
    kept = rows.merge(before, on=["seed", "fork_step"], suffixes=("", "_before"))
    assert len(kept) == len(before)
    assert np.array_equal(kept["test_barrier"], kept["test_barrier_before"])


def test_later_rounds_fork_from_snapshots():
    assert all(job.means.is_snapshot_kept for job in refined_plan(search_spaces.load(TINY)).jobs)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"refine": {"factor": 1.0}}, "chaos.fork_steps.refine.factor must be > 1, got 1"),
        ({"refine": {"most": 0}}, "chaos.fork_steps.refine.most must be an integer >= 1, got 0"),
        ({"refine": {"start": [5]}}, "chaos.fork_steps.refine.start must have two fork steps or more"),
        ({"refine": {"start": [0, 5, 5]}}, "chaos.fork_steps.refine.start"),
        ({"refine": {"start": [0, 200]}}, "chaos.fork_steps must be below num_steps"),
        ({"refine": {"steps": [0, 5]}}, "unknown key in chaos.fork_steps.refine 'steps'"),
        ({"bisect": {}}, "chaos.fork_steps must be a list of steps or {refine: …}, got {'bisect': {}}"),
        ({"refine": 3}, "chaos.fork_steps.refine must be a mapping"),
    ],
)
def test_bad_input_is_one_line(given, words, capsys):
    with pytest.raises(BadInput) as caught:
        search_spaces.load({**SPACE, "chaos": {"fork_steps": given}})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_does_not_go_with_refining_is_told(tmp_path, capsys):
    with pytest.raises(BadInput, match=r"fold must be all where chaos\.fork_steps are refined, got fork_step"):
        search_spaces.load({**SPACE, "fold": "fork_step"})
    assert cli.main(["search", "earliest", "--set", "chaos.fork_steps={refine: {}}", "--root", str(tmp_path)]) == 2
    assert "chaos.fork_steps must be a list in a space that is searched" in capsys.readouterr().err
    assert search_spaces.load({**SPACE, "chaos": {"fork_steps": {"refine": {}}}}).chaos.forks(POINT) == (0, 10, 50)
