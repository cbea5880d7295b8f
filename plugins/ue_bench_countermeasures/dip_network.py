"""Deep image priors: as many small networks side by side as there are images, each of which draws its own image."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ue_bench.api import DivergenceCheck

INPUT = 0.1  # upper end of the uniform noise that networks start from
LEAK = 0.2  # of the activations
CHECK_EVERY = 100  # iterations


class Priors(nn.Module):
    """An hourglass without skips for each of N images, and the input noise of each; the output is N x 3 x 32 x 32.

    Down: a 3x3 convolution with stride 2 and one without for each of ``channels``. Up, the other way round: bilinear
    enlargement, a 3x3 convolution and a 1x1 one. Behind every convolution and every enlargement but the last layer
    there is a normalisation by the mean and deviation of a channel over its image. Borders are reflected. Weights and
    noise of an image are drawn from its own generator, one of ``random``, on the CPU.
    """

    def __init__(self, random: Sequence[torch.Generator], channels: Sequence[int], side: int = 32) -> None:
        super().__init__()
        self.count, self.channels = len(random), tuple(channels)
        self.random = random
        self.start = nn.Parameter(INPUT * self._drawn(1, side, side))
        self.convolutions = nn.ParameterList()
        self.norms = nn.ParameterList()
        before = 1
        for width in channels:
            for inputs in (before, width):
                self._convolution(inputs, width, 3)
                self._norm(width)
            before = width
        for width in reversed(channels):
            self._norm(before)
            for inputs, kernel in ((before, 3), (width, 1)):
                self._convolution(inputs, width, kernel)
                self._norm(width)
            before = width
        self._convolution(before, 3, 1)
        del self.random

    def _drawn(self, *shape: int) -> Tensor:
        """Draw uniform numbers in [0, 1), the networks' one after the other in the first dimension."""
        return torch.cat([torch.rand(shape, generator=random) for random in self.random])

    def _convolution(self, inputs: int, outputs: int, kernel: int) -> None:
        bound = 1 / math.sqrt(inputs * kernel**2)  # of torch's convolutions
        for shape in ((outputs, inputs, kernel, kernel), (outputs,)):
            self.convolutions.append(nn.Parameter(bound * (2 * self._drawn(*shape) - 1)))

    def _norm(self, width: int) -> None:
        self.norms.append(nn.Parameter(torch.ones(self.count * width)))
        self.norms.append(nn.Parameter(torch.zeros(self.count * width)))

    def forward(self) -> Tensor:
        convolutions, norms = iter(self.convolutions), iter(self.norms)

        def convolved(x: Tensor, stride: int = 1) -> Tensor:
            weight, bias = next(convolutions), next(convolutions)
            if weight.shape[-1] == 3:
                x = F.pad(x, (1, 1, 1, 1), mode="reflect")
                return F.conv2d(x, weight, bias, stride, groups=self.count)
            # As products of matrices: for 1 x 1 kernels torch goes through the groups one by one on a CPU.
            values = x.reshape(self.count, -1, x.shape[2] * x.shape[3])
            products = torch.baddbmm(bias.view(self.count, -1, 1), weight.view(self.count, -1, values.shape[1]), values)
            return products.view(1, -1, *x.shape[2:])

        def normal(x: Tensor) -> Tensor:
            return F.instance_norm(x, weight=next(norms), bias=next(norms))

        x = self.start[None]
        for _ in self.channels:
            x = F.leaky_relu(normal(convolved(x, 2)), LEAK)
            x = F.leaky_relu(normal(convolved(x)), LEAK)
        for _ in self.channels:
            x = normal(F.interpolate(x, scale_factor=2, mode="bilinear"))
            x = F.leaky_relu(normal(convolved(x)), LEAK)
            x = F.leaky_relu(normal(convolved(x)), LEAK)
        return convolved(x).sigmoid().reshape(self.count, 3, *x.shape[2:])


class Smoothed:
    """Double exponential smoothing of N series at once; the level begins at the first value, the trend at zero."""

    def __init__(self, weight: float) -> None:
        self.weight = weight
        self.level: Tensor | None = None
        self.trend: Tensor | float = 0.0
        self.best: Tensor | float = -math.inf

    def rises(self, value: Tensor) -> Tensor:
        """Take the next values, one a series; whose level is now higher than it ever was."""
        before = value if self.level is None else self.level
        self.level = self.weight * value + (1 - self.weight) * (before + self.trend)
        self.trend = self.weight * (self.level - before) + (1 - self.weight) * self.trend
        higher = self.level > self.best
        self.best = torch.where(higher, self.level, self.best)
        return higher


def drawn_anew(
    x: Tensor,
    random: Sequence[torch.Generator],
    channels: Sequence[int],
    iterations: int,
    learning_rate: float,
    smoothing: float,
    report: Callable[[int], None],
) -> Tensor:
    """Return squares M x 3 x 32 x 32 in [0, 1] as networks draw them, each when its smoothed PSNR is highest.

    ``random`` has a generator for each. ``report(done)`` is told of iterations. Raises Diverged with the iteration when
    an error or a weight is not finite.
    """
    divergence = DivergenceCheck(iterations, "deep image priors")
    networks = Priors(random, channels, x.shape[-1]).to(x.device)
    optimizer = torch.optim.Adam(networks.parameters(), learning_rate)
    smoothed, chosen = Smoothed(smoothing), torch.zeros_like(x)
    for done in range(iterations):
        drawing = networks()
        errors = (drawing - x).square().mean(dim=(1, 2, 3))
        optimizer.zero_grad(set_to_none=True)
        total = errors.sum()
        total.backward()
        optimizer.step()
        divergence.add(total)
        if (done + 1) % CHECK_EVERY == 0 or done + 1 == iterations:
            divergence.check(done + 1, networks)
        better = smoothed.rises(-10 * errors.detach().clamp(min=1e-12).log10())
        chosen = torch.where(better[:, None, None, None], drawing.detach(), chosen)
        report(done + 1)
    return chosen
