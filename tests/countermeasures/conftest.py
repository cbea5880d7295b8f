from __future__ import annotations

import numpy as np
import pytest

from ue_bench.api import Context

from .helpers import Images, Purify, image_set


@pytest.fixture
def purify(ctx: Context) -> Purify:
    """Purify plain N x H x W x 3 arrays."""
    return lambda countermeasure, images: np.asarray(countermeasure.purify(image_set(images), ctx).images)


@pytest.fixture
def noise_images() -> Images:
    """Random images that are not square, more than one batch of them."""
    return np.random.default_rng(0).integers(0, 256, (150, 20, 33, 3), dtype=np.uint8)
