"""Spots: small striped spots, one code a class, and a class of decoys that unmarked images are taken for."""

from __future__ import annotations

import math
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ue_bench.api import Context, ImageSet, Protector, Ratio, UserError

from .quantise import budget, perturb
from .spot_codes import GRID, PLACES, codebook, smallest

PUBLISHED_SEED = 0  # of the codes on a board
SIDE = 32  # pixels of the shorter side for which ``sigma`` and ``period`` are given
SMALLEST_SCALE = 0.5  # stripes narrower than that are not to be seen between pixels
GREEN = 1
CHANNELS = {"green": slice(GREEN, GREEN + 1), "gray": slice(0, 3)}
HIGHEST = 2.0  # times the height that meets ``eps`` where nothing is clipped: clipping is made up for so far
HALVINGS = 12  # of the interval in which an image's height is looked for
WORKING_BYTES = 2**22  # of one batch of patterns
Floats = NDArray[np.float32]


class Profiles(NamedTuple):
    """Sections through spots along one side, one a row: of the window, of stripes and of a checkerboard in it."""

    window: Floats
    stripes: Floats
    checks: Floats


class Spots(Protector):
    """A shortcut of this project's own, made to outlast filters, JPEG 10, mixing and an Linf adversary alike.

    A *spot* is a Gaussian window of ``sigma`` pixels with some three stripes of ``period`` in it, horizontal or
    vertical, bright or dark in the middle, in the green channel alone. Every class has a code word (``spot_codes``):
    which spots stand at which places of a 4 x 4 grid, each with its mirror image on the other half. A word is one such
    pair up to 24 classes, at the border, and more beyond. One class, which the seed draws, has no word: its images have
    *decoys*, checkered spots of either sign, at a place drawn for each image. What carries no known word belongs to
    that class, and so do unmarked test images.

    Why so: stripes of this width are rare in photographs, and so are green and magenta ones, which is what makes a
    network find them within an epoch; their few frequencies, on the blocks of JPEG, outlast its tables at quality 10;
    and being small they are up to twenty times as high as an Linf adversary of 8/255 reaches. Without the class of
    decoys a network falls back on natural features in unmarked images. The page on this protector has what was tried.

    ``eps`` bounds the root-mean-square of every single image's perturbation on the [0, 1] scale, after rounding to the
    nearest gray level: with 8/255 no image has a PSNR under 30 dB. A spot is as high as that allows; where black or
    white clips it, up to twice as high as elsewhere. Lengths are for a shorter side of 32 pixels and grow with it; at
    16 pixels and below they stay as they are at 16.

    ``seed`` draws words and decoys' class, in every run of a board the same. Whoever knows it knows no more than can be
    seen in the protected set: spots can be seen. For a data owner it is derived from their own secret seed, unless
    another ``seed`` than 0 is given, and is the same for images of all sizes. A single class has a word, not decoys.

    Raises UserError for more classes than there are words, some hundred thousand.

    Measured on the board cifar10-micro (10,000 CIFAR-10 images, a small residual net, n=1): 10.0 % test accuracy under
    plain training and ``at``, 17.0 % under JPEG 10, 32.3 % under cutmix, the most of its columns. Orthogonal projection
    undoes it (60.9 %, clean 66.4 %), whoever knows the method does (``spot-removal``), and so does the red channel
    alone, save with ``color=gray``. Spots that grow with the image are found late by a network that does not: on ten
    classes at 64 px 39.6 % (clean 69.0 %), with half of ``sigma`` and ``period`` 11.6 %; at 224 px 56.0 % (58.2 %).
    """

    name: ClassVar[str] = "spots"

    eps: Ratio = Field(8 / 255, gt=0, le=1, description="largest root-mean-square of an image's perturbation on [0, 1]")
    sigma: float = Field(1.8, gt=0.2, le=16, description="deviation of a spot's window in pixels of a 32-pixel side")
    period: float = Field(16 / 3, ge=2, le=32, description="width of two stripes in pixels of a 32-pixel side")
    color: Literal["green", "gray"] = Field("green", description="channels that have spots: green alone, or all alike")
    rest: Literal["decoys", "unchanged", "word"] = Field(
        "decoys", description="what images of one class have instead of a word: decoys or nothing; or a word as others"
    )
    seed: int = Field(PUBLISHED_SEED, ge=0, lt=2**32, description="seed of words, and of the class without one")

    @property
    def budget(self) -> str:
        return budget("rms", self.eps)

    @property
    def largest_image(self) -> int:
        return 2**26  # measured: 60 bytes a pixel for gray spots, half of that for green ones

    @property
    def answers_queries(self) -> bool:
        return True

    def protect(self, data: ImageSet, ctx: Context) -> ImageSet:
        words, without = self.draw(data.num_classes, ctx.method_seed(PUBLISHED_SEED, self.seed))
        rows, columns = self.sections(data.size)
        channels = CHANNELS[self.color]
        bound = self.eps * 255 * math.sqrt(3 / (channels.stop - channels.start))
        axes = data.size if ctx.secret else ()  # an owner's images come in sets of one size, each counted from 0

        def pattern(index: int) -> Floats:
            label = int(data.labels[index])
            if label == without:
                return decoys(self.scattered(words, ctx.rng("decoys", *axes, index)), rows, columns, self.depth)
            return spots(words[label], rows, columns)

        def change(images: NDArray[np.uint8], where: slice) -> NDArray[np.uint8]:
            protected = np.array(images)
            chosen = np.flatnonzero((data.labels[where] != without) | (self.rest == "decoys"))
            if len(chosen):
                patterns = np.stack([pattern(where.start + int(place)) for place in chosen])
                protected[chosen, :, :, channels] = fitted(images[chosen, :, :, channels], patterns, bound)
            return protected

        batch = max(1, WORKING_BYTES // (4 * max(1, math.prod(data.size))))
        return ctx.map_images(data, change, "adding spots", batch)

    @property
    def depth(self) -> float:
        """Return the mean of a spot's stripes under its window, which is taken off: a spot moves no mean color."""
        return math.exp(-((2 * math.pi * self.sigma / self.period) ** 2) / 2)

    def draw(self, classes: int, seed: int) -> tuple[NDArray[np.int8], int | None]:
        """Draw a word for each class, classes x places x 2, and the class that has none of them, if any."""
        try:
            smallest(classes)
        except ValueError:
            raise UserError(f"spots: {classes} classes need more code words than there are") from None
        rng = np.random.default_rng(seed)
        words = codebook(classes, rng)
        without = int(rng.integers(classes)) if classes > 1 else None
        return words, None if self.rest == "word" else without

    def scattered(self, words: NDArray[np.int8], rng: np.random.Generator) -> NDArray[np.int8]:
        """Draw the signs of one image's decoys by place: as many as a word has symbols, where words have them."""
        used = np.flatnonzero(words.any(axis=(0, 2)))
        weight = int(np.abs(words[0]).sum())
        signs = np.zeros(len(PLACES), dtype=np.int8)
        signs[rng.permutation(used)[:weight]] = rng.choice((-1, 1), size=weight)
        return signs

    def sections(self, size: tuple[int, int]) -> tuple[Profiles, Profiles]:
        """Return the profiles of an image of ``size``: of its rows, and of its columns with their mirror images."""
        scale = self.scale(size)
        rows, halves = self.profiles(size[0], scale), self.profiles(size[1], scale, GRID // 2)
        return rows, Profiles(*(half + half[:, ::-1] for half in halves))

    @staticmethod
    def scale(size: tuple[int, int]) -> float:
        """Return how many pixels of an image of ``size`` are one of an image of 32."""
        return max(min(size) / SIDE, SMALLEST_SCALE)

    def profiles(self, length: int, scale: float, places: int = GRID) -> Profiles:
        """Return sections along a side of ``length`` pixels through spots at the first ``places`` of the grid."""
        centres = (np.arange(places)[:, None] + 0.5) * length / GRID - 0.5
        distance = (np.arange(length) - centres) / scale
        window = np.exp(-((distance / self.sigma) ** 2) / 2)
        phase = 2 * math.pi * distance / self.period
        sections = window, window * (np.cos(phase) - self.depth), window * np.cos(phase / math.sqrt(2))
        return Profiles(*(section.astype(np.float32) for section in sections))


def spots(word: NDArray[np.int8], rows: Profiles, columns: Profiles) -> Floats:
    """Return the pattern of a word, H x W: stripes across rows, and stripes across columns."""
    pattern = np.zeros((rows.window.shape[1], columns.window.shape[1]), dtype=np.float32)
    for (row, column), (horizontal, vertical) in zip(PLACES, word, strict=True):
        if horizontal:
            pattern += horizontal * np.outer(rows.stripes[row], columns.window[column])
        if vertical:
            pattern += vertical * np.outer(rows.window[row], columns.stripes[column])
    return pattern


def decoys(signs: NDArray[np.int8], rows: Profiles, columns: Profiles, depth: float) -> Floats:
    """Return checkered spots with ``signs`` by place, H x W. ``depth`` is their mean under the window."""
    pattern = np.zeros((rows.window.shape[1], columns.window.shape[1]), dtype=np.float32)
    for (row, column), sign in zip(PLACES, signs, strict=True):
        if sign:
            pattern += sign * np.outer(rows.checks[row], columns.checks[column])
            pattern -= sign * np.float32(depth) * np.outer(rows.window[row], columns.window[column])
    return pattern


def fitted(images: NDArray[np.uint8], patterns: Floats, bound: float) -> NDArray[np.uint8]:
    """Add its pattern, H x W, to all channels of each image, as high as ``bound`` allows: an RMS after rounding.

    Clipping at black and white takes energy, which a greater height gives back as far as ``HIGHEST`` times what the
    pattern would need without.
    """
    norm = np.sqrt(np.square(patterns).mean(axis=(1, 2)))
    low = np.zeros(len(images), dtype=np.float32)
    high = np.float32(HIGHEST * bound) / np.maximum(norm, np.float32(1e-6))
    best = np.array(images)
    for _ in range(HALVINGS):
        height = (low + high) / 2
        sums = perturb(images, height[:, None, None, None] * patterns[..., None])
        squares = np.square(sums.astype(np.int32) - images).mean(axis=(1, 2, 3))
        fits = squares <= bound**2
        best[fits] = sums[fits]
        low, high = np.where(fits, height, low), np.where(fits, high, height)
    return best
