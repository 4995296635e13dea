"""Small data, small settings, and plain torch networks that carry the weights of a lane."""

import pkgutil

import torch
from torch import nn

from twophase.config import setting
from twophase.data import Dataset
from twophase.training import initial_state

NUM_TRAIN, NUM_TEST, NUM_CLASSES = 300, 40, 3
"""More than 256 training examples, so that evaluation takes two batches."""

SMALL = {
    "cnn": {"depth": 3, "width": 8},
    "custom": {"build": "custom_nets:mixer"},
    "mlp": {"depth": 3, "width": 8},
    "resnet": {"depth": 8, "width": 4},
    "vgg": {"depth": 11, "width": 2},
    "vit": {"depth": 2, "width": 8, "patch_size": 2, "num_heads": 2},
}
"""Leaves of the small model of each kind."""

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
    small = {"num_train": NUM_TRAIN, "num_test": NUM_TEST, "batch_size": 16, "num_steps": 40}
    return setting({"model": model, **SMALL[model], **small, **leaves})


def plain_norm(setting, channels, num_dims):
    """As torch has it, after a dense layer (no positions) or a convolution."""
    if setting.norm_layer == "batch":
        return (nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d)[num_dims](channels)
    if setting.norm_layer == "none":
        return nn.Identity()
    if setting.norm_layer == "layer" and num_dims == 0:
        return nn.LayerNorm(channels)
    groups = {4: 1, 8: 2, 16: 4, 2: 1}[channels] if setting.norm_layer == "group" else 1
    return nn.GroupNorm(groups, channels)


class PlainMLP(nn.Module):
    """As one would write it for a single network."""

    def __init__(self, setting, input_shape):
        super().__init__()
        sizes = [torch.Size(input_shape).numel(), *[setting.width] * setting.depth]
        self.hidden = nn.ModuleList(nn.Linear(sizes[i], sizes[i + 1]) for i in range(setting.depth))
        self.norms = nn.ModuleList(plain_norm(setting, setting.width, 0) for _ in self.hidden)
        self.head = nn.Linear(setting.width, NUM_CLASSES)

    def forward(self, x):
        x = x.flatten(1)
        for linear, norm in zip(self.hidden, self.norms, strict=True):
            x = activate(norm(linear(x)), self)
        return self.head(x)


class PlainCNN(nn.Module):
    def __init__(self, setting, input_shape):
        super().__init__()
        conv = nn.Conv1d if len(input_shape) == 2 else nn.Conv2d
        is_normed = setting.norm_layer != "none"
        channels = [input_shape[0], *[setting.width] * setting.depth]
        self.convs = nn.ModuleList(
            conv(channels[i], channels[i + 1], 3, stride=2 if i % 2 == 0 else 1, padding=1, bias=not is_normed)
            for i in range(setting.depth)
        )
        self.norms = nn.ModuleList(plain_norm(setting, setting.width, len(input_shape) - 1) for _ in self.convs)
        self.head = nn.Linear(setting.width, NUM_CLASSES)

    def forward(self, x):
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = activate(norm(conv(x)), self)
        return self.head(x.flatten(2).mean(2))


class PlainBlock(nn.Module):
    def __init__(self, channels_in, channels_out, setting, num_dims):
        super().__init__()
        conv, shortcut = (nn.Conv1d, nn.Conv2d)[num_dims - 1], setting.shortcut
        is_normed = setting.norm_layer != "none"
        stride = 1 if channels_in == channels_out else 2
        self.conv1 = conv(channels_in, channels_out, 3, stride=stride, padding=1, bias=not is_normed)
        self.norm1 = plain_norm(setting, channels_out, num_dims)
        self.conv2 = conv(channels_out, channels_out, 3, padding=1, bias=not is_normed)
        self.norm2 = plain_norm(setting, channels_out, num_dims)
        self.kind, self.stride, self.new = shortcut, stride, channels_out - channels_in
        self.shortcut = nn.Identity()
        if shortcut == "B" and stride == 2:
            projection = conv(channels_in, channels_out, 1, stride=2, bias=not is_normed)
            self.shortcut = nn.Sequential(projection, plain_norm(setting, channels_out, num_dims))

    def forward(self, x, model):
        y = self.norm2(self.conv2(activate(self.norm1(self.conv1(x)), model)))
        if self.kind == "A" and self.stride == 2:
            x = x[..., ::2] if x.dim() == 3 else x[..., ::2, ::2]
            zeros = torch.zeros_like(x)[:, :1].repeat_interleave(self.new // 2, 1)
            return activate(y + torch.cat([zeros, x, zeros], 1), model)
        return activate(y + self.shortcut(x), model)


class PlainResNet(nn.Module):
    def __init__(self, setting, input_shape):
        super().__init__()
        conv = nn.Conv1d if len(input_shape) == 2 else nn.Conv2d
        width = setting.width
        self.stem = conv(input_shape[0], width, 3, padding=1, bias=setting.norm_layer == "none")
        self.norm = plain_norm(setting, width, len(input_shape) - 1)
        blocks, channels = [], width
        for stage in (width, 2 * width, 4 * width):
            for _ in range((setting.depth - 2) // 6):
                blocks.append(PlainBlock(channels, stage, setting, len(input_shape) - 1))
                channels = stage
        self.blocks = nn.ModuleList(blocks)
        self.head = nn.Linear(channels, NUM_CLASSES)

    def forward(self, x):
        x = activate(self.norm(self.stem(x)), self)
        for block in self.blocks:
            x = block(x, self)
        return self.head(x.flatten(2).mean(2))


class PlainVGG(nn.Module):
    def __init__(self, setting, input_shape):
        super().__init__()
        self.is_flat, is_normed, width = len(input_shape) == 2, setting.norm_layer != "none", setting.width
        conv = nn.Conv1d if self.is_flat else nn.Conv2d
        counts = {11: [1, 1, 2, 2, 2], 13: [2] * 5, 16: [2, 2, 3, 3, 3], 19: [2, 2, 4, 4, 4]}[setting.depth]
        channels, stages = input_shape[0], []
        for count, size in zip(counts, [width, 2 * width, 4 * width, 8 * width, 8 * width], strict=True):
            layers = nn.ModuleList()
            for _ in range(count):
                layers.append(conv(channels, size, 3, padding=1, bias=not is_normed))
                layers.append(plain_norm(setting, size, len(input_shape) - 1))
                channels = size
            stages.append(layers)
        self.stages = nn.ModuleList(stages)
        self.head = nn.Linear(channels, NUM_CLASSES)

    def forward(self, x):
        pool = nn.functional.max_pool1d if self.is_flat else nn.functional.max_pool2d
        for stage in self.stages:
            for i, layer in enumerate(stage):
                x = activate(layer(x), self) if i % 2 else layer(x)
            x = pool(x, 2) if x.shape[-1] >= 2 else x
        return self.head(x.flatten(2).mean(2))


class PlainAttention(nn.Module):
    def __init__(self, width, num_heads):
        super().__init__()
        self.num_heads = num_heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        heads = [part.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, 2)]
        return self.out(nn.functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2))


class PlainViTBlock(nn.Module):
    def __init__(self, setting):
        super().__init__()
        width = setting.width
        self.norm1, self.norm2 = (plain_norm(setting, width, 0) for _ in range(2))
        self.attention = PlainAttention(width, setting.num_heads)
        self.hidden, self.out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x, model):
        x = x + self.attention(self.norm1(x))
        return x + self.out(activate(self.hidden(self.norm2(x)), model))


class PlainViT(nn.Module):
    def __init__(self, setting, input_shape):
        super().__init__()
        self.patch = (setting.patch_size if len(input_shape) == 3 else 1, setting.patch_size)
        num_tokens = torch.Size(input_shape[1:]).numel() // self.patch[0] // self.patch[1]
        self.embedding = nn.Linear(input_shape[0] * self.patch[0] * self.patch[1], setting.width)
        self.positions = nn.Embedding(num_tokens, setting.width)
        self.blocks = nn.ModuleList(PlainViTBlock(setting) for _ in range(setting.depth))
        self.norm = plain_norm(setting, setting.width, 0)
        self.head = nn.Linear(setting.width, NUM_CLASSES)

    def forward(self, x):
        x = x if x.dim() == 4 else x.unsqueeze(2)
        patches = nn.functional.unfold(x, self.patch, stride=self.patch).transpose(1, 2)
        x = self.embedding(patches) + self.positions.weight
        for block in self.blocks:
            x = block(x, self)
        return self.head(self.norm(x).mean(1))


class PlainCustom(nn.Module):
    def __init__(self, setting, input_shape):
        super().__init__()
        self.net = pkgutil.resolve_name(setting.build)(input_shape, NUM_CLASSES)

    def forward(self, x):
        return self.net(x)


PLAIN = {
    "cnn": PlainCNN,
    "custom": PlainCustom,
    "mlp": PlainMLP,
    "resnet": PlainResNet,
    "vgg": PlainVGG,
    "vit": PlainViT,
}


def activate(x, model):
    return {"relu": torch.relu, "gelu": nn.functional.gelu, "tanh": torch.tanh}[model.activation](x)


def plain(setting, input_shape, state, lane):
    """The plain network of one lane of a state, in float64."""
    model = PLAIN[setting.model](setting, input_shape).double()
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
