"""Uniform random noise."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ue_bench.api import Context, ImageSet, Protector, Ratio

from .quantise import budget, keep_linf, perturb

BATCH_PIXELS = 2**22


class Noise(Protector):
    """Random noise inside an Linf ball: what a budget does when nothing is optimised.

    Every value of a perturbation (H x W x 3, on the [0, 1] scale) is uniform in (-eps, eps). ``sample`` draws one
    pattern an image; ``class`` draws one a class and adds it to all images of that class, the control for class-wise
    protectors. Sums are rounded to the nearest gray level and never exceed ``eps``, which a level too many would.
    """

    name: ClassVar[str] = "noise"

    mode: Literal["sample", "class"] = Field("sample", description="one pattern an image, or one a class")
    eps: Ratio = Field(8 / 255, gt=0, le=1, description="Linf bound on the [0, 1] scale")

    @property
    def budget(self) -> str:
        return budget("linf", self.eps)

    @property
    def one_size(self) -> bool:
        return self.mode == "class"  # the pattern of a class is one for all its images

    @property
    def answers_queries(self) -> bool:
        return True

    def protect(self, data: ImageSet, ctx: Context) -> ImageSet:
        shape = data.images.shape[1:]
        axes = data.size if ctx.secret else ()  # an owner's images come in sets of one size, each counted from 0

        def change(images: NDArray[np.uint8], where: slice) -> NDArray[np.uint8]:
            owners = data.labels[where] if self.mode == "class" else range(where.start, where.stop)
            levels = np.stack([ctx.rng(self.mode, *axes, int(o)).random(shape, dtype=np.float32) for o in owners])
            levels = (levels * 2 - 1) * np.float32(self.eps * 255)
            return keep_linf(perturb(images, levels), images, self.eps)

        batch = max(1, min(250, BATCH_PIXELS // max(1, data.size[0] * data.size[1])))
        return ctx.map_images(data, change, "adding noise", batch)
