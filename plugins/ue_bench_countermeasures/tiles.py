"""Images cut into squares of 32 pixels, for networks that know no others."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

SIDE = 32


def cut(x: Tensor) -> Tensor:
    """Cut N x C x H x W into M x C x 32 x 32, the squares of an image one after the other, row by row.

    Sides that are no multiples of 32 are prolonged below and to the right with the last pixel.
    """
    count, channels, height, width = x.shape
    down, right = -height % SIDE, -width % SIDE
    x = F.pad(x, (0, right, 0, down), mode="replicate")
    x = x.reshape(count, channels, (height + down) // SIDE, SIDE, (width + right) // SIDE, SIDE)
    return x.permute(0, 2, 4, 1, 3, 5).reshape(-1, channels, SIDE, SIDE)


def joined(squares: Tensor, size: tuple[int, int]) -> Tensor:
    """Join M x C x 32 x 32 squares to N x C x H x W of ``size``, without what was prolonged."""
    rows, columns = (-(-side // SIDE) for side in size)
    channels = squares.shape[1]
    x = squares.reshape(-1, rows, columns, channels, SIDE, SIDE).permute(0, 3, 1, 4, 2, 5)
    return x.reshape(-1, channels, rows * SIDE, columns * SIDE)[:, :, : size[0], : size[1]]


def draw(x: Tensor, random: torch.Generator) -> Tensor:
    """Cut one square of 32 pixels from a random place of each of N x C x H x W images; smaller ones are prolonged."""
    x = F.pad(x, (0, max(0, SIDE - x.shape[3]), 0, max(0, SIDE - x.shape[2])), mode="replicate")
    if x.shape[2:] == (SIDE, SIDE):
        return x
    tops, lefts = (torch.randint(side - SIDE + 1, (len(x),), generator=random).tolist() for side in x.shape[2:])
    return torch.stack(
        [image[:, top : top + SIDE, left : left + SIDE] for image, top, left in zip(x, tops, lefts, strict=True)]
    )
