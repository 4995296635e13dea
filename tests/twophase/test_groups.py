"""Children in groups of lanes, one after the other by the loop, or from a snapshot: the same rows, at another cost."""

import json
from dataclasses import replace

import pytest
import torch
from samples import plain, small_dataset, small_setting

from twophase import chaos, experiment, lanes
from twophase.checkpoint import Checkpoint
from twophase.children import Child, Sketched, Todo, chunks, lane_steps, split
from twophase.config import Protocol, Trial, setting
from twophase.experiment import SENTINEL, Experiment
from twophase.models import MODELS
from twophase.snapshot import SnapshotError, Snapshots, from_bytes, note_of, to_bytes
from twophase.training import LaneTrainer, LoopTrainer, initial_state, reference_order

DATASET = small_dataset()
FORKS = (0, 8, 16)
CHILDREN = [Child(t, "gaussian", m) for t in FORKS for m in (1e-2, 1e-4)]
CONTROLS = [Child(t, "order") for t in FORKS]
MEASURED = {SENTINEL: (12, 24), **dict.fromkeys(CHILDREN + CONTROLS, (24,))}
TODO = Todo(MEASURED, frozenset(CHILDREN + CONTROLS))
PROTOCOL = Protocol(train_sample=32, path_points=3)


class Memory(Snapshots):
    """Keeps snapshots as bytes, in a dict."""

    def __init__(self):
        self.kept = {}

    def nearest(self, step, like):
        found = max((kept for kept in self.kept if kept <= step), default=None)
        return None if found is None else (found, from_bytes(self.kept[found], like))

    def keep(self, step, state):
        self.kept[step] = to_bytes(state, {})


def run(point, todo=TODO, **how):
    made = Experiment(Trial(point, 0, PROTOCOL), todo, DATASET, **how)
    outcome = made.run()
    assert made.lane_steps == made.total_lane_steps == outcome.summary["lane_steps"]
    return outcome


def by_key(outcome, table="chaos"):
    def key(row):
        return tuple(str(row.get(name)) for name in ("perturbation", "fork_step", "magnitude", "direction", "step"))

    rows = sorted(outcome.rows[table], key=lambda row: (*key(row), row.get("measure_step", 0), row.get("alpha", 0)))
    return [{name: "nan" if str(value) == "nan" else value for name, value in row.items()} for row in rows]


@pytest.mark.parametrize("model", ["cnn", "mlp"])
def test_rows_do_not_depend_on_the_width_of_a_group(model):
    point = small_setting(model, num_steps=24, augmentation="shift")
    whole = run(point)
    for lane_width in (4, 5):
        dealt = run(point, lane_width=lane_width)
        assert all(by_key(dealt, table) == by_key(whole, table) for table in whole.rows)
        assert dealt.summary["lane_width"] <= lane_width < whole.summary["lane_width"]
        assert dealt.summary["is_sentinel_exact"] is True
        assert dealt.summary["lane_steps"] == lane_steps(point, TODO, lane_width=lane_width)


def test_groups_are_few_and_even_and_begin_with_their_first_fork():
    parts = split(TODO, 4)
    assert [len(part.perturbed) for part in parts] == [2, 2, 2]
    assert [part.fork_steps[0] for part in parts] == [0, 8, 16]
    assert [len(part.controls) for part in parts] == [3, 0, 0]
    assert sorted(child for part in parts for child in part.perturbed) == sorted(CHILDREN)
    assert [len(chunk) for chunk in chunks(CHILDREN[:5], 4)] == [2, 3]
    assert chunks([], 4) == []


def test_a_group_with_another_reference_is_caught(monkeypatch):
    """A group that begins one ulp beside the reference trains another network: no sentinel of its own can see that."""
    opened = Experiment._open

    def beside(self, number):
        if number == 1:
            step = self._parts[1].fork_steps[0]
            weight = self._kept[step].parameters["head.weight"]
            weight[0, 0, 0] = torch.nextafter(weight[0, 0, 0], torch.tensor(9.0))
        opened(self, number)

    monkeypatch.setattr(experiment.Experiment, "_open", beside)
    point = small_setting("cnn", num_steps=24)
    dealt = run(point, lane_width=4)
    assert dealt.summary["is_sentinel_exact"] is False
    assert len({row["reference_digest"] for row in dealt.rows["chaos"]}) == 2


@pytest.mark.parametrize("model", sorted(MODELS))
def test_the_loop_is_exact_in_itself(model):
    leaves = {"augmentation": "shift", "optimizer": "adamw", "clip_norm": 0.5} if model in ("cnn", "vit") else {}
    point = small_setting(model, num_steps=24, engine="loop", **leaves)
    outcome = run(point)
    assert outcome.summary["is_sentinel_exact"] is True
    assert {row["reference_digest"] for row in outcome.rows["chaos"]} == {outcome.summary["reference_digest"]}
    assert all(row["distance"] > 0 for row in outcome.rows["chaos"] if row["perturbation"] != "none")


@pytest.mark.parametrize("model", ["cnn", "mlp"])
def test_loop_and_lanes_train_the_same_networks(model):
    """In float64 to rounding; rows of either, not only states."""
    loop, dealt = (run(small_setting(model, num_steps=24, precision="float64", engine=e)) for e in ("loop", "lanes"))
    for one, other in zip(by_key(loop), by_key(dealt), strict=True):
        # 24 steps of a small net amplify 1e-16 to less than 1e-10; errors are counts, and equal.
        for name in ("distance", "test_barrier", "train_barrier", "disagreement", "noise_norm"):
            assert one[name] == pytest.approx(other[name], rel=1e-8, abs=1e-10)


def test_across_engines_rounding_alone_looks_like_chaos():
    """Why nothing is compared across engines: the same nets, not perturbed, and some end as other ones."""
    leaves = {"depth": 8, "width": 8, "lr": 0.3, "schedule": "constant"}
    sizes = {"num_train": 300, "num_test": 40, "batch_size": 16, "num_steps": 100}
    point = setting({"model": "cnn", **leaves, **sizes})
    apart = {1: [], 100: []}
    for seed in (0, 2):
        start, order = initial_state(point, DATASET, seed), [reference_order(point, seed)]
        trainers = [made(point, DATASET, lanes.take(start, [0] * 4), seed=0) for made in (LaneTrainer, LoopTrainer)]
        for step, found in apart.items():
            for trainer in trainers:
                trainer.advance(step, order)
                assert lanes.is_exact_copy(trainer.state, 3), "within an engine equal lanes stay equal"
            both = lanes.stack([lanes.fork(trainer.state) for trainer in trainers])
            found.append(float(chaos.distance(both)[1] / chaos.parameter_norm(both)[0]))
    assert 0 < min(apart[1]) < max(apart[1]) < 1e-6, "one step: rounding"
    assert max(apart[100]) > 1e-3, "a hundred: another network"


def test_the_loop_is_what_torch_trains():
    """Channels-last or not: in float64 the loop's network is a plain torch network's, gradients and all."""
    point = small_setting("resnet", precision="float64", engine="loop")
    dataset = small_dataset((3, 6, 6)).to(torch.device("cpu"), torch.float64)
    start = initial_state(point, dataset, 0)
    trainer = LoopTrainer(point, dataset, lanes.take(start, [0, 0]), seed=0)
    network = plain(point, (3, 6, 6), start, 0).train()
    rates = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4}
    optimizer, order = torch.optim.SGD(network.parameters(), **rates), reference_order(point, 0)
    for step in range(3):
        chosen = order.batch(step)
        optimizer.param_groups[0]["lr"] = experiment.learning_rate(point, step)
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(dataset.train_inputs[chosen]), dataset.train_labels[chosen])
        loss.backward()
        optimizer.step()
    trainer.advance(3, [order])
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(
            trainer.state.parameters[name][1].reshape(parameter.shape), parameter.detach(), rtol=1e-10, atol=1e-10
        )


@pytest.mark.parametrize("engine", ["lanes", "loop"])
def test_from_a_snapshot_come_the_same_rows(engine):
    point = small_setting("cnn", num_steps=24, engine=engine, optimizer="adamw", augmentation="shift")
    memory, fresh = Memory(), run(point)
    run(point, snapshots=memory)
    assert sorted(memory.kept) == list(FORKS)
    late = [Child(t, "gaussian", 1e-3, 0) for t in (10, 16)]
    more = Todo(dict.fromkeys(late, (24,)), frozenset(late), is_trajectory_wanted=False)
    again, direct = run(point, more, snapshots=memory), run(point, more)
    assert by_key(again) == by_key(direct)
    assert by_key(again, "divergence") == by_key(direct, "divergence")
    assert again.summary["reference_digest"] == fresh.summary["reference_digest"]
    assert again.summary["lane_steps"] == lane_steps(point, more, start=8) < direct.summary["lane_steps"]
    assert 10 in memory.kept


@pytest.mark.parametrize(
    "leaves",
    [
        {"optimizer": "adamw"},
        pytest.param({"engine": "loop"}, marks=pytest.mark.slow),
        pytest.param({}, marks=pytest.mark.slow),
    ],
)
def test_a_run_goes_on_from_a_checkpoint_bitwise(leaves):
    point = small_setting("cnn", num_steps=24, augmentation="shift", **leaves)
    sketched = {Sketched("trace", 16): (9, 24), **{Sketched("trace", 16, c): (20,) for c in (CHILDREN[3], CONTROLS[0])}}
    todo = replace(TODO, kernel_steps={"trace": (0, 9, 24)}, growth=frozenset({(3, 0), (9, 1)}), sketch_steps=sketched)
    todo = replace(todo, switch_steps=frozenset({0, 9, 13, 14, 15, 24}))
    protocol = replace(PROTOCOL, probe_size=8, growth_window=4, growth_burn_in=1)
    whole = Experiment(Trial(point, 0, protocol), todo, DATASET, lane_width=4)
    at, bytes_at = [], []
    for done in whole.advance(stretch=5):
        at.append(done)
        bytes_at.append(whole.checkpoint().to_bytes())
    for i in (0, len(at) // 3, 2 * len(at) // 3, len(at) - 1):
        again = Experiment(Trial(point, 0, protocol), todo, DATASET, lane_width=4)
        again.resume(Checkpoint.from_bytes(bytes_at[i]))
        assert list(again.advance(stretch=5)) == at[i + 1 :]
        assert all(by_key(again.outcome, table) == by_key(whole.outcome, table) for table in whole.outcome.rows)
        assert str(again.outcome.kernel_rows) == str(whole.outcome.kernel_rows)
        assert str(again.outcome.sketch_rows) == str(whole.outcome.sketch_rows)
        assert str(again.outcome.growth_rows) == str(whole.outcome.growth_rows)
        assert again.outcome.switch_rows == whole.outcome.switch_rows
        differing = {"wall_seconds"}
        assert {k: v for k, v in again.outcome.summary.items() if k not in differing} == {
            k: v for k, v in whole.outcome.summary.items() if k not in differing
        }
        assert again.seconds > json.loads(note_of(bytes_at[i])["note"])["seconds"] > 0


def test_a_damaged_checkpoint_is_told():
    with pytest.raises(SnapshotError, match="damaged"):
        Checkpoint.from_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
