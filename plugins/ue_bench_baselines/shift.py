"""The differentiable shift and mirror under which TAP and EntF craft, and their random starts."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ue_bench.api import Context

SHARE = 1 / 8  # of the side, the largest shift: 4 pixels of 32


def shifted(x: Tensor, rows: Tensor, columns: Tensor, mirrored: Tensor) -> Tensor:
    """Mirror images N x 3 x H x W where N bools say so, then move them by ``rows`` and ``columns`` (N each, in pixels).

    ``out[r, c] = in[r + rows, c + columns]`` without the mirror; bilinear, zeros outside; differentiable.
    """
    n, _, height, width = x.shape
    y, u = torch.linspace(-1, 1, height, device=x.device), torch.linspace(-1, 1, width, device=x.device)
    # A side of one pixel has no grid units to be shifted by.
    y = y + (rows * (2 / max(height - 1, 1)))[:, None]
    u = u + (columns * (2 / max(width - 1, 1)))[:, None]
    u = torch.where(mirrored[:, None], -u, u)
    grid = torch.stack([u[:, None, :].expand(n, height, width), y[:, :, None].expand(n, height, width)], dim=3)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=True)


class Draws:
    """Everything random about the images ``where`` in ``steps`` steps; an image's own, whatever its batch.

    ``axes`` tell one use from another, such as restarts.
    """

    def __init__(self, ctx: Context, where: slice, steps: int, size: tuple[int, int], *axes: object) -> None:
        drawn, starts = [], []
        for index in range(where.start, where.stop):
            rng = ctx.rng("shift", *axes, index)
            starts.append(rng.standard_normal((3, *size), dtype=np.float32))
            drawn.append(rng.random((steps, 3), dtype=np.float32))
        self.normal = torch.from_numpy(np.stack(starts)).to(ctx.device)
        uniform = torch.from_numpy(np.stack(drawn)).to(ctx.device)
        self.rows = (2 * uniform[..., 0] - 1) * (size[0] * SHARE)
        self.columns = (2 * uniform[..., 1] - 1) * (size[1] * SHARE)
        self.mirrored = uniform[..., 2] < 0.5

    def start(self, eps: float) -> Tensor:
        """Draw normal numbers of deviation ``eps``, cut to within it: a third of all values starts at the bound."""
        return (self.normal * eps).clamp_(-eps, eps)

    def transformed(self, x: Tensor, step: int) -> Tensor:
        return shifted(x, self.rows[:, step], self.columns[:, step], self.mirrored[:, step])
