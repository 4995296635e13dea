"""Small data, small settings, and plain torch networks that carry the weights of a lane."""

import torch
from torch import nn

from twophase.config import setting
from twophase.data import Dataset
from twophase.training import initial_state

NUM_TRAIN, NUM_TEST, NUM_CLASSES = 300, 40, 3
"""More than 256 training examples, so that evaluation takes two batches."""

SHAPES = {"1d": (1, 12), "1d-3": (3, 12), "2d": (1, 6, 6), "2d-3": (3, 6, 6)}


def small_dataset(input_shape=(1, 12), num_train=NUM_TRAIN, num_test=NUM_TEST):
    """Random inputs whose class is written into them, faintly."""
    generator = torch.Generator().manual_seed(7)
    total = num_train + num_test
    labels = torch.arange(total) % NUM_CLASSES
    means = torch.randn(NUM_CLASSES, *input_shape, generator=generator)
    inputs = torch.randn(total, *input_shape, generator=generator) + 0.5 * means[labels]
    return Dataset(inputs[:num_train], labels[:num_train], inputs[num_train:], labels[num_train:], NUM_CLASSES)


def small_setting(model="mlp", **leaves):
    small = {"num_train": NUM_TRAIN, "num_test": NUM_TEST, "depth": 3, "width": 8, "batch_size": 16, "num_steps": 40}
    return setting({"model": model, **small, **leaves})


class PlainMLP(nn.Module):
    """As one would write it for a single network."""

    def __init__(self, setting, input_shape):
        super().__init__()
        sizes = [torch.Size(input_shape).numel(), *[setting.width] * setting.depth]
        self.hidden = nn.ModuleList(nn.Linear(sizes[i], sizes[i + 1]) for i in range(setting.depth))
        is_normed = setting.norm_layer == "batch"
        self.norms = nn.ModuleList(nn.BatchNorm1d(setting.width) if is_normed else nn.Identity() for _ in self.hidden)
        self.head = nn.Linear(setting.width, NUM_CLASSES)

    def forward(self, x):
        x = x.flatten(1)
        for linear, norm in zip(self.hidden, self.norms, strict=True):
            x = activate(norm(linear(x)), self)
        return self.head(x)


class PlainCNN(nn.Module):
    def __init__(self, setting, input_shape):
        super().__init__()
        conv, norm = (nn.Conv1d, nn.BatchNorm1d) if len(input_shape) == 2 else (nn.Conv2d, nn.BatchNorm2d)
        is_normed = setting.norm_layer == "batch"
        channels = [input_shape[0], *[setting.width] * setting.depth]
        self.convs = nn.ModuleList(
            conv(channels[i], channels[i + 1], 3, stride=2 if i % 2 == 0 else 1, padding=1, bias=not is_normed)
            for i in range(setting.depth)
        )
        self.norms = nn.ModuleList(norm(setting.width) if is_normed else nn.Identity() for _ in self.convs)
        self.head = nn.Linear(setting.width, NUM_CLASSES)

    def forward(self, x):
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = activate(norm(conv(x)), self)
        return self.head(x.flatten(2).mean(2))


def activate(x, model):
    return {"relu": torch.relu, "gelu": nn.functional.gelu, "tanh": torch.tanh}[model.activation](x)


def plain(setting, input_shape, state, lane):
    """The plain network of one lane of a state, in float64."""
    model = {"mlp": PlainMLP, "cnn": PlainCNN}[setting.model](setting, input_shape).double()
    model.activation = setting.activation
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(state.parameters[name][lane].reshape(parameter.shape))
        for name, buffer in model.named_buffers():
            if not name.endswith("num_batches_tracked"):
                buffer.copy_(state.buffers[name][lane])
    return model


def start_of(setting, dataset, seed=0):
    return initial_state(setting, dataset, seed)
