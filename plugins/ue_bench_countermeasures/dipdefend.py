"""DIPDefend, a network for every image that draws it anew before it has learned its details."""

from __future__ import annotations

import shutil
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ue_bench.api import Context, ImageSet, Preprocessing, UserError, derive, kept_images

RECIPES: dict[str, tuple[tuple[int, ...], int]] = {"cifar": ((4, 8, 16), 4000), "imagenet": ((3, 3, 4), 1200)}
CPU_SQUARES, GPU_SQUARES = 128, 2048  # that are worked on at once
SECONDS = 5  # of a CPU core, of 4000 iterations for a square
REPORT_EVERY = 20


class DIPDefend(Preprocessing):
    """Dai et al., "DIPDefend: Deep Image Prior Driven Defense against Adversarial Examples", ACM MM 2020.

    Every image has a small network of its own, that learns to draw it from noise: an hourglass without skips, of 4, 8
    and 16 channels. Such a network learns what is natural first. Adam on its weights and on the noise lowers the mean
    squared error for 4000 ``iterations``; of all drawings the one is kept at which the PSNR, smoothed twice
    exponentially with weight ``smoothing``, is highest: on CIFAR-10 after some 1,500, at 29 dB. Images are cut into
    squares of 32 px with a network each; what is missing to a multiple of 32 is prolonged with the last pixels.
    ``recipe=imagenet`` are the authors' settings for ImageNet: 3, 3 and 4 channels, 1200 iterations.

    For subsets only: a square costs four to five seconds of a CPU core, all of CIFAR-10 three days; with
    ``recipe=imagenet`` under one. More than ``most`` squares are refused; take a part of the dataset, such as
    ``cifar10[limit_per_class=20]``.

    Kernels of 3 px, borders by reflection and the order of layers are those of Deep Image Prior. Deviations: the
    smoothed PSNR starts at the first value with a trend of zero, because with the first difference as the trend it
    shoots up and chooses by chance.

    Expect little: RAEG reports .587 on Caltech-101 of a classifier trained on clean images, on images that it protects
    and DIPDefend processes, and .479 without. No number for training is published.

    Raises UserError for more squares than ``most``.
    """

    name: ClassVar[str] = "dipdefend"
    revision: ClassVar[int] = 2
    paper: ClassVar[str] = "DIPDefend: Deep Image Prior Driven Defense against Adversarial Examples, ACM MM 2020"
    cache_purified: ClassVar[bool] = True

    recipe: Literal["cifar", "imagenet"] = Field("cifar", description="networks and iterations, the authors'")
    iterations: int | None = Field(None, ge=1, le=1_000_000, description="for a square; null: 4000, imagenet 1200")
    learning_rate: float = Field(0.01, gt=0, le=1, description="of Adam")
    smoothing: float = Field(0.002, gt=0, le=1, description="weight of a new PSNR; 1 does not smooth")
    most: int = Field(1000, ge=1, description="squares of 32 px that are accepted, five seconds of a CPU core each")

    def purify(self, data: ImageSet, ctx: Context) -> ImageSet:
        from .dip_network import drawn_anew
        from .tiles import SIDE, cut, joined

        squares = -(-data.size[0] // SIDE) * -(-data.size[1] // SIDE)
        channels, iterations = RECIPES[self.recipe]
        iterations = self.iterations or iterations
        if (count := squares * len(data)) > self.most:
            hours = count * SECONDS * iterations / RECIPES["cifar"][1] / 3600
            raise UserError(
                f"dipdefend is for subsets: {count:,} squares of {SIDE} px, some {hours:,.1f} hours of a CPU core, are "
                f"more than {self.most:,}",
                f"take fewer images, such as cifar10[limit_per_class=20], or set most={count}",
            )
        import torch

        key = {self.name: self.identity(), "data": data.fingerprint, "seed": ctx.seed}
        folder = ctx.checkpoint_dir(key)

        def drawn(images: NDArray[np.uint8], where: slice) -> NDArray[np.uint8]:
            def report(done: int) -> None:
                if done % REPORT_EVERY == 0:
                    so_far = where.start + len(images) * done / iterations
                    ctx.report(so_far, len(data), f"{self.selector}: {done} of {iterations} iterations")

            x = cut(torch.tensor(images).permute(0, 3, 1, 2).float().div_(255)).to(ctx.device)
            random = [
                torch.Generator("cpu").manual_seed(derive(ctx.seed, "network", row, square))
                for row in range(where.start, where.stop)
                for square in range(squares)
            ]
            redrawn = drawn_anew(x, random, channels, iterations, self.learning_rate, self.smoothing, report)
            levels = (255 * joined(redrawn, data.size)).round().to(torch.uint8)
            return levels.permute(0, 2, 3, 1).cpu().numpy()

        def change(images: NDArray[np.uint8], where: slice) -> NDArray[np.uint8]:
            return kept_images(folder / f"{where.start}-{where.stop}.npz", lambda: drawn(images, where))

        at_once = GPU_SQUARES if ctx.device.startswith("cuda") else CPU_SQUARES
        purified = ctx.map_images(data, change, self.selector, max(1, at_once // squares))
        shutil.rmtree(folder)
        return purified
