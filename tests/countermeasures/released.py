"""Networks as the authors of purifiers compute them, on bare weights by their names: what conversions are held to.

Written from the rules of both families, not from diffusers. Weights that are asked for and not there are drawn, so
that a first pass makes a checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

Weights = dict[str, Tensor]


class Network:
    """Operations on weights by name."""

    eps: float

    def __init__(self, weights: Weights | None = None, seed: int = 0) -> None:
        self.weights: Weights = {} if weights is None else weights
        self.random = torch.Generator().manual_seed(seed)

    def get(self, name: str, *shape: int, around: float = 0.0) -> Tensor:
        if name not in self.weights:
            drawn = torch.randn(shape, generator=self.random) * (0.3 if len(shape) == 1 else shape[1] ** -0.5)
            self.weights[name] = drawn / (3 if len(shape) == 4 and shape[-1] == 3 else 1) + around
        return self.weights[name]

    def conv(self, name: str, x: Tensor, outputs: int, kernel: int = 3, stride: int = 1, padding: int = 1) -> Tensor:
        weight = self.get(f"{name}.weight", outputs, x.shape[1], kernel, kernel)
        return F.conv2d(x, weight, self.get(f"{name}.bias", outputs), stride, padding if kernel == 3 else 0)

    def linear(self, name: str, x: Tensor, outputs: int) -> Tensor:
        return F.linear(x, self.get(f"{name}.weight", outputs, x.shape[1]), self.get(f"{name}.bias", outputs))

    def norm(self, name: str, x: Tensor) -> Tensor:
        channels = x.shape[1]
        weight = self.get(f"{name}.weight", channels, around=1.0)
        return F.group_norm(x, 32, weight, self.get(f"{name}.bias", channels), self.eps)


class Ddpm(Network):
    """DDPM in PyTorch: one head of attention, downsampling padded on one side, sine first."""

    eps = 1e-6

    def __call__(self, x: Tensor, t: float, channels: list[int], layers: int, attended: list[bool]) -> Tensor:
        first = channels[0]
        frequencies = torch.exp(-math.log(10000) * torch.arange(first // 2) / (first // 2 - 1))
        embedding = torch.cat([(t * frequencies).sin(), (t * frequencies).cos()])[None]
        self.temb = self.linear("temb.dense.1", F.silu(self.linear("temb.dense.0", embedding, 4 * first)), 4 * first)
        h = self.conv("conv_in", x, first)
        kept = [h]
        for level, width in enumerate(channels):
            for j in range(layers):
                h = self.block(f"down.{level}.block.{j}", h, width)
                if attended[level]:
                    h = self.attention(f"down.{level}.attn.{j}", h)
                kept.append(h)
            if level < len(channels) - 1:
                h = self.conv(f"down.{level}.downsample.conv", F.pad(h, (0, 1, 0, 1)), width, stride=2, padding=0)
                kept.append(h)
        h = self.block("mid.block_1", h, channels[-1])
        h = self.block("mid.block_2", self.attention("mid.attn_1", h), channels[-1])
        for level in reversed(range(len(channels))):
            for j in range(layers + 1):
                h = self.block(f"up.{level}.block.{j}", torch.cat([h, kept.pop()], 1), channels[level])
                if attended[level]:
                    h = self.attention(f"up.{level}.attn.{j}", h)
            if level:
                h = self.conv(f"up.{level}.upsample.conv", F.interpolate(h, scale_factor=2), channels[level])
        return self.conv("conv_out", F.silu(self.norm("norm_out", h)), 3)

    def block(self, name: str, x: Tensor, outputs: int) -> Tensor:
        h = self.conv(f"{name}.conv1", F.silu(self.norm(f"{name}.norm1", x)), outputs)
        h = h + self.linear(f"{name}.temb_proj", F.silu(self.temb), outputs)[:, :, None, None]
        h = self.conv(f"{name}.conv2", F.silu(self.norm(f"{name}.norm2", h)), outputs)
        return h + (x if x.shape[1] == outputs else self.conv(f"{name}.nin_shortcut", x, outputs, kernel=1))

    def attention(self, name: str, x: Tensor) -> Tensor:
        h, channels = self.norm(f"{name}.norm", x), x.shape[1]
        q, k, v = (self.conv(f"{name}.{part}", h, channels, kernel=1).flatten(2) for part in "qkv")
        weights = (torch.einsum("nci,ncj->nij", q, k) / math.sqrt(channels)).softmax(2)
        h = torch.einsum("nij,ncj->nci", weights, v).view_as(x)
        return x + self.conv(f"{name}.proj_out", h, channels, kernel=1)


class Guided(Network):
    """Guided diffusion: scale and shift by the step, queries, keys and values head by head, cosine first."""

    eps = 1e-5

    def __call__(
        self, x: Tensor, t: float, channels: list[int], layers: int, attended: list[bool], head: int, resize: bool
    ) -> Tensor:
        first, last, self.head = channels[0], len(channels) - 1, head
        frequencies = torch.exp(-math.log(10000) * torch.arange(first // 2) / (first // 2))
        embedding = torch.cat([(t * frequencies).cos(), (t * frequencies).sin()])[None]
        self.temb = self.linear("time_embed.2", F.silu(self.linear("time_embed.0", embedding, 4 * first)), 4 * first)
        h, entry = self.conv("input_blocks.0.0", x, first), 1
        kept = [h]
        for level, width in enumerate(channels):
            for _ in range(layers):
                h = self.block(f"input_blocks.{entry}.0", h, width)
                if attended[level]:
                    h = self.attention(f"input_blocks.{entry}.1", h)
                kept.append(h)
                entry += 1
            if level < last:
                name = f"input_blocks.{entry}.0"
                h = self.block(name, h, width, 0.5) if resize else self.conv(f"{name}.op", h, width, stride=2)
                kept.append(h)
                entry += 1
        h = self.block("middle_block.0", h, channels[-1])
        h = self.block("middle_block.2", self.attention("middle_block.1", h), channels[-1])
        entry = 0
        for level in reversed(range(len(channels))):
            for j in range(layers + 1):
                h = self.block(f"output_blocks.{entry}.0", torch.cat([h, kept.pop()], 1), channels[level])
                if attended[level]:
                    h = self.attention(f"output_blocks.{entry}.1", h)
                if level and j == layers:
                    name = f"output_blocks.{entry}.{2 if attended[level] else 1}"
                    if resize:
                        h = self.block(name, h, channels[level], 2)
                    else:
                        h = self.conv(f"{name}.conv", F.interpolate(h, scale_factor=2), channels[level])
                entry += 1
        return self.conv("out.2", F.silu(self.norm("out.0", h)), 6)

    def block(self, name: str, x: Tensor, outputs: int, factor: float = 1) -> Tensor:
        h = F.silu(self.norm(f"{name}.in_layers.0", x))
        if factor == 0.5:
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        elif factor == 2:
            h, x = F.interpolate(h, scale_factor=2), F.interpolate(x, scale_factor=2)
        h = self.conv(f"{name}.in_layers.2", h, outputs)
        said = self.linear(f"{name}.emb_layers.1", F.silu(self.temb), 2 * outputs)[:, :, None, None]
        scale, shift = said.chunk(2, 1)
        h = self.norm(f"{name}.out_layers.0", h) * (1 + scale) + shift
        h = self.conv(f"{name}.out_layers.3", F.silu(h), outputs)
        return h + (x if x.shape[1] == outputs else self.conv(f"{name}.skip_connection", x, outputs, kernel=1))

    def attention(self, name: str, x: Tensor) -> Tensor:
        count, channels = x.shape[:2]
        heads = channels // self.head
        h = self.norm(f"{name}.norm", x).flatten(2)
        kernel = self.get(f"{name}.qkv.weight", 3 * channels, channels, 1)
        qkv = F.conv1d(h, kernel, self.get(f"{name}.qkv.bias", 3 * channels))
        q, k, v = qkv.view(count * heads, 3 * self.head, -1).split(self.head, 1)
        weights = (torch.einsum("nci,ncj->nij", q, k) / math.sqrt(self.head)).softmax(2)
        h = torch.einsum("nij,ncj->nci", weights, v).reshape(count, channels, -1)
        kernel = self.get(f"{name}.proj_out.weight", channels, channels, 1)
        return x + F.conv1d(h, kernel, self.get(f"{name}.proj_out.bias", channels)).view_as(x)


class InTime:
    """DDPM++ as its authors compute it, on a list of weights in their order; those that are missing are drawn."""

    def __init__(self, weights: Sequence[Tensor] = (), seed: int = 0) -> None:
        self.given, self.used = list(weights), list[Tensor]()
        self.random = torch.Generator().manual_seed(seed)

    def take(self, *shape: int, around: float = 0.0) -> Tensor:
        place = len(self.used)
        if place == len(self.given):
            fan_in = math.prod(shape[1:]) if len(shape) != 2 else shape[0]
            scale = 0.3 if len(shape) == 1 else fan_in**-0.5
            self.given.append(around + scale * torch.randn(shape, generator=self.random))
        self.used.append(self.given[place])
        assert self.used[-1].shape == shape
        return self.used[-1]

    def __call__(self, x: Tensor, t: float, first: int, multipliers: Sequence[int], layers: int) -> Tensor:
        """``t`` in (0, 1]. Sides of 16 have attention; the modules of a level come one after the other."""
        self.used.clear()
        frequencies = torch.exp(-math.log(10000) * torch.arange(first // 2) / (first // 2 - 1))
        embedding = torch.cat([(999 * t * frequencies).sin(), (999 * t * frequencies).cos()])[None]
        self.temb = F.silu(self.linear(F.silu(self.linear(embedding, 4 * first)), 4 * first))
        h = self.conv(x, first)
        kept, top = [h], len(multipliers) - 1
        for level, multiplier in enumerate(multipliers):
            for _ in range(layers):
                h = self.block(kept[-1], first * multiplier)
                kept.append(self.attention(h) if h.shape[-1] == 16 else h)
            if level < top:
                kept.append(self.block(kept[-1], first * multiplier, "down"))
        h = self.block(kept[-1], kept[-1].shape[1])
        h = self.block(self.attention(h), h.shape[1])
        for level in reversed(range(len(multipliers))):
            for _ in range(layers + 1):
                h = self.block(torch.cat([h, kept.pop()], 1), first * multipliers[level])
            if h.shape[-1] == 16:
                h = self.attention(h)
            if level:
                h = self.block(h, h.shape[1], "up")
        assert not kept
        return self.conv(F.silu(self.norm(h)), 3)

    def linear(self, x: Tensor, outputs: int) -> Tensor:
        return F.linear(x, self.take(outputs, x.shape[1]), self.take(outputs))

    def conv(self, x: Tensor, outputs: int, kernel: int = 3) -> Tensor:
        return F.conv2d(x, self.take(outputs, x.shape[1], kernel, kernel), self.take(outputs), padding=kernel // 2)

    def norm(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        return F.group_norm(x, min(channels // 4, 32), self.take(channels, around=1.0), self.take(channels), 1e-6)

    def block(self, x: Tensor, outputs: int, resize: str = "") -> Tensor:
        h, same = F.silu(self.norm(x)), x.shape[1] == outputs and not resize
        if resize == "up":
            h, x = (v.repeat_interleave(2, 2).repeat_interleave(2, 3) for v in (h, x))
        elif resize == "down":
            h, x = (F.avg_pool2d(v, 2) for v in (h, x))
        h = self.conv(h, outputs)
        h = h + self.linear(self.temb, outputs)[:, :, None, None]
        h = self.conv(F.silu(self.norm(h)), outputs)
        return ((x if same else self.conv(x, outputs, 1)) + h) / math.sqrt(2)

    def attention(self, x: Tensor) -> Tensor:
        h, channels = self.norm(x), x.shape[1]
        maps = ((self.take(channels, channels), self.take(channels)) for _ in range(4))

        def mixed(x: Tensor, maps: Iterator[tuple[Tensor, Tensor]] = maps) -> Tensor:
            weight, bias = next(maps)  # inputs by outputs
            return torch.einsum("ncyx,cd->ndyx", x, weight) + bias[:, None, None]

        q, k, v = mixed(h), mixed(h), mixed(h)
        affinity = torch.einsum("ncyx,ncij->nyxij", q, k) / math.sqrt(channels)
        affinity = affinity.flatten(3).softmax(3).view_as(affinity)
        return (x + mixed(torch.einsum("nyxij,ncij->ncyx", affinity, v))) / math.sqrt(2)
