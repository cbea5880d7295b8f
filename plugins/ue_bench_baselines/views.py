"""The random views of contrastive learning, differentiable, under which AUE and AAP train and craft."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ue_bench.api import Context
from ue_bench_victims.views import brightness, contrast, cut, gray, hue, saturation

# Uniform numbers of a view: area, aspect, left, top, mirror, whether colours are jittered, by how much (4), gray.
NUMBERS = 11
COLOURS = ((brightness, 1, 0.4), (contrast, 1, 0.4), (saturation, 1, 0.4), (hue, 0, 0.1))


def viewed(x: Tensor, drawn: Tensor, order: Sequence[int], strength: float) -> Tensor:
    """Show images N x 3 x H x W in [0, 1] as ``drawn`` says, N x NUMBERS in [0, 1); as they are for ``strength`` 0.

    A window of 1 - 0.9 ``strength`` of the area at least, of an aspect within 3/4 to 4/3 that fits, brought back to the
    old size; half are mirrored; for a share of 0.8 ``strength``, brightness, contrast, saturation and hue change by up
    to 0.4, 0.4, 0.4 and 0.1 times it, in ``order``; a share of 0.2 ``strength`` loses its colour. 1 is SimCLR's.
    """
    if not strength:
        return x
    numbers = drawn.unbind(1)
    least = max(1 - 0.9 * strength, 0.05)
    area = least + (1 - least) * numbers[0]
    widest = (-area.log()).clamp(max=math.log(4 / 3))  # of the logarithm of the aspect, either way
    aspect = ((2 * numbers[1] - 1) * widest).exp()
    w, h = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    x = cut(x, w, h, (2 * numbers[2] - 1) * (1 - w), (2 * numbers[3] - 1) * (1 - h), numbers[4] < 0.5)
    rows = (numbers[5] < min(0.99, 0.8 * strength)).nonzero()[:, 0]
    coloured = x[rows]
    for number in order:
        change, mean, spread = COLOURS[number]
        coloured = change(coloured, mean + spread * strength * (2 * numbers[6 + number][rows] - 1))
    x = x.index_copy(0, rows, coloured)
    return torch.where((numbers[10] < 0.2 * strength)[:, None, None, None], gray(x), x)


class ViewDraws:
    """Views of the images ``where`` in ``steps`` steps; an image's own, whatever its batch.

    The order in which colours change is a step's, for all images. ``axes`` tell one use from another.
    """

    def __init__(self, ctx: Context, where: slice, steps: int, strength: float, *axes: object) -> None:
        self.strength = strength
        if not strength:
            return
        rngs = [ctx.rng("view", *axes, index) for index in range(where.start, where.stop)]
        drawn = np.stack([rng.random((steps, NUMBERS), dtype=np.float32) for rng in rngs])
        self.drawn = torch.from_numpy(drawn).to(ctx.device)
        self.orders = ctx.rng("colours", *axes).random((steps, len(COLOURS))).argsort(1).tolist()

    def viewed(self, x: Tensor, step: int) -> Tensor:
        """Show ``x`` as drawn for ``step``."""
        return viewed(x, self.drawn[:, step], self.orders[step], self.strength) if self.strength else x
