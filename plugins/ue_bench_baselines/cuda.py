"""CUDA, convolution-based unlearnable data."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from ue_bench.api import Context, ImageSet, Protector

from .quantise import quantise

PUBLISHED_SEED = 0  # the authors' release
WORKING_BYTES = 2**24  # of one batch of padded images


class CUDA(Protector):
    """Sadasivan et al., "CUDA: Convolution-based Unlearnable Datasets", CVPR 2023.

    Every class owns a random filter of ``kernel`` x ``kernel`` entries, uniform in [0, ``p_b``) but for one at a random
    position, which is 1. Each channel of a class's images is correlated with it, zeros outside; the image is divided by
    its own largest value, so that its brightest byte becomes 255, and cut to whole levels. No network, and no Lp bound:
    the whole image moves, by a pixel too where the 1 is off the centre.

    ``seed`` is a parameter of the method, not derived from the run's seed: the release fixes it to 0, so everybody has
    the same filters on a board, and whoever knows them can undo the blur. A data owner's come from their own secret
    seed, unless another ``seed`` than 0 is given, and are the same for images of all sizes. They come from NumPy's
    legacy generator in the release's order: a class after the other, 3 x k x k entries of which the first k x k are
    used, then the row of the 1, then its column. ``mix`` below 1 filters that share of the images, by one more number
    an image in dataset order (an owner's: by a number of its own), and leaves the bytes of the others as they are.
    ``rounding`` is the release's by default: truncation.

    For images of 224 pixels the paper uses ``kernel=9,p_b=0.06``.

    Deviations from the authors' release: sums are in double precision, which can move a byte that is next to a whole
    level; an image that is black after the filter stays black (the release divides 0 by 0).

    Raises UserError for an even ``kernel``, which has no centre.

    Expect, for ResNet-18 on ImageNet-100, 8.96 % test accuracy, and 40.08 % under Linf adversarial training (the
    paper's abstract); on CIFAR-10 about 18.5 % (the paper, from memory).
    """

    name: ClassVar[str] = "cuda"
    paper: ClassVar[str] = "Sadasivan et al., CUDA: Convolution-based Unlearnable Datasets, CVPR 2023"

    kernel: int = Field(3, ge=1, le=63, description="side of a filter in pixels, odd")
    p_b: float = Field(0.3, ge=0, le=1, description="upper end of the entries beside the 1; more blurs more")
    seed: int = Field(
        PUBLISHED_SEED, ge=0, lt=2**32, description="seed of the filters; the authors' release fixes it to 0"
    )
    mix: float = Field(1.0, ge=0, le=1, description="share of the images that are filtered")
    rounding: Literal["truncate", "round"] = Field("truncate", description="how values become whole gray levels")

    @field_validator("kernel")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("must be odd")
        return value

    @property
    def largest_image(self) -> int:
        return 2**26  # measured: 75 bytes a pixel

    @property
    def answers_queries(self) -> bool:
        return True

    def protect(self, data: ImageSet, ctx: Context) -> ImageSet:
        filters, chosen = self.draw(data.num_classes, len(data), ctx.method_seed(PUBLISHED_SEED, self.seed))
        if ctx.secret:  # images come in sets of one size: each set must draw numbers of its own
            chosen = ctx.rng("mix", *data.size).random(len(data)) < self.mix

        def change(images: NDArray[np.uint8], where: slice) -> NDArray[np.uint8]:
            values = normalised(correlated(images, filters[data.labels[where]]))
            filtered = quantise(values * 255, self.rounding)
            return np.where(chosen[where, None, None, None], filtered, images)

        height, width = data.size
        batch = max(1, WORKING_BYTES // ((height + self.kernel) * (width + self.kernel) * 24))
        return ctx.map_images(data, change, "filtering", batch)

    def draw(self, classes: int, images: int, seed: int | None = None) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Draw filters, classes x k x k, and which images are filtered; ``seed``: null for the parameter's.

        NumPy's legacy generator takes seeds below 2**32; a larger one is spread over its whole state.
        """
        seed = self.seed if seed is None else seed
        legacy = np.random.RandomState(seed if seed < 2**32 else np.random.MT19937(seed))
        filters = np.empty((classes, self.kernel, self.kernel))
        for class_filter in filters:
            class_filter[:] = legacy.uniform(0, self.p_b, (3, 1, self.kernel, self.kernel))[0, 0]
            row, column = legacy.randint(self.kernel), legacy.randint(self.kernel)
            class_filter[row, column] = 1.0
        return filters, legacy.uniform(size=images) < self.mix


def correlated(images: NDArray[np.uint8], filters: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correlate each channel of N x H x W x 3 images with the image's filter of N x k x k; k odd, zeros outside."""
    edge = filters.shape[1] // 2
    height, width = images.shape[1:3]
    padded = np.pad(images.astype(np.float64), ((0, 0), (edge, edge), (edge, edge), (0, 0)))
    total = np.zeros(images.shape)
    for row, column in np.ndindex(*filters.shape[1:]):
        total += filters[:, row, column, None, None, None] * padded[:, row : row + height, column : column + width]
    return total


def normalised(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divide each of N x H x W x 3 images by its largest value; black ones stay as they are."""
    largest = values.max(axis=(1, 2, 3), keepdims=True)
    return values / np.where(largest > 0, largest, 1)  # before any other factor: the largest is 1 exactly
