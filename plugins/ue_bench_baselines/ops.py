"""OPS, the one-pixel shortcut."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ue_bench.api import Context, ImageSet, Protector, UserError

COLOURS = np.array([[r, g, b] for r in (0, 255) for g in (0, 255) for b in (0, 255)], dtype=np.uint8)
CANDIDATES, MIN_CANDIDATES = 0.01, 16  # of all pairs, what a data owner's are drawn from (ours)
GATHER_BYTES = 2**23  # of images summed at once


class Pixel(NamedTuple):
    """A pixel to set: position, colour (three bytes, each 0 or 255), and the score that chose it."""

    row: int
    column: int
    colour: tuple[int, int, int]
    score: float


class OPS(Protector):
    """Wu et al., "One-Pixel Shortcut: On the Learning Preference of Deep Neural Networks", ICLR 2023.

    Every class gets one pixel position and one corner of the RGB cube, and all its images get that pixel. Chosen is
    the pair with the largest mean / standard deviation of ``|colour - pixel|``, over the class's images and the three
    channels jointly: a change that is large and alike everywhere. A pair serves one class only; classes choose in
    order. No Lp bound of use: one pixel changes by up to its full range.

    On a board there is no randomness. Whoever has images of the kind can make the same choice, and paint over the
    pixels: for a data owner each pair is drawn from the best hundredth (16 at least) by their secret seed. Pixels of
    one colour in all images of a class can be seen in the protected set itself, whatever the choice.

    The score is that of the authors' code, not of the paper's text (mean over variance of the distance summed over
    channels). It is computed in closed form from integer sums, exactly. Deviations from the authors' code: any number
    of classes and any image size (it has 10 classes and square images); equal scores go to the smallest position, then
    colour (it takes the last of an unstable sort); a pixel that is constant over a class scores 0 where it has the
    colour already and infinity otherwise (it divides 0 by 0 and leaves the class unprotected).

    Raises UserError when there are fewer pairs than ``sparsity`` times classes.

    Expect 14.69 % test accuracy for ResNet-18 on CIFAR-10 (Qin et al., "APBench", 2023, 200 epochs) or 36.55 % (Liu et
    al., "Image Shortcut Squeezing", ICML 2023, 60 epochs): the victim's schedule matters much.
    """

    name: ClassVar[str] = "ops"
    paper: ClassVar[str] = "Wu et al., One-Pixel Shortcut, ICLR 2023"

    sparsity: int = Field(
        1, ge=1, le=1024, description="pairs of position and colour a class; at one position the last of them shows"
    )

    @property
    def budget(self) -> str:
        return f"pixels {self.sparsity}"

    @property
    def largest_image(self) -> int:
        return 2**23  # measured: 640 bytes a pixel, and 13 s a class at one megapixel

    @property
    def one_size(self) -> bool:
        return True  # a pair is chosen by all images of a class

    @property
    def answers_queries(self) -> bool:
        return True

    def protect(self, data: ImageSet, ctx: Context) -> ImageSet:
        chosen = self.choose(*ctx.learning(data))

        def change(images: NDArray[np.uint8], where: slice) -> NDArray[np.uint8]:
            marked = np.array(images)
            labels = data.labels[where]
            for label in np.unique(labels):
                mine = labels == label
                for pixel in chosen[label]:
                    marked[mine, pixel.row, pixel.column] = pixel.colour
            return marked

        return ctx.map_images(data, change, "setting pixels")

    def choose(self, data: ImageSet, ctx: Context) -> list[list[Pixel]]:
        """Choose the pixels of every class, best first. A class without images has none."""
        height, width = data.size
        pairs = height * width * len(COLOURS)
        if self.sparsity * data.num_classes > pairs:
            raise UserError(
                f"ops: {data.num_classes} classes of {self.sparsity} pixels need more than the {pairs} pairs of a "
                f"{height} x {width} image",
                "use a smaller sparsity",
            )
        taken = np.zeros(pairs, dtype=bool)
        chosen: list[list[Pixel]] = []
        for label in ctx.progress(range(data.num_classes), "choosing pixels"):
            members = np.flatnonzero(data.labels == label)
            if not len(members):
                chosen.append([])
                continue
            scores = np.where(taken, -1.0, score(*class_sums(data, members), len(members)).ravel())
            best = np.argsort(-scores, kind="stable")
            if ctx.secret:
                good = max(self.sparsity, MIN_CANDIDATES, int(CANDIDATES * pairs))
                free = best[: min(good, pairs - int(taken.sum()))]  # taken ones come last
                best = free[np.sort(ctx.rng("pairs", label).permutation(len(free))[: self.sparsity])]
            best = best[: self.sparsity]
            taken[best] = True
            chosen.append(list(_pixels(best, scores, width)))
        return chosen


def class_sums(data: ImageSet, members: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sum the bytes and the squared bytes over the images ``members``, each H x W x 3."""
    total = np.zeros(data.images.shape[1:], dtype=np.int64)
    squares = np.zeros_like(total)
    step = max(1, GATHER_BYTES // max(1, total.size))
    for start in range(0, len(members), step):
        images = data.images[members[start : start + step]]
        total += images.sum(axis=0, dtype=np.int64)
        squares += np.square(images, dtype=np.uint16).sum(axis=0, dtype=np.int64)
    return total, squares


def score(total: NDArray[np.int64], squares: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """Return mean / deviation of the distance to every corner colour, H x W x 8, from sums of ``count`` images.

    With s and q the sums of a channel, the distances to 0 sum to s and their squares to q; those to 255 sum to
    255 n - s and 255^2 n - 510 s + q. Over the three channels they add up to a and b, and mean / std is
    a / sqrt(3 n b - a^2), in integers below the root.
    """
    values = 3 * count
    first = np.stack([total, 255 * count - total])
    second = np.stack([squares, 255**2 * count - 510 * total + squares])
    bits = COLOURS // 255
    channels = np.arange(3)
    a = np.stack([first[bit, :, :, channels].sum(axis=0) for bit in bits], axis=-1)
    b = np.stack([second[bit, :, :, channels].sum(axis=0) for bit in bits], axis=-1)
    spread = values * b - a * a
    constant = np.where(a == 0, 0.0, np.inf)
    return np.where(spread == 0, constant, a / np.sqrt(np.maximum(spread, 1)))


def _pixels(flat: NDArray[np.integer], scores: NDArray[np.float64], width: int) -> Iterator[Pixel]:
    for index in flat.tolist():
        position, colour = divmod(index, len(COLOURS))
        red, green, blue = COLOURS[colour].tolist()
        yield Pixel(position // width, position % width, (red, green, blue), float(scores[index]))
