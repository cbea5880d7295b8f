"""The invertible generator: Haar transforms down and up, and double-sided affine couplings between them.

Source: "Invertible Image Dataset Protection" (RAEG), section on the network, equations 1 and 2; written from the
published description. What the paper leaves open is a parameter here.

Deviations from the paper as printed:

* The scale of equation 1 is bounded, ``exp(clamp * (2 sigmoid(s) - 1))``: the raw ``exp`` overflows at small weights.
* Equation 2 divides where it prints an element-wise product: the inverse below undoes equation 1.
* The last convolution of a sub-network has no spectral norm and starts at zero: the generator starts as the identity.

Tensors are N x C x H x W. Images are in [0, 1]; nothing is clamped here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize

MULTIPLE = 8  # sides must be: three halvings
LEVELS = 3
BLOCKS = 4  # couplings a module


def haar(x: Tensor, order: str = "band") -> Tensor:
    """Transform N x C x H x W to N x 4C x H/2 x W/2 by the orthonormal 2 x 2 Haar transform.

    Of a cell ``a b / c d``: ``a + b + c + d``, ``a - b + c - d``, ``a + b - c - d`` and ``a - b - c + d``, all halved.
    ``order=band`` has all channels of one band together, ``order=channel`` all bands of one channel. Raises ValueError
    for odd sides.
    """
    if x.shape[-1] % 2 or x.shape[-2] % 2:
        raise ValueError(f"the Haar transform needs an even height and width, not {tuple(x.shape[-2:])}")
    top, bottom = x[..., 0::2, :], x[..., 1::2, :]
    low, high = top + bottom, top - bottom
    bands = [low[..., 0::2] + low[..., 1::2], low[..., 0::2] - low[..., 1::2],
             high[..., 0::2] + high[..., 1::2], high[..., 0::2] - high[..., 1::2]]  # fmt: skip
    if order == "channel":
        return torch.stack(bands, dim=2).flatten(1, 2) / 2
    return torch.cat(bands, dim=1) / 2


def inverse_haar(z: Tensor, order: str = "band") -> Tensor:
    """Apply the inverse (and transpose) of :func:`haar`."""
    n, channels, height, width = z.shape
    shape = (n, channels // 4, 4) if order == "channel" else (n, 4, channels // 4)
    s, h, v, g = z.reshape(*shape, height, width).unbind(2 if order == "channel" else 1)
    top, bottom = s + v, s - v
    left, right = h + g, h - g
    x = torch.stack([top + left, top - left, bottom + right, bottom - right], dim=-1) / 2
    cells = x.reshape(n, channels // 4, height, width, 2, 2)
    return cells.permute(0, 1, 2, 4, 3, 5).reshape(n, channels // 4, 2 * height, 2 * width)


def at_zero(convolution: nn.Conv2d) -> nn.Conv2d:
    """Set all weights of ``convolution`` to zero, and return it: what it is added to starts as the identity."""
    for values in convolution.parameters():
        nn.init.zeros_(values)
    return convolution


class Haar(nn.Module):
    """The transform as a step of the network: down, or up where ``up``."""

    def __init__(self, order: str, up: bool) -> None:
        super().__init__()
        self.order, self.up = order, up

    def forward(self, x: Tensor) -> Tensor:
        return (inverse_haar if self.up else haar)(x, self.order)

    def inverse(self, x: Tensor) -> Tensor:
        return (haar if self.up else inverse_haar)(x, self.order)


class SubNetwork(nn.Module):
    """``depth`` 3x3 convolutions with spectral norm and ELU, then one that also sees the input and starts at zero."""

    def __init__(self, inputs: int, outputs: int, width: int, depth: int, spectral: bool) -> None:
        super().__init__()
        hidden = [nn.Conv2d(inputs if i == 0 else width, width, 3, padding=1) for i in range(depth)]
        self.hidden = nn.ModuleList(parametrizations.spectral_norm(c) if spectral else c for c in hidden)
        self.last = at_zero(nn.Conv2d(width + inputs, outputs, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        h = x
        for conv in self.hidden:
            h = F.elu(conv(h))
        out: Tensor = self.last(torch.cat([h, x], dim=1))
        return out


class Coupling(nn.Module):
    """Equation 1 on the first half of the channels, rounded down, and the rest.

    ``y1 = x1 E(theta1(x2)) + phi1(x2)``, then ``y2 = x2 E(theta2(y1)) + phi2(y1)``, with ``E`` in
    (exp(-clamp), exp(clamp)).
    """

    def __init__(self, channels: int, width: int, depth: int, clamp: float, spectral: bool) -> None:
        super().__init__()
        self.clamp = clamp
        self.first, rest = channels // 2, channels - channels // 2
        self.theta1, self.phi1 = (SubNetwork(rest, self.first, width, depth, spectral) for _ in range(2))
        self.theta2, self.phi2 = (SubNetwork(self.first, rest, width, depth, spectral) for _ in range(2))

    # The coupling stays in the dtype of its inputs even where layers run in bfloat16: both directions then evaluate
    # each sub-network on the same values.
    def forward(self, x: Tensor) -> Tensor:
        x1, x2 = x[:, : self.first], x[:, self.first :]
        y1 = x1 * torch.exp(self.exponent(self.theta1, x2)) + self.phi1(x2).to(x.dtype)
        y2 = x2 * torch.exp(self.exponent(self.theta2, y1)) + self.phi2(y1).to(x.dtype)
        return torch.cat([y1, y2], dim=1)

    def inverse(self, y: Tensor) -> Tensor:
        y1, y2 = y[:, : self.first], y[:, self.first :]
        x2 = (y2 - self.phi2(y1).to(y.dtype)) * torch.exp(-self.exponent(self.theta2, y1))
        x1 = (y1 - self.phi1(x2).to(y.dtype)) * torch.exp(-self.exponent(self.theta1, x2))
        return torch.cat([x1, x2], dim=1)

    def exponent(self, theta: nn.Module, x: Tensor) -> Tensor:
        """Return an exponent within +-``clamp``, zero where the sub-network's output is."""
        bounded: Tensor = self.clamp * torch.tanh(theta(x).to(x.dtype) / 2)  # 2 sigmoid(s) - 1 = tanh(s / 2)
        return bounded


class TwoWay(nn.Module):
    """A network that changes images, N x 3 x H x W, and ``inverse``, which takes the change back.

    ``settings`` say how it is built, as plain data.
    """

    settings: dict[str, Any]

    def inverse(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def plain_weights(self) -> dict[str, Tensor]:
        """Return the weights of this network, without gradients and without spectral norm."""
        raise NotImplementedError


class Generator(TwoWay):
    """Three modules down and three up, each a Haar transform and four couplings; 24 couplings, 96 sub-networks.

    11.03 M parameters at width 64, 6.05 M at 32, 4.22 M at 16. ``up_order`` says what comes first in a module on the
    way up; ``haar_first`` ends in couplings of one channel with two. At initialisation it is the identity. Calls take
    N x 3 x H x W with sides that are multiples of 8.

    In training mode a layer with spectral norm changes its weight whenever it is used: a forward pass and its inverse
    then disagree by a gray level or more. Between :func:`same_weights` they agree; in eval mode always.
    """

    def __init__(
        self,
        width: int = 64,
        depth: int = 2,
        clamp: float = 1.0,
        order: str = "band",
        up_order: str = "blocks_first",
        spectral: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.settings = {
            "width": width, "depth": depth, "clamp": clamp, "order": order, "up_order": up_order
        }  # fmt: skip

        def couplings(channels: int) -> list[nn.Module]:
            return [Coupling(channels, width, depth, clamp, spectral) for _ in range(BLOCKS)]

        steps: list[nn.Module] = []
        with torch.random.fork_rng(devices=[]):  # constructors of layers draw from the global generator
            torch.manual_seed(seed)
            for level in range(1, LEVELS + 1):
                steps += [Haar(order, up=False), *couplings(3 * 4**level)]
            for level in range(LEVELS, 0, -1):
                up = Haar(order, up=True)
                first = up_order == "blocks_first"
                steps += [*couplings(3 * 4**level), up] if first else [up, *couplings(3 * 4 ** (level - 1))]
        self.steps = nn.ModuleList(steps)

    def forward(self, x: Tensor) -> Tensor:
        for step in self.steps:
            x = step(x)
        return x

    def inverse(self, x: Tensor) -> Tensor:
        for step in reversed(self.steps):
            assert isinstance(step, Haar | Coupling)
            x = step.inverse(x)
        return x

    def plain_weights(self) -> dict[str, Tensor]:
        """Return the weights of this network, without gradients, for one that is built with ``spectral=False``."""
        with torch.no_grad(), frozen(self):
            weights = {name: value for name, value in self.state_dict().items() if ".parametrizations." not in name}
            for path, module in self.named_modules():
                if isinstance(module, nn.Conv2d) and parametrize.is_parametrized(module):
                    weights[f"{path}.weight"] = module.weight
        return {name: value.detach().clone() for name, value in weights.items()}


same_weights = parametrize.cached
"""A context manager: spectral norms are computed once inside, and every call uses the same weights."""


@contextlib.contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Keep ``network`` in eval mode inside, in the mode of before afterwards."""
    training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(training)


def padded(side: int) -> int:
    """Round ``side`` up to a multiple of 8."""
    return -(-side // MULTIPLE) * MULTIPLE


def pad(x: Tensor) -> Tensor:
    """Mirror N x C x H x W below and at the right, without repeating the edge, to sides that are multiples of 8.

    Sides too short for that are mirrored again and again.
    """
    for axis in (-2, -1):
        side = x.shape[axis]
        period = max(1, 2 * side - 2)
        steps = torch.arange(padded(side), device=x.device) % period
        if len(steps) > side:
            x = x.index_select(axis, torch.where(steps < side, steps, period - steps))
    return x
