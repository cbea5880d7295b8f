"""The protector ``hello``: put your method in place of its stripes."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from ue_bench.api import Context, ImageSet, Protector


class Hello(Protector):
    """Horizontal stripes of ``levels`` gray levels: class c (from 0) has c + 1 periods over the image's height."""

    name: ClassVar[str] = "hello"
    revision: ClassVar[int] = 1  # raise it whenever a change moves results

    levels: int = Field(8, ge=1, le=64, description="height of a stripe in gray levels (of 255)")

    @property
    def budget(self) -> str:
        return f"linf {self.levels}/255"

    def protect(self, data: ImageSet, ctx: Context) -> ImageSet:
        phase = 2 * np.pi * (np.arange(data.size[0]) + 0.5) / data.size[0]

        def change(images: NDArray[np.uint8], where: slice) -> NDArray[np.uint8]:
            waves = np.sin((data.labels[where, None] + 1) * phase)
            stripes = np.where(waves < 0, -self.levels, self.levels)
            return np.clip(images + stripes[:, :, None, None], 0, 255).astype(np.uint8)

        return ctx.map_images(data, change, "drawing stripes")
