"""Networks of infinite width in closed form: the neural tangent kernel of dense erf layers, and training with it.

Images are rows, N x D, in float64 on one device; everything can be differentiated in them.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

WEIGHTS, BIASES = 1.76, 0.18  # variances: NTGA's W_std and b_std are their roots
RIDGE = 1e-4  # share of the kernel's mean diagonal that is added to the diagonal, NTGA's diag_reg


def ntk(left: Tensor, right: Tensor, layers: int, readout: bool) -> Tensor:
    """Return the neural tangent kernel of images N x D and M x D, N x M.

    The network is ``layers`` times a dense layer and erf, and with ``readout`` one more dense layer. A dense layer is
    that of the NTK parametrisation: weights have variance 1.76 over the number of inputs, biases 0.18. The kernel is
    the expected product of derivatives in all weights and biases.
    """

    def dense(covariance: Tensor) -> Tensor:
        return WEIGHTS * covariance + BIASES

    # Covariances of the inputs of a layer: of each pair, and of each image with itself.
    pairs = left @ right.T / left.shape[1]
    rows, columns = left.square().mean(1)[:, None], right.square().mean(1)
    tangent = torch.zeros_like(pairs)
    for _ in range(layers):
        pairs, rows, columns = dense(pairs), dense(rows), dense(columns)
        tangent = pairs + WEIGHTS * tangent
        # Williams, "Computing with infinite networks", NeurIPS 1996: E[erf u erf v], and with it E[erf' u erf' v].
        scale = (1 + 2 * rows) * (1 + 2 * columns)
        tangent = tangent * (4 / math.pi) / (scale - 4 * pairs.square()).sqrt()
        pairs = arcsine(pairs, scale.sqrt())
        rows, columns = arcsine(rows, 1 + 2 * rows), arcsine(columns, 1 + 2 * columns)
    return dense(pairs) + WEIGHTS * tangent if readout else tangent


def arcsine(covariance: Tensor, scale: Tensor) -> Tensor:
    """Return E[erf u erf v] for normal u, v; ``scale`` is the root of (1 + 2 var u) (1 + 2 var v)."""
    return torch.asin(2 * covariance / scale) * (2 / math.pi)


def trained(kernel: Tensor, targets: Tensor, time: float) -> Tensor:
    """Return what gradient flow from zero on half the mean squared error has learned at ``time``: coefficients, n x C.

    ``kernel`` is that of the n training images, symmetric, ``targets`` n x C. Predictions for other images are their
    kernel with the training images times the coefficients K^-1 (I - exp(-time K / (n C))) ``targets``, where K is
    ``kernel`` plus the ridge. The mean is over all n C targets, and the learning rate is 1.
    """
    ridge = RIDGE * kernel.diagonal().mean() * torch.eye(len(kernel), dtype=kernel.dtype, device=kernel.device)
    coefficients: Tensor = _Response.apply(kernel + ridge, targets, time / targets.numel())
    return coefficients


class _Response(torch.autograd.Function):
    """K^-1 (I - exp(-time K)) ``targets`` for a symmetric positive definite K.

    The derivative of a function of a matrix needs only the function's divided differences (Daleckii and Krein), where
    that of an eigendecomposition divides by gaps between eigenvalues, which similar images make as small as they like.
    """

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, targets: Tensor, time: float) -> Tensor:
        values, vectors = torch.linalg.eigh(matrix)
        turned = vectors.T @ targets
        ctx.save_for_backward(values, vectors, turned)
        ctx.time = time
        coefficients: Tensor = vectors @ (response(values, time)[:, None] * turned)
        return coefficients

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        values, vectors, turned = ctx.saved_tensors
        inner = (vectors.T @ gradients[0]) @ turned.T
        gradient: Tensor = vectors @ (differences(values, ctx.time) * inner) @ vectors.T
        return gradient, None, None


def response(values: Tensor, time: float) -> Tensor:
    """Return (1 - exp(-time v)) / v, for v > 0."""
    return -torch.expm1(-time * values) / values


def differences(values: Tensor, time: float) -> Tensor:
    """Return divided differences of ``response`` between all pairs of n positive values, derivatives for equal ones.

    No difference of close numbers is divided by their gap. What cancellation there is, for values that are small
    against 1 / time, is small against ``response`` itself, and so in any gradient.
    """
    low, high = torch.minimum(values[:, None], values), torch.maximum(values[:, None], values)
    # response = g / v with g = 1 - exp(-time v), and the divided difference of a quotient follows from that of g.
    span = time * (high - low)
    decay = torch.where(span > 0, -torch.expm1(-span) / span.clamp_min(1e-300), 1.0)
    rise = time * torch.exp(-time * low) * decay
    return (rise - response(low, time)) / high
