"""Searches that stop hopeless settings early: after some seeds, by whole trials, also when broken off in between."""

import json
import math

import pytest

import results
import search_spaces
from study import closing, searching
from study.cli import main
from study.goals import BELOW, Score
from study.proposer import Proposer
from study.worker import run_job
from twophase.errors import BadInput

# At such a rate nothing is learnt: its loss is the worse from the first seed on.
SPACE = {
    "name": "sought",
    "base": {"data": "synthetic", "model": "mlp", "depth": 2, "width": 8, "num_steps": 30, "num_train": 128},
    "axes": {"lr": [0.1, 1e-6]},
    "seeds": 4,
    "chaos": {"fork_steps": [0], "magnitudes": [1e-2], "num_directions": 1},
    "training": {"lane_width": 8},
    "search": {"goals": [{"goal": "test_loss", "direction": "minimize"}], "sampler": "grid", "pruner": "halving"},
}


class KilledError(Exception):
    """A driver died."""


def one_after_the_other(proposals, crew, most=None):
    num = 0
    while (job := proposals.next_job()) is not None:
        for _ in run_job(job, crew.place):
            pass
        num += 1
        if num == most:
            raise KilledError
        proposals.end(job, "")


@pytest.mark.parametrize("kill_after", [None, 1, 2])
def test_a_setting_without_hope_gets_one_seed(kill_after, capsys, monkeypatch, tmp_path):
    space = tmp_path / "sought.json"
    space.write_text(json.dumps(SPACE))
    command = ["search", str(space), "--root", str(tmp_path)]
    monkeypatch.setattr(closing, "write_report", lambda _: None)
    if kill_after:
        monkeypatch.setattr(searching, "run_jobs", lambda jobs, crew: one_after_the_other(jobs, crew, kill_after))
        with pytest.raises(KilledError):
            main(command)
        capsys.readouterr()
    monkeypatch.setattr(searching, "run_jobs", one_after_the_other)
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "2 settings tried (1 scored, 1 stopped early; 0 proposed again)" in said
    assert "stopped after 1 of 4 seeds" in said
    study = results.open(tmp_path / "sought")
    trials = study.table("trials")
    assert sorted(zip(trials["lr"], trials["seed"], strict=True)) == [(1e-6, 0), *((0.1, seed) for seed in range(4))]
    proposer = Proposer(search_spaces.load_search(space), study.path, "sought")
    assert [proposer.choice(trial.number)["lr"] for trial in proposer.best()] == [0.1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": 1}, "search.pruner 'halving' needs at least 2 seeds, got 1"),
        ({"search": {**SPACE["search"], "pruner": "median"}}, "unknown search.pruner 'median'"),
        (
            {
                "search": {
                    **SPACE["search"],
                    "goals": [{"goal": name, "direction": "minimize"} for name in ("test_loss", "transition_step")],
                }
            },
            "search.pruner must be 'none' with several goals, got 'halving'",
        ),
    ],
)
def test_bad_input_is_told_in_one_line(change, message):
    with pytest.raises(BadInput) as caught:
        search_spaces.load_search({**SPACE, **change})
    assert message in str(caught.value)


def test_what_can_never_be_best_pushes_nobody_out(tmp_path):
    """A setting that is stable from the start has no early transition, though its bound is the least number."""
    rules = [{"goal": "test_accuracy", "at_least": 0.5}]
    goals = [{"goal": "transition_step", "direction": "minimize"}]
    search = {**SPACE["search"], "goals": goals, "constraints": rules, "sampler": "random"}
    axes = {"lr": {"loguniform": [0.01, 0.3]}}
    proposer = Proposer(search_spaces.load_search({**SPACE, "axes": axes, "search": search}), tmp_path, "sought")
    good, bad = Score(0.9), Score(0.2)

    def is_hopeless(transition, accuracy):
        scores = {"transition_step": transition, "test_accuracy": accuracy}
        return proposer.is_hopeless(proposer.ask(), 1, scores)

    never = [(Score(0.0, bound=BELOW), good), (Score(1.0), bad), (Score(math.nan), good), (Score(1.0), Score(math.nan))]
    assert [is_hopeless(*scores) for scores in never] == [False] * 4
    assert [is_hopeless(Score(step), good) for step in (30.0, 20.0, 40.0, 10.0)] == [False, False, True, False]
