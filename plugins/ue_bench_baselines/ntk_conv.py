"""The neural tangent kernel of NTGA's convolutional network of infinite width, in closed form.

Twice a 5 x 5 convolution with stride 2 and ReLU, then three dense layers without activations between. Images are
N x 3 x H x W, in float64 on one device; everything can be differentiated in them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from .ntk import BIASES, WEIGHTS

KERNEL, STRIDE, CONVOLUTIONS, DENSE = 5, 2, 2, 3
SAME_ANGLE = 1e-12  # cosines nearer to 1 are those of one image with itself
MAP_BYTES = 2**21  # of one map of pairs at a time; larger ones leave the cache


def ntk_conv(left: Tensor, right: Tensor) -> Tensor:
    """Return the kernel of images N x 3 x H x W and M x 3 x H x W, N x M, a part of ``right`` at a time.

    Parts are computed again when gradients go back, so that maps of all pairs are never in memory together. Their size
    moves nothing but the last bits.
    """
    size = (-(-left.shape[2] // STRIDE), -(-left.shape[3] // STRIDE))
    columns = max(1, MAP_BYTES // (8 * math.prod(size) * len(left)))
    patches, variances = _patches(left), _variances(left)
    parts: list[Tensor] = [
        checkpoint(_kernel, patches, of_part, variances, own, size, use_reentrant=False, preserve_rng_state=False)
        for of_part, own in zip(_patches(right).split(columns, dim=1), _variances(right).split(columns), strict=True)
    ]
    return torch.cat(parts, dim=1)


def _patches(x: Tensor) -> Tensor:
    """Return what the first convolution sees of N x 3 x H x W: positions x N x 75."""
    return F.unfold(_padded(x), KERNEL, stride=STRIDE).permute(2, 0, 1).contiguous()


def _variances(x: Tensor) -> Tensor:
    """Return windowed mean squares of N x 3 x H x W: N x positions."""
    return _windowed(x.square().mean(1, keepdim=True)).flatten(1)


def _kernel(left: Tensor, right: Tensor, rows: Tensor, columns: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the kernel of images whose patches are ``left`` and ``right``, and their variances ``rows``, ``columns``.

    ``size`` are height and width of the positions. Only covariances between the same positions of two images count: the
    flattening adds up those alone. A convolution averages them over its window, with zeros outside the image among what
    is averaged: the first one by products of patches, as a map of the pixels of all pairs would be four times as large.
    """
    count, other = left.shape[1], right.shape[1]
    pairs = torch.bmm(left, right.transpose(1, 2)).permute(1, 2, 0) / left.shape[2]
    pairs, rows, columns = (WEIGHTS * v + BIASES for v in (pairs, rows, columns))
    tangent = pairs
    for layer in range(CONVOLUTIONS):
        if layer:
            shape = (-1, 1, *size)
            pairs, rows, columns = (WEIGHTS * _windowed(v.reshape(shape)) + BIASES for v in (pairs, rows, columns))
            tangent = pairs + WEIGHTS * _windowed(tangent.reshape(shape))
            pairs, tangent = (v.reshape(count, other, -1) for v in (pairs, tangent))
            rows, columns = rows.flatten(1), columns.flatten(1)
        # ReLU (Cho and Saul, "Kernel Methods for Deep Learning", NeurIPS 2009). An angle of 0 has no derivative, and
        # none is missing: only one image with itself has it, however it changes.
        scale = (rows[:, None] * columns[None]).sqrt()
        cosine = pairs / scale
        apart = cosine < 1 - SAME_ANGLE
        angle = torch.where(apart, torch.where(apart, cosine, 0.0).acos(), 0.0)
        slope = (math.pi - angle) / (2 * math.pi)
        tangent = tangent * slope
        pairs = scale * (angle.sin() / (2 * math.pi) + slope * angle.cos())
        rows, columns = rows / 2, columns / 2
    pairs, tangent = pairs.mean(-1), tangent.mean(-1)
    for _ in range(DENSE):
        pairs = WEIGHTS * pairs + BIASES
        tangent = pairs + WEIGHTS * tangent
    return tangent


def _windowed(maps: Tensor) -> Tensor:
    """Average N x 1 x H x W over windows of the convolution."""
    return F.avg_pool2d(_padded(maps), KERNEL, STRIDE)


def _padded(x: Tensor) -> Tensor:
    """Pad N x C x H x W with zeros so that a convolution has half the side, rounded up; the odd zero goes behind."""
    edges: list[int] = []
    for side in reversed(x.shape[2:]):
        total = max(0, (-(-side // STRIDE) - 1) * STRIDE + KERNEL - side)
        edges += [total // 2, total - total // 2]
    return F.pad(x, edges)
