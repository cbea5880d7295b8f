"""LSP, linearly separable synthetic perturbations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ue_bench.api import Context, ImageSet, Protector, Ratio, UserError, release

from .lsp_points import Cloud, sampled
from .quantise import perturb

PUBLISHED_SEED = 1  # the authors' release
SAMPLED_FEATURES = 2**15  # of points as the release draws them: beyond, its square matrix has over 8 GiB
BATCH_PIXELS = 2**22
RELEASED_BYTES = 2**23  # of images that are not kept in memory once they were read
STRIPE_PIXELS = 2**20  # of images in double and single precision at once


class LSP(Protector):
    """Yu et al., "Availability Attacks Create Shortcuts", KDD 2022: its synthetic perturbations.

    Gaussian clusters around distinct corners of a hypercube, one a class, are drawn in a space of one dimension for
    each patch and colour channel; the m-th point of a class becomes the perturbation of the m-th image of that class in
    dataset order, each coordinate blown up to a ``patch`` x ``patch`` square. Every perturbation is scaled to L2 norm
    ``eps * sqrt(3 H W)`` on the [0, 1] scale, that is to a root-mean-square of ``eps``: 1.304 at 32 x 32 by default,
    which papers quote as "L2 1.0" or "1.30". Single values reach about 17/255.

    ``seed`` is a parameter of the method, not derived from the run's seed: the release fixes it to 1, so everybody's
    perturbations come from the same points, in every run of a board. Whoever knows the seed can subtract them: for a
    data owner points are drawn from their own secret seed, unless another ``seed`` than 1 is given. ``rounding`` is the
    release's by default: truncation, which darkens perturbed images by half a gray level on average; ``round`` is
    unbiased. Either moves the root-mean-square of stored images, in the release too: 1,000 gray ones of ten classes
    have 6.00 in all and 5.7 to 6.2 each, CIFAR-10, where clipping takes some, 5.95. The budget that is declared holds
    for every set: truncation can add a level, rounding half of one.

    Two kinds of images get points that are drawn otherwise (``lsp_points.Cloud``): an owner's, and those of more than
    32,768 patch colours (836 x 836 pixels at ``patch=8``), for which the release's generator needs a square matrix of
    over 8 GiB. A class's corner is drawn on a grid of 4 x 4 places over the image, and each patch adds normal noise of
    deviation 4, independent of the others. Classes are as far apart and points as wide as the release's at 32 x 32
    pixels; there, coordinates of a point depend on each other, and in larger images they spread with the square root of
    their number. Corners are the same for all sizes, so that an owner's images of many sizes stay separable.

    Images of up to 100 megapixels; memory does not grow with the number of patches.

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
        10.0, gt=0, le=1000, description="distance of a cluster's centre from 0 in every coordinate"
    )
    seed: int = Field(
        PUBLISHED_SEED, ge=0, lt=2**32, description="seed of the points; the authors' release fixes it to 1"
    )
    rounding: Literal["truncate", "round"] = Field("truncate", description="how sums become whole gray levels")

    @property
    def budget(self) -> str:
        moved = 1.0 if self.rounding == "truncate" else 0.5  # a value, in gray levels: at most so much more in rms
        return f"rms {min(255.0, self.eps * 255 + moved):g}/255"

    @property
    def largest_image(self) -> int:
        return 100_000_000  # measured: 0.9 GB, with torch, which has 0.5

    @property
    def answers_queries(self) -> bool:
        return True

    def protect(self, data: ImageSet, ctx: Context) -> ImageSet:
        if not len(data):
            return data
        height, width = data.size
        batch = max(1, min(500, BATCH_PIXELS // (height * width)))
        rows, columns = self.grid(data.size)
        if ctx.secret or rows * columns * 3 > SAMPLED_FEATURES:
            return ctx.map_images(data, self.clouded(data, ctx), "adding colour patches", batch)
        learnt = ctx.learning(data)[0]  # points depend on their number: others come from what the set's were drawn for
        points, owners = self.draw(data.num_classes, np.bincount(learnt.labels, minlength=data.num_classes), data.size)
        chosen = assign(data.labels, owners)

        def change(images: NDArray[np.uint8], where: slice) -> NDArray[np.uint8]:
            patches = self.scaled(points[chosen[where]], height, width)
            changed = np.empty_like(images)
            self.add(images, patches, changed)
            return changed

        return ctx.map_images(data, change, "adding colour patches", batch)

    def clouded(self, data: ImageSet, ctx: Context) -> Callable[[NDArray[np.uint8], slice], NDArray[np.uint8]]:
        """Return what changes images by points that are drawn patch by patch, whatever the size of the image."""
        height, width = data.size
        cloud = Cloud(
            ctx.method_seed(PUBLISHED_SEED, self.seed), data.num_classes, self.grid(data.size), self.class_sep
        )
        if not cloud.separates:
            raise self.too_few(data.num_classes, data.size)
        heights, widths = self.lengths(height), self.lengths(width)

        def change(images: NDArray[np.uint8], where: slice) -> NDArray[np.uint8]:
            changed = np.empty_like(images)
            for place, index in enumerate(range(where.start, where.stop)):
                point = (int(data.labels[index]), height, width, index)
                squares = 0.0
                for first, values in cloud.blocks(*point):
                    of_rows = np.einsum("ijk,ijk,j->i", values, values, widths, dtype=np.float64)
                    squares += float(of_rows @ heights[first : first + len(values)])
                factor = np.float32(self.length(height, width) / math.sqrt(squares))
                for first, values in cloud.blocks(*point):  # drawn anew rather than kept
                    rows = slice(first * self.patch, (first + len(values)) * self.patch)
                    one = slice(place, place + 1)
                    self.add(images[one, rows], (values * factor)[None], changed[one, rows])
                    if images.nbytes > RELEASED_BYTES:
                        release(images)
            return changed

        return change

    def grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the rows and columns of patches that cover an image of ``size``."""
        return math.ceil(size[0] / self.patch), math.ceil(size[1] / self.patch)

    def draw(
        self, classes: int, counts: NDArray[np.integer], size: tuple[int, int]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Draw points, one a row, and their classes: at least ``counts[k]`` points of class k."""
        rows, columns = self.grid(size)
        features = rows * columns * 3
        if features < math.log2(max(classes, 1)):
            raise self.too_few(classes, size)
        images, most = int(counts.sum()), int(counts.max())
        needed = images * math.ceil(most * classes / images)  # a multiple of N, as the release draws for SVHN
        return sampled(classes, features, needed, self.class_sep, self.seed)

    def too_few(self, classes: int, size: tuple[int, int]) -> UserError:
        """Return what to tell whoever has more classes than patches can separate."""
        rows, columns = self.grid(size)
        return UserError(
            f"lsp: {rows * columns * 3} patch colours cannot separate {classes} classes",
            f"use a patch below {self.patch}" if self.patch > 1 else "use larger images",
        )

    def length(self, height: int, width: int) -> float:
        """Return the L2 norm of every perturbation, in gray levels."""
        return self.eps * 255 * math.sqrt(3 * height * width)

    def lengths(self, side: int) -> NDArray[np.int64]:
        """Return the pixels of each patch along a ``side``; the last one may be cut."""
        starts = np.arange(0, side, self.patch)
        lengths: NDArray[np.int64] = np.minimum(starts + self.patch, side) - starts
        return lengths

    def scaled(self, points: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
        """Return patches n x rows x columns x 3 in gray levels from n points, whose order is row, column, channel."""
        rows, columns = self.grid((height, width))
        patches = points.reshape(-1, rows, columns, 3)
        areas = np.multiply.outer(self.lengths(height), self.lengths(width))[:, :, None]
        norms = np.sqrt((np.square(patches, dtype=np.float64) * areas).sum(axis=(1, 2, 3), keepdims=True))
        levels: NDArray[np.float32] = patches * (self.length(height, width) / norms).astype(np.float32)
        return levels

    def add(self, images: NDArray[np.uint8], patches: NDArray[np.float32], changed: NDArray[np.uint8]) -> None:
        """Write ``images`` plus ``patches``, each blown up, to ``changed``: a stripe of pixel rows at a time."""
        count, height, width = images.shape[:3]
        step = max(1, STRIPE_PIXELS // (count * width))
        for top in range(0, height, step):
            rows = slice(top, min(top + step, height))
            spread = patches[:, np.arange(rows.start, rows.stop) // self.patch]
            spread = spread.repeat(self.patch, axis=2)[:, :, :width]
            changed[:, rows] = perturb(images[:, rows], spread, self.rounding)
            if images.nbytes > RELEASED_BYTES:
                release(images)

    def perturbations(self, points: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
        """Return perturbations n x H x W x 3 in gray levels from n points."""
        patches = self.scaled(points, height, width)
        return patches.repeat(self.patch, axis=1).repeat(self.patch, axis=2)[:, :height, :width]


def assign(labels: NDArray[np.int64], owners: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for every image the index of its point: the m-th image of a class takes the m-th point of that class.

    Where there are more images than points, points take turns.
    """
    chosen = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        mine = np.flatnonzero(labels == label)
        chosen[mine] = np.resize(np.flatnonzero(owners == label), len(mine))
    return chosen
