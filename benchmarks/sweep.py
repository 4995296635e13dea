"""The whole `quick` study against the same numbers made the plain way, side by side.

The plain way: a Ray Tune function trainable per setting, seed, fork step and direction trains two copies from scratch,
perturbs one of them at the fork, and evaluates the path between the two. It is run on a stated share of the cells, and
scaled.
"""

import copy
import os
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

import search_spaces
from benchmarks import plain
from benchmarks.side_by_side import heading, write
from study.nodes import num_processors
from study.worker import cache_folder
from twophase.config import Setting
from twophase.data import DATA, Dataset
from twophase.perturb import ORDER

SHARE = 9
"""One cell in so many is run the plain way: as many of each model."""
ALPHAS = [i / 10 for i in range(11)]


def cell(config: dict[str, Any]) -> dict[str, float]:
    """One child and its reference, both trained for this cell alone."""
    torch.set_num_threads(1)
    point = Setting(**config["setting"])
    data = DATA[point.data].load(point.num_train, point.num_test, point.data_seed, Path(config["cache"]))
    inputs, labels = data.train_inputs, data.train_labels
    fork, order = config["fork_step"], list(islice(plain.batches(point, config["seed"]), point.num_steps))
    follow = order[fork:]
    if not config["magnitude"]:
        follow = list(islice(plain.batches(point, 10**6 + config["direction"]), len(follow)))
    reference, child = (
        _trained(point, data, config["seed"], order[:fork], push, after)
        for push, after in ((0.0, order[fork:]), (config["magnitude"], follow))
    )
    sample = (inputs[:2048], labels[:2048])
    losses = [_loss_between(reference, child, alpha, sample, (data.test_inputs, data.test_labels)) for alpha in ALPHAS]
    rises = [loss - (1 - a) * losses[0] - a * losses[-1] for a, loss in zip(ALPHAS, losses, strict=True)]
    return {"test_barrier": max(rises)}


def _trained(
    point: Setting, data: Dataset, seed: int, before: list[Tensor], magnitude: float, after: list[Tensor]
) -> nn.Module:
    """A network trained from scratch, and pushed in between."""
    torch.manual_seed(seed)
    model = plain.network(point, data.input_shape)
    optimizer = plain.optimizer_of(point, model)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, point.num_steps)
    _train(model, optimizer, schedule, (data.train_inputs, data.train_labels), before)
    if magnitude:
        _push(model, magnitude)
    _train(model, optimizer, schedule, (data.train_inputs, data.train_labels), after)
    return model


def _train(model: nn.Module, optimizer: Any, schedule: Any, data: tuple[Tensor, Tensor], order: list[Tensor]) -> None:
    for chosen in order:
        plain.train(model, optimizer, *data, [chosen])
        schedule.step()


@torch.no_grad()
def _push(model: nn.Module, magnitude: float) -> None:
    parameters = list(model.parameters())
    noise = [torch.randn_like(value) for value in parameters]
    size = torch.cat([value.flatten() for value in parameters]).norm() / torch.cat([n.flatten() for n in noise]).norm()
    for value, direction in zip(parameters, noise, strict=True):
        value.add_(direction, alpha=float(magnitude * size))


@torch.no_grad()
def _loss_between(
    one: nn.Module, two: nn.Module, alpha: float, sample: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]
) -> float:
    """Test loss at a point of the path, batch-norm statistics recomputed; the train loss is evaluated as well."""
    model = copy.deepcopy(one)
    for value, first, second in zip(model.parameters(), one.parameters(), two.parameters(), strict=True):
        value.copy_(torch.lerp(first, second, alpha))
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm1d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    if norms:
        model.train()
        for batch in torch.split(sample[0], 256):
            model(batch)
    model.eval()
    F.cross_entropy(model(sample[0]), sample[1])
    return float(F.cross_entropy(model(test[0]), test[1]))


def plain_sweep(cells: list[dict[str, Any]], workers: int) -> tuple[float, float]:
    """Run cells by Ray Tune, two at a time.

    Returns:
        Seconds that Ray took to start, and seconds that the sweep took.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    import ray  # noqa: PLC0415 - reads the environment when it is imported
    from ray import tune  # noqa: PLC0415 - as above

    began = time.perf_counter()
    env = {"env_vars": {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}}
    ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, runtime_env=env)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        tuner = tune.Tuner(
            tune.with_resources(lambda config: tune.report(cell(config["cell"])), {"cpu": 1}),
            param_space={"cell": tune.grid_search(cells)},
            run_config=tune.RunConfig(storage_path=scratch, verbose=0),
        )
        results = tuner.fit()
    ended = time.perf_counter()
    ray.shutdown()
    if results.errors:
        raise RuntimeError(results.errors[0])
    return started - began, ended - started


def our_sweep(workers: int) -> float:
    """Seconds of `twophase run quick`, everything included, into a fresh folder."""
    with tempfile.TemporaryDirectory() as root:
        command = [sys.executable, "-m", "study.cli", "run", "quick", "--root", root, "--workers", str(workers)]
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - began


def cells_of(space: search_spaces.Space) -> list[dict[str, Any]]:
    """Every child of every trial, as the plain way's config."""
    return [
        {
            "setting": trial.setting.values(),
            "seed": trial.seed,
            "fork_step": child.fork_step,
            "magnitude": 0.0 if child.perturbation == ORDER else child.magnitude,
            "direction": child.direction,
            "cache": str(cache_folder()),
        }
        for trial in space.trials()
        for child in space.chaos.children(trial.setting)
    ]


def main() -> None:
    """Write `sweep.md`."""
    workers = min(2, num_processors())
    cells = cells_of(search_spaces.load("quick"))
    share = cells[::SHARE]
    for point in {name: c["setting"] for c in cells for name in [c["setting"]["model"]]}.values():
        DATA[point["data"]].load(point["num_train"], point["num_test"], point["data_seed"], cache_folder())
    ours = our_sweep(workers)
    start, spent = plain_sweep(share, workers)
    scaled = start + spent * len(cells) / len(share)
    rows = [
        f"| `twophase run quick`: {len(cells)} children, with kernels, sentinels, tables and report | {ours:.0f} |",
        f"| plain sweep, {len(share)} of {len(cells)} cells | {start + spent:.0f} |",
        f"| plain sweep, scaled to all cells | {scaled:.0f} |",
        f"| **ratio** | **{scaled / ours:.1f}** |",
    ]
    text = [
        heading("The quick study, and the same made the plain way"),
        f"{workers} trials at a time, one thread each; wall time in one run, one after the other. The plain way is",
        "a Ray Tune function trainable per (setting, seed, fork step, magnitude, direction): it trains both copies",
        "from scratch (to train the stretch before the fork once for both would save it some 6 %), perturbs one, and",
        "evaluates eleven points of the path. It makes no kernels, proves nothing, and shares nothing between cells.",
        f"One cell in {SHARE} is run, in order of the plan, as many of each model; the sweep's time without Ray's",
        "start is scaled by the number of cells. What numba compiles once per machine, some seconds, was there.",
        "",
        "| | seconds |",
        "|---|---|",
        *rows,
        "",
    ]
    write("sweep", "\n".join(text))


if __name__ == "__main__":
    main()
