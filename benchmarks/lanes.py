"""Lanes against a plain loop: time per child-step, side by side, in turn, in one run.

The loop trains K ordinary `torch.nn` networks one after the other; the lanes train the same K at once.
"""

import platform
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from twophase import lanes
from twophase.config import Setting, setting
from twophase.data import Dataset
from twophase.training import LaneTrainer, initial_state, reference_order

STEPS, REPEATS = 20, 5


def random_data(num: int = 1024) -> Dataset:
    """Noise in the shape of MNIST-1D: speed doesn't depend on what is learnt."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(num, 1, 40, generator=generator)
    labels = torch.randint(0, 10, (num,), generator=generator)
    return Dataset(inputs, labels, inputs[:64], labels[:64], 10)


def plain_network(point: Setting) -> nn.Module:
    """The same architecture from torch's own layers."""
    width = point.width
    layers: list[nn.Module] = [nn.Flatten()] if point.model == "mlp" else []
    for i in range(point.depth):
        if point.model == "mlp":
            layers += [nn.Linear(40 if i == 0 else width, width), nn.ReLU()]
        else:
            conv = nn.Conv1d(1 if i == 0 else width, width, 3, stride=2 - i % 2, padding=1, bias=False)
            layers += [conv, nn.BatchNorm1d(width), nn.ReLU()]
    if point.model == "cnn":
        layers += [nn.AdaptiveAvgPool1d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(width, 10))


def time_lanes(point: Setting, data: Dataset, num_lanes: int) -> Callable[[], None]:
    """Return what trains `num_lanes` lanes for STEPS steps."""
    start = lanes.take(initial_state(point, data, seed=0), [0] * num_lanes)

    def run() -> None:
        LaneTrainer(point, data, start, seed=0).advance(STEPS, [reference_order(point, 0)])

    return run


def time_loop(point: Setting, data: Dataset, num_networks: int) -> Callable[[], None]:
    """Return what trains as many plain networks for STEPS steps, one after the other."""
    order = reference_order(point, 0)

    def run() -> None:
        for _ in range(num_networks):
            network = plain_network(point)
            optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
            for step in range(STEPS):
                chosen = order.batch(step)
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(network(data.train_inputs[chosen]), data.train_labels[chosen])
                loss.backward()
                optimizer.step()

    return run


def seconds(run: Callable[[], None]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def main() -> None:
    """Print a Markdown table: median milliseconds per child-step, and the ratio pair by pair."""
    torch.set_num_threads(1)
    data = random_data()
    print(
        f"torch {torch.__version__}, {platform.machine()}, one thread; ms per child-step, median of {REPEATS} pairs\n"
    )
    print("| net | lanes | lanes: ms | loop: ms | speed-up (min–max) |\n|---|---|---|---|---|")
    for leaves in ({"model": "mlp", "depth": 5, "width": 64}, {"model": "cnn", "depth": 8, "width": 16}):
        point = setting({**leaves, "num_train": 1024, "num_test": 64, "num_steps": STEPS})
        for count in (4, 16, 24):
            ours, theirs = time_lanes(point, data, count), time_loop(point, data, count)
            ours(), theirs()
            pairs = [(seconds(ours), seconds(theirs)) for _ in range(REPEATS)]
            ratios = sorted(b / a for a, b in pairs)
            per_step = [1e3 * statistics.median(side) / (count * STEPS) for side in zip(*pairs, strict=True)]
            name = f"{point.model} {point.depth}×{point.width}"
            spread = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f}–{ratios[-1]:.2f})"
            print(f"| {name} | {count} | {per_step[0]:.3f} | {per_step[1]:.3f} | {spread} |")


if __name__ == "__main__":
    main()
