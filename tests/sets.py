"""Sets of images that tests of several folders train on, and the types of the fixtures that write such sets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ue_bench.contract.imageset import ImageSet
from ue_bench.errors import UserError

Images = NDArray[np.uint8]
Labels = NDArray[np.integer[Any]]
OneLine = Callable[[pytest.ExceptionInfo[UserError]], str]  # see the fixture `one_line`


def colours(count: int = 40, seed: int = 0, size: int = 8, wrong: bool = False) -> ImageSet:
    """Noise in which the brightest channel is the class; if ``wrong``, the class before its label."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    images = rng.integers(0, 120, (count, size, size, 3), dtype=np.uint8)
    images[np.arange(count), :, :, labels] += 100
    return ImageSet(images, (labels + wrong) % 3, ("red", "green", "blue"))


def corners(count: int = 40, size: tuple[int, int] = (12, 10), classes: int = 3) -> ImageSet:
    """Noise in which the colour of a corner is the class: easily learned, and easily attacked."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % classes
    images = rng.integers(60, 160, (count, *size, 3), dtype=np.uint8)
    for label in range(classes):
        images[labels == label, : size[0] // 2, : size[1] // 2, label % 3] += np.uint8(60 + 20 * (label // 3))
    return ImageSet(images, labels, tuple(f"class{k}" for k in range(classes)))
