"""Kernels layer by layer against torch.func and neural-tangents: time and peak memory, side by side, in turn.

torch.func's side is the Jacobian contraction of Novak, Sohl-Dickstein, Schoenholz 2022, arXiv:2206.08720, as in
torch's own tutorial on neural tangent kernels: `functional_call` under `vmap(jacrev)`, in chunks of inputs that hold
the whole Jacobian no more than once, then one product per parameter. neural-tangents runs in an interpreter of its own,
`benchmarks/neural_tangents.py` says how to make it; without one its column stays empty.

    python -m benchmarks.kernels [--neural-tangents ENV/bin/python] [--large]
"""

import argparse
import json
import math
import multiprocessing
import platform
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from twophase import entk
from twophase.models import MODELS, OneLane
from twophase.models.vgg import CONVOLUTIONS
from twophase.seeding import stream

NUM_LOGITS = 10
CHUNK = 16
"""Inputs differentiated at a time by torch.func: of 8, 16, 32 and 64 none was better in all cases."""


@dataclass(frozen=True)
class Net:
    """A network of the zoo on so many inputs, and how often it is timed."""

    model: str
    leaves: dict[str, int]
    shape: tuple[int, ...]
    num_inputs: int
    kinds: tuple[str, ...] = ("full", "trace", "pseudo")
    repeats: int = 7


NETS = {
    "MLP 5×64": Net("mlp", {"depth": 5, "width": 64}, (1, 40), 128),
    "CNN-BN 8×16": Net("cnn", {"depth": 8, "width": 16}, (1, 40), 64),
    "ResNet-20, width 16, 32×32": Net("resnet", {"depth": 20, "width": 16}, (3, 32, 32), 64, repeats=3),
    "VGG-16, width 64, 32×32": Net("vgg", {"depth": 16, "width": 64}, (3, 32, 32), 4, ("full", "trace"), 3),
}
LARGE = Net("vgg", {"depth": 16, "width": 64}, (3, 32, 32), 64)

Side = Callable[[Tensor], Tensor]


def network(net: Net) -> nn.Module:
    """An untrained network, ten logits, in evaluation mode."""
    architecture = MODELS[net.model]
    defaults = {name: value for name, value in architecture.defaults.items() if name != "init"}
    lane = architecture.build(net.shape, NUM_LOGITS, **{**defaults, **net.leaves})
    lane.reset("he", stream(0, "benchmark"))
    return OneLane(lane).eval()


def inputs_of(net: Net) -> Tensor:
    """Inputs of a network."""
    return torch.randn(net.num_inputs, *net.shape, generator=torch.Generator().manual_seed(0))


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


def seconds(run: Callable[[], object]) -> float:
    """Processor time: on one thread the wall time of a machine with nothing else to do."""
    began = time.process_time()
    run()
    return time.process_time() - began


IMPLEMENTATIONS = ("Jacobian contraction", "structured derivatives", "NTK-vector products")
SCRIPT = Path(__file__).with_name("neural_tangents.py")


class NeuralTangents:
    """A process of neural-tangents' interpreter that computes one kernel whenever it is told to.

    Attributes:
        implementation: How.
        taken: Processor time of its second run; inf if it failed.
        compiling: Of its first, beyond that.
        kernel: What it found.
    """

    def __init__(self, python: str, case: Path, implementation: str) -> None:
        """Start it, and wait until it has compiled."""
        self.implementation, self.taken, self.compiling = implementation, math.inf, math.inf
        self.kernel = torch.empty(0)
        out = case.with_name(f"{implementation}.npz")
        # Isolated: neither our packages nor this folder, whose files are named for what they run, are on its path.
        self._process = subprocess.Popen(
            [python, "-I", str(SCRIPT), str(case), implementation, str(out)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        line = self._line()
        if line:  # some implementations crash XLA, or run out of memory
            said = json.loads(line)
            self.taken, self.compiling = said["again"], said["first"] - said["again"]
            self.kernel = torch.from_numpy(np.load(out)["kernel"])

    def _line(self) -> str:
        return self._process.stdout.readline() if self._process.stdout else ""

    def seconds(self) -> float:
        """Processor time of one more run."""
        if self._process.stdin:
            self._process.stdin.write("again\n")
            self._process.stdin.flush()
        return float(self._line())

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


@contextmanager
def neural_tangents(python: str | None, net: Net, kind: str) -> Iterator[NeuralTangents | None]:
    """Its fastest implementation for one case; None without an interpreter."""
    if python is None:
        yield None
        return
    # A kernel of all logits takes a product per row of it, which for a deep net takes hours.
    names = IMPLEMENTATIONS if net.model in ("mlp", "cnn") else IMPLEMENTATIONS[:2]
    leaves = {**net.leaves, "num_logits": NUM_LOGITS, "stages": CONVOLUTIONS.get(net.leaves["depth"], ())}
    state = network(net).get_submodule("network").state_dict()
    arrays = {name: value[0].numpy() for name, value in state.items()}  # the one lane
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        path = Path(folder) / "case.npz"
        said = json.dumps({"model": net.model, "kind": kind, "leaves": leaves})
        np.savez(path, case=said, inputs=inputs_of(net).numpy(), **arrays)
        best: NeuralTangents | None = None
        for name in names:
            made = NeuralTangents(python, path, name)
            stack.callback(made.close)
            best = made if best is None or made.taken < best.taken else best
        if best is None or math.isinf(best.taken):
            raise RuntimeError(f"neural-tangents fails on {net}, whatever its implementation")
        yield best


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


def sides_of(net: Net, kind: str) -> tuple[Side, Side]:
    """Both ways of ours to a kernel."""
    module = network(net)
    return (lambda x: entk(module, x, kind)), (lambda x: contraction(module, x, kind))


def passes(net: Net, kind: str) -> float:
    """Processor time of PyTorch's own passes: one forward, and one backward for each gradient of an input, in one call.

    Gradients at activations alone, none of parameters: what no kernel made by eager PyTorch can do without.
    """
    module, num_rows = network(net), 1 if kind == "pseudo" else NUM_LOGITS
    inputs = inputs_of(net).requires_grad_()
    weights = torch.eye(NUM_LOGITS)[:num_rows, None].expand(-1, net.num_inputs, -1)

    def run() -> None:
        logits = module(inputs)
        if net.model in ("mlp", "cnn") and num_rows > 1:
            torch.func.vmap(lambda row: torch.autograd.grad(logits, inputs, row, retain_graph=True))(weights)
            return
        for row in weights:
            torch.autograd.grad(logits, inputs, row, retain_graph=True)

    run()
    return statistics.median(seconds(run) for _ in range(net.repeats))


def apart(ours: Tensor, theirs: Tensor) -> str:
    """Greatest difference of any two entries, over the greatest entry."""
    return f"{float((ours - theirs).abs().max() / theirs.abs().max()):.0e}"


def ratio(ours: list[float], theirs: list[float]) -> str:
    """Median of the pairs' ratios, with the least and the greatest."""
    ratios = sorted(b / a for a, b in zip(ours, theirs, strict=True))
    return f"{statistics.median(ratios):.2f} ({ratios[0]:.2f}–{ratios[-1]:.2f})"


def row(name: str, kind: str, peaks: tuple[float, float], python: str | None) -> str:
    """Compare all on one net and kind."""
    net = NETS[name]
    sides, inputs = sides_of(net, kind), inputs_of(net)
    ours, theirs = (side(inputs) for side in sides)
    alone = passes(net, kind)
    taken: dict[str, list[float]] = {"entk": [], "func": [], "nt": []}
    with neural_tangents(python, net, kind) as other:
        for _ in range(net.repeats):
            for label, side in zip(("entk", "func"), sides, strict=True):
                taken[label].append(seconds(lambda side=side: side(inputs)))
            if other is not None:
                taken["nt"].append(other.seconds())
        against = [ratio(taken["entk"], taken["func"]), "", "", ""]
        if other is not None:
            words = f"{other.implementation} ({other.compiling:.1f} s)"
            against[1:] = [ratio(taken["entk"], taken["nt"]), words, apart(ours, other.kernel)]
    return " | ".join(
        [
            f"| {name} | {net.num_inputs} | {kind} | {statistics.median(taken['entk']):.3g}",
            f"{alone:.3g}",
            *against[:3],
            *(f"{peak:.0f}" for peak in peaks),
            apart(ours, theirs),
            f"{against[3]} |",
        ]
    )


def large() -> str:
    """The full kernel of a VGG-16 on 64 inputs, in a process of its own: time and its peak memory, all counted."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_measure_large, args=(sender,))
    child.start()
    taken, peak = receiver.recv()
    child.join()
    return (
        f"\nVGG-16 of width 64, full kernel of {LARGE.num_inputs} inputs on 32×32 (640 rows, 15 million parameters): "
        f"{taken:.0f} s of\nprocessor time, {peak / 2**30:.1f} GiB at the peak of the whole process, as `--large` "
        "measures it; its Jacobian\nwould have 35 GiB.\n"
    )


def _measure_large(sender: Connection) -> None:
    torch.set_num_threads(1)
    module, inputs = network(LARGE), inputs_of(LARGE)
    taken = seconds(lambda: entk(module, inputs))
    sender.send((taken, 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))


def main() -> None:
    """Write a Markdown table beside this file, and print it."""
    parser = argparse.ArgumentParser(description="Kernels side by side: entk, torch.func, neural-tangents.")
    parser.add_argument("--neural-tangents", metavar="PYTHON", help="an interpreter that has neural-tangents")
    parser.add_argument("--large", action="store_true", help="also a VGG-16 on 64 inputs: minutes, and gigabytes")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    head = f"""# Kernels layer by layer against torch.func and neural-tangents

{platform.machine()} ({torch.backends.cpu.get_cpu_capability()}), Python {platform.python_version()},
torch {torch.__version__}, float32, one thread each, N inputs, ten logits. Made by `python -m benchmarks.kernels`; how
neural-tangents 0.6.5 (jax 0.4.25) is run stands in `benchmarks/neural_tangents.py`.

Seconds: processor time of `entk`, median; beside it that of PyTorch's own forward pass and backward passes to
the activations, which any kernel made by eager PyTorch has to take. Speed-up over torch.func (`vmap(jacrev)`,
Jacobian contraction in chunks of {CHUNK} inputs) and over neural-tangents (compiled before; the fastest of its
implementations, named with the processor time that compiling took): ratio of processor times, median (min–max)
of seven runs in turn, three for the last two nets. Of its implementations NTK-vector products is tried on the
first two nets only. Memory: what a process needs at its peak, beyond that of a run on two inputs. Difference:
the greatest of any two entries, over the greatest entry.

| net | N | kind | entk: s | passes: s | over torch.func | over neural-tangents | its implementation \
| entk: MiB | torch.func: MiB | difference: torch.func | neural-tangents |
|---|---|---|---|---|---|---|---|---|---|---|---|
"""
    print(head, end="")
    peaks = {}  # before anything else: a process that has worked has memory to reuse
    for name, net in NETS.items():
        for kind in net.kinds:
            first, second = (peak_bytes(side, inputs_of(net)) / 2**20 for side in sides_of(net, kind))
            peaks[name, kind] = (first, second)
    rows = []
    for (name, kind), needed in peaks.items():
        rows.append(row(name, kind, needed, asked.neural_tangents))
        print(rows[-1], flush=True)
    tail = large() if asked.large else ""
    print(tail)
    Path(__file__).with_suffix(".md").write_text(head + "\n".join(rows) + "\n" + tail, encoding="utf-8")


if __name__ == "__main__":
    main()
