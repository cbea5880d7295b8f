"""The embedded dataset: small pictures whose class is the shape of the thing in them.

Ten silhouettes stand at random places, sizes and angles, in random colours and materials, in front of textured
backgrounds with clutter and uneven light. Nothing but the shape tells the class, so that a network has to learn shape
for clean accuracy, and a class-wise pattern of 8/255 is the easier thing to learn, as in natural images.

The pictures are made from ``seed`` alone, in double precision, so that two machines make the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ue_bench.api import Context, Dataset, ImageSet, derive

from .common import check_split

Array = NDArray[np.float64]
Shape = Callable[[Array, Array], Array]

SIZE = 32  # pixels, as in CIFAR-10
OVERSAMPLING = 2  # edges are drawn on a grid this many times finer
BLOCK = 200  # pictures drawn together; each block has a generator of its own
AREA = 0.78  # that every silhouette is scaled to before the random zoom; the picture is 2 x 2 units, so a fifth of it
LUMINANCE = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601

# How hard the shape is to see, and how quiet colours and textures are. Together they decide whether a network learns
# the shape within a few epochs, and whether it prefers a weak class-wise pattern to it; the tests hold both. More
# colour (SATURATION, WARMTH) hides such patterns, more CONTRAST lets the shape win.
CONTRAST = 0.1  # least difference in luminance between background and thing
SATURATION = 0.022  # spread of the channels around the luminance
WARMTH = 0.07  # spread of the colour of the light between warm and cool
TEXTURE = (0.003, 0.025)  # least and most standard deviation
TEXTURE_SLOPE = (1.2, 1.9)  # amplitude spectra of photographs fall with about 1/f, faster where they are out of focus
CLUTTER = 4  # pieces behind the thing
CLUTTER_CONTRAST = 0.1
NOISE = 0.002  # half a gray level, as a good sensor has it


def _any(*shapes: Array) -> Array:
    """Return the signed distance to the union of shapes: inside at least one of them."""
    distance: Array = np.minimum.reduce(shapes)
    return distance


def _all(*shapes: Array) -> Array:
    """Return the signed distance to the intersection of shapes: inside all of them."""
    distance: Array = np.maximum.reduce(shapes)
    return distance


def _round(x: Array, y: Array, radius: float) -> Array:
    distance: Array = np.hypot(x, y) - radius
    return distance


def _box(x: Array, y: Array, left: float, right: float, top: float, bottom: float) -> Array:
    return _all(abs(x - (left + right) / 2) - (right - left) / 2, abs(y - (top + bottom) / 2) - (bottom - top) / 2)


def _roof(x: Array, y: Array, top: float, bottom: float, half_width: float) -> Array:
    """Return the signed distance to a triangle with its tip at ``top``."""
    height = bottom - top
    return _all((abs(x) * height - half_width * (y - top)) / np.hypot(height, half_width), y - bottom)


def _arrow(x: Array, y: Array) -> Array:
    return _any(_roof(x, y, -0.75, 0.02, 0.58), _box(x, y, -0.19, 0.19, -0.05, 0.75))


def _cross(x: Array, y: Array) -> Array:
    return _any(_box(x, y, -0.7, 0.7, -0.2, 0.2), _box(x, y, -0.2, 0.2, -0.7, 0.7))


def _disc(x: Array, y: Array) -> Array:
    return _round(x, y, 0.5)


def _fish(x: Array, y: Array) -> Array:
    body = 0.7 * _round(x + 0.15, y / 0.62, 0.6)
    tail = _all(0.8 * abs(y) - 0.75 * (x - 0.25), x - 0.85)
    return _any(body, tail)


def _heart(x: Array, y: Array) -> Array:
    lobes = _round(abs(x) - 0.28, y + 0.2, 0.33)
    tip = _all((abs(x) + y) * 0.5**0.5 - 0.42, -0.17 - y, abs(x) - 0.61)
    return _any(lobes, tip)


def _hourglass(x: Array, y: Array) -> Array:
    return _all((abs(x) - 0.08 - 0.8 * abs(y)) * 0.78, abs(y) - 0.68)


def _mushroom(x: Array, y: Array) -> Array:
    cap = _all(_round(x, y, 0.66), y)
    return _any(cap, _box(x, y, -0.15, 0.15, -0.1, 0.66))


def _ring(x: Array, y: Array) -> Array:
    return abs(_round(x, y, 0.5)) - 0.15


def _star(x: Array, y: Array) -> Array:
    """Return the signed distance to five points, of which one half edge is enough by symmetry."""
    sector = np.pi / 5
    angle = abs((np.arctan2(x, -y) + sector) % (2 * sector) - sector)
    radius = np.hypot(x, y)
    outer, inner = 0.8, 0.36
    along, across = inner * np.cos(sector) - outer, inner * np.sin(sector)
    distance: Array = (radius * np.cos(angle) - outer) * across - radius * np.sin(angle) * along
    return distance / float(np.hypot(along, across))


def _tree(x: Array, y: Array) -> Array:
    return _any(_roof(x, y, -0.8, -0.05, 0.42), _roof(x, y, -0.35, 0.5, 0.6), _box(x, y, -0.12, 0.12, 0.4, 0.8))


SHAPES: dict[str, Shape] = {
    "arrow": _arrow,
    "cross": _cross,
    "disc": _disc,
    "fish": _fish,
    "heart": _heart,
    "hourglass": _hourglass,
    "mushroom": _mushroom,
    "ring": _ring,
    "star": _star,
    "tree": _tree,
}
"""Negative inside, about the distance to the outline outside. All of them survive mirroring."""


@cache
def _zoom(name: str) -> float:
    """Return what a silhouette is multiplied by so that all of them cover the same area."""
    axis = np.linspace(-1, 1, 401)
    y, x = np.meshgrid(axis, axis, indexing="ij")
    return float(np.sqrt(AREA / (4 * np.mean(SHAPES[name](x, y) < 0))))


class Demo(Dataset):
    """Pictures of ten shapes, made in a few seconds without any download."""

    name: ClassVar[str] = "demo"

    train_per_class: int = Field(250, ge=1, le=100_000, description="training images per class")
    test_per_class: int = Field(100, ge=1, le=100_000, description="test images per class")
    seed: int = Field(0, ge=0, description="seed of the pictures; training and test pictures are independent")

    def files(self, data_dir: Path) -> list[Path]:
        return []

    def load(self, split: str, ctx: Context) -> ImageSet:
        """Draw ``per_class`` pictures of each shape, classes taking turns."""
        check_split(split)
        count = len(SHAPES) * (self.train_per_class if split == "train" else self.test_per_class)
        labels = np.arange(count, dtype=np.int64) % len(SHAPES)
        return ImageSet(self._store(split, labels, ctx), labels, tuple(SHAPES), "generated shapes")

    def _store(self, split: str, labels: NDArray[np.int64], ctx: Context) -> NDArray[np.uint8]:
        def blocks() -> Iterator[NDArray[np.uint8]]:
            for start in ctx.progress(range(0, len(labels), BLOCK), f"drawing demo {split}"):
                part = labels[start : start + BLOCK]
                # A whole block is drawn even where part of it is needed: more images never change the first ones.
                rng = np.random.default_rng(derive(self.seed, "demo", split, start))
                yield draw(rng, np.arange(BLOCK) % len(SHAPES))[: len(part)]

        return ctx.store_images((len(labels), SIZE, SIZE, 3), blocks())


def draw(rng: np.random.Generator, labels: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Draw one picture for each label, N x 32 x 32 x 3."""
    n = len(labels)
    below, above = _colours(rng, n)
    image = _material(rng, n, below)
    for _ in range(CLUTTER):
        shift = rng.uniform(-CLUTTER_CONTRAST, CLUTTER_CONTRAST, (n, 1, 1, 1)) + rng.normal(0, 0.006, (n, 1, 1, 3))
        image = _over(image, image + shift, _cover(_clutter(rng, n)))

    distance = _things(rng, labels)
    image = _over(image, image * 0.6, _shadow(rng, distance))
    image = _over(image, _material(rng, n, above), _cover(distance))

    image = image * _light(rng, n) + rng.normal(0, NOISE, image.shape)
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def _over(image: Array, layer: Array, cover: Array) -> Array:
    return image + (layer - image) * cover[..., None]


def _grid() -> tuple[Array, Array]:
    side = SIZE * OVERSAMPLING
    axis = (np.arange(side) + 0.5) / side * 2 - 1
    y, x = np.meshgrid(axis, axis, indexing="ij")
    return x, y


def _pixels(fine: Array) -> Array:
    """Return the mean over every pixel of a field on the fine grid."""
    pixels: Array = fine.reshape(len(fine), SIZE, OVERSAMPLING, SIZE, OVERSAMPLING).mean((2, 4))
    return pixels


def _cover(distance: Array) -> Array:
    """Return the share of every pixel that is inside."""
    return _pixels(np.clip(0.5 - distance * SIZE * OVERSAMPLING / 2, 0, 1))


def _things(rng: np.random.Generator, labels: NDArray[np.int64]) -> Array:
    """Return the signed distance to every picture's silhouette in its pose."""
    n = len(labels)
    x, y = _placed(rng, n, reach=0.24, turn=np.pi, zoom=(0.83, 1.18), stretch=1.12)
    distance = np.empty((n, SIZE * OVERSAMPLING, SIZE * OVERSAMPLING))
    for label, (name, shape) in enumerate(SHAPES.items()):
        where, zoom = labels == label, _zoom(name)
        distance[where] = shape(x[where] / zoom, y[where] / zoom) * zoom
    return distance


def _placed(
    rng: np.random.Generator, n: int, reach: float, turn: float, zoom: tuple[float, float], stretch: float
) -> tuple[Array, Array]:
    """Return coordinates of the grid as a thing at a random place, angle and size sees them."""
    x, y = _grid()
    dx, dy = rng.uniform(-reach, reach, (2, n, 1, 1))
    angle = rng.uniform(-turn, turn, (n, 1, 1))
    size = rng.uniform(*zoom, (n, 1, 1))
    wide = stretch ** rng.uniform(-1, 1, (n, 1, 1))
    mirror = rng.choice([-1.0, 1.0], (n, 1, 1))
    u = np.cos(angle) * (x - dx) + np.sin(angle) * (y - dy)
    v = np.cos(angle) * (y - dy) - np.sin(angle) * (x - dx)
    return u * mirror / (size * wide), v * wide / size


def _clutter(rng: np.random.Generator, n: int) -> Array:
    """Draw the signed distance to ellipses and bars anywhere in the picture."""
    x, y = _placed(rng, n, reach=1.1, turn=np.pi, zoom=(0.2, 0.6), stretch=2.2)
    pointed = rng.random((n, 1, 1)) < 0.5
    radius: Array = np.where(pointed, np.maximum(abs(x), abs(y)), np.hypot(x, y))
    return 0.4 * (radius - 1)


def _shadow(rng: np.random.Generator, distance: Array) -> Array:
    """Draw a soft dark rim around the thing, deeper in some pictures than in others."""
    depth = rng.uniform(0, 0.7, (len(distance), 1, 1))
    shade: Array = depth * _pixels(np.exp(-np.maximum(distance, 0) / 0.10))
    return shade


def _light(rng: np.random.Generator, n: int) -> Array:
    """Draw warm or cool light that falls off linearly in a random direction."""
    axis = (np.arange(SIZE) + 0.5) / SIZE * 2 - 1
    angle = rng.uniform(0, 2 * np.pi, (n, 1, 1))
    slope = rng.uniform(0, 0.3, (n, 1, 1))
    fall = np.cos(angle) * axis[None, None, :] + np.sin(angle) * axis[None, :, None]
    warmth = np.exp(rng.normal(0, WARMTH, (n, 1, 1, 1)) * np.array([1, 0, -1]))
    light: Array = (1 + slope * fall)[..., None] * warmth
    return light


def _material(rng: np.random.Generator, n: int, colour: Array) -> Array:
    """Return ``colour`` with 1/f texture, all but a little of it in luminance."""
    frequency = np.hypot(np.fft.fftfreq(SIZE)[:, None], np.fft.rfftfreq(SIZE)[None, :])
    frequency[0, 0] = np.inf  # no constant part: the mean is the colour
    slope = rng.uniform(*TEXTURE_SLOPE, (n, 1, 1))
    gray = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((n, SIZE, SIZE))) / frequency**slope, s=(SIZE, SIZE))
    gray /= gray.std((1, 2), keepdims=True)
    hue = rng.normal(1, 0.15, (n, 1, 1, 3))
    strength = np.exp(rng.uniform(np.log(TEXTURE[0]), np.log(TEXTURE[1]), (n, 1, 1, 1)))
    material: Array = colour + strength * hue * gray[..., None]
    return material


def _colours(rng: np.random.Generator, n: int) -> tuple[Array, Array]:
    """Draw colours of background and thing, any two whose luminances stand apart."""
    below, above = np.empty((2, n, 3))
    todo = np.arange(n)
    while len(todo):
        for colours in (below, above):
            colours[todo] = rng.uniform(0.15, 0.85, (len(todo), 1)) + rng.normal(0, SATURATION, (len(todo), 3))
        todo = todo[abs((above[todo] - below[todo]) @ LUMINANCE) < CONTRAST]
    return below[:, None, None], above[:, None, None]
