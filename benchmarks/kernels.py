"""Kernels layer by layer against torch.func: time and peak memory, side by side, in turn, in one run.

torch.func's side is the Jacobian contraction of Novak, Sohl-Dickstein, Schoenholz 2022, arXiv:2206.08720, as in
torch's own tutorial on neural tangent kernels: `functional_call` under `vmap(jacrev)`, in chunks of inputs that hold
the whole Jacobian no more than once, then one product per parameter.
"""

import itertools
import math
import multiprocessing
import platform
import resource
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from twophase import entk
from twophase.models import MODELS, OneLane
from twophase.seeding import stream

REPEATS = 5
CASES = {
    "MLP 5×64": ("mlp", {"depth": 5, "width": 64}, (1, 40), 128),
    "CNN-BN 8×16": ("cnn", {"depth": 8, "width": 16}, (1, 40), 64),
    "ResNet-20, width 16, 32×32": ("resnet", {"depth": 20, "width": 16}, (3, 32, 32), 32),
}
KINDS = ("full", "trace", "pseudo")
CHUNK = 16
"""Inputs differentiated at a time by torch.func: of 8, 16, 32 and 64 none was better in all cases."""

Side = Callable[[Tensor], Tensor]


def network(model: str, leaves: dict[str, int], shape: tuple[int, ...]) -> nn.Module:
    """An untrained network of the zoo, ten logits, in evaluation mode."""
    architecture = MODELS[model]
    defaults = {name: value for name, value in architecture.defaults.items() if name != "init"}
    lane = architecture.build(shape, 10, **{**defaults, **leaves})
    lane.reset("he", stream(0, "benchmark"))
    return OneLane(lane).eval()


def contraction(module: nn.Module, inputs: Tensor, kind: str) -> Tensor:
    """The kernel by torch.func."""
    parameters = {name: value.detach() for name, value in module.named_parameters()}

    def read(values: dict[str, Tensor], example: Tensor) -> Tensor:
        logits: Tensor = functional_call(module, values, (example.unsqueeze(0),))[0]
        return logits.sum(0, keepdim=True) / math.sqrt(len(logits)) if kind == "pseudo" else logits

    gradient = vmap(jacrev(read), in_dims=(None, 0))
    chunks = [gradient(parameters, chunk) for chunk in torch.split(inputs, CHUNK)]
    kernel = torch.zeros(())
    for name in parameters:
        jacobian = torch.cat([chunk.pop(name) for chunk in chunks])
        rows = jacobian.flatten(1) if kind == "trace" else jacobian.flatten(2).flatten(0, 1)
        kernel = kernel + rows @ rows.T
    return kernel


def seconds(run: Callable[[], Tensor]) -> float:
    """Processor time: on one thread the wall time of a machine with nothing else to do."""
    began = time.process_time()
    run()
    return time.process_time() - began


def peak_bytes(run: Side, inputs: Tensor) -> int:
    """Memory of a process at its peak, beyond that of a run on two inputs."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_measure_peak, args=(run, inputs, sender))
    child.start()
    found = int(receiver.recv())
    child.join()
    return found


def _measure_peak(run: Side, inputs: Tensor, sender: Connection) -> None:
    run(inputs[:2])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run(inputs)
    sender.send(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))


def sides_of(name: str, kind: str) -> tuple[tuple[Side, Side], Tensor]:
    """Both ways to a kernel, and the inputs."""
    model, leaves, shape, num = CASES[name]
    module = network(model, leaves, shape)
    inputs = torch.randn(num, *shape, generator=torch.Generator().manual_seed(0))
    return (lambda x: entk(module, x, kind), lambda x: contraction(module, x, kind)), inputs


def row(name: str, kind: str, peaks: list[float]) -> str:
    """Compare both on one net and kind."""
    sides, inputs = sides_of(name, kind)
    ours, theirs = (side(inputs) for side in sides)
    apart = float((ours - theirs).abs().max() / theirs.abs().max())
    pairs = [tuple(seconds(lambda side=side: side(inputs)) for side in sides) for _ in range(REPEATS)]
    ratios = sorted(b / a for a, b in pairs)
    spread = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f}–{ratios[-1]:.2f})"
    return f"| {name} | {len(inputs)} | {kind} | {spread} | {peaks[0]:.0f} | {peaks[1]:.0f} | {apart:.0e} |"


def main() -> None:
    """Write a Markdown table beside this file, and print it."""
    torch.set_num_threads(1)
    head = f"""# Kernels layer by layer against torch.func

{platform.machine()} ({torch.backends.cpu.get_cpu_capability()}), Python {platform.python_version()},
torch {torch.__version__}, float32, one thread, N inputs, ten logits. Made by `python -m benchmarks.kernels`.
Speed-up: processor time of torch.func (`vmap(jacrev)`, Jacobian contraction) over that of `entk`, median (min–max) of
{REPEATS} pairs in turn. Memory: what a process needs at its peak, beyond that of a run on two inputs. Difference: the
greatest of any two entries, over the greatest entry.

| net | N | kind | speed-up | entk: MiB | torch.func: MiB | difference |
|---|---|---|---|---|---|---|
"""
    print(head, end="")
    peaks = {}  # before anything else: a process that has worked has memory to reuse
    for case in itertools.product(CASES, KINDS):
        sides, inputs = sides_of(*case)
        peaks[case] = [peak_bytes(side, inputs) / 2**20 for side in sides]
    rows = []
    for case, needed in peaks.items():
        rows.append(row(*case, needed))
        print(rows[-1], flush=True)
    Path(__file__).with_suffix(".md").write_text(head + "\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
