"""Engines side by side: seconds per useful child-step of `auto`, of a plain loop, and of torch.func's vmap.

Useful is what a child trains. The reference counts as overhead for all three, sentinels and padding for ours.
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import plain
from benchmarks.side_by_side import Work, gemm_rate, heading, in_turn, ratio, write
from twophase import lanes
from twophase.config import Setting, setting
from twophase.data import Dataset
from twophase.engine import LANES, auto_engine
from twophase.models import MODELS
from twophase.training import TRAINERS, initial_state, reference_order

REPEATS = 5
SENTINEL_AND_REFERENCE = 2
ARITHMETIC = ("mm", "bmm", "addmm", "baddbmm", "convolution", "convolution_backward", "mkldnn_convolution")


@dataclass(frozen=True)
class Case:
    """One net: what is trained, on inputs of which shape, with how many children, for how many steps at a time."""

    name: str
    leaves: dict[str, object]
    input_shape: tuple[int, ...]
    counts: tuple[int, ...]
    steps: int


CASES = (
    Case("MLP 5×64", {"model": "mlp", "depth": 5, "width": 64}, (1, 40), (4, 16, 48), 20),
    Case("CNN-BN width 8", {"model": "cnn", "depth": 8, "width": 8}, (1, 40), (4, 16, 48), 10),
    Case("CNN-BN width 16", {"model": "cnn", "depth": 8, "width": 16}, (1, 40), (4, 16, 48), 5),
    Case("ResNet-20 width 16", {"model": "resnet", "depth": 20, "width": 16, "batch_size": 32}, (3, 32, 32), (16,), 1),
)


def noise(shape: tuple[int, ...], num: int = 1024) -> Dataset:
    """Random inputs: speed doesn't depend on what is learnt."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(num, *shape, generator=generator)
    return Dataset(inputs, torch.randint(0, 10, (num,), generator=generator), inputs[:64], torch.zeros(64).long(), 10)


def ours(point: Setting, data: Dataset, num_children: int, steps: int) -> Work:
    """Our trainer: reference, sentinel and children; at least as many lanes as it ever has."""
    least = 2 if point.engine == "loop" else lanes.MIN_LANES
    count = max(least, num_children + SENTINEL_AND_REFERENCE)
    trainer = TRAINERS[point.engine](point, data, lanes.take(initial_state(point, data, 0), [0] * count), seed=0)
    order = [reference_order(point, 0)]
    return lambda: trainer.advance(trainer.step + steps, order)


def loop(point: Setting, data: Dataset, num_children: int, steps: int) -> Work:
    """Plain networks, reference and children, one after the other."""
    models = [plain.network(point, data.input_shape) for _ in range(1 + num_children)]
    optimizers = [plain.optimizer_of(point, model) for model in models]
    batches = plain.batches(point, 0)

    def run() -> None:
        order = list(islice(batches, steps))
        for model, optimizer in zip(models, optimizers, strict=True):
            plain.train(model, optimizer, data.train_inputs, data.train_labels, order)

    return run


def vmapped(point: Setting, data: Dataset, num_children: int, steps: int) -> Work:
    """torch.func as its documentation ensembles models: stacked state, vmap of grad, SGD by hand."""
    models = [plain.network(point, data.input_shape).train() for _ in range(1 + num_children)]
    parameters, buffers = stack_module_state(models)
    parameters = {name: value.detach() for name, value in parameters.items()}
    momentum = {name: torch.zeros_like(value) for name, value in parameters.items()}
    batches, base = plain.batches(point, 0), models[0]

    def loss(mine: dict[str, Tensor], kept: dict[str, Tensor], inputs: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(base, (mine, kept), (inputs,)), labels)

    gradients: Callable[..., dict[str, Tensor]] = vmap(grad(loss), in_dims=(0, 0, None, None))

    def run() -> None:
        for chosen in islice(batches, steps):
            found = gradients(parameters, buffers, data.train_inputs[chosen], data.train_labels[chosen])
            values, moments = list(parameters.values()), list(momentum.values())
            slopes = torch._foreach_add(list(found.values()), values, alpha=point.weight_decay)
            torch._foreach_mul_(moments, point.momentum)
            torch._foreach_add_(moments, slopes)
            torch._foreach_add_(values, moments, alpha=-point.lr)

    return run


def flops_per_step(point: Setting, data: Dataset) -> int:
    """FLOPs of one step of one plain network, forward and backward, as torch counts them."""
    model = plain.network(point, data.input_shape)
    with FlopCounterMode(display=False) as counter:
        F.cross_entropy(model(data.train_inputs[: point.batch_size]), data.train_labels[: point.batch_size]).backward()
    return int(counter.get_total_flops())


def what_remains(work: Work) -> str:
    """Shares of a step's time by kind, the greatest first."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        work()
    times: dict[str, float] = {}
    for event in seen.key_averages():
        name = event.key.removeprefix("aten::")
        times["products and convolutions" if name in ARITHMETIC else name] = (
            times.get("products and convolutions" if name in ARITHMETIC else name, 0.0) + event.self_cpu_time_total
        )
    total = sum(times.values())
    ranked = sorted(times.items(), key=lambda pair: -pair[1])[:7]
    return ", ".join(f"{name} {100 * spent / total:.0f} %" for name, spent in ranked)


def main() -> None:
    """Write `engines.md`."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    compared, shares, profiles = [], [], []
    for case in CASES:
        data = noise(case.input_shape)
        sizes = {"num_train": 1024, "num_test": 64, "num_steps": 10**6}
        point = setting({"data": "synthetic", **sizes, **case.leaves, "engine": "lanes"})
        for count in case.counts:
            alone = setting({**point.values(), "engine": "loop"})
            works = {
                "lanes": ours(point, data, count, case.steps),
                "alone": ours(alone, data, count, case.steps),
                "loop": loop(point, data, count, case.steps),
                "vmap": vmapped(point, data, count, case.steps),
            }
            taken = in_turn(works, REPEATS)
            chosen = auto_engine(
                is_convolutional=MODELS[point.model].is_convolutional,
                width=point.width,
                input_shape=case.input_shape,
                device=point.device,
            )
            taken["auto"] = taken["lanes" if chosen == LANES else "alone"]
            per = {name: 1e3 * statistics.median(times) / (count * case.steps) for name, times in taken.items()}
            best = min(("loop", "vmap"), key=lambda name: per[name])
            compared.append(
                f"| {case.name} | {count} | {chosen} | {per['lanes']:.3f} | {per['alone']:.3f} | {per['loop']:.3f} "
                f"| {per['vmap']:.3f} "
                f"| {ratio(taken['loop'], taken['auto'])} | {ratio(taken[best], taken['auto'])} |"
            )
            rate, flops = gemm_rate(), flops_per_step(point, data)
            lanes_trained = count + SENTINEL_AND_REFERENCE
            seconds = min(taken["auto"]) / case.steps
            shares.append(
                f"| {case.name} | {count} | {flops / 1e6:.1f} | {rate / 1e9:.0f} "
                f"| {flops * lanes_trained / seconds / rate:.0%} | {flops * count / seconds / rate:.0%} |"
            )
        fastest = works["lanes" if chosen == LANES else "alone"]
        profiles.append(f"- {case.name}, {case.counts[-1]} children: {what_remains(fastest)}.")
    write("engines", _page(compared, shares, profiles))


def _page(compared: list[str], shares: list[str], profiles: list[str]) -> str:
    return "\n".join(
        [
            heading("Engines, side by side"),
            "Milliseconds per useful child-step; the reference is overhead for all, the sentinel for our engines.",
            f"Ratios are medians of {REPEATS} rounds in which all took turns, with the least and the greatest.",
            "",
            "| net | children | `auto` is | engine lanes | engine loop | plain loop | torch.func vmap "
            "| plain loop over auto | best other over auto |",
            "|---|---|---|---|---|---|---|---|---|",
            *compared,
            "",
            "## Share of the GEMM rate",
            "",
            "FLOPs by torch's counter, of one step of one network. Rate: a float32 product of 1024 × 1024 matrices",
            "by one thread, the best of several, at that moment. Share of all lanes trained, and of useful children",
            "alone, at the best round.",
            "",
            "| net | children | MFLOP per step | GEMM rate, GFLOP/s | all lanes | useful children |",
            "|---|---|---|---|---|---|",
            *shares,
            "",
            "## What the time of a step goes to",
            "",
            "By torch's profiler, the greatest shares. In the MLP about six tenths are products of matrices of 64",
            "× 64, which reach some four fifths of the rate themselves; what remains is memory traffic:",
            "activations and their masks (threshold_backward, clamp_min), biases (add), the optimiser, and a",
            "kernel's start for each of a step's hundred small operations. In the CNN, on 20 to 3 positions of",
            "16 channels, a convolution is three products per lane of matrices 16 deep: they reach six tenths",
            "of the rate when their operands lie in the cache, and half of it when not. The rest is batch",
            "normalisation and ReLU, compiled into one pass forward and one back (they and Python's share of a",
            "stack count for _Stack and _StackBackward), the optimiser, and again starts.",
            "",
            *profiles,
            "",
        ]
    )


if __name__ == "__main__":
    main()
