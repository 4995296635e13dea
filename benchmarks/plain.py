"""What the program is compared with: plain PyTorch, one network after the other, as a careful user would write it.

Ordinary layers, data resident, epochs shuffled once, gradients set to None; no lanes, nothing of ours.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from twophase.config import Setting


class Block(nn.Module):
    """Residual block of two convolutions; zeros pad the channels that are new."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.stride, self.new = after // before, after - before
        self.conv1 = nn.Conv2d(before, after, 3, self.stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)

    def forward(self, x: Tensor) -> Tensor:
        """Activation of the sum of both branches."""
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        if self.new:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.new // 2, self.new - self.new // 2))
        return F.relu(x + y)


def network(point: Setting, input_shape: tuple[int, ...]) -> nn.Module:
    """The architecture of a setting from torch's own layers."""
    width = point.width
    if point.model == "mlp":
        sizes = [torch.Size(input_shape).numel(), *[width] * point.depth]
        hidden = [layer for i in range(point.depth) for layer in (nn.Linear(sizes[i], sizes[i + 1]), nn.ReLU())]
        return _drawn(nn.Sequential(nn.Flatten(), *hidden, nn.Linear(width, 10)))
    if point.model == "cnn":
        layers: list[nn.Module] = []
        for i in range(point.depth):
            before = input_shape[0] if i == 0 else width
            layers += [nn.Conv1d(before, width, 3, 2 - i % 2, 1, bias=False), nn.BatchNorm1d(width), nn.ReLU()]
        return _drawn(nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(width, 10)))
    widths = [stage * width for stage in (1, 2, 4) for _ in range((point.depth - 2) // 6)]
    stem = [nn.Conv2d(input_shape[0], width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    blocks = [Block(before, after) for before, after in zip([width, *widths], widths, strict=False)]
    return _drawn(nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, 10)))


def _drawn(made: nn.Module) -> nn.Module:
    for module in made.modules():
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return made


def optimizer_of(point: Setting, model: nn.Module) -> torch.optim.SGD:
    """SGD with the setting's rates."""
    rates = {"lr": point.lr, "momentum": point.momentum, "weight_decay": point.weight_decay}
    return torch.optim.SGD(model.parameters(), **rates)


def batches(point: Setting, seed: int) -> Iterator[Tensor]:
    """Indices of minibatches, an epoch's shuffle after the other's."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        shuffle = torch.randperm(point.num_train, generator=generator)
        yield from shuffle[: len(shuffle) // point.batch_size * point.batch_size].view(-1, point.batch_size)


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, inputs: Tensor, labels: Tensor, order: list[Tensor]
) -> None:
    """One update per minibatch of an order."""
    model.train()
    for chosen in order:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(inputs[chosen]), labels[chosen]).backward()
        optimizer.step()
