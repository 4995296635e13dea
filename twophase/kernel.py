"""Empirical neural tangent kernels (eNTK) of any torch module, and what is said of one kernel.

With J(x) = ∂f(x)/∂θ, [C, P], the Jacobian of the C logits, the kernel of two inputs is J(x) J(x′)ᵀ (Jacot, Gabriel,
Hongler 2018, arXiv:1806.07572). The literature seldom says what becomes of the logits: the kind's name goes with every
number made from a kernel.

Layers with a rule (`twophase.kernels.rules`) add their blocks without forming the Jacobian. Parameters that no rule
answers for (of other layers; shared, used twice, or used outside their layer's call) are found by watching the
module run, and are differentiated by torch.func, or input by input where torch.func can't.
"""

import functools
import math
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from twophase.errors import BadInput
from twophase.kernels import layerwise
from twophase.kernels.arguments import check, checked_labels, converted
from twophase.kernels.planning import make_plan
from twophase.kernels.readouts import KINDS
from twophase.kernels.recording import Runs, checked_logits
from twophase.kernels.spectrum import NUM_EIGENVALUES, top_eigenvalues

__all__ = ["KINDS", "KernelSummary", "entk", "kernel_distance", "summarise"]

MEMORY_BYTES = 1 << 30
BATCH = 256
"""Inputs of one forward pass where nothing is differentiated."""


def entk(
    module: nn.Module,
    inputs: Tensor,
    kind: str = "full",
    *,
    labels: Int[Tensor, " N"] | None = None,
    seed: int = 0,
    dtype: torch.dtype | None = None,
    is_centred: bool = False,
    memory_bytes: int = MEMORY_BYTES,
) -> Float[Tensor, "M M"]:
    """Compute an empirical neural tangent kernel.

    ============= ========== ==================================================================================
    kind          shape      H of inputs n, m (and logits c, d)
    ============= ========== ==================================================================================
    full          [NC, NC]   ⟨∇f_c(x_n), ∇f_d(x_m)⟩ at row n·C + c, column m·C + d; the definition of the paper
    trace         [N, N]     Σ_c ⟨∇f_c(x_n), ∇f_c(x_m)⟩
    pseudo        [N, N]     ⟨∇Σ_c f_c(x_n), ∇Σ_c f_c(x_m)⟩ / C (Mohamadi, Bae, Sutherland 2023, arXiv:2206.12543)
    loss_gradient [N, N]     ⟨∇L(x_n, y_n), ∇L(x_m, y_m)⟩, L the cross-entropy (Chen et al. 2023, loss tangent kernel)
    projection    [N, N]     r_nᵀ H_full(n, m) r_m with one random sign per input and logit; the diagonal, whose
                             square isn't that of the full kernel in expectation, is 0
    ============= ========== ==================================================================================

    Distances between kernels depend on the kind: for the full kernel's, take ``full``, or ``projection`` where it is
    too large; how far the others are from it stands in docs/kernel.md. Gradients are with respect to all parameters
    that require one, with the module in evaluation mode (its mode is put back). Nothing of the module is changed.

    Args:
        module: From N inputs to logits [N, C]; every row must depend on its own input alone.
        inputs: N inputs, [N, ...].
        kind: One of the above.
        labels: Classes of the inputs, [N], in [0, C); needed by ``loss_gradient``.
        seed: Seed of ``projection``'s signs: kernels that are to be compared need the same.
        dtype: torch.float32 or torch.float64: module and inputs are copied to it; gradients, their products and the
            kernel are of it. By default of the parameters' own, but at least float32. Sums over more than 16,384
            parameters are taken in float64 either way.
        is_centred: Subtract from every gradient its mean over the inputs, logit by logit, so that the kernel is
            P H P with P = 1 − 11ᵀ/N over inputs (Cortes, Mohri, Rostamizadeh 2012, JMLR 13, equation 1).
        memory_bytes: Bound on what is held at a time beside the kernel; a smaller one costs time, not accuracy.

    Returns:
        The kernel, exactly symmetric, on the inputs' device.

    Raises:
        BadInput: An argument breaks a rule above, or the module does: no parameter requires a gradient, it doesn't
            return [N, C], computes a row from other rows' inputs too, or has reentrant checkpoints.

    References:
        arXiv:2505.13900, section 4; for the computation Novak, Sohl-Dickstein, Schoenholz 2022, arXiv:2206.08720.
    """
    check(module, inputs, kind, seed=seed, memory_bytes=memory_bytes)
    if is_centred and not KINDS[kind].has_diagonal:
        raise BadInput(f"is_centred must be False for kernel '{kind}', which has no diagonal to take a mean over")
    with _as_written(module, inputs.device.type):
        module, inputs = converted(module, inputs, dtype)
        kernel = _kernel(module, inputs, kind, labels, seed, memory_bytes)
    if not KINDS[kind].has_diagonal:
        kernel.fill_diagonal_(0.0)
    return _centred(kernel, len(inputs)) if is_centred else kernel


def _kernel(module: nn.Module, inputs: Tensor, kind: str, labels: object, seed: int, memory_bytes: int) -> Tensor:
    chosen = KINDS[kind]
    runs, num_rows = Runs(module, inputs), None if chosen.is_per_logit else 1
    plan = make_plan(runs, num_rows, is_summed=chosen.is_summed, memory_bytes=memory_bytes)
    classes = checked_labels(labels, len(inputs), plan.logits)
    logits = _logits(module, inputs) if chosen.uses_logits else plan.logits.expand(len(inputs), -1)
    precisions = [value.dtype for value in module.parameters() if value.requires_grad]
    readout = chosen.read(logits, classes, seed).to(functools.reduce(torch.promote_types, precisions))
    return layerwise.gram(runs, readout, plan, is_summed=chosen.is_summed, memory_bytes=memory_bytes)


@torch.no_grad()
def _logits(module: nn.Module, inputs: Tensor) -> Tensor:
    return torch.cat([checked_logits(module(batch.clone()), len(batch)) for batch in torch.split(inputs, BATCH)])


def _centred(kernel: Tensor, num_inputs: int) -> Tensor:
    """P H P for P = 1 − 11ᵀ/N over inputs, in float64: means are taken away that are most of what there is."""
    rows = len(kernel) // num_inputs
    exact = kernel.double().view(num_inputs, rows, num_inputs, rows)
    exact = exact - exact.mean(0, keepdim=True)
    exact = (exact - exact.mean(2, keepdim=True)).reshape(kernel.shape)
    return (0.5 * (exact + exact.T)).to(kernel.dtype)


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
        BadInput: The shapes differ, or one is no real, non-empty tensor.
    """
    for kernel in (h1, h2):
        if not isinstance(kernel, Tensor) or not kernel.numel() or kernel.is_complex():
            raise BadInput(f"kernels must be real, non-empty tensors, got {_described(kernel)}")
    if h1.shape != h2.shape:
        raise BadInput(f"kernels must have one shape, got {tuple(h1.shape)} and {tuple(h2.shape)}")
    first, second = _unit(h1), _unit(h2.to(h1.device))
    return 0.5 * float((first - second).square().sum())


def _described(kernel: object) -> str:
    return f"shape {tuple(kernel.shape)} of {kernel.dtype}" if isinstance(kernel, Tensor) else type(kernel).__name__


def _unit(kernel: Tensor) -> Tensor:
    """H/‖H‖ in float64, by way of H over its greatest entry, whose square neither over- nor underflows."""
    exact = kernel.double()
    exact = exact / exact.abs().max()
    unit: Tensor = exact / torch.linalg.vector_norm(exact)
    return unit


@dataclass(frozen=True)
class KernelSummary:
    """What is said of a single kernel.

    Attributes:
        norm: ‖H‖_F.
        trace: tr H.
        effective_rank: tr² H / ‖H‖²_F, between 1 and the number of rows.
        alignment: ỹᵀHỹ / (‖H‖_F ‖ỹ‖²), ỹ the centred one-hot labels (Cristianini et al. 2001); for an [N, N] kernel
            summed over classes.
        eigenvalues: The five greatest, descending; NaN where there are fewer.
    """

    norm: float
    trace: float
    effective_rank: float
    alignment: float
    eigenvalues: tuple[float, ...] = (math.nan,) * NUM_EIGENVALUES

    @property
    def row(self) -> dict[str, float]:
        """Columns of the `kernel` table."""
        named = {f"eigenvalue_{i}": value for i, value in enumerate(self.eigenvalues, 1)}
        return {name: value for name, value in asdict(self).items() if name != "eigenvalues"} | named

    def without_diagonal(self) -> "KernelSummary":
        """What is left to say of a kernel whose diagonal says nothing."""
        return KernelSummary(self.norm, math.nan, math.nan, self.alignment)


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
    scale = float(exact.abs().max())
    exact = exact / scale  # so that squares neither over- nor underflow
    target = nn.functional.one_hot(labels, num_classes).double()
    target = target - target.mean(0)
    columns = target.flatten().unsqueeze(1) if len(kernel) == target.numel() else target
    norm, trace = float(torch.linalg.vector_norm(exact)), float(exact.trace())
    reached = float((columns * (exact @ columns)).sum())
    size = norm * float(target.square().sum())
    if scale == 0.0:
        return KernelSummary(0.0, 0.0, math.nan, math.nan, top_eigenvalues(kernel))
    alignment = reached / size if size else math.nan
    return KernelSummary(scale * norm, scale * trace, (trace / norm) ** 2, alignment, top_eigenvalues(kernel))


@contextmanager
def _as_written(module: nn.Module, device: str) -> Iterator[None]:
    """Evaluation mode, gradients, exact products; nothing compiled and no autocast."""
    with ExitStack() as stack:
        for context in (_evaluating(module), _exact_products(), torch.inference_mode(False), torch.enable_grad()):
            stack.enter_context(context)
        if "torch._dynamo" in sys.modules:  # where something is compiled, run it as it was written: hooks see no other
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(torch.autocast(device, enabled=False))
        yield


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
