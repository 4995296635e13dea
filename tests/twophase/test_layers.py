"""Dropout that all lanes share, and what layers tell of themselves."""

import pytest
import torch
from samples import SHAPES, small_dataset, small_setting

from twophase import lanes
from twophase.config import NORM_LAYERS, Protocol, Trial
from twophase.dual import differentiable, level, tangent_of
from twophase.evaluation import Evaluator
from twophase.models import MODELS
from twophase.models.layers import LaneDropout, LaneLinear, LaneWeights, num_groups
from twophase.training import LaneTrainer, build_model, initial_state, reference_order
from twophase.update_map import point_of, update_map

ZOO = sorted(set(MODELS) - {"custom"})
NORMED = [("mlp", "layer"), ("cnn", "group"), ("resnet", "layer"), ("vgg", "batch"), ("vit", "layer")]
every_model = pytest.mark.parametrize("model", ZOO)


@pytest.mark.parametrize("shape", [(3, 40, 50), (40, 3 * 10, 1, 5), (40, 3 * 5, 2, 5)], ids=str)
def test_one_mask_for_all_lanes(shape):
    dropout = LaneDropout(0.3)
    x = torch.ones(shape)
    assert torch.equal(dropout(x, 3), x)  # nothing to draw from
    dropout.noise = (0, 7, 1)
    y = dropout(x, 3)
    of_lanes = y if y.dim() == 3 else y.view(40, 3, -1, *shape[2:]).transpose(0, 1)
    assert torch.equal(of_lanes[0], of_lanes[1])
    assert torch.equal(of_lanes[0], of_lanes[2])
    assert set(y.unique().tolist()) == {0.0, (torch.ones(()) / (1 - 0.3)).item()}
    # 2,000 draws: four standard deviations are 0.041.
    assert float((of_lanes[0] == 0).double().mean()) == pytest.approx(0.3, abs=0.041)
    assert torch.equal(dropout(x, 3), y)
    for other in ((1, 7, 1), (0, 8, 1), (0, 7, 2)):
        dropout.noise = other
        assert not torch.equal(dropout(x, 3), y)
    assert torch.equal(dropout.eval()(x, 3), x)


@every_model
def test_dropout_is_of_the_step_whatever_a_lane_trains_on(model):
    dataset = small_dataset(SHAPES["2d-3"])
    leaves = {"precision": "float64", "norm_layer": "none"}
    network = build_model(small_setting(model, dropout=0.4, **leaves), dataset, seed=0)
    without = build_model(small_setting(model, **leaves), dataset, seed=0)
    lanes.write(lanes.take(lanes.LaneState(dict(without.named_parameters()), {}, {}), [0] * 4), network)
    inputs = dataset.train_inputs[:8].double()
    expected = without(inputs)[0]
    network.train()
    torch.testing.assert_close(network(inputs)[2], expected)
    network.set_noise(0, 5)
    noisy = network(inputs)
    assert not torch.allclose(noisy[0], expected, rtol=1e-2)
    assert torch.equal(noisy[0], noisy[3])
    torch.testing.assert_close(network(inputs.expand(4, *inputs.shape)), noisy)
    network.set_noise(0, 6)
    assert not torch.allclose(network(inputs)[0], noisy[0], rtol=1e-2)
    # Every layer draws for itself.
    assert len({module.noise for module in network.modules() if isinstance(module, LaneDropout)}) == sum(
        isinstance(module, LaneDropout) for module in network.modules()
    )
    torch.testing.assert_close(network.eval()(inputs)[1], expected)


@every_model
def test_evaluation_knows_no_dropout(model):
    dataset = small_dataset()
    with_it, without = (small_setting(model, dropout=dropout) for dropout in (0.5, 0.0))
    state = initial_state(without, dataset, 0)
    for recompute in (False, True):
        scores = [
            Evaluator(Trial(point, 0, Protocol(train_sample=300)), dataset).scores(state, recompute=recompute)
            for point in (with_it, without)
        ]
        assert vars(scores[0]) == vars(scores[1])


@pytest.mark.parametrize(
    ("model", "norm_layer"),
    [(m, n) for m in ZOO for n in MODELS[m].choices.get("norm_layer", NORM_LAYERS) if n != "none" and m != "vit"],
)
def test_a_layer_before_a_norm_may_be_scaled(model, norm_layer):
    """What `is_normed` says: weight and bias times a factor change nothing; elsewhere they do."""
    dataset = small_dataset(SHAPES["2d-3"])
    network = build_model(small_setting(model, norm_layer=norm_layer, precision="float64"), dataset, seed=0).train()
    inputs = dataset.train_inputs[:32].double()
    expected = network(inputs)
    layers = [module for module in network.modules() if isinstance(module, LaneWeights)]
    assert sum(layer.is_normed for layer in layers) == len(layers) - 1
    for layer in layers:
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.mul_(10.0)
            scaled = network(inputs)
            for parameter in layer.parameters():
                parameter.div_(10.0)
        # Norms add 1e-5 to a variance: of the smallest inputs here some thousandths.
        assert torch.allclose(scaled, expected, rtol=0.05, atol=0.05) == layer.is_normed


@pytest.mark.parametrize("init", ["he", "torch"])
def test_weights_are_drawn_with_the_deviation_told(init):
    layer = LaneLinear(100, 500)
    layer.reset(init, torch.Generator().manual_seed(0))
    assert layer.fan_in == 100
    # 50,000 draws: 1 % is above three standard errors.
    assert float(layer.weight.detach().std()) == pytest.approx(layer.draws(init)["weight"].std, rel=0.01)


def test_number_of_groups():
    expected = {1: 1, 3: 1, 4: 1, 6: 1, 7: 1, 8: 2, 12: 3, 16: 4, 48: 12, 64: 16, 128: 32, 512: 32, 10: 2}
    assert {channels: num_groups(channels) for channels in expected} == expected


@every_model
def test_width_and_depth_may_be_swept(model):
    dataset = small_dataset(SHAPES["1d"])
    small = small_setting(model)
    deeper = next(depth for depth in MODELS[model].ranges["depth"] if depth > small.depth)
    sizes = [
        sum(p.numel() for p in build_model(small_setting(model, **leaves), dataset, 0).parameters())
        for leaves in ({}, {"width": small.width + 2}, {"depth": deeper})
    ]
    assert sizes[0] < min(sizes[1:])


@pytest.mark.parametrize(
    ("model", "leaves"),
    [(m, {"norm_layer": n, "dropout": 0.2}) for m, n in NORMED] + [("custom", {"build": "custom_nets:conv"})],
    ids=str,
)
# PyTorch loads formulas of forward mode by a way that it warns of.
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_the_update_map_is_the_trainers_step_and_its_tangent_the_difference(model, leaves):
    """Dropout's mask, norms and a module's buffers included."""
    point = small_setting(model, precision="float64", **leaves)
    dataset = small_dataset().to(torch.device("cpu"), torch.float64)
    start = lanes.take(initial_state(point, dataset, 0), [0] * 4)
    update, (theta, moments) = update_map(point, dataset, 0), point_of(start)
    trainer = LaneTrainer(point, dataset, start, seed=0)
    trainer.advance(1, [reference_order(point, 0)])
    after, _ = update((theta, moments), 0)
    for name, value in trainer.state.parameters.items():
        torch.testing.assert_close(after[name].detach(), value, rtol=1e-10, atol=1e-12)
    generator = torch.Generator().manual_seed(0)
    push = {n: torch.randn(v.shape, generator=generator, dtype=v.dtype) for n, v in theta.items()}
    with level():
        made, _ = update(({name: differentiable(value, push[name]) for name, value in theta.items()}, moments), 0)
        tangent = torch.cat([tangent_of(value).flatten() for value in made.values()])
    ahead, behind = (
        torch.cat(
            [v.flatten() for v in update(({n: v + e * push[n] for n, v in theta.items()}, moments), 0)[0].values()]
        )
        for e in (1e-6, -1e-6)
    )
    # Central differences at 1e-6: some 1e-10 of rounding, and as much of the third derivative.
    difference = (ahead - behind).detach() / 2e-6
    assert float((tangent - difference).norm() / difference.norm()) < 1e-6
