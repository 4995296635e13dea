"""Jobs between the driver and its workers: each is with one of them, and what a death leaves is given out again."""

import json

import pytest

import search_spaces
from study.desk import CLOSED, Desk
from study.foreman import WORKER_RETRIES, Foreman
from study.interruption import Interruption
from study.planner import Job, make_plan
from study.progress import Progress
from study.proposals import Proposals

SPACE = {
    "name": "staffed",
    "base": {"data": "synthetic", "num_train": 40, "num_test": 20, "num_steps": 4, "batch_size": 20},
    "seeds": 8,
    "chaos": {"fork_steps": [0], "magnitudes": [1e-2], "num_directions": 1, "train_sample": 20},
}
JOBS = make_plan(search_spaces.load(SPACE)).jobs
NAMES = [job.name for job in JOBS]
NO_FAILURE = {"failure": "", "lane_steps": 1}


class Sweep:
    """A foreman and his desk, without Ray; what ended, and of what."""

    def __init__(self, *, is_settled=True, room=2, monkeypatch):
        monkeypatch.setattr("study.foreman.LOOK_SECONDS", 0.0)
        self.left, self.ended, self.asked = list(JOBS), [], 0
        self.interruption, self.desk = Interruption(), Desk()
        self.progress = Progress(len(JOBS), 100, interruption=self.interruption)
        proposals = Proposals(self.next_job, self.end, len(JOBS), 100, is_settled)
        self.foreman = Foreman(
            proposals, lambda method, *arguments: getattr(self.desk, method)(*arguments), self.progress, lambda: room
        )

    def next_job(self):
        self.asked += 1
        return self.left.pop(0) if self.left else None

    def end(self, job, death):
        self.ended.append((job.name, death))

    def fetch(self, worker):
        """What the worker gets: a job's name; None if there is none now."""
        self.foreman.look()
        slip = self.desk.fetch(worker)
        self.foreman.look()
        return slip and (slip if slip == CLOSED else slip[0])

    def finish(self, worker, name):
        self.desk.end(worker, {**NO_FAILURE, "name": name})
        self.foreman.look()


@pytest.fixture
def sweep(monkeypatch, capsys):
    return lambda **options: Sweep(monkeypatch=monkeypatch, **options)


def test_workers_fetch_all_jobs_in_order_and_few_are_handed_over_ahead(sweep):
    here = sweep()
    here.foreman.look()
    assert [here.foreman.hire(name) for name in "abc"] == [True, True, False], "there is room for two"
    done, most = [], 0
    while (name := here.fetch("ab"[len(done) % 2])) != CLOSED:
        most = max(most, len(JOBS) - len(here.left) - len(done))
        here.finish("ab"[len(done) % 2], name)
        done.append(name)
    assert done == NAMES
    assert here.ended == [(name, "") for name in NAMES]
    assert most <= 4
    assert here.foreman.hire("c") is None, "Tune ends when no more workers will be wanted"


def test_a_job_is_what_the_worker_gets(sweep):
    here = sweep()
    assert here.foreman.hire("a")
    name, text, is_alone = here.desk.fetch("a")
    assert (name, is_alone) == (NAMES[0], False)
    assert Job.from_json(json.loads(text)) == JOBS[0]


def test_what_depends_on_what_ends_is_asked_for_only_when_somebody_waits(sweep):
    here = sweep(is_settled=False)
    assert [here.foreman.hire(name) for name in "ab"] == [True, True]
    assert [here.fetch(name) for name in "ab"] == NAMES[:2]
    assert len(here.left) == len(JOBS) - 2
    here.finish("a", NAMES[0])
    assert here.fetch("a") == NAMES[2]


def test_a_worker_waits_while_what_others_do_may_lead_to_more(sweep):
    here = sweep(is_settled=False)
    here.left = here.left[:2]
    assert [here.foreman.hire(name) for name in "ab"] == [True, True]
    assert [here.fetch(name) for name in "ab"] == NAMES[:2]
    here.finish("a", NAMES[0])
    assert here.fetch("a") is None
    here.left = [JOBS[5]]
    assert here.fetch("a") == NAMES[5]
    here.finish("a", NAMES[5])
    assert here.fetch("a") is None
    here.foreman.leave("a")
    assert here.foreman.hire("c") is False
    here.finish("b", NAMES[1])
    assert here.fetch("b") == CLOSED


def test_only_what_a_dead_worker_was_at_counts_the_death_and_too_many_end_it(sweep):
    here = sweep(room=1)
    held = []
    for number in range(WORKER_RETRIES + 1):
        worker = f"w{number}"
        assert here.foreman.hire(worker)
        held.append([here.fetch(worker)])
        if number == 0:  # the first job is still being committed
            held[0].append(here.fetch(worker))
        elif number == 1:
            here.finish(worker, NAMES[0])
            held[1].append(here.fetch(worker))
        here.foreman.bury(worker, f"cause {number}")
    assert held == [NAMES[:2], NAMES[:2], [NAMES[1]], [NAMES[1]]]
    assert here.ended == [(NAMES[0], ""), (NAMES[1], f"cause {WORKER_RETRIES}")]
    assert here.foreman.hire("after")
    assert here.fetch("after") == NAMES[2]


def test_what_is_given_out_again_is_done_alone(sweep):
    here = sweep()
    assert here.foreman.hire("a")
    here.fetch("a")
    here.foreman.bury("a", "killed")
    assert here.foreman.hire("b")
    assert [here.desk.fetch("b")[::2] for _ in range(2)] == [(NAMES[0], True), (NAMES[1], False)]


def test_a_dead_worker_that_lives_gets_nothing_and_is_not_heard(sweep):
    here = sweep()
    assert here.foreman.hire("a")
    assert here.fetch("a") == NAMES[0]
    here.foreman.bury("a", "its node was cut off")
    here.finish("a", NAMES[0])
    assert here.ended == []
    assert here.fetch("a") == CLOSED
    assert here.foreman.hire("b")
    assert here.fetch("b") == NAMES[0]


def test_workers_that_die_before_they_begin_end_the_run(sweep):
    here = sweep(room=1)
    for number in range(WORKER_RETRIES + 1):
        assert here.progress.faults == []
        assert here.foreman.hire(f"w{number}")
        here.foreman.bury(f"w{number}", "no memory")
    assert here.progress.faults == ["workers die before they begin: no memory"]
    assert here.foreman.hire("more") is None


@pytest.mark.parametrize("why", ["Ctrl-C", "a full disk"])
def test_what_runs_ends_and_no_more_is_given_out(sweep, why):
    here = sweep()
    assert [here.foreman.hire(name) for name in "ab"] == [True, True]
    assert [here.fetch(name) for name in "ab"] == NAMES[:2]
    if why == "Ctrl-C":
        here.interruption.is_asked = True
    else:
        here.progress.faults.append("No space left on device")
        here.foreman.leave("b")
    here.foreman.look()
    here.finish("a", NAMES[0])
    assert here.ended == [(NAMES[0], "")]
    assert here.fetch("a") == CLOSED
    assert here.foreman.hire("c") is None
    asked = here.asked
    here.foreman.look()
    assert here.asked == asked
