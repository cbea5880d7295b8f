"""An adversary who knows ``spots``: takes off what it adds."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ue_bench.api import Context, Countermeasure, ImageSet

from .quantise import quantise
from .spot_codes import PLACES, SYMBOLS
from .spots import GREEN, Spots, decoys, spots

PAINTED = 2.0  # deviations of a spot's window around its middle that are painted over
RIM = 1.5  # pixels of an image of 32 that the color around is taken from


class SpotRemoval(Countermeasure):
    """Three ways to take off what ``spots`` adds, for who knows all of it but the seed: lengths, places and symbols.

    - ``templates``: every channel of every image loses its components along all symbols and decoys at all places, by
      least squares: 24 of its dimensions. Needs no label and cannot tell a spot from what looks like one.
    - ``class-mean``: an image loses what the mean of its class has in excess of the mean of all images. Needs no
      knowledge but that a class has something in common; decoys, which average out, stay.
    - ``paint``: the pair of places that looks most like a spot in green is painted over, each with the mean color of
      the pixels around it.

    This project's own, to show what is left of ``spots`` against who knows it. Results are rounded to the nearest
    gray level. ``sigma`` and ``period`` are those of the protector.
    """

    name: ClassVar[str] = "spot-removal"
    uses_labels: ClassVar[bool] = True

    method: Literal["templates", "class-mean", "paint"] = Field("templates", description="how spots are taken off")
    sigma: float = Field(1.8, gt=0.2, le=16, description="of the spots that are taken off")
    period: float = Field(16 / 3, ge=2, le=32, description="of the spots that are taken off")

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Self:
        if self.method == "class-mean":
            self.refuse_idle({"sigma", "period"}, "method=class-mean")
        return self

    def purify(self, data: ImageSet, ctx: Context) -> ImageSet:
        if not len(data):
            return data
        if self.method == "class-mean":
            return self.without_means(data, ctx)
        basis = self.templates(data.size)
        change = self.painted if self.method == "paint" else projected
        return ctx.map_images(data, lambda images, where: change(images, basis), self.selector, 250)

    def templates(self, size: tuple[int, int]) -> NDArray[np.float64]:
        """Return what ``spots`` may add to a channel of an image of ``size``: places x kinds x H x W."""
        protector = Spots(sigma=self.sigma, period=self.period)
        rows, columns = protector.sections(size)
        found = []
        for place in range(len(PLACES)):
            sign = np.zeros(len(PLACES), dtype=np.int8)
            sign[place] = 1
            for symbol in SYMBOLS[::2]:
                found.append(spots(np.outer(sign, symbol).astype(np.int8), rows, columns))
            found.append(decoys(sign, rows, columns, protector.depth))
        return np.stack(found).reshape(len(PLACES), 3, *size).astype(np.float64)

    def without_means(self, data: ImageSet, ctx: Context) -> ImageSet:
        """Subtract from each image the mean of its class, less that of all images."""
        sums = np.zeros((data.num_classes, *data.images.shape[1:]))
        for part in data.chunks(at_most=1000):
            np.add.at(sums, data.labels[part], data.images[part])
        counts = np.maximum(np.bincount(data.labels, minlength=data.num_classes), 1)
        excess = sums / counts[:, None, None, None] - sums.sum(axis=0) / len(data)
        return ctx.map_images(
            data, lambda images, where: quantise(images - excess[data.labels[where]]), self.selector, 250
        )

    def painted(self, images: NDArray[np.uint8], basis: NDArray[np.float64]) -> NDArray[np.uint8]:
        """Paint over the most conspicuous pair of spots of each image."""
        height, width = images.shape[1:3]
        flat = basis / np.linalg.norm(basis, axis=(2, 3), keepdims=True)
        likeness = np.einsum("nij,pkij->npk", images[..., GREEN].astype(np.float64), flat)
        place = np.abs(likeness).max(axis=2).argmax(axis=1)
        painted = np.array(images)
        windows = [self.windows(row, column, (height, width)) for row, column in PLACES]
        for image, number in zip(painted, place, strict=True):
            for inside, rim in windows[number]:
                image[inside] = quantise(image[rim].mean(axis=0, dtype=np.float64))
        return painted

    def windows(
        self, row: int, column: int, size: tuple[int, int]
    ) -> list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
        """Return for both spots of a pair which pixels are painted, and which give the color, H x W each."""
        scale = Spots.scale(size)
        masks = []
        for side in (column, 3 - column):
            middle = ((row + 0.5) * size[0] / 4 - 0.5, (side + 0.5) * size[1] / 4 - 0.5)
            y, x = np.ogrid[: size[0], : size[1]]
            distance = np.hypot(y - middle[0], x - middle[1]) / scale
            inside = distance <= PAINTED * self.sigma
            rim = (distance <= PAINTED * self.sigma + RIM) & ~inside
            masks.append((inside, rim if rim.any() else ~inside))
        return masks


def projected(images: NDArray[np.uint8], basis: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Take off every channel's components in the span of ``basis``."""
    count, height, width = images.shape[:3]
    span, _ = np.linalg.qr(basis.reshape(-1, height * width).T)
    flat = images.reshape(count, height * width, 3).astype(np.float64)
    kept = flat - span @ (span.T @ flat)
    return quantise(kept.reshape(images.shape))
