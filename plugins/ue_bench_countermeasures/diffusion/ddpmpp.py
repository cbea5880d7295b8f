"""DDPM++, the network of score-based models in continuous time, which AVATAR and DiffPure release for CIFAR-10.

Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations", ICLR 2021: the configuration
without filters whose residual blocks halve and double the side. Parameters are registered in the order of the authors'
code, because its moving averages are kept as a list without names. For use, not for training: there is no dropout.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

GROUPS = 32  # of a normalisation, fewer where that would leave under four channels in each


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(channels // 4, GROUPS), channels, eps=1e-6)


class Block(nn.Module):
    """Two convolutions, told the time between them; ``resize`` halves the side before the first or doubles it."""

    def __init__(self, inputs: int, outputs: int, told: int, resize: float = 1) -> None:
        super().__init__()
        self.resize = resize
        self.norm1 = _norm(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.time = nn.Linear(told, outputs)
        self.norm2 = _norm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        plain = inputs == outputs and resize == 1
        self.shortcut = None if plain else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        h = F.silu(self.norm1(x))
        if self.resize < 1:
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        elif self.resize > 1:
            h, x = F.interpolate(h, scale_factor=2), F.interpolate(x, scale_factor=2)
        h = self.conv1(h) + self.time(F.silu(told))[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h)))
        if self.shortcut is not None:
            x = self.shortcut(x)
        joined: Tensor = (x + h) / math.sqrt(2)
        return joined


class Mix(nn.Module):
    """A linear map of channels whose weight is kept inputs by outputs."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, channels))
        self.bias = nn.Parameter(torch.empty(channels))

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = x @ self.weight + self.bias
        return mixed


class Attention(nn.Module):
    """Self-attention of all places of a plane, with one head."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _norm(channels)
        self.query, self.key, self.value, self.output = (Mix(channels) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        places = self.norm(x).flatten(2).transpose(1, 2)
        affinity = self.query(places) @ self.key(places).transpose(1, 2) / math.sqrt(x.shape[1])
        mixed: Tensor = self.output(affinity.softmax(2) @ self.value(places))
        joined: Tensor = (x + mixed.transpose(1, 2).reshape(x.shape)) / math.sqrt(2)
        return joined


class Stage(nn.Module):
    """A block, and attention behind it where the side has one."""

    def __init__(self, block: Block, attended: bool = False) -> None:
        super().__init__()
        self.block = block
        self.attention = Attention(block.conv2.out_channels) if attended else None

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        h: Tensor = self.block(x, told)
        return h if self.attention is None else self.attention(h)


class DdpmPlusPlus(nn.Module):
    """N x 3 x H x W in [-1, 1] and the time they are at, times 999, to the noise in them.

    ``base_channels`` of the first convolution, ``block_out_channels`` of the levels, whose sides are ``sample_size``,
    half of it and so on; ``layers_per_block`` blocks a level, one more on the way up; attention where the side is one
    of ``attention_sides``, behind every block on the way down, once a level on the way up.
    """

    def __init__(
        self,
        sample_size: int,
        base_channels: int,
        block_out_channels: Sequence[int],
        layers_per_block: int,
        attention_sides: Sequence[int],
    ) -> None:
        super().__init__()
        told, width = 4 * base_channels, base_channels
        self.time = nn.ModuleList([nn.Linear(base_channels, told), nn.Linear(told, told)])
        self.conv_in = nn.Conv2d(3, width, 3, padding=1)
        self.down = nn.ModuleList()
        kept, last = [width], len(block_out_channels) - 1
        for level, channels in enumerate(block_out_channels):
            for _ in range(layers_per_block):
                self.down.append(Stage(Block(width, channels, told), sample_size >> level in attention_sides))
                kept.append(width := channels)
            if level < last:
                self.down.append(Stage(Block(width, width, told, 0.5)))
                kept.append(width)
        self.middle = nn.ModuleList([Block(width, width, told), Attention(width), Block(width, width, told)])
        self.up = nn.ModuleList()
        for level, channels in reversed(list(enumerate(block_out_channels))):
            for layer in range(layers_per_block + 1):
                attended = layer == layers_per_block and sample_size >> level in attention_sides
                self.up.append(Stage(Block(width + kept.pop(), channels, told), attended))
                width = channels
            if level:
                self.up.append(Stage(Block(width, width, told, 2)))
        self.norm_out = _norm(width)
        self.conv_out = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        told = self.time[1](F.silu(self.time[0](embedded(time.expand(len(x)), self.conv_in.out_channels))))
        h = self.conv_in(x)
        kept = [h]
        for stage in self.down:
            h = stage(h, told)
            kept.append(h)
        first, attention, second = self.middle
        h = second(attention(first(h, told)), told)
        for stage in self.up:
            assert isinstance(stage, Stage)
            doubles = stage.block.resize > 1
            h = stage(h if doubles else torch.cat([h, kept.pop()], 1), told)
        noise: Tensor = self.conv_out(F.silu(self.norm_out(h)))
        return noise


def embedded(time: Tensor, channels: int) -> Tensor:
    """Return N x ``channels``: sines and then cosines of times at frequencies from 1 to 1 / 10,000."""
    half = channels // 2
    frequencies = torch.exp(torch.arange(half, device=time.device) * (-math.log(10_000) / (half - 1)))
    angles = time.float()[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], 1)
