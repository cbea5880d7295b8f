"""What the harness would hand over, for tests."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import torch
from numpy.typing import NDArray

from ue_bench.api import Countermeasure, ImageSet, TrainContext

Images = NDArray[np.uint8]
Purify = Callable[[Countermeasure, Images], Images]


def image_set(images: Images) -> ImageSet:
    return ImageSet(images, np.zeros(len(images), dtype=np.int64), ("only",))


def train_context(seed: int = 0) -> TrainContext:
    return TrainContext(generator=torch.Generator().manual_seed(seed), epoch=0, epochs=1, autocast=nullcontext)


def planes(*rows: list[int]) -> Images:
    """One image whose three channels all hold these rows."""
    return np.repeat(np.array([rows], dtype=np.uint8)[..., None], 3, axis=3)
