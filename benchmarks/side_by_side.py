"""Timing in one run, in turn: on a shared machine only ratios of neighbours in time mean anything."""

import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

Work = Callable[[], None]


def in_turn(works: Mapping[str, Work], repeats: int) -> dict[str, list[float]]:
    """Seconds of each, once per round; a first round is thrown away."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for number in range(repeats + 1):
        for name, work in works.items():
            began = time.perf_counter()
            work()
            if number:
                taken[name].append(time.perf_counter() - began)
    return taken


def ratio(numerator: list[float], denominator: list[float]) -> str:
    """Median of the rounds' ratios, with the least and the greatest."""
    ratios = sorted(a / b for a, b in zip(numerator, denominator, strict=True))
    return f"{statistics.median(ratios):.2f} ({ratios[0]:.2f}–{ratios[-1]:.2f})"


def processor() -> str:
    """Name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def heading(title: str) -> str:
    """Title, and what it was measured on."""
    machine = f"{processor()}, one thread; Python {platform.python_version()}, torch {torch.__version__}"
    return f"# {title}\n\nMeasured by `make bench` on: {machine}.\n"


def gemm_rate(size: int = 1024, repeats: int = 7) -> float:
    """FLOP/s of one thread at a large product of float32 matrices, the best of several."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    best = float("inf")
    for _ in range(repeats + 1):
        began = time.perf_counter()
        torch.mm(a, b)
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def write(name: str, text: str) -> None:
    """Write a table beside its benchmark, and show it."""
    (Path(__file__).parent / f"{name}.md").write_text(text, encoding="utf-8")
    print(text, flush=True)
