"""Linearised training side by side: runs as lanes of one batch, one by one, by torch.func, and ordinary training."""

import torch
from torch import Tensor
from torch.func import functional_call, jvp, vjp

from benchmarks.side_by_side import Work, heading, in_turn, ratio, write
from twophase import lanes
from twophase.config import Setting, setting
from twophase.data import Dataset
from twophase.linearised import LinearisedTrainer
from twophase.models import OneLane
from twophase.training import LaneTrainer, build_model, initial_state, lane_losses, reference_order

REPEATS, STEPS = 7, 5
CASES = {
    "MLP 5×64": {"model": "mlp", "depth": 5, "width": 64},
    "CNN-BN width 16": {"model": "cnn", "depth": 8, "width": 16},
    "ResNet-14 width 8": {"model": "resnet", "depth": 14, "width": 8},
}
COUNTS = (4, 8)


def noise(num: int = 1024) -> Dataset:
    """Random inputs: speed doesn't depend on what is learnt."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(num, 1, 40, generator=generator)
    return Dataset(inputs, torch.randint(0, 10, (num,), generator=generator), inputs[:64], torch.zeros(64).long(), 10)


def ordinary(point: Setting, data: Dataset, count: int) -> Work:
    """As many networks, trained as lanes of one batch, not linearised."""
    trainer = LaneTrainer(point, data, lanes.take(initial_state(point, data, 0), [0] * count), seed=0)
    return lambda: trainer.advance(trainer.step + STEPS, [reference_order(point, 0)])


def stacked(point: Setting, data: Dataset, count: int) -> Work:
    """Linearised runs as lanes of one batch."""
    state, order = lanes.take(initial_state(point, data, 0), [0] * count), reference_order(point, 0)
    trainer = LinearisedTrainer(point, data, state, state, seed=0, step=0)
    return lambda: trainer.advance(trainer.step + STEPS, order)


def one_by_one(point: Setting, data: Dataset, count: int) -> Work:
    """The same, a batch for each."""
    works = [stacked(point, data, 1) for _ in range(count)]

    def run() -> None:
        for work in works:
            work()

    return run


def by_torch_func(point: Setting, data: Dataset, count: int) -> Work:
    """One by one, `torch.func.jvp` and `vjp` of a plain call; gradients only, without an update."""
    network = OneLane(build_model(point, data, 0)).eval()
    centre = {name: value.detach() for name, value in network.named_parameters()}
    delta = {name: 1e-3 * value for name, value in centre.items()}
    inputs, labels = data.train_inputs[: point.batch_size], data.train_labels[: point.batch_size]

    def call(at: dict[str, Tensor]) -> Tensor:
        logits: Tensor = functional_call(network, at, (inputs,))
        return logits

    def run() -> None:
        for _ in range(STEPS * count):
            logits, moved = jvp(call, (centre,), (delta,))
            at = (logits + moved).detach().requires_grad_()
            (pull,) = torch.autograd.grad(lane_losses(at.unsqueeze(0), labels).sum(), at)
            vjp(call, centre)[1](pull)

    return run


def table() -> str:
    """Milliseconds of a step of one run, and ratios."""
    works = {"ordinary": ordinary, "stacked": stacked, "one by one": one_by_one, "torch.func": by_torch_func}
    heads = ["net", "runs", *(f"{name}, ms" for name in works), "stacked over ordinary", "one by one over stacked"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    data = noise()
    for name, leaves in CASES.items():
        point = setting({**leaves, "num_train": 1024, "num_test": 64, "num_steps": 100_000})
        for count in COUNTS:
            times = in_turn({kind: make(point, data, count) for kind, make in works.items()}, REPEATS)
            each = [f"{min(times[kind]) / STEPS / count * 1e3:.2f}" for kind in works]
            ratios = [ratio(times["stacked"], times["ordinary"]), ratio(times["one by one"], times["stacked"])]
            lines.append(f"| {name} | {count} | {' | '.join([*each, *ratios])} |")
    return "\n".join(lines)


if __name__ == "__main__":
    torch.set_num_threads(1)
    words = (
        f"Milliseconds per step of one run, the least of {REPEATS} rounds in which all took turns; ratios are medians "
        "with the least and the greatest. `torch.func` computes gradients alone."
    )
    write("linearised", f"{heading('Linearised training, side by side')}\n\n{words}\n\n{table()}\n")
