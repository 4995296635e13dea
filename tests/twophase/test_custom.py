"""A module of one's own: lanes of it are copies of it, what can't be used is refused, its source is in the key."""

import copy
import itertools
import pkgutil
import sys

import pytest
import torch
from samples import NUM_CLASSES, SHAPES, small_dataset, small_setting
from torch import nn
from torch.nn.functional import cross_entropy

import search_spaces
from twophase import entk, lanes
from twophase.config import setting
from twophase.errors import BadInput
from twophase.evaluation import recompute_statistics
from twophase.models import OneLane
from twophase.models.custom_rules import is_vmap_exact
from twophase.models.user_module import seeded, source_digest
from twophase.seeding import stream_seed
from twophase.training import LaneTrainer, build_model, initial_state, reference_order

TOLERANCE = {"rtol": 1e-10, "atol": 1e-10}
NUM_LANES = 4

every_net = pytest.mark.parametrize("net", ["branching", "conv", "gru", "lstm", "mixer", "tied"])


def custom_setting(net, **leaves):
    return small_setting("custom", build=f"custom_nets:{net}", **leaves)


def plain(net, input_shape, state, lane, dtype=torch.float64):
    """The user's module itself, with the weights and buffers of a lane."""
    module = pkgutil.resolve_name(f"custom_nets:{net}")(input_shape, NUM_CLASSES).to(dtype)
    held = {**state.parameters, **state.buffers}
    values = {name.removeprefix("net."): value[lane] for name, value in held.items()}
    missing, unexpected = module.load_state_dict(values, strict=False)
    assert not unexpected
    assert set(missing) <= {"third.weight", "again.weight", "again.bias"}
    return module


@every_net
@pytest.mark.parametrize("shape", ["1d-3", "2d"])
def test_lanes_are_the_module_itself(net, shape):
    """Five steps with its own dropout: parameters, running statistics and what isn't trained."""
    point = custom_setting(net, precision="float64", num_steps=8)
    dataset = small_dataset(SHAPES[shape]).to(torch.device("cpu"), torch.float64)
    start = lanes.stack([initial_state(point, dataset, seed=k) for k in range(NUM_LANES)])
    order = reference_order(point, 0)
    trainer = LaneTrainer(point, dataset, start, seed=3)
    trainer.advance(5, [order])
    for k in range(NUM_LANES):
        module = plain(net, SHAPES[shape], start, k).train()
        optimizer = torch.optim.SGD(
            [p for p in module.parameters() if p.requires_grad],
            lr=point.lr, momentum=point.momentum, weight_decay=point.weight_decay,
        )  # fmt: skip
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=point.num_steps)
        for step in range(5):
            indices = order.batch(step)
            optimizer.zero_grad()
            with seeded(stream_seed(3, "dropout", step)):
                cross_entropy(module(dataset.train_inputs[indices]), dataset.train_labels[indices]).backward()
            optimizer.step()
            schedule.step()
        held = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        state = trainer.state
        for name, value in {**state.parameters, **state.buffers}.items():
            torch.testing.assert_close(value[k], held[name.removeprefix("net.")].detach(), **TOLERANCE)
        assert all(not torch.equal(value[k], start.parameters[name][k]) for name, value in state.parameters.items())


@pytest.mark.parametrize(
    ("net", "expected"), [("conv", True), ("mixer", True), ("tied", True), ("gru", False), ("lstm", False)]
)
def test_vmap_is_taken_where_it_is_exact(net, expected):
    assert is_vmap_exact(f"custom_nets:{net}", (1, 12), 3) is expected


def test_statistics_are_recomputed_lane_by_lane():
    """Cumulative averages in batches of 256, as torch makes them with momentum None; no dropout."""
    point, dataset = custom_setting("conv"), small_dataset((1, 12), num_train=600)
    network = build_model(point, dataset, seed=0)
    states = [initial_state(point, dataset, seed=k) for k in range(NUM_LANES)]
    lanes.write(lanes.stack(states), network)
    recompute_statistics(network, dataset.train_inputs)
    for k, state in enumerate(states):
        module = plain("conv", (1, 12), state, 0, torch.float32).eval()
        for part in module.modules():
            if isinstance(part, nn.BatchNorm1d):
                part.momentum = None
                part.train()
        with torch.no_grad():
            for batch in torch.split(dataset.train_inputs, 256):
                module(batch)
        for name, value in module.named_buffers():
            torch.testing.assert_close(network.net.get_buffer(name)[k], value, rtol=1e-5, atol=1e-6)


@every_net
@pytest.mark.filterwarnings("ignore:There is a performance drop")  # of a kernel over examples, where vmap has no rule
def test_kernel_of_lane_0_is_the_modules(net):
    point, dataset = custom_setting(net, precision="float64"), small_dataset((1, 12))
    state = initial_state(point, dataset, seed=0)
    inputs = dataset.train_inputs[:4].double()
    module, network = plain(net, (1, 12), state, 0), build_model(point, dataset, seed=0)
    network.train()
    network(inputs.expand(1, *inputs.shape)).sum().backward()  # whatever it keeps of that
    lanes.write(state, network)
    jacobian = []
    for logit in module.eval()(inputs).flatten():
        own = torch.autograd.grad(logit, [p for p in module.parameters() if p.requires_grad], retain_graph=True)
        jacobian.append(torch.cat([part.flatten() for part in own]))
    rows = torch.stack(jacobian)
    torch.testing.assert_close(entk(OneLane(network), inputs), rows @ rows.T, **TOLERANCE)


def test_a_seed_is_one_start_and_another_seed_another():
    dataset = small_dataset()
    digests = {
        (s, i): lanes.state_digest(initial_state(custom_setting("conv"), dataset, s)) for s in (0, 1) for i in "ab"
    }
    assert digests[0, "a"] == digests[0, "b"] != digests[1, "a"]


class Refused:
    """Builders, each with what it is refused for."""

    class Wrapped(nn.Module):
        def __init__(self, change, num_classes, size):
            super().__init__()
            self.dense = nn.Linear(size, num_classes)
            self.change, self.count = change, itertools.count(1)

        def forward(self, x):
            return self.change(self.dense(x.flatten(1)), self)

    @classmethod
    def changed(cls, change):
        return lambda input_shape, num_classes: cls.Wrapped(change, num_classes, torch.Size(input_shape).numel())

    @staticmethod
    def unseeded(input_shape, num_classes):
        module = nn.Sequential(nn.Flatten(), nn.Linear(torch.Size(input_shape).numel(), num_classes))
        with torch.no_grad():
            module[1].bias.fill_(next(Refused.counter))
        return module

    counter = iter(range(10**6))


def clamp(y, module):
    with torch.no_grad():
        module.dense.weight.clamp_(-0.01, 0.01)
    return y


def counted(y, module):
    return y * next(module.count) if module.training else y


def complex_parameter(input_shape, num_classes):
    module = nn.Linear(2, 2)
    module.phase = nn.Parameter(torch.zeros(2, dtype=torch.complex64))
    return module


def other_layers(input_shape, num_classes):
    return nn.Sequential(*(nn.Linear(2, 2) for _ in range(int(torch.randint(1, 10**6, ())) % 50 + 1)))


class Hidden(nn.Module):
    """Uses weights that it also keeps out of sight."""

    def __init__(self, size, num_classes):
        super().__init__()
        self.dense = nn.Linear(size, num_classes)
        self.kept = [self.dense.weight]

    def forward(self, x):
        return x.flatten(1) @ self.kept[0].T + self.dense.bias

    @classmethod
    def build(cls, input_shape, num_classes):
        return cls(torch.Size(input_shape).numel(), num_classes)


REFUSED = {
    "not a module": (lambda **_: 3, "must return a torch.nn.Module, got int"),
    "no parameters": (lambda **_: nn.Flatten(), "parameters that require a gradient, got none"),
    "complex": (complex_parameter, "real floating-point parameters, got torch.complex64 for 'phase'"),
    "lazy": (lambda **_: nn.Sequential(nn.Flatten(), nn.LazyLinear(10)), "lazy parameters: '1.weight'"),
    "wrong shape": (Refused.changed(lambda y, _: y[:, :2]), "[B, 10] logits, got shape (5, 2)"),
    "a tuple": (Refused.changed(lambda y, _: (y, y)), "[B, 10] logits, got tuple"),
    "detached": (Refused.changed(lambda y, _: y.detach()), "require no gradient"),
    "other examples": (Refused.changed(lambda y, _: y - y.mean(0)), "treat each example by itself"),
    "random": (Refused.changed(lambda y, _: y + torch.rand_like(y)), "two answers to the same batch"),
    "unseeded": (Refused.unseeded, "torch's generator"),
    "another each time": (other_layers, "the same parameters, by name and shape"),
    "hidden weights": (Hidden.build, "logits of parameters kept elsewhere"),
    "fails when built": (lambda **_: 1 / 0, "failed when called with input_shape=(1, 40), num_classes=10: Zero"),
    "fails when called": (lambda **_: nn.Linear(3, 3), "fails on 5 inputs of shape (1, 40): RuntimeError"),
    "changes its weights": (Refused.changed(clamp), "leave its parameters to the optimiser"),
    "counts its calls": (Refused.changed(counted), "nothing from call"),
    "no function": ("a word", "must be a function, got str"),
}  # fmt: skip


@pytest.mark.parametrize(("builder", "part"), REFUSED.values(), ids=REFUSED)
def test_what_can_not_be_used_is_refused_with_the_reason(monkeypatch, builder, part):
    name = f"refused_{abs(hash(part))}"
    monkeypatch.setattr("custom_nets." + name, builder, raising=False)
    with pytest.raises(BadInput) as caught:
        setting({"model": "custom", "build": f"custom_nets:{name}"})
    message = str(caught.value)
    assert message.startswith(f"build 'custom_nets:{name}' ")
    assert part in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("leaves", "parts"),
    [
        ({}, ["build", "package.module:function", "'none'"]),
        ({"build": "custom_nets"}, ["build", "package.module:function", "'custom_nets'"]),
        ({"build": "custom_nets:nothing"}, ["custom_nets:nothing", "can't be imported", "nothing"]),
        ({"build": "no_such_module:f"}, ["no_such_module:f", "can't be imported", "no_such_module"]),
        ({"build": "__main__:f"}, ["__main__:f", "workers"]),
        ({"build": "custom_nets:mixer", "width": 8}, ["width does not apply to model 'custom'", "8"]),
        ({"build": "custom_nets:mixer", "dropout": 0.1}, ["dropout does not apply to model 'custom'", "0.1"]),
        ({"build": "custom_nets:mixer", "build_digest": "0" * 16}, ["build_digest", "0" * 16, "leave it out"]),
        ({"model": "mlp", "build": "custom_nets:mixer"}, ["build does not apply to model 'mlp'", "'custom'"]),
    ],
    ids=str,
)
def test_bad_leaves_are_told_in_one_line(leaves, parts):
    with pytest.raises(BadInput) as caught:
        setting({"model": "custom", **leaves})
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


SOURCE = """
from torch import nn

def net(input_shape, num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear({units}, num_classes))
"""


def test_the_source_is_in_the_key_and_found_in_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "my_own_nets.py"
    leaves = {"model": "custom", "build": "my_own_nets:net"}
    points = []
    for text in (SOURCE.format(units=40), SOURCE.format(units=40) + "  \n", SOURCE.format(units="5 * 8")):
        file.write_text(text, encoding="utf-8")
        monkeypatch.delitem(sys.modules, "my_own_nets", raising=False)
        source_digest.cache_clear()
        points.append(setting(leaves))
    assert points[0] == points[1]  # but for blanks at the ends of lines
    assert points[0].key == points[1].key != points[2].key
    assert points[2].values()["build_digest"] == points[2].build_digest != points[0].build_digest
    assert setting(points[2].values()) == points[2]
    assert str(tmp_path) not in sys.path

    # A worker that finds another source than the one that was checked doesn't go on.
    with pytest.raises(BadInput, match="another source"):
        build_model(points[0], small_dataset((1, 40)), seed=0)
    monkeypatch.delitem(sys.modules, "my_own_nets")
    source_digest.cache_clear()


class Fading(nn.Module):
    """Steers by a buffer: scales what it is given less with each call in training."""

    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.ones(()))

    def forward(self, x):
        if self.training:
            self.scale.mul_(0.9)
        return x * self.scale


@pytest.mark.parametrize(
    ("layer", "part"),
    [
        (Fading, "changes its buffer '2.scale' in training"),
        (lambda: nn.Sequential(nn.Unflatten(1, (4, 2)), nn.GroupNorm(2, 4), nn.Flatten()), "can't be linearised"),
        (lambda: nn.BatchNorm1d(8), ""),
    ],
    ids=["steers by a buffer", "no second derivative", "may"],
)
def test_growth_is_refused_for_what_can_not_be_linearised(monkeypatch, layer, part):
    def build(input_shape, num_classes):
        size = torch.Size(input_shape).numel()
        return nn.Sequential(nn.Flatten(), nn.Linear(size, 8), layer(), nn.Linear(8, num_classes))

    name = f"layered_{abs(hash(part))}"
    monkeypatch.setattr("custom_nets." + name, build, raising=False)
    space = {"name": "s", "base": {"model": "custom", "build": f"custom_nets:{name}"}}
    assert len(search_spaces.load(space).settings) == 1
    if not part:
        assert search_spaces.load({**space, "growth": {"window": 10}}).settings
        return
    with pytest.raises(BadInput) as caught:
        search_spaces.load({**space, "growth": {"window": 10}})
    assert part in str(caught.value)
    assert "growth" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_switch_is_refused_for_what_has_no_forward_derivative():
    space = {"name": "s", "base": {"model": "custom", "build": "custom_nets:lstm"}, "switch": {}}
    with pytest.raises(BadInput, match="can't be linearised, so that switch must be left out"):
        search_spaces.load(space)
    space["base"]["build"] = "custom_nets:mixer"
    assert search_spaces.load(space).switch.is_wanted


def test_a_network_of_lanes_can_be_copied():
    """Also one that holds on to its last call."""
    point, dataset = custom_setting("lstm"), small_dataset()
    network = build_model(point, dataset, seed=0)
    inputs = dataset.train_inputs[:3]
    logits, twin = network(inputs), copy.deepcopy(network)
    assert torch.equal(twin(inputs), logits)
    with torch.no_grad():
        next(twin.parameters()).add_(1.0)
    assert not torch.equal(twin(inputs), logits)
    assert torch.equal(network(inputs), logits)
