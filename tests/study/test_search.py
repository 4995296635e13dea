"""Searching a space: what is proposed, what is told, and that a restart repeats nothing."""

import json
import math

import numpy as np
import pytest

import results
import search_spaces
from study.cli import main
from study.goals import ABOVE, SCORES, Score
from study.proposer import FILE, OUTCOME, Proposer, is_counted, scores_of
from study.search_summary import different_trials, search_records, search_text
from twophase.errors import BadInput

AXES = {"lr": {"loguniform": [0.01, 0.3]}, "depth": [2, 3, 4, 5], "activation": ["relu", "gelu", "tanh"]}
GOAL = {"goal": "transition_step", "direction": "minimize"}


def space_of(**search):
    base = {"data": "synthetic", "model": "mlp", "width": 16, "num_steps": 60}
    return search_spaces.load_search(
        {"name": "sought", "base": base, "axes": AXES, "search": {"goals": [GOAL], "num_settings": 40, **search}}
    )


def surface(choice):
    """Transition step of a setting: least (30) at lr 0.08, depth 4, gelu."""
    octaves = math.log2(choice["lr"] / 0.08)
    penalty = {"relu": 0.6, "gelu": 0.0, "tanh": 1.2}[choice["activation"]]
    return 30.0 * 2 ** (0.5 * octaves**2 + 0.5 * abs(choice["depth"] - 4) + penalty)


def search_surface(folder, seed, budget, sampler, restart_every):
    """Search with two proposals open at a time, and a process that dies now and then with both."""
    space = space_of(sampler=sampler, seed=seed, num_settings=budget)
    proposer, told, open_ones = Proposer(space, folder, "sought"), [], []
    while proposer.num_settings < budget or open_ones:
        while len(open_ones) < 2 and proposer.num_settings < budget:
            number = proposer.ask()
            if proposer.twin(number) is not None:
                proposer.repeat(number)
            else:
                open_ones.append(number)
        number = open_ones.pop(0)
        told.append(proposer.setting_key(number))
        proposer.tell(number, {"transition_step": Score(surface(proposer.choice(number)))})
        if len(told) % restart_every == 0:
            proposer = Proposer(space, folder, "sought")
            assert proposer.pending == open_ones
    assert len(told) == len(set(told)) == budget
    return surface(proposer.choice(proposer.best()[0].number))


@pytest.mark.parametrize("seeds", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_tpe_finds_a_known_optimum_better_than_chance_and_restarts_repeat_nothing(seeds, tmp_path):
    found = {
        sampler: [
            search_surface(tmp_path / f"{sampler}{seed}", seed, budget=28, sampler=sampler, restart_every=13)
            for seed in range(seeds)
        ]
        for sampler in ("tpe", "random")
    }
    assert np.exp(np.mean(np.log(found["tpe"]))) < np.exp(np.mean(np.log(found["random"])))
    assert np.median(found["tpe"]) < 1.25 * 30


def test_a_torn_journal_and_a_lock_left_behind_are_mended(tmp_path):
    space = space_of()
    proposer = Proposer(space, tmp_path, "sought")
    number = proposer.ask()
    with (tmp_path / FILE).open("ab") as file:
        file.write(b'{"op_code":')
    (tmp_path / f"{FILE}.lock").symlink_to(tmp_path / FILE)
    again = Proposer(space, tmp_path, "sought")
    assert again.pending == [number]
    assert again.choice(number) == proposer.choice(number)


def test_a_bound_or_no_number_is_never_the_best(tmp_path):
    space = space_of(sampler="random", constraints=[{"goal": "test_accuracy", "at_least": 0.5}])
    proposer = Proposer(space, tmp_path, "sought")
    good, bad = Score(0.9), Score(0.2)
    told = {
        "exact": {"transition_step": Score(50.0, 40.0, 60.0), "test_accuracy": good},
        "bound": {"transition_step": Score(0.0, bound=ABOVE, why="never chaotic"), "test_accuracy": good},
        "none": {"transition_step": Score(math.nan, why="undetermined"), "test_accuracy": good},
        "beyond": {"transition_step": Score(10.0), "test_accuracy": bad},
    }
    numbers = {name: proposer.ask() for name in told}
    for name, scores in told.items():
        proposer.tell(numbers[name], scores)
    proposer = Proposer(space, tmp_path, "sought")
    assert [trial.number for trial in proposer.best()] == [numbers["exact"]]
    assert [is_counted(trial) for trial in proposer.trials] == [True, False, False, False]
    assert scores_of(proposer.trials[0]) == told["exact"]
    text = search_text(space, proposer, "journal")
    assert "4 settings tried (1 scored, 1 scored, beyond a constraint, 1 only a bound" in text
    assert "transition_step: never chaotic" in text
    assert "50 [40, 60]" in text
    assert len(search_records(space, proposer)["best"]) == 1


def test_several_goals_make_a_front(tmp_path):
    goals = [GOAL, {"goal": "test_accuracy", "direction": "maximize"}]
    proposer = Proposer(space_of(goals=goals, sampler="nsga2"), tmp_path, "sought")
    for step, accuracy in [(10.0, 0.5), (20.0, 0.7), (30.0, 0.6), (10.0, 0.4)]:
        proposer.tell(proposer.ask(), {"transition_step": Score(step), "test_accuracy": Score(accuracy)})
    assert [trial.values for trial in proposer.best()] == [[10.0, 0.5], [20.0, 0.7]]


def test_a_grid_takes_every_point_once_and_drops_axes_that_mean_nothing(tmp_path):
    space = search_spaces.load_search(
        {
            "name": "sought",
            "base": {"data": "digits", "num_steps": 50},
            "axes": {"model": ["mlp", "vit"], "num_heads": [1, 2], "depth": [2, 3]},
            "search": {"goals": [GOAL], "sampler": "grid"},
        }
    )
    proposer = Proposer(space, tmp_path, "sought")
    chosen = []
    while not proposer.is_exhausted:
        chosen.append(proposer.choice(proposer.ask()))
    assert len(chosen) == len({json.dumps(choice, sort_keys=True) for choice in chosen}) == 6
    assert all(("num_heads" in choice) == (choice["model"] == "vit") for choice in chosen)
    assert len(space.space(proposer.different()).settings) == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"goals": [{"goal": "earliest", "direction": "minimize"}]}, "unknown goal 'earliest'"),
        ({"goals": [{"goal": "test_loss", "direction": "down"}]}, "unknown search.goals.direction 'down'"),
        ({"goals": [GOAL, GOAL]}, "search.goals must not repeat an entry"),
        ({"goals": [{"goal": "late_kernel_distance", "direction": "minimize"}]}, "needs kernels; add a cone block"),
        ({"sampler": "grid"}, "axes.lr must be a list or"),
        ({"sampler": "cmaes"}, "unknown search.sampler 'cmaes'"),
        ({"constraints": [{"goal": "test_loss", "at_most": "low"}]}, "search.constraints.at_most must be a number"),
        ({"num_settings": 0}, "search.num_settings must be an integer >= 1"),
    ],
)
def test_bad_input_is_told_in_one_line(change, message):
    with pytest.raises(BadInput) as caught:
        space_of(**change)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_run_refuses_a_search_and_search_refuses_a_plain_space(capsys, tmp_path):
    assert main(["run", "earliest", "--root", str(tmp_path)]) == 2
    assert "which twophase search takes" in capsys.readouterr().err
    assert main(["search", "quick", "--root", str(tmp_path)]) == 2
    assert "space has no search block" in capsys.readouterr().err
    assert main(["run", "quick", "--set", "axes.lr={uniform: [0.1, 0.2]}", "--root", str(tmp_path)]) == 2
    assert "axes.lr is a distribution" in capsys.readouterr().err


def test_every_goal_has_a_meaning_and_a_score():
    assert SCORES.keys() == search_spaces.GOALS.keys()


def test_a_search_goes_on_where_it_stopped_and_is_a_study_like_any_other(capsys, tmp_path, in_process):
    """On Ray, and on and on after Ctrl-C, test_interruption.py has one in the slow run."""
    sets = ["num_steps=30", "training.lane_width=8", "num_train=256", "width=8", "chaos.fork_steps=[0,10]", "seeds=2"]
    sets += ["axes.depth=[2,3]"]
    command = ["search", "earliest", "--root", str(tmp_path), "--workers", "2"]
    command += [part for pair in sets for part in ("--set", pair)]
    assert main([*command, "--set", "search.num_settings=2"]) == 0
    capsys.readouterr()
    study = results.open(tmp_path / "earliest")
    first = study.table("trials")
    assert len(first) == 4
    assert main([*command, "--set", "search.num_settings=3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    trials = study.table("trials")
    assert len(found["settings"]) == 3
    assert set(first["trial_key"]) < set(trials["trial_key"])
    assert len(trials) == 6
    assert {row["setting_key"] for row in found["settings"]} == set(trials["setting_key"])
    assert main(["status", "earliest", "--root", str(tmp_path), "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)
    assert (counts["trials"], counts["done"], counts["planned"]) == (6, 6, 0)
    assert main([*command, "--set", "num_steps=31"]) == 2
    assert "of a search can't be changed once it has begun" in capsys.readouterr().err
    assert len(different_trials(Proposer(_space(sets), study.path, "earliest"))) == 3
    assert OUTCOME in Proposer(_space(sets), study.path, "earliest").trials[0].user_attrs


def _space(sets):
    return search_spaces.load_search("earliest", search_spaces.parse_overrides(sets))
