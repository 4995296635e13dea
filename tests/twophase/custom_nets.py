"""Modules of kinds that the zoo doesn't have, as a user would write them."""

import torch
from torch import nn


class Mixer(nn.Module):
    """Mixes positions, then features, each beside a shortcut, with dropout between."""

    def __init__(self, num_features, num_positions, num_classes):
        super().__init__()
        self.embedding = nn.Linear(num_features, 8)
        self.norm = nn.LayerNorm(8)
        self.positions = nn.Sequential(nn.Linear(num_positions, 16), nn.GELU(), nn.Dropout(0.2))
        self.back = nn.Linear(16, num_positions)
        self.head = nn.Linear(8, num_classes)
        self.register_buffer("kept", torch.arange(8) != 3)

    def forward(self, x):
        x = self.embedding(x.flatten(2).transpose(1, 2))
        x = x + self.back(self.positions(self.norm(x).transpose(1, 2))).transpose(1, 2)
        return self.head(x.mean(1) * self.kept)


def mixer(input_shape, num_classes):
    return Mixer(input_shape[0], torch.Size(input_shape[1:]).numel(), num_classes)


class GRU(nn.Module):
    """A cell unrolled by hand over positions, for which vmap has no rule; every fifth of them, to be quick."""

    def __init__(self, num_features, num_classes):
        super().__init__()
        self.cell = nn.GRUCell(num_features, 6)
        self.head = nn.Linear(6, num_classes)

    def forward(self, x):
        x = x.flatten(2)[:, :, ::5]
        state = x.new_zeros(len(x), 6)
        for step in x.unbind(2):
            state = self.cell(step, state)
        return self.head(state)


def gru(input_shape, num_classes):
    return GRU(input_shape[0], num_classes)


def conv(input_shape, num_classes):
    """Convolutions with biases, batch-norm and dropout: the zoo's, by torch's own layers."""
    is_flat = len(input_shape) == 2
    convolution, norm = (nn.Conv1d, nn.BatchNorm1d) if is_flat else (nn.Conv2d, nn.BatchNorm2d)
    return nn.Sequential(
        convolution(input_shape[0], 6, 3, padding=1),
        norm(6),
        nn.ReLU(),
        nn.Dropout(0.3),
        convolution(6, 5, 3, padding=1),
        norm(5),
        nn.ReLU(),
        nn.Flatten(2),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(5, num_classes),
    )


class LSTM(nn.Module):
    """Keeps hold of its last weights, which vmap can't do either; and of its last output."""

    def __init__(self, num_features, num_classes):
        super().__init__()
        self.lstm = nn.LSTM(num_features, 5, batch_first=True)
        self.head = nn.Linear(5, num_classes)

    def forward(self, x):
        self.last = self.lstm(x.flatten(2).transpose(1, 2)[:, ::5])[0][:, -1]
        return self.head(self.last)


def lstm(input_shape, num_classes):
    return LSTM(input_shape[0], num_classes)


class Tied(nn.Module):
    """One weight under two names, one part under two names, and a parameter that isn't trained."""

    def __init__(self, size, num_classes):
        super().__init__()
        self.first, self.second = nn.Linear(size, 7), nn.Linear(7, 7)
        self.third = nn.Linear(7, 7)
        self.third.weight = self.second.weight
        self.again = self.third
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 7), requires_grad=False)
        self.head = nn.Linear(7, num_classes)

    def forward(self, x):
        x = torch.tanh(self.second(torch.relu(self.first(x.flatten(1)))))
        return self.head(self.again(torch.tanh(self.third(x))) * self.scale)


def tied(input_shape, num_classes):
    return Tied(torch.Size(input_shape).numel(), num_classes)


class Branching(nn.Module):
    """Looks at the data to know what to compute."""

    def __init__(self, size, num_classes):
        super().__init__()
        self.first, self.head = nn.Linear(size, 7), nn.Linear(7, num_classes)

    def forward(self, x):
        rows = self.first(x.flatten(1))
        return self.head(torch.stack([row.relu() if row.sum() > 0 else row.tanh() for row in rows]))


def branching(input_shape, num_classes):
    return Branching(torch.Size(input_shape).numel(), num_classes)
