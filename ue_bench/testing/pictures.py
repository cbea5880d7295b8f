"""Make images to try plugins on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..contract import clean_data
from ..contract.imageset import ImageSet

Floats = NDArray[np.float64]
LARGEST_SIDE = 32  # of what likeness is judged by


def pictures(count: int = 60, size: tuple[int, int] = (32, 32), classes: int = 3, seed: int = 0) -> ImageSet:
    """Make ``count`` smooth colourful images of height and width ``size`` with some noise; labels take turns."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(20, 235, (count, 3, 3, 3))
    down, across = np.linspace(0, 2, size[0]), np.linspace(0, 2, size[1])
    rows = np.clip(1 - np.abs(down[:, None] - np.arange(3)), 0, 1)  # each row a mixture of two of three
    columns = np.clip(1 - np.abs(across[:, None] - np.arange(3)), 0, 1)
    smooth = np.einsum("hi,nijc,wj->nhwc", rows, corners, columns)
    images = np.clip(smooth + rng.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)
    return ImageSet(images, np.arange(count) % classes, tuple(f"class {label}" for label in range(classes)), "pictures")


def sample(data: ImageSet, count: int, seed: int) -> ImageSet:
    """Return some images of ``data`` in random order, balanced over classes; all of them where there are no more."""
    where = clean_data.draw(data.labels, count, seed)
    return ImageSet(data.images[where], data.labels[where], data.class_names, data.source)


def likeness(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> tuple[float, float]:
    """Return how surely N x H x W x 3 images come back in order, in standard errors, and for what share of them.

    Correlations, by absolute value, of each image after with every one before: the mean excess of the own one over the
    others in units of its standard error, and how often the own one is the largest. Of lightness, which permuted
    channels leave alone, or of the signs of its slopes, which survive holes and other contrasts: what tells more.
    """
    step = max(1, max(before.shape[1:3]) // LARGEST_SIDE)
    light = [images[:, ::step, ::step].mean(axis=3) for images in (before, after)]
    return max(_likeness(*map(_unit, light)), _likeness(*(_unit(_slopes(images)) for images in light)))


def _slopes(images: Floats) -> Floats:
    down, across = np.sign(np.diff(images, axis=1)), np.sign(np.diff(images, axis=2))
    return np.concatenate([down.reshape(len(images), -1), across.reshape(len(images), -1)], axis=1)


def _unit(images: Floats) -> Floats:
    """Return N x D, each row with mean zero and length one; constant ones are zero."""
    flat = images.reshape(len(images), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.asarray(flat / np.where(length > 0, length, 1))


def _likeness(before: Floats, after: Floats) -> tuple[float, float]:
    alike = np.abs(after @ before.T)
    own_likeness = alike.diagonal()
    excess = own_likeness - (alike.sum(axis=1) - own_likeness) / (len(alike) - 1)
    error = float(excess.std()) / len(excess) ** 0.5
    mine = float((alike.argmax(axis=1) == np.arange(len(alike))).mean())
    return float(excess.mean()) / max(error, 1e-9), mine
