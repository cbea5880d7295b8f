"""What is left of spots when somebody who knows the method has taken them off again."""

from __future__ import annotations

import numpy as np
import pytest

from ue_bench.api import Context, ImageSet
from ue_bench_baselines.spot_removal import SpotRemoval
from ue_bench_baselines.spots import Spots

from .helpers import image_set
from .test_spots import flat, smooth


def distance(a: ImageSet, b: ImageSet) -> float:
    """Root-mean-square of the difference in gray levels."""
    return float(np.sqrt(np.square(a.images.astype(float) - b.images).mean()))


@pytest.mark.parametrize("method", ["templates", "class-mean", "paint"])
def test_images_come_nearer_to_what_they_were(method: str, ctx: Context) -> None:
    clean = smooth()
    protected = Spots().protect(clean, ctx)

    cleaned = SpotRemoval.model_validate({"method": method}).purify(protected, ctx)

    assert distance(cleaned, clean) < 0.7 * distance(protected, clean)
    assert np.array_equal(cleaned.labels, clean.labels)


@pytest.mark.parametrize("size", [(32, 32), (33, 50)])
def test_templates_take_all_off_where_nothing_was_clipped(size: tuple[int, int], ctx: Context) -> None:
    clean = flat(128, list(range(10)), 10, size=size)
    protected = Spots(eps="3/255").protect(clean, ctx)

    cleaned = SpotRemoval().purify(protected, ctx)

    assert distance(protected, clean) > 2.9
    # what templates take off a flat image is their own mean, next to nothing
    assert distance(cleaned, SpotRemoval().purify(clean, ctx)) < 0.4


def test_paint_leaves_all_but_one_pair_of_places_alone(ctx: Context) -> None:
    clean = smooth()
    protected = Spots().protect(clean, ctx)

    moved = (SpotRemoval(method="paint").purify(protected, ctx).images != protected.images).any(axis=3)

    assert moved.any(axis=(1, 2)).all()
    assert moved.sum(axis=(1, 2)).max() <= 2 * 49


def test_class_means_become_alike(ctx: Context) -> None:
    protected = Spots(rest="word").protect(smooth(), ctx)

    cleaned = SpotRemoval(method="class-mean").purify(protected, ctx)

    means = np.stack([cleaned.images[cleaned.labels == label].mean(axis=0) for label in range(10)])
    before = np.stack([protected.images[protected.labels == label].mean(axis=0) for label in range(10)])
    assert means.std(axis=0).mean() < 0.3 * before.std(axis=0).mean()


def test_an_empty_set_stays_empty(ctx: Context) -> None:
    empty = image_set(np.zeros((0, 32, 32, 3), np.uint8), [], 2)

    assert len(SpotRemoval().purify(empty, ctx)) == 0
