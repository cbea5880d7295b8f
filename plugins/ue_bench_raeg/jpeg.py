"""Differentiable stand-ins for JPEG compression, and their mixture (RAEG, equation 3).

They share a frame: luma and chroma, blocks of 8 x 8, orthonormal DCT-II, and quantisation tables that libjpeg scales by
a quality. They differ in what stands for rounding. No chroma subsampling, no entropy coding. Tensors are N x 3 x H x W
in [0, 1], any size; nothing is clamped.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Simulator = Literal["ss", "mask", "rounding"]
SIMULATORS: tuple[Simulator, ...] = ("ss", "mask", "rounding")
LOWEST, HIGHEST = 10, 100  # qualities of equation 3
BLOCK = 8

# ITU T.81, annex K, tables K.1 and K.2.
LUMA = [
    [16, 11, 10, 16, 24, 40, 51, 61],
    [12, 12, 14, 19, 26, 58, 60, 55],
    [14, 13, 16, 24, 40, 57, 69, 56],
    [14, 17, 22, 29, 51, 87, 80, 62],
    [18, 22, 37, 56, 68, 109, 103, 77],
    [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101],
    [72, 92, 95, 98, 112, 100, 103, 99],
]
CHROMA = [
    [17, 18, 24, 47, 99, 99, 99, 99],
    [18, 21, 26, 66, 99, 99, 99, 99],
    [24, 26, 56, 99, 99, 99, 99, 99],
    [47, 66, 99, 99, 99, 99, 99, 99],
    *[[99] * 8] * 4,
]
TO_YCC = [[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]]
KEPT_HIDDEN = (25, 9, 9)  # HiDDeN: leading zig-zag coefficients of Y, U and V
KEPT_MBRS = (5, 3, 3)  # MBRS: the side of the low-frequency square


@cache
def dct_matrix() -> Tensor:
    """Return the orthonormal DCT-II of 8 values as a matrix, float64."""
    k, n = torch.arange(BLOCK, dtype=torch.float64)[:, None], torch.arange(BLOCK, dtype=torch.float64)
    rows = torch.cos((2 * n + 1) * k * math.pi / (2 * BLOCK)) * math.sqrt(2 / BLOCK)
    rows[0] /= math.sqrt(2)
    return rows


def tables(quality: float) -> Tensor:
    """Return quantisation steps of Y, U and V at ``quality`` 1 to 100, 3 x 8 x 8, scaled and rounded as in libjpeg."""
    factor = 5000 / quality if quality < 50 else 200 - 2 * quality
    both = torch.tensor([LUMA, CHROMA, CHROMA], dtype=torch.float64)
    return ((both * factor + 50) / 100).floor().clamp(1, 255)


@cache
def mask(form: Literal["hidden", "mbrs"]) -> Tensor:
    """Return which coefficients JPEG-Mask keeps, 3 x 8 x 8 of zeros and ones."""
    row, column = torch.meshgrid(torch.arange(BLOCK), torch.arange(BLOCK), indexing="ij")
    if form == "mbrs":
        return torch.stack([(torch.maximum(row, column) < side).double() for side in KEPT_MBRS])
    diagonal = row + column
    # Odd diagonals run down, even ones up; 8 places keep the diagonals apart.
    place = (diagonal * BLOCK + torch.where(diagonal % 2 == 1, row, column)).flatten().argsort().argsort()
    return torch.stack([(place < count).double() for count in KEPT_HIDDEN]).reshape(3, BLOCK, BLOCK)


def surrogate_rounding(x: Tensor) -> Tensor:
    """Round as JPEG-SS does: the cube below one half, the value itself beyond."""
    return torch.where(x.abs() < 0.5, x**3, x)


def straight_through(x: Tensor) -> Tensor:
    """Round, with the gradient of the identity."""
    return x + (x.round() - x).detach()


def simulate(x: Tensor, kind: Simulator, quality: float, form: Literal["hidden", "mbrs"] = "hidden") -> Tensor:
    """Return ``x`` as ``kind`` of JPEG leaves it.

    ``ss`` rounds softly, ``rounding`` for real with a straight-through gradient, ``mask`` drops high frequencies
    whatever the quality, in the ``form`` of HiDDeN or MBRS. Sides are filled up to multiples of 8 with the edge.
    """
    height, width = x.shape[-2:]
    wide = F.pad(x, (0, -width % BLOCK, 0, -height % BLOCK), mode="replicate")
    colours = torch.tensor(TO_YCC, dtype=torch.float64)
    planes = torch.einsum("ij,njhw->nihw", colours.to(x), wide * 255)
    planes = torch.cat([planes[:, :1] - 128, planes[:, 1:]], dim=1)
    n, c, high, wide_ = planes.shape
    blocks = planes.reshape(n, c, high // BLOCK, BLOCK, wide_ // BLOCK, BLOCK).permute(0, 1, 2, 4, 3, 5)
    dct = dct_matrix().to(x)
    coefficients = dct @ blocks @ dct.T
    if kind == "mask":
        coefficients = coefficients * mask(form).to(x)[:, None, None]
    else:
        steps = tables(quality).to(x)[:, None, None]
        coefficients = (surrogate_rounding if kind == "ss" else straight_through)(coefficients / steps) * steps
    planes = (dct.T @ coefficients @ dct).permute(0, 1, 2, 4, 3, 5).reshape(n, c, high, wide_)
    planes = torch.cat([planes[:, :1] + 128, planes[:, 1:]], dim=1)
    back = torch.einsum("ij,njhw->nihw", torch.linalg.inv(colours).to(x), planes) / 255
    return back[..., :height, :width]


def mixture(x: Tensor, generator: torch.Generator, terms: int, form: Literal["hidden", "mbrs"] = "hidden") -> Tensor:
    """Apply equation 3: a convex combination of simulators and qualities, drawn for the batch.

    ``terms`` pairs of a simulator and a quality in 10..100, uniformly; weights from a flat Dirichlet distribution. The
    paper leaves number and weights open. ``generator`` is a CPU one.
    """
    weights, kinds, qualities = draw_mixture(generator, terms)
    parts = [w * simulate(x, k, q, form) for w, k, q in zip(weights, kinds, qualities, strict=True)]
    return torch.stack(parts).sum(0)


def draw_mixture(generator: torch.Generator, terms: int) -> tuple[list[float], list[Simulator], list[int]]:
    """Draw weights that sum to one, simulators and qualities."""
    exponential = -torch.log1p(-torch.rand(terms, generator=generator, dtype=torch.float64))
    kinds = torch.randint(len(SIMULATORS), (terms,), generator=generator).tolist()
    qualities: list[int] = torch.randint(LOWEST, HIGHEST + 1, (terms,), generator=generator).tolist()
    weights: list[float] = (exponential / exponential.sum()).tolist()
    return weights, [SIMULATORS[kind] for kind in kinds], qualities
