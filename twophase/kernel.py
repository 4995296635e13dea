"""Empirical neural tangent kernels (eNTK) of any torch module, and what is said of one kernel.

With J(x) = ∂f(x)/∂θ, [C, P], the Jacobian of the C logits, the kernel of two inputs is J(x) J(x′)ᵀ (Jacot, Gabriel,
Hongler 2018, arXiv:1806.07572). The literature seldom says what becomes of the logits; here every kind is the Gram
matrix of w(x) J(x) for rows w(x) that read the logits out, and the kind's name goes with every number made from it.
"""

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from twophase.errors import BadInput, unknown
from twophase.seeding import stream

MEMORY_BYTES = 1 << 30
BATCH = 256
"""Inputs of one forward pass where nothing is differentiated."""

Readout = Callable[[Tensor, Tensor | None, int], Tensor]
"""(logits [N, C], labels [N], seed) -> w [N, R, C]: what of the logits a kernel is made of."""


def _all_logits(logits: Tensor, labels: Tensor | None, seed: int) -> Tensor:  # noqa: ARG001
    return torch.eye(logits.shape[1], dtype=logits.dtype, device=logits.device).expand(len(logits), -1, -1)


def _scaled_sum(logits: Tensor, labels: Tensor | None, seed: int) -> Tensor:  # noqa: ARG001
    return torch.full_like(logits, 1.0 / math.sqrt(logits.shape[1])).unsqueeze(1)


def _loss_gradient(logits: Tensor, labels: Tensor | None, seed: int) -> Tensor:  # noqa: ARG001
    if labels is None:
        raise BadInput("labels must be given for kernel 'loss_gradient', got None")
    one_hot = nn.functional.one_hot(labels, logits.shape[1])
    return (logits.softmax(1) - one_hot).unsqueeze(1)


def _random_signs(logits: Tensor, labels: Tensor | None, seed: int) -> Tensor:  # noqa: ARG001
    signs = torch.randint(0, 2, logits.shape, generator=stream(seed, "kernel projection")) * 2 - 1
    return signs.to(logits).unsqueeze(1)


KINDS: dict[str, Readout] = {
    "full": _all_logits,
    "trace": _all_logits,
    "pseudo": _scaled_sum,
    "loss_gradient": _loss_gradient,
    "projection": _random_signs,
}

NO_DIAGONAL = frozenset({"projection"})
"""Kinds whose diagonal says nothing, so that they have no trace and no effective rank."""


def entk(
    module: nn.Module,
    inputs: Tensor,
    kind: str = "full",
    *,
    labels: Int[Tensor, " N"] | None = None,
    seed: int = 0,
    memory_bytes: int = MEMORY_BYTES,
) -> Float[Tensor, "M M"]:
    """Compute an empirical neural tangent kernel.

    ============= ========== ==================================================================================
    kind          shape      H of inputs n, m (and logits c, d)
    ============= ========== ==================================================================================
    full          [NC, NC]   ⟨∇f_c(x_n), ∇f_d(x_m)⟩ at row n·C + c, column m·C + d; the definition of the paper
    trace         [N, N]     Σ_c ⟨∇f_c(x_n), ∇f_c(x_m)⟩
    pseudo        [N, N]     ⟨∇Σ_c f_c(x_n), ∇Σ_c f_c(x_m)⟩ / C (Mohamadi, Bae, Sutherland 2023, arXiv:2206.12543)
    loss_gradient [N, N]     ⟨∇L(x_n, y_n), ∇L(x_m, y_m)⟩, L the cross-entropy
    projection    [N, N]     r_nᵀ H_full(n, m) r_m with one random sign per input and logit; the diagonal, whose
                             square isn't that of the full kernel in expectation, is 0
    ============= ========== ==================================================================================

    Distances between kernels depend on the kind: for the full kernel's, take ``full``, or ``projection`` where it is
    too large. Gradients are with respect to all parameters that require one, in the parameters' own precision, with
    the module in evaluation mode (its mode is put back). Nothing of the module is changed.

    Args:
        module: Any module from N inputs to logits [N, C]; every row must depend on its own input alone.
        inputs: N inputs, [N, ...].
        kind: One of the above.
        labels: Classes of the inputs, [N]; needed by ``loss_gradient``.
        seed: Seed of ``projection``'s signs: kernels that are to be compared need the same.
        memory_bytes: Bound on the Jacobians held at a time; a smaller one costs time, not accuracy. Two inputs'
            Jacobians are the least.

    Returns:
        The kernel, symmetric, on the inputs' device.

    Raises:
        BadInput: The kind is unknown, labels are missing, the module has no parameter that requires a gradient, or
            doesn't return [N, C].

    References:
        Zhou, Yang, Sugiyama, Yan 2025, arXiv:2505.13900, section 4.
    """
    if kind not in KINDS:
        raise unknown("kernel", kind, KINDS)
    parameters = {name: value.detach() for name, value in module.named_parameters() if value.requires_grad}
    if not parameters:
        raise BadInput("module must have a parameter that requires a gradient, got none")
    with _evaluating(module), _exact_products():
        readout = KINDS[kind](_logits(module, inputs), labels, seed)
        jacobian = _Jacobian(module, parameters, inputs)
        if kind != "trace":
            kernel = _gram(jacobian, readout, memory_bytes)
        else:
            # One logit at a time: its Jacobian is C times smaller.
            kernel = torch.stack([_gram(jacobian, row.unsqueeze(1), memory_bytes) for row in readout.unbind(1)]).sum(0)
    return kernel.fill_diagonal_(0.0) if kind == "projection" else kernel


def kernel_distance(h1: Tensor, h2: Tensor) -> float:
    """S = 1 − ⟨H₁, H₂⟩_F / (‖H₁‖_F ‖H₂‖_F), the kernel distance of arXiv:2505.13900 and arXiv:2010.15110.

    Computed in float64 as ½ ‖H₁/‖H₁‖ − H₂/‖H₂‖‖², which is the same and keeps its digits when the two almost coincide.
    Blind to scale.

    Args:
        h1: A kernel, [M, M].
        h2: Another, of the same shape.

    Returns:
        The distance, in [0, 2]; NaN if a kernel is 0 or not finite.

    Raises:
        BadInput: The shapes differ.
    """
    if h1.shape != h2.shape:
        raise BadInput(f"kernels must have one shape, got {tuple(h1.shape)} and {tuple(h2.shape)}")
    first, second = (kernel.double() / torch.linalg.vector_norm(kernel.double()) for kernel in (h1, h2))
    return 0.5 * float((first - second).square().sum())


@dataclass(frozen=True)
class KernelSummary:
    """What is said of a single kernel.

    Attributes:
        norm: ‖H‖_F.
        trace: tr H.
        effective_rank: tr² H / ‖H‖²_F, between 1 and the number of rows.
        alignment: ỹᵀHỹ / (‖H‖_F ‖ỹ‖²), ỹ the centred one-hot labels (Cristianini et al. 2001); for an [N, N] kernel
            summed over classes.
    """

    norm: float
    trace: float
    effective_rank: float
    alignment: float


def summarise(kernel: Float[Tensor, "M M"], labels: Int[Tensor, " N"], num_classes: int) -> KernelSummary:
    """Describe a kernel of N inputs, [N·C, N·C] or [N, N], in float64.

    Args:
        kernel: The kernel.
        labels: Classes of its inputs, [N].
        num_classes: Number of classes C.

    Returns:
        Its summary; NaN where the kernel is 0 or not finite.
    """
    exact = kernel.double()
    target = nn.functional.one_hot(labels, num_classes).double()
    target = target - target.mean(0)
    columns = target.flatten().unsqueeze(1) if len(kernel) == target.numel() else target
    norm, trace = float(torch.linalg.vector_norm(exact)), float(exact.trace())
    reached = float((columns * (exact @ columns)).sum())
    size = norm * float(target.square().sum())
    return KernelSummary(
        norm,
        trace,
        trace**2 / norm**2 if norm else float("nan"),
        reached / size if size else float("nan"),
    )


class _Jacobian:
    """Gradients of w(x) f(x) for some of the inputs, as [n·R, P_i] per parameter."""

    def __init__(self, module: nn.Module, parameters: Mapping[str, Tensor], inputs: Tensor) -> None:
        fixed = dict(module.named_buffers())
        fixed |= {name: value.detach() for name, value in module.named_parameters() if name not in parameters}

        # On a copy: functional_call doesn't put a submodule back that is registered under two names.
        module = copy.deepcopy(module)

        def read(values: dict[str, Tensor], example: Tensor, rows_RC: Tensor) -> Tensor:
            logits: Tensor = functional_call(module, {**fixed, **values}, (example.unsqueeze(0),))
            return rows_RC @ logits[0]

        self._gradient = vmap(jacrev(read), in_dims=(None, 0, 0), randomness="error")
        self._parameters, self._inputs = dict(parameters), inputs
        self.bytes_per_row = sum(value.numel() * value.element_size() for value in parameters.values())

    def __call__(self, chosen: Tensor, readout_NRC: Tensor) -> list[Tensor]:
        gradients = self._gradient(self._parameters, self._inputs[chosen], readout_NRC[chosen])
        num_rows = len(chosen) * readout_NRC.shape[1]
        return [value.detach().reshape(num_rows, -1) for value in gradients.values()]


def _gram(jacobian: _Jacobian, readout_NRC: Tensor, memory_bytes: int) -> Tensor:
    """Products of all rows with all rows, two chunks of inputs at a time."""
    num_inputs, num_rows = readout_NRC.shape[:2]
    size = max(1, memory_bytes // (2 * num_rows * jacobian.bytes_per_row))
    chunks = torch.split(torch.arange(num_inputs, device=readout_NRC.device), size)
    kernel = readout_NRC.new_empty(num_inputs * num_rows, num_inputs * num_rows)
    start = 0
    for i, chosen in enumerate(chunks):
        left = jacobian(chosen, readout_NRC)
        stop, column = start + len(chosen) * num_rows, 0
        for j, others in enumerate(chunks[: i + 1]):
            right = left if i == j else jacobian(others, readout_NRC)
            block = sum((a @ b.T for a, b in zip(left, right, strict=True)), start=left[0].new_zeros(()))
            end = column + len(others) * num_rows
            kernel[start:stop, column:end] = block
            kernel[column:end, start:stop] = block.T
            column = end
        start = stop
    return kernel


@torch.no_grad()
def _logits(module: nn.Module, inputs: Tensor) -> Float[Tensor, "N C"]:
    logits = torch.cat([module(batch) for batch in torch.split(inputs, BATCH)])
    if logits.dim() != 2 or len(logits) != len(inputs):
        raise BadInput(
            f"module must return logits [N, C] for N inputs, got shape {tuple(logits.shape)} for N = {len(inputs)}"
        )
    return logits


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode, every part's own mode put back after."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


@contextmanager
def _exact_products() -> Iterator[None]:
    """No TF32 on a GPU: distances between kernels are smaller than its rounding."""
    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = False
    try:
        yield
    finally:
        for backend, allowed in zip(backends, before, strict=True):
            backend.allow_tf32 = allowed
