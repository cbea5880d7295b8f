from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ue_bench.api import ImageSet


def image_set(images: NDArray[np.uint8], labels: Sequence[int] | NDArray[np.integer], classes: int) -> ImageSet:
    return ImageSet(images, np.asarray(labels, dtype=np.int64), tuple(f"class{k}" for k in range(classes)))


def random_set(
    count: int = 45, size: tuple[int, int] = (20, 33), classes: int = 4, low: int = 0, high: int = 256
) -> ImageSet:
    """Random images that are not square, with unequal class counts and one class without any image."""
    generator = np.random.default_rng(5)
    images = generator.integers(low, high, (count, *size, 3), dtype=np.uint8)
    return image_set(images, generator.integers(0, classes, count) ** 2 // classes, classes)


def difference(protected: ImageSet, clean: ImageSet) -> NDArray[np.int64]:
    return protected.images.astype(np.int64) - clean.images


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    return copy.deepcopy(network.state_dict())


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)
