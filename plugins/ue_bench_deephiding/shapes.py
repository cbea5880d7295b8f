"""Procedural semantic images: one scene of silhouettes per class, in other paint and light for each image.

They stand in for images from a text-to-image model guided by one prompt and one edge map per class. What the images of
a class share is a shape and which of its parts are the darker ones; hue, contrast, exposure and texture are free, so
that the mean colour says nothing about the class. Without the common order of brightness the edges of a class have
either sign, and their mean is nothing: see the log of negative results. Numbers are uint8, H x W x 3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Values on the pixel grid; those of a silhouette are distances to its edge, negative inside.
Field = NDArray[np.floating[Any]]

TEXTURE_AMPLITUDE = 0.10  # above some 0.25, texture edges drown the silhouette
SATURATION = 0.35  # largest distance of a colour from gray, in RGB
LUMA = np.array([0.299, 0.587, 0.114])


def _all(*distances: Field) -> Field:
    """Return the signed distance to the intersection of shapes: inside every one of them."""
    distance: Field = np.maximum.reduce(distances)
    return distance


def _any(*distances: Field) -> Field:
    """Return the signed distance to the union of shapes: inside at least one of them."""
    distance: Field = np.minimum.reduce(distances)
    return distance


def _polar(x: Field, y: Field) -> tuple[Field, Field]:
    return np.hypot(x, y), np.arctan2(y, x)


def _disc(x: Field, y: Field) -> Field:
    return np.hypot(x, y) - 0.6


def _square(x: Field, y: Field) -> Field:
    return _all(abs(x), abs(y)) - 0.52


def _triangle(x: Field, y: Field) -> Field:
    return _all(-y - 0.35, 0.866 * x + 0.5 * y - 0.35, -0.866 * x + 0.5 * y - 0.35)


def _ring(x: Field, y: Field) -> Field:
    return abs(np.hypot(x, y) - 0.5) - 0.14


def _cross(x: Field, y: Field) -> Field:
    bar = _all(abs(x) - 0.7, abs(y) - 0.18)
    return _any(bar, _all(abs(x) - 0.18, abs(y) - 0.7))


def _star(x: Field, y: Field) -> Field:
    radius, angle = _polar(x, y)
    return radius - (0.48 + 0.22 * np.cos(5 * angle))


def _crescent(x: Field, y: Field) -> Field:
    return _all(np.hypot(x, y) - 0.62, 0.5 - np.hypot(x - 0.32, y))


def _angle(x: Field, y: Field) -> Field:
    upright = _all(abs(x + 0.4) - 0.18, abs(y) - 0.62)
    return _any(upright, _all(abs(y - 0.44) - 0.18, abs(x) - 0.58))


def _wave(x: Field, y: Field) -> Field:
    return _all(abs(y - 0.3 * np.sin(5 * x)) - 0.16, abs(x) - 0.8)


def _three_discs(x: Field, y: Field) -> Field:
    centres = [(0.0, -0.42), (0.38, 0.26), (-0.38, 0.26)]
    return _any(*(np.hypot(x - a, y - b) - 0.27 for a, b in centres))


SILHOUETTES: tuple[Callable[[Field, Field], Field], ...] = (
    _disc, _square, _triangle, _ring, _cross, _star, _crescent, _angle, _wave, _three_discs,
)  # fmt: skip


def _turned(x: Field, y: Field, angle: float) -> tuple[Field, Field]:
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return cos * x + sin * y, cos * y - sin * x


def _stripes(rng: np.random.Generator, x: Field, y: Field) -> Field:
    turned, _ = _turned(x, y, rng.uniform(0, np.pi))
    waves: Field = np.sin(np.pi * rng.uniform(4, 14) * turned + rng.uniform(0, 2 * np.pi))
    return waves


def _checks(rng: np.random.Generator, x: Field, y: Field) -> Field:
    u, v = _turned(x, y, rng.uniform(0, np.pi))
    cells = rng.uniform(4, 11) / 2
    return np.where((np.floor(u * cells) + np.floor(v * cells)) % 2 == 0, 1.0, -1.0).astype(np.float32)


def _noise(rng: np.random.Generator, x: Field, y: Field) -> Field:
    """Draw 1/f^p noise, p in [0.8, 1.6], scaled to unit maximum."""
    size = x.shape[0]
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.standard_normal((size, size))) / frequency ** rng.uniform(0.8, 1.6)
    field = np.fft.irfft2(spectrum, s=(size, size))
    scaled: Field = (field / abs(field).max()).astype(np.float32)
    return scaled


TEXTURES: tuple[Callable[[np.random.Generator, Field, Field], Field], ...] = (_stripes, _checks, _noise)


def _luminances(rng: np.random.Generator) -> NDArray[np.floating[Any]]:
    """Draw luminances of background, main and second silhouette, as steps around their mean, until they stand apart."""
    while True:
        drawn = rng.uniform(0, 1, (3, 3)) @ LUMA
        background, main, second = drawn
        if abs(background - main) > 0.4 and abs(main - second) > 0.2:
            steps: NDArray[np.floating[Any]] = drawn - drawn.mean()
            return steps


def _paint(rng: np.random.Generator, steps: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Draw colours, one a row, whose luminances are ``steps`` at some contrast and exposure; the hues are free."""
    lit = min(rng.uniform(0.75, 1.25), 0.9 / float(np.ptp(steps))) * steps
    lit += 0.05 - lit.min() + rng.random() * (0.9 - np.ptp(lit))
    hues = rng.normal(size=(len(steps), 3))
    hues -= (hues @ LUMA)[:, None]  # the weights sum to one: what is left has no luminance
    hues *= rng.uniform(0, SATURATION, (len(steps), 1)) / np.linalg.norm(hues, axis=1, keepdims=True)
    colours: NDArray[np.float32] = np.clip(lit[:, None] + hues, 0, 1).astype(np.float32)
    return colours


def semantic_image(label: int, index: int, size: int, seed: int, distinct: bool = True) -> NDArray[np.uint8]:
    """Draw image ``index`` of class ``label``: the class fixes silhouettes and steps of brightness, the index the rest.

    ``distinct``: no two of the first hundred classes have the same pair of silhouettes; else each draws its own.
    """
    axis = ((np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1).astype(np.float32)
    y, x = np.meshgrid(axis, axis, indexing="ij")

    of_class = np.random.default_rng([seed, label])
    chosen = [label % 10, (label // 10 + 3 * label + 1) % 10]
    if not distinct:
        chosen = np.random.default_rng([seed, label, 0, 1]).integers(10, size=2).tolist()
    main = SILHOUETTES[chosen[0]](*_turned(x, y, of_class.uniform(0, 2 * np.pi)))
    # A second silhouette, so that classes beyond the tenth differ by the pair.
    turn, (dx, dy) = of_class.uniform(0, 2 * np.pi), of_class.uniform(-0.5, 0.5, 2)
    second = SILHOUETTES[chosen[1]](*_turned((x - dx) * 2, (y - dy) * 2, turn)) / 2

    steps = _luminances(of_class)
    rng = np.random.default_rng([seed, label, index])
    colours = _paint(rng, steps)
    textures = [_noise, TEXTURES[rng.integers(3)], TEXTURES[rng.integers(3)]]
    image = colours[0] + TEXTURE_AMPLITUDE * textures[0](rng, x, y)[..., None]
    for colour, texture, distance in zip(colours[1:], textures[1:], (main, second), strict=True):
        layer = colour + TEXTURE_AMPLITUDE * texture(rng, x, y)[..., None]
        # A soft edge some two pixels wide.
        cover = 1 / (1 + np.exp(np.clip(distance * size, -30, 30)))[..., None]
        image = image * (1 - cover) + layer * cover
    rounded: NDArray[np.uint8] = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    return rounded
