"""The hiding network: a Haar transform followed by invertible coupling blocks.

Source: HiNet (Jing et al., ICCV 2021), which Deep Hiding names as its hiding model; equations 3 and 4 of
Deep Hiding. Written from the published description; no code of either is used.

Deviations from Deep Hiding as printed:

* The exponent of equation 3 is bounded as in HiNet, ``exp(clamp * tanh(s / 2))``: the raw ``exp`` of the paper
  is unbounded.
* Equation 4 exchanges the roles of cover and hidden image. The inverse below is the one that undoes equation 3.

All tensors are N x C x H x W. Images are in [0, 1]; nothing is clamped here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ue_bench.api import check_finite

CLAMP = 2.0  # HiNet: E(s) lies in (exp(-2), exp(2))
Room = Sequence[Tensor]  # see DenseBlock.room
INIT_STD = 0.01  # HiNet: weights and biases of convolutions 1-4


def to_unit(images: NDArray[np.uint8], device: str = "cpu") -> Tensor:
    """Convert N x H x W x 3 in 0..255 to float32 N x 3 x H x W in [0, 1]."""
    x = torch.from_numpy(np.array(images)).to(device).permute(0, 3, 1, 2)  # a copy: stored images are read-only
    return x.float().div_(255).contiguous(memory_format=torch.channels_last)


def to_pixels(x: Tensor) -> NDArray[np.uint8]:
    """Convert back, clipped to [0, 1] and rounded. Raises Diverged when a number is not finite."""
    check_finite(x, "image of the hiding network")
    pixels: NDArray[np.uint8] = (x.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return pixels


def haar(x: Tensor) -> Tensor:
    """Transform N x C x H x W to N x 4C x H/2 x W/2 by the orthonormal Haar transform, bands LL, HL, LH, HH.

    Band-major order, so the first C channels are the low frequencies. HL is right minus left, LH is bottom minus
    top. Against PyWavelets: LL = cA, HL = -cV, LH = -cH, HH = cD.

    Raises ValueError for an odd height or width.
    """
    if x.shape[-1] % 2 or x.shape[-2] % 2:
        raise ValueError(f"the Haar transform needs an even height and width, not {tuple(x.shape[-2:])}")
    a, b = x[..., 0::2, 0::2], x[..., 0::2, 1::2]
    c, d = x[..., 1::2, 0::2], x[..., 1::2, 1::2]
    return torch.cat([a + b + c + d, -a + b - c + d, -a - b + c + d, a - b - c + d], dim=1) / 2


def inverse_haar(z: Tensor) -> Tensor:
    """Apply the inverse (and transpose) of :func:`haar`, in the dtype and on the device of the input."""
    ll, hl, lh, hh = z.chunk(4, dim=1)
    n, c, h, w = ll.shape
    x = z.new_empty(n, c, 2 * h, 2 * w)
    x[..., 0::2, 0::2] = ll - hl - lh + hh
    x[..., 0::2, 1::2] = ll + hl - lh - hh
    x[..., 1::2, 0::2] = ll - hl + lh - hh
    x[..., 1::2, 1::2] = ll + hl + lh + hh
    return x / 2


def bounded_exp(s: Tensor, clamp: float = CLAMP) -> Tensor:
    """Return ``exp(2 clamp (sigmoid(s) - 1/2))``: 1 at zero, monotone, within (exp(-clamp), exp(clamp))."""
    return torch.exp(clamp * (2 * torch.sigmoid(s) - 1))


class DenseBlock(nn.Module):
    """Five 3x3 convolutions, each seeing the input and all earlier outputs; the last starts at zero."""

    def __init__(self, channels: int = 12, growth: int = 32) -> None:
        super().__init__()
        self.growth = growth
        widths = [growth] * 4 + [channels]
        self.convs = nn.ModuleList(
            nn.Conv2d(channels + i * growth, width, 3, padding=1) for i, width in enumerate(widths)
        )

    def reset(self, generator: torch.Generator) -> None:
        """Draw weights as HiNet does: N(0, 0.01^2), zero in the last convolution, so that the block outputs zero."""
        with torch.no_grad():
            for conv in self.convs[:-1]:
                for parameter in conv.parameters():
                    parameter.normal_(0.0, INIT_STD, generator=generator)
            for parameter in self.convs[-1].parameters():
                parameter.zero_()

    def room(self, x: Tensor) -> list[Tensor]:
        """Return what each convolution after the first reads for an input like ``x``: views of the same memory.

        One is done with before the next is filled.
        """
        count, channels, height, width = x.shape
        widths = [channels + i * self.growth for i in range(1, len(self.convs))]
        memory = x.new_empty(count * height * width * widths[-1])
        parts = [memory[: count * height * width * wide] for wide in widths]
        if x.is_contiguous(memory_format=torch.channels_last):
            return [part.view(count, height, width, -1).permute(0, 3, 1, 2) for part in parts]
        return [part.view(count, -1, height, width) for part in parts]

    def forward(self, x: Tensor, room: Room = ()) -> Tensor:
        """Compute the block; without gradients it may write to memory from :meth:`room`, whatever that holds."""
        seen, joined = [x], x
        for number, conv in enumerate(self.convs[:-1]):
            # Slope 0.01, not the 0.2 of the networks HiNet descends from.
            seen.append(nn.functional.leaky_relu(conv(joined), 0.01, inplace=bool(room)))
            joined = torch.cat(seen, dim=1, out=room[number] if room else None)
        last: Tensor = self.convs[-1](joined)
        return last


class CouplingBlock(nn.Module):
    """Equation 3: ``c' = c + phi(h)``, then ``h' = h E(rho(c')) + eta(c')``."""

    def __init__(self, channels: int = 12, growth: int = 32) -> None:
        super().__init__()
        self.phi = DenseBlock(channels, growth)
        self.rho = DenseBlock(channels, growth)
        self.eta = DenseBlock(channels, growth)

    # The coupling stays in the dtype of its inputs even when the sub-networks run in bfloat16: both directions
    # then evaluate each sub-network on the same values, and inversion is as exact as that dtype.
    def forward(self, c: Tensor, h: Tensor, room: Room = ()) -> tuple[Tensor, Tensor]:
        c = self.stego(c, h, room)
        return c, h * bounded_exp(self.rho(c, room).to(c.dtype)) + self.eta(c, room).to(c.dtype)

    def inverse(self, c: Tensor, h: Tensor, room: Room = ()) -> tuple[Tensor, Tensor]:
        h = self.hidden(c, h, room)
        return c - self.phi(h, room).to(c.dtype), h

    def stego(self, c: Tensor, h: Tensor, room: Room = ()) -> Tensor:
        """Return the first half of :meth:`forward`, which does not need the second."""
        stego: Tensor = c + self.phi(h, room).to(c.dtype)
        return stego

    def hidden(self, c: Tensor, h: Tensor, room: Room = ()) -> Tensor:
        """Return the second half of :meth:`inverse`, which does not need the first."""
        hidden: Tensor = (h - self.eta(c, room).to(c.dtype)) / bounded_exp(self.rho(c, room).to(c.dtype))
        return hidden


class HidingNetwork(nn.Module):
    """HiNet with ``blocks`` coupling blocks: 4 050 240 parameters at 16 blocks and growth 32.

    At initialisation it is the identity: the stego image is the cover and the residual is the transform of the
    hidden image.

    With ``recompute`` a training step keeps only what goes from block to block, and computes the inside of each block
    a second time on the way back: the same gradients from a fraction of the memory, for about a third more time.
    """

    recompute = False

    def __init__(self, blocks: int = 16, growth: int = 32, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):  # constructors of layers draw from the global generator
            self.blocks = nn.ModuleList(CouplingBlock(12, growth) for _ in range(blocks))
        generator = torch.Generator().manual_seed(seed)
        for module in self.modules():
            if isinstance(module, DenseBlock):
                module.reset(generator)

    def forward(self, c: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Turn Haar coefficients of cover and hidden image, N x 12 x H/2 x W/2, into those of stego and residual."""
        for block in self.blocks:
            c, h = self._run(block, c, h)
        return c, h

    def inverse(self, c: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Undo :meth:`forward`. Exact with the true residual; with a random one it reveals approximately."""
        for block in reversed(self.blocks):
            assert isinstance(block, CouplingBlock)
            c, h = self._run(block.inverse, c, h)
        return c, h

    def _run(
        self, step: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], c: Tensor, h: Tensor
    ) -> tuple[Tensor, Tensor]:
        if not (self.recompute and torch.is_grad_enabled()):
            return step(c, h)
        result: tuple[Tensor, Tensor] = checkpoint(step, c, h, use_reentrant=False)
        return result

    @torch.no_grad()
    def hide(self, cover: Tensor, hidden: Tensor) -> Tensor:
        """Return stego images for covers and hidden images, both N x 3 x H x W in [0, 1]. Not clamped, not rounded.

        For use, not for training: without gradients. The residual is not computed.
        """
        c, h = haar(cover), haar(hidden)
        *before, last = self._couplings()
        room = self._room(c)
        for block in before:
            c, h = block(c, h, room)
        return inverse_haar(last.stego(c, h, room))

    @torch.no_grad()
    def reveal(self, stego: Tensor, residual: Tensor | None = None) -> Tensor:
        """Return hidden images seen in ``stego``. The lost residual is taken as zero unless one is given.

        For use, not for training: without gradients. The cover is not computed.
        """
        c = haar(stego)
        h = torch.zeros_like(c) if residual is None else residual
        first, *others = self._couplings()
        room = self._room(c)
        for block in reversed(others):
            c, h = block.inverse(c, h, room)
        return inverse_haar(first.hidden(c, h, room))

    def _couplings(self) -> list[CouplingBlock]:
        return [block for block in self.blocks if isinstance(block, CouplingBlock)]

    def _room(self, c: Tensor) -> Room:
        """Return memory that all blocks write over: a batch asks the system for it once, not once in a layer."""
        if torch.is_autocast_enabled(c.device.type):  # layers then put out another dtype than that of ``c``
            return ()
        return self._couplings()[0].phi.room(c)
