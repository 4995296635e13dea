"""What a user's module must keep, tried on a tiny batch before anything starts."""

import warnings
from collections.abc import Iterable
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from twophase.dual import dual, level
from twophase.errors import BadInput
from twophase.models.pure_module import PureModule
from twophase.models.user_module import bad_build, make, say, seeded

BATCH = 5
"""Examples of the tiny batch."""

WIDTHS = (4, 5, 8)
"""Numbers of lanes that vmap must give the same bits for."""

SLOW = "There is a performance drop because we have not yet implemented the batching rule"
"""How torch tells that vmap is a loop over lanes inside, of which nothing is known."""


def _probe(input_shape: tuple[int, ...]) -> Tensor:
    return torch.randn(BATCH, *input_shape, generator=torch.Generator().manual_seed(0))


@lru_cache
def check_module(build: str, input_shape: tuple[int, ...], num_classes: int) -> None:
    """Check a user's module.

    Args:
        build: Name of the function that makes it.
        input_shape: Shape of one input, channels first.
        num_classes: Number of classes C.

    Raises:
        BadInput: What it can't be used for, and why.
    """
    modules = [make(build, input_shape, num_classes, seed) for seed in (1, 1, 2)]
    _check_tensors(build, modules[0])
    first, again, other = (PureModule(module) for module in modules)
    for pure in (again, other):
        if [(n, v.shape) for n, v in pure.parameters.items()] != [(n, v.shape) for n, v in first.parameters.items()]:
            raise bad_build(build, "must give the same parameters, by name and shape, each time")
    if not all(torch.equal(value, again.parameters[name]) for name, value in first.parameters.items()):
        raise bad_build(build, "must draw its parameters from torch's generator, got other values under the same seed")
    try:
        with seeded(0):
            _check_calls(build, first, other, _probe(input_shape), num_classes)
    except BadInput:
        raise
    except Exception as error:  # a user's code may raise anything
        raise bad_build(build, f"fails on {BATCH} inputs of shape {input_shape}: {say(error)}") from error


def _check_tensors(build: str, module: nn.Module) -> None:
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise bad_build(build, "must return a module with parameters that require a gradient, got none")
    for name, parameter in module.named_parameters():
        if is_lazy(parameter):
            raise bad_build(build, f"must not have lazy parameters: '{name}' has no shape before the first call")
        if not parameter.is_floating_point():
            raise bad_build(build, f"must have real floating-point parameters, got {parameter.dtype} for '{name}'")
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.device.type != "cpu":
            raise bad_build(build, f"must build on the CPU, got '{name}' on {tensor.device}")
        if tensor.is_sparse or tensor.is_quantized or tensor.is_complex():
            raise bad_build(build, f"must have dense real parameters and buffers, got '{name}'")


def _check_calls(build: str, pure: PureModule, other: PureModule, inputs: Tensor, num_classes: int) -> None:
    module, drawn = pure.module, {name: value.clone() for name, value in pure.parameters.items()}
    for is_training in (True, False):
        pure.set_mode(is_training=is_training, is_noisy=is_training)
        logits = module(inputs)
        if not isinstance(logits, Tensor) or logits.shape != (len(inputs), num_classes):
            got = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
            raise bad_build(build, f"must map [B, *{tuple(inputs.shape[1:])}] to [B, {num_classes}] logits, got {got}")
        if not logits.requires_grad:
            raise bad_build(build, "must give logits that depend on its parameters, got some that require no gradient")
    pure.set_mode(is_training=False, is_noisy=False)
    if not all(torch.equal(pure.parameters[name], value) for name, value in drawn.items()):
        raise bad_build(build, "must leave its parameters to the optimiser, got others after a call")
    alone = torch.cat([module(example.unsqueeze(0)) for example in inputs])
    if not _is_close(module(inputs), logits):
        raise bad_build(build, "must be a function of its input in evaluation mode, got two answers to the same batch")
    if not _is_close(alone, logits):
        raise bad_build(build, "must treat each example by itself in evaluation mode, got logits that depend on others")
    other.set_mode(is_training=False, is_noisy=False)
    replaced, _ = pure.call(other.parameters, other.buffers, inputs)
    if not _is_close(replaced, other.module(inputs)):
        raise bad_build(build, "must use its parameters as it is called, got logits of parameters kept elsewhere")
    pure.set_mode(is_training=True, is_noisy=True)
    lane, held = ({n: value.unsqueeze(0) for n, value in part.items()} for part in (pure.parameters, pure.buffers))
    first, second = (pure.by_loop(lane, held, inputs.unsqueeze(0), noise=0)[0] for _ in range(2))
    if not _is_close(first, second):
        raise bad_build(build, "must keep nothing from call to call but buffers, got two answers in training")


@lru_cache
def check_growth(build: str, input_shape: tuple[int, ...], num_classes: int) -> None:
    """Check that growth can be followed in a user's module, one that may be trained.

    Args:
        build: Name of the function that makes it.
        input_shape: Shape of one input, channels first.
        num_classes: Number of classes C.

    Raises:
        BadInput: Training steers by buffers that it changes, or one of its layers can't be linearised.
    """
    pure = PureModule(make(build, input_shape, num_classes, seed=0).double())
    pure.set_mode(is_training=True, is_noisy=True)
    buffers = {name: value.clone() for name, value in pure.buffers.items()}
    leaves = {name: value.clone().requires_grad_() for name, value in pure.parameters.items()}
    try:
        with warnings.catch_warnings(), seeded(0), level():
            warnings.simplefilter("ignore")
            duals = {name: dual(value, torch.ones_like(value)) for name, value in leaves.items()}
            logits, after = pure.call(duals, buffers, _probe(input_shape).double())
            torch.autograd.grad(logits.square().sum(), list(duals.values()), allow_unused=True)
    except Exception as error:  # what torch has no rule for, it says in several ways
        raise bad_build(build, f"can't be linearised, so that growth must be left out: {say(error)}") from error
    statistics = {name for names in pure.norms.values() for name in names.values()}
    changed = [name for name, value in after.items() if not torch.equal(value, pure.buffers[name])]
    other = next((name for name in changed if name not in statistics), None)
    if other is not None:
        raise bad_build(build, f"changes its buffer '{other}' in training, so that growth must be left out")


@lru_cache
def check_switch(build: str, input_shape: tuple[int, ...], num_classes: int) -> None:
    """Check that a user's module, one that may be trained, has a derivative forwards and backwards in evaluation.

    Args:
        build: Name of the function that makes it.
        input_shape: Shape of one input, channels first.
        num_classes: Number of classes C.

    Raises:
        BadInput: One of its layers can't be linearised.
    """
    pure = PureModule(make(build, input_shape, num_classes, seed=0))
    pure.set_mode(is_training=False, is_noisy=False)
    try:
        with warnings.catch_warnings(), torch.no_grad(), level():
            warnings.simplefilter("ignore")
            duals = {name: dual(value, torch.ones_like(value)) for name, value in pure.parameters.items()}
            pure.call(duals, pure.buffers, _probe(input_shape))
    except Exception as error:  # what torch has no rule for, it says in several ways
        raise bad_build(build, f"can't be linearised, so that switch must be left out: {say(error)}") from error


@lru_cache
def is_vmap_exact(build: str, input_shape: tuple[int, ...], num_classes: int) -> bool:
    """Tell whether a module's lanes may be computed by vmap.

    They may if it gives what a loop over lanes does, in evaluation and in training with noise: logits, buffers and
    gradients; and if lane 0, and a lane equal to it, get the same bits in batches of 4, 5 and 8 lanes.

    Args:
        build: Name of the function that makes it.
        input_shape: Shape of one input, channels first.
        num_classes: Number of classes C.

    Returns:
        False where vmap fails as well: then the loop is what there is.
    """
    pure = PureModule(make(build, input_shape, num_classes, seed=0))
    inputs = _probe(input_shape)
    for is_training in (False, True):
        pure.set_mode(is_training=is_training, is_noisy=is_training)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.filterwarnings("error", message=SLOW)
            try:
                found = [_everything(pure, inputs, num_lanes, is_vmapped=True) for num_lanes in WIDTHS]
            except Exception:  # noqa: BLE001 - vmap's refusals have no type in common; the loop then answers for itself
                return False
            expected = _everything(pure, inputs, WIDTHS[0], is_vmapped=False)
        if not all(_is_close(a, b) for a, b in zip(found[0], expected, strict=True)):
            return False
        if not all(_same_bits(values, found[0]) for values in found):
            return False
    return True


def _everything(pure: PureModule, inputs: Tensor, num_lanes: int, *, is_vmapped: bool) -> list[Tensor]:
    """Logits, buffers and gradients of lanes of which the third equals the first."""
    generator = torch.Generator().manual_seed(0)

    def stacked(value: Tensor) -> Tensor:
        lanes = [value + 0.1 * torch.randn(value.shape, generator=generator, dtype=value.dtype) for _ in range(2)]
        return torch.stack([lanes[0], lanes[1], lanes[0], *lanes[1:] * num_lanes][:num_lanes]).requires_grad_()

    parameters = {name: stacked(value) for name, value in pure.parameters.items()}
    buffers = {name: torch.stack([value] * num_lanes) for name, value in pure.buffers.items()}
    run = pure.by_vmap if is_vmapped else pure.by_loop
    logits, after = run(parameters, buffers, inputs.expand(num_lanes, *inputs.shape), 0)
    torch.autograd.backward(logits.square().sum())
    # Together: a bias before a normalisation has a gradient of rounding errors only.
    gradients = torch.cat([p.grad.flatten(1) for p in parameters.values() if p.grad is not None], 1)
    return [logits.detach(), *(value.detach() for value in after.values()), gradients]


def _same_bits(values: Iterable[Tensor], reference: Iterable[Tensor]) -> bool:
    return all(
        torch.equal(value[0], value[2]) and torch.equal(value[0], known[0])
        for value, known in zip(values, reference, strict=True)
    )


def _is_close(found: Tensor, expected: Tensor) -> bool:
    """Whether they differ by rounding only: 1e-3 of the norm, far above it in float32 and far below a mistake."""
    found, expected = found.double(), expected.double()
    apart, size = torch.linalg.vector_norm(found - expected), torch.linalg.vector_norm(expected)
    return bool(apart <= 1e-3 * size) or (not bool(size.isfinite()) and torch.equal(found.isnan(), expected.isnan()))
