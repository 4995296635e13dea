"""Modules of every kind that a kernel must be right for: name -> how to build it, its inputs' shape, what has no rule.

The last are the parameters that no rule answers for.
"""

import functools

import torch
from samples import PLAIN, small_setting
from torch import nn
from torch.utils.checkpoint import checkpoint

NUM = 7


class Residual(nn.Module):
    """A shared layer used twice, a scalar parameter, a frozen one and a layer norm."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(6, 5)
        self.twice = nn.Linear(5, 5)
        self.scale = nn.Parameter(torch.tensor(0.7))
        self.frozen = nn.Parameter(torch.ones(5), requires_grad=False)
        self.norm = nn.LayerNorm(5)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        x = self.embed(x)
        x = x + self.scale * torch.tanh(self.twice(x))
        return self.head(self.drop(self.norm(x + self.frozen * torch.tanh(self.twice(x)))))


class Applied(nn.Module):
    """Parts, and a function that applies them."""

    def __init__(self, apply_parts, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self._apply_parts = apply_parts

    def forward(self, x):
        return self._apply_parts(self, x)


def tied():
    first, last = nn.Linear(6, 6, bias=False), nn.Linear(6, 6)
    last.weight = first.weight
    return nn.Sequential(first, nn.Tanh(), last, nn.Linear(6, 3))


def hooked():
    module = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3))
    module[0].register_forward_hook(lambda _, args, output: output * args[0].mean(-1, keepdim=True))
    return module


def bias_only():
    module = nn.Sequential(nn.Conv1d(1, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(16, 3))
    module[0].weight.requires_grad_(False)
    module[3].weight.requires_grad_(False)
    return module


def routed(m, x):
    """Each input goes to the expert of its sign: the first inputs all to one."""
    chosen = x[:, 0] > 0
    out = x.new_zeros(len(x), 3).index_put((chosen,), m.plus(x[chosen]))
    if not chosen.all():
        out = out.index_put((~chosen,), m.minus(x[~chosen]))
    return m.head(out)


def cropped(m, x):
    """As many positions as the longest input has that aren't 0; what is cropped counts for nothing."""
    length = int((x != 0).any(2).any(0).nonzero().max()) + 1
    return m.head((torch.tanh(m.lin(x[:, :length])) * x[:, :length, :1]).sum(1))


def attended(m, x):
    return m.head(m.norm(x + m.attention(x, x, x)[0]).mean(1))


def several(m, x):
    branch = m.right(x) if len(x) else m.unused(x)
    return (m.left(x) + branch, None)[0]


def in_place(m, x):
    x.mul_(0.5)
    x = m.first(x)
    x.relu_()
    x = m.norm(x) * 0.5
    x += 1
    return m.last(x).mul_(2.0)


def plain_resnet():
    setting = small_setting("resnet", shortcut="B")
    module = PLAIN["resnet"](setting, (3, 6, 6))
    module.activation = "relu"
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean, std=0.3)
            nn.init.uniform_(part.running_var, 0.5, 2.0)
            nn.init.normal_(part.weight)
    return module


def sequential(*layers):
    return lambda: nn.Sequential(*[layer() for layer in layers])


def seeded(build):
    torch.manual_seed(3)
    return build().double()


L, TOKENS = functools.partial, 9

MODULES = {
    # What no rule answers for stands last: names of parameters.
    "residual": (Residual, (NUM, 6), {"twice.weight", "twice.bias", "scale"}),
    "one logit": (L(nn.Linear, 4, 1), (NUM, 4), set()),
    "one input": (L(nn.Linear, 4, 3), (1, 4), set()),
    "plain resnet": (plain_resnet, (NUM, 3, 6, 6), set()),
    "groups, dilation, circular": (
        sequential(
            L(nn.Conv2d, 4, 6, 3, groups=2, dilation=2, padding=2, padding_mode="circular"),
            nn.GELU,
            L(nn.Conv2d, 6, 12, (1, 3), groups=6, stride=(2, 1), bias=False),
            nn.Flatten,
            L(nn.Linear, 144, 3),
        ),
        (NUM, 4, 6, 6),
        set(),
    ),
    "even windows, reflected": (
        sequential(
            L(nn.Conv1d, 2, 4, 4, padding="same"),
            nn.Tanh,
            L(nn.Conv1d, 4, 4, 3, padding=2, padding_mode="reflect", stride=2),
            L(nn.BatchNorm1d, 4),
            L(nn.Conv1d, 4, 64, 2, padding="valid"),
            L(nn.AdaptiveAvgPool1d, 2),
            nn.Flatten,
            L(nn.Linear, 128, 3),
        ),
        (NUM, 2, 6),
        set(),
    ),
    "three dimensions": (
        sequential(
            L(nn.Conv3d, 1, 2, 2, padding=1),
            L(nn.BatchNorm3d, 2),
            nn.Tanh,
            L(nn.GroupNorm, 2, 2),
            nn.Flatten,
            L(nn.Linear, 128, 3),
        ),
        (NUM, 1, 3, 3, 3),
        set(),
    ),
    "norms": (
        sequential(
            L(nn.LayerNorm, (4, 6)),
            L(nn.Linear, 6, 8),
            L(nn.RMSNorm, 8),
            L(nn.LayerNorm, 8, elementwise_affine=False),
            L(nn.GroupNorm, 2, 4),
            L(nn.LayerNorm, 8, bias=False),
            nn.Flatten,
            L(nn.BatchNorm1d, 32),
            L(nn.Linear, 32, 3),
        ),
        (NUM, 4, 6),
        set(),
    ),
    "tokens": (
        sequential(
            L(nn.Embedding, TOKENS, 4, padding_idx=2), L(nn.Linear, 4, 8), nn.GELU, nn.Flatten, L(nn.Linear, 24, 3)
        ),
        TOKENS,
        set(),
    ),
    "two tokens of one": (
        sequential(L(nn.Embedding, TOKENS, 4), L(nn.AdaptiveAvgPool2d, (1, 3)), nn.Flatten),
        TOKENS,
        set(),
    ),
    "bias alone": (bias_only, (NUM, 1, 6), set()),
    "in place": (
        lambda: Applied(in_place, first=nn.Linear(6, 5), norm=nn.LayerNorm(5), last=nn.Linear(5, 3)),
        (NUM, 6),
        set(),
    ),
    "branches, unused": (
        lambda: Applied(several, left=nn.Linear(6, 3), right=nn.Linear(6, 3), unused=nn.Linear(6, 3)),
        (NUM, 6),
        set(),
    ),
    "called twice": (
        lambda: Applied(
            lambda m, x: m.head(m.conv(m.conv(x)).flatten(1)), conv=nn.Conv1d(1, 1, 3), head=nn.Linear(4, 3)
        ),
        (NUM, 1, 8),
        {"conv.weight", "conv.bias"},
    ),
    "tied": (tied, (NUM, 6), {"0.weight", "2.bias"}),
    "used outside": (
        lambda: Applied(
            lambda m, x: m.last(m.first(x) + nn.functional.linear(x, m.first.weight)) * m.scaled.bias.exp(),
            first=nn.Linear(6, 5),
            last=nn.Linear(5, 3),
            scaled=nn.Linear(2, 3),
        ),
        (NUM, 6),
        {"first.weight", "first.bias", "scaled.bias"},
    ),
    "fed by itself": (
        lambda: Applied(lambda m, x: m.head(m.lin(x @ m.lin.weight)), lin=nn.Linear(6, 6), head=nn.Linear(6, 3)),
        (NUM, 6),
        {"lin.weight", "lin.bias"},
    ),
    "hooked": (hooked, (NUM, 6), {"0.weight", "0.bias"}),
    "weight norm": (
        lambda: nn.utils.parametrizations.weight_norm(nn.Linear(6, 3)),
        (NUM, 6),
        {"bias", "parametrizations.weight.original0", "parametrizations.weight.original1"},
    ),
    "positions first": (
        lambda: Applied(
            lambda m, x: m.head(m.lin(x.transpose(0, 1)).sum(0)), lin=nn.Linear(6, 5), head=nn.Linear(5, 3)
        ),
        (NUM, 2, 6),  # as many positions as inputs are looked at
        {"lin.weight", "lin.bias"},
    ),
    "inputs reversed inside": (
        lambda: Applied(lambda m, x: m.head(m.lin(x.flip(0)).flip(0)), lin=nn.Linear(6, 5), head=nn.Linear(5, 3)),
        (NUM, 6),
        {"lin.weight", "lin.bias"},
    ),
    "experts": (  # of whom one is met only when its inputs come
        lambda: Applied(routed, plus=nn.Linear(6, 3), minus=nn.Linear(6, 3), head=nn.Linear(3, 3)),
        (NUM, 6),
        {f"{name}.{what}" for name in ("plus", "minus") for what in ("weight", "bias")},
    ),
    "cropped": (
        lambda: Applied(cropped, lin=nn.Linear(6, 5), head=nn.Linear(5, 3)),
        (NUM, 3, 6),
        set(),
    ),
    "attention": (
        lambda: Applied(
            attended,
            attention=nn.MultiheadAttention(6, 2, batch_first=True),
            norm=nn.LayerNorm(6),
            head=nn.Linear(6, 3),
        ),
        (NUM, 4, 6),
        {f"attention.{name}" for name in ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")},
    ),
    "recurrent": (
        lambda: Applied(
            lambda m, x: m.head(m.lstm(x)[0][:, -1]), lstm=nn.LSTM(3, 4, batch_first=True), head=nn.Linear(4, 3)
        ),
        (NUM, 4, 3),
        {f"lstm.{name}_l0" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")},
    ),
    "checkpoints": (
        lambda: Applied(
            lambda m, x: m.head(checkpoint(m.body, x, use_reentrant=False)),
            body=nn.Sequential(nn.Linear(6, 6), nn.Tanh()),
            head=nn.Linear(6, 3),
        ),
        (NUM, 6),
        set(),
    ),
    "values decide": (
        lambda: Applied(
            lambda m, x: m.head(m.lin(x)) if x.shape[0] > 1 or x.sum() > -1e9 else m.head(x),
            lin=nn.PReLU(),
            head=nn.Linear(6, 3),
        ),
        (NUM, 6),
        {"lin.weight"},
    ),
}
