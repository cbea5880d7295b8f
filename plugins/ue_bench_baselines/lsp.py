"""LSP, linearly separable synthetic perturbations."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ue_bench.api import Context, ImageSet, Protector, Ratio, UserError

from .quantise import budget, perturb


class LSP(Protector):
    """Yu et al., "Availability Attacks Create Shortcuts", KDD 2022: its synthetic perturbations.

    Gaussian clusters around distinct corners of a hypercube, one a class, are drawn in a space of one dimension for
    each patch and colour channel; the m-th point of a class becomes the perturbation of the m-th image of that class in
    dataset order, each coordinate blown up to a ``patch`` x ``patch`` square. Every perturbation is scaled to L2 norm
    ``eps * sqrt(3 H W)`` on the [0, 1] scale, that is to a root-mean-square of ``eps``: 1.304 at 32 x 32 by default,
    which papers quote as "L2 1.0" or "1.30". Single values reach about 17/255.

    ``seed`` is a parameter of the method, not derived from the run's seed: the release fixes it to 1, so everybody's
    perturbations come from the same points, in every run. ``rounding`` is the release's by default: truncation, which
    darkens perturbed images by half a gray level on average; ``round`` is unbiased.

    Deviations from the authors' release: images need not be square, nor sides multiples of ``patch`` (the grid is
    rounded up and cropped, and the norm is that of the cropped perturbation); when a class has more images than points,
    the smallest sufficient multiple of N points is drawn (the release doubles N for SVHN by hand). For 224 x 224 images
    APBench uses ``patch=32``.

    Raises UserError when the patches are too few to give every class a corner of its own.

    Expect 13.06 % test accuracy for ResNet-18 on CIFAR-10 (Qin et al., "APBench", 2023, 200 epochs) or 19.07 % (Liu et
    al., "Image Shortcut Squeezing", ICML 2023, 60 epochs).
    """

    name: ClassVar[str] = "lsp"
    paper: ClassVar[str] = "Yu et al., Availability Attacks Create Shortcuts, KDD 2022"

    patch: int = Field(8, ge=1, le=1024, description="side of a patch of one colour, in pixels")
    eps: Ratio = Field(6 / 255, gt=0, le=1, description="root-mean-square of each perturbation on the [0, 1] scale")
    class_sep: float = Field(
        10.0, ge=0, le=1000, description="distance of a cluster's centre from 0 in every coordinate"
    )
    seed: int = Field(1, ge=0, lt=2**32, description="seed of the points; the authors' release fixes it to 1")
    rounding: Literal["truncate", "round"] = Field("truncate", description="how sums become whole gray levels")

    @property
    def budget(self) -> str:
        return budget("rms", self.eps)

    def protect(self, data: ImageSet, ctx: Context) -> ImageSet:
        if not len(data):
            return data
        height, width = data.size
        points, owners = self.draw(data.num_classes, np.bincount(data.labels, minlength=data.num_classes), data.size)
        chosen = assign(data.labels, owners)

        def change(images: NDArray[np.uint8], where: slice) -> NDArray[np.uint8]:
            return perturb(images, self.perturbations(points[chosen[where]], height, width), self.rounding)

        return ctx.map_images(data, change, "adding colour patches")

    def grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of patches that cover an image of ``size``."""
        return math.ceil(size[0] / self.patch), math.ceil(size[1] / self.patch)

    def draw(
        self, classes: int, counts: NDArray[np.integer], size: tuple[int, int]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Points, one a row, and their classes: at least ``counts[k]`` points of class k."""
        from sklearn.datasets import make_classification

        rows, columns = self.grid(size)
        features = rows * columns * 3
        if features < math.log2(max(classes, 1)):
            raise UserError(
                f"lsp: {features} patch colours cannot separate {classes} classes", f"use a patch below {self.patch}"
            )
        images, most = int(counts.sum()), int(counts.max())
        needed = images * math.ceil(most * classes / images)  # a multiple of N, as the release draws for SVHN
        points, owners = make_classification(
            n_samples=needed,
            n_features=features,
            n_informative=features,
            n_redundant=0,
            n_repeated=0,
            n_classes=classes,
            n_clusters_per_class=1,
            flip_y=0,
            class_sep=self.class_sep,
            random_state=self.seed,
        )
        return points.astype(np.float32), owners

    def perturbations(self, points: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
        """Perturbations n x H x W x 3 in gray levels from n points, whose order is row, column, channel."""
        rows, columns = self.grid((height, width))
        patches = points.reshape(-1, rows, columns, 3)
        spread = patches.repeat(self.patch, axis=1).repeat(self.patch, axis=2)[:, :height, :width]
        norms = np.sqrt(np.square(spread, dtype=np.float64).sum(axis=(1, 2, 3), keepdims=True))
        scaled: NDArray[np.float32] = spread * (self.eps * 255 * math.sqrt(3 * height * width) / norms).astype(
            np.float32
        )
        return scaled


def assign(labels: NDArray[np.int64], owners: NDArray[np.int64]) -> NDArray[np.int64]:
    """For every image the index of its point: the m-th image of a class takes the m-th point of that class."""
    chosen = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        mine = np.flatnonzero(labels == label)
        chosen[mine] = np.flatnonzero(owners == label)[: len(mine)]
    return chosen
