from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from ue_bench.api import Context

from .helpers import Classifier, Images, Purify, image_set


@pytest.fixture
def purify(ctx: Context) -> Purify:
    """Purify plain N x H x W x 3 arrays."""
    return lambda countermeasure, images: np.asarray(countermeasure.purify(image_set(images), ctx).images)


@pytest.fixture
def noise_images() -> Images:
    """Random images that are not square, more than one batch of them."""
    return np.random.default_rng(0).integers(0, 256, (150, 20, 33, 3), dtype=np.uint8)


@pytest.fixture
def model() -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Classifier()
    return network.train()


@pytest.fixture
def xy() -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.rand(32, 3, 8, 8, generator=g), torch.randint(10, (32,), generator=g)
