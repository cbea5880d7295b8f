"""The smallest useful protector and countermeasure."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ue_bench.api import Context, Countermeasure, ImageSet, Protector

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Stripes(Protector):
    """Horizontal stripes of ``levels`` gray levels: class c (from 0) has c + 1 periods over the image's height."""

    name: ClassVar[str] = "hello-stripes"

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


class ChannelShuffle(Countermeasure):
    """The colour channels of a share of the images in random order, drawn anew for every batch."""

    name: ClassVar[str] = "hello-shuffle"

    share: float = Field(1.0, ge=0, le=1, description="share of the images that is shuffled")

    def augment(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        import torch

        order = torch.rand(len(x), 3, device=x.device, generator=generator).argsort(1)
        chosen = torch.rand(len(x), 1, device=x.device, generator=generator) < self.share
        order = torch.where(chosen, order, torch.arange(3, device=x.device))
        return x.gather(1, order[:, :, None, None].expand_as(x)), y
