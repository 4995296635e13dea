"""K lanes are K networks: against plain torch.nn models with the same weights, in float64, one at a time."""

import pytest
import torch
from samples import SHAPES, plain, small_dataset, small_setting
from torch.nn.functional import cross_entropy

from twophase import lanes
from twophase.training import (
    LaneTrainer,
    build_model,
    control_order,
    initial_state,
    lane_losses,
    learning_rate,
    reference_order,
)

# Sums of a few hundred terms of order 1 in float64, in another order.
TOLERANCE = {"rtol": 1e-10, "atol": 1e-10}
# Nets without normalisation, at lr 0.1, make a million times as much of a rounding within five steps.
AFTER_STEPS = {"rtol": 1e-9, "atol": 1e-9}
NUM_LANES = 5

CASES = [
    ("mlp", "none", SHAPES["1d"], "relu"),
    ("mlp", "batch", SHAPES["2d-3"], "tanh"),
    ("cnn", "none", SHAPES["1d"], "gelu"),
    ("cnn", "batch", SHAPES["1d-3"], "relu"),
    ("cnn", "none", SHAPES["2d-3"], "tanh"),
    ("cnn", "batch", SHAPES["2d"], "relu"),
    ("resnet-A", "batch", SHAPES["1d"], "relu"),
    ("resnet-A", "none", SHAPES["2d-3"], "gelu"),
    ("resnet-B", "batch", SHAPES["2d-3"], "relu"),
    ("resnet-B", "none", SHAPES["1d-3"], "tanh"),
    ("vgg", "batch", SHAPES["1d"], "relu"),
    ("vgg", "none", SHAPES["2d"], "gelu"),
    ("vgg", "batch", SHAPES["2d-3"], "relu"),
    ("mlp", "layer", SHAPES["1d-3"], "gelu"),
    ("cnn", "group", SHAPES["2d-3"], "relu"),
    ("cnn", "layer", SHAPES["1d"], "tanh"),
    ("resnet-B", "group", SHAPES["1d-3"], "gelu"),
    ("vgg", "layer", SHAPES["2d"], "relu"),
    ("vgg", "group", SHAPES["1d"], "tanh"),
    ("vit", "layer", SHAPES["1d-3"], "gelu"),
    ("vit", "none", SHAPES["1d"], "tanh"),
    ("vit", "layer", SHAPES["2d-3"], "relu"),
]
every_case = pytest.mark.parametrize(("model", "norm_layer", "input_shape", "activation"), CASES)
every_order = pytest.mark.parametrize("is_shared", [True, False], ids=["shared order", "order per lane"])


class Case:
    """K lanes with weights, norms and statistics of their own, and the plain networks beside them."""

    def __init__(self, model, norm_layer, input_shape, activation):
        leaves = {"norm_layer": norm_layer, "activation": activation, "weight_decay": 0.01, "num_steps": 8}
        model, _, shortcut = model.partition("-")
        leaves |= {"shortcut": shortcut} if shortcut else {}
        self.setting = small_setting(model, precision="float64", **leaves)
        self.dataset = small_dataset(input_shape).to(torch.device("cpu"), torch.float64)
        generator = torch.Generator().manual_seed(0)

        def shift(value):
            return value + 0.1 * torch.rand(value.shape, generator=generator, dtype=value.dtype)

        states = [initial_state(self.setting, self.dataset, seed=k) for k in range(NUM_LANES)]
        self.state = lanes.stack(states).map(shift)  # momentum is not zero either
        self.plain = [plain(self.setting, input_shape, self.state, k) for k in range(NUM_LANES)]

    def orders(self, is_shared):
        if is_shared:
            return [reference_order(self.setting, 0)] * NUM_LANES
        return [control_order(self.setting, 0, 0, k) for k in range(NUM_LANES)]

    def compare(self, state, tolerance=TOLERANCE):
        for k, network in enumerate(self.plain):
            for name, value in network.named_parameters():
                torch.testing.assert_close(state.parameters[name][k].reshape(value.shape), value.detach(), **tolerance)
            for name, value in state.buffers.items():
                torch.testing.assert_close(value[k], network.get_buffer(name), **tolerance)


@every_order
@every_case
def test_logits_gradients_and_statistics(model, norm_layer, input_shape, activation, is_shared):
    case = Case(model, norm_layer, input_shape, activation)
    network = build_model(case.setting, case.dataset, seed=0)
    lanes.write(case.state, network)
    indices = [order.batch(0) for order in case.orders(is_shared)]
    chosen = indices[0] if is_shared else torch.stack(indices)
    for is_training in (False, True):
        network.train(is_training)
        logits = network(case.dataset.train_inputs[chosen])
        losses = lane_losses(logits, case.dataset.train_labels[chosen])
        network.zero_grad()
        losses.sum().backward()
        for k, single in enumerate(case.plain):
            single.train(is_training)
            single.zero_grad()
            expected = single(case.dataset.train_inputs[indices[k]])
            torch.testing.assert_close(logits[k], expected, **TOLERANCE)
            loss = cross_entropy(expected, case.dataset.train_labels[indices[k]])
            torch.testing.assert_close(losses[k], loss, **TOLERANCE)
            loss.backward()
            for name, parameter in single.named_parameters():
                gradient = network.get_parameter(name).grad[k].reshape(parameter.shape)
                torch.testing.assert_close(gradient, parameter.grad, **TOLERANCE)
                assert parameter.grad.abs().max() > 0
    case.compare(lanes.LaneState(dict(network.named_parameters()), dict(network.named_buffers()), {}))


@every_order
@every_case
def test_five_steps_of_sgd(model, norm_layer, input_shape, activation, is_shared):
    case = Case(model, norm_layer, input_shape, activation)
    setting, orders = case.setting, case.orders(is_shared)
    trainer = LaneTrainer(setting, case.dataset, case.state, seed=0)
    trainer.advance(5, orders[:1] if is_shared else orders)
    assert (trainer.step, trainer.lane_steps) == (5, 5 * NUM_LANES)
    for k, single in enumerate(case.plain):
        single.train()
        optimizer = torch.optim.SGD(
            single.parameters(), lr=setting.lr, momentum=setting.momentum, weight_decay=setting.weight_decay
        )
        for name, parameter in single.named_parameters():
            momentum = case.state.optimizer[name, "momentum_buffer"][k].reshape(parameter.shape).clone()
            optimizer.state[parameter]["momentum_buffer"] = momentum
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=setting.num_steps)
        for step in range(5):
            indices = orders[k].batch(step)
            optimizer.zero_grad()
            loss = cross_entropy(single(case.dataset.train_inputs[indices]), case.dataset.train_labels[indices])
            loss.backward()
            optimizer.step()
            schedule.step()
        for name, parameter in single.named_parameters():
            momentum = trainer.state.optimizer[name, "momentum_buffer"][k].reshape(parameter.shape)
            torch.testing.assert_close(momentum, optimizer.state[parameter]["momentum_buffer"], **AFTER_STEPS)
    case.compare(trainer.state, AFTER_STEPS)


@pytest.mark.parametrize("num_steps", [1, 7, 100])
@pytest.mark.parametrize(
    ("leaves", "expected"),
    [
        ({"schedule": "constant"}, lambda opt, _: torch.optim.lr_scheduler.ConstantLR(opt, factor=1.0)),
        ({"schedule": "cosine"}, lambda opt, steps: torch.optim.lr_scheduler.CosineAnnealingLR(opt, T_max=steps)),
        (
            {"schedule": "step", "milestones": [0.3, 0.85], "gamma": 0.2},
            lambda opt, steps: torch.optim.lr_scheduler.MultiStepLR(
                opt, milestones=[round(0.3 * steps), round(0.85 * steps)], gamma=0.2
            ),
        ),
    ],
    ids=["constant", "cosine", "step"],
)
def test_schedules_are_torchs(leaves, expected, num_steps):
    setting = small_setting(lr=0.3, num_steps=num_steps, **leaves)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    schedule = expected(optimizer, num_steps)
    rates = []
    for step in range(num_steps):
        # torch computes its rates by recursion: some hundred roundings.
        assert learning_rate(setting, step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-10, abs=1e-12)
        rates.append(learning_rate(setting, step))
        optimizer.step()
        schedule.step()
    assert rates[0] == 0.3 or num_steps == 1
    assert (len(set(rates)) == 1) == (setting.schedule == "constant" or num_steps == 1)
