"""CUDA, the protector. Golden values were measured with the authors' released generator, seed 0, NumPy's legacy one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ue_bench.api import Context, ImageSet, UserError
from ue_bench.catalogue.registry import registry
from ue_bench_baselines.cuda import CUDA, correlated, normalised

from .helpers import image_set, random_set


def test_filters_of_the_release() -> None:
    filters, _ = CUDA().draw(10, 0)

    assert filters.shape == (10, 3, 3)
    expected = [[0.1646, 0.2146, 1], [0.1635, 0.1271, 0.1938], [0.1313, 0.2675, 0.2891]]
    assert filters[0] == pytest.approx(np.array(expected), abs=5e-5)
    assert filters[:2].sum(axis=(1, 2)) == pytest.approx([2.551437, 2.178649], abs=5e-7)
    assert filters[1, 0, 0] == 1
    assert ((filters == 1).sum(axis=(1, 2)) == 1).all()


def test_entries_are_below_p_b_but_for_one() -> None:
    filters, _ = CUDA(kernel=9, p_b=0.06).draw(100, 0)

    assert (np.sort(filters.reshape(100, 81), axis=1)[:, -2] < 0.06).all()
    assert filters[filters < 1].mean() == pytest.approx(0.03, abs=0.001)
    positions = filters.reshape(100, 81).argmax(axis=1)
    assert len(np.unique(positions)) > 50


def test_more_classes_leave_the_first_filters_as_they_are() -> None:
    assert np.array_equal(CUDA().draw(100, 5)[0][:7], CUDA().draw(7, 50)[0])


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_correlation_is_that_of_torch(kernel: int) -> None:
    """Depth-wise, not mirrored, zeros outside."""
    images = random_set(6, size=(7, 11)).images
    filters = np.random.default_rng(0).random((6, kernel, kernel))

    found = correlated(images, filters)

    for image, own, filtered in zip(images, filters, found, strict=True):
        weight = torch.from_numpy(own).expand(3, 1, kernel, kernel)
        x = torch.from_numpy(image.astype(np.float64)).permute(2, 0, 1)
        expected = torch.nn.functional.conv2d(x, weight, padding=kernel // 2, groups=3)
        assert filtered.transpose(2, 0, 1) == pytest.approx(expected.numpy())


def test_the_one_moves_the_image() -> None:
    """A filter that is 0 but for the upper left entry takes every pixel from the upper left."""
    image = random_set(1, size=(5, 6)).images
    own = np.zeros((1, 3, 3))
    own[0, 0, 0] = 1
    moved = correlated(image, own)
    assert np.array_equal(moved[0, 1:, 1:], image[0, :-1, :-1])
    assert not moved[0, 0].any()
    assert not moved[0, :, 0].any()


def test_the_largest_value_is_one_exactly() -> None:
    images = np.random.default_rng(3).random((500, 4, 4, 3)) * 1000

    assert (normalised(images).max(axis=(1, 2, 3)) == 1).all()


def test_the_brightest_byte_becomes_255(ctx: Context) -> None:
    data = random_set(60, high=90)

    protected = CUDA().protect(data, ctx)

    assert (protected.images.max(axis=(1, 2, 3)) == 255).all()
    assert data.images.max() < 90


def test_black_images_stay_black(ctx: Context) -> None:
    images = random_set(4, classes=2).images.copy()
    images[2] = 0
    protected = CUDA().protect(image_set(images, [0, 0, 1, 1], 2), ctx)
    assert not protected.images[2].any()
    assert protected.images[[0, 1, 3]].all(axis=0).any()


def by_hand(data: ImageSet, filters: NDArray[np.float64]) -> NDArray[np.float64]:
    """In gray levels, before rounding."""
    values = correlated(data.images, filters[data.labels])
    found: NDArray[np.float64] = values / values.max(axis=(1, 2, 3), keepdims=True) * 255
    return found


def test_truncated_unless_asked_otherwise(ctx: Context) -> None:
    data = random_set()
    levels = by_hand(data, CUDA().draw(4, 0)[0])

    assert np.array_equal(CUDA().protect(data, ctx).images, np.floor(levels))
    assert np.array_equal(CUDA(rounding="round").protect(data, ctx).images, np.floor(levels + 0.5))


def test_every_class_has_a_filter_of_its_own(ctx: Context) -> None:
    image = random_set(1).images
    protected = CUDA().protect(image_set(np.repeat(image, 6, axis=0), [0, 1, 2, 0, 1, 2], 3), ctx)

    assert np.array_equal(protected.images[:3], protected.images[3:])
    assert len(np.unique(protected.images, axis=0)) == 3


@pytest.mark.parametrize("size", [(20, 33), (33, 20), (1, 1), (2, 5)])
@pytest.mark.parametrize("classes", [1, 3, 17])
def test_any_size_and_number_of_classes_in_order(size: tuple[int, int], classes: int, ctx: Context) -> None:
    data = random_set(24, size=size, classes=classes)

    protected = CUDA().protect(data, ctx)

    assert protected.images.dtype == np.uint8
    assert protected.images.shape == data.images.shape
    assert np.array_equal(protected.labels, data.labels)
    for index in (0, 11, 23):
        one = image_set(data.images[index : index + 1], data.labels[index : index + 1], classes)
        assert np.array_equal(CUDA().protect(one, ctx).images[0], protected.images[index])


def test_the_runs_seed_has_no_say_and_the_plugins_has(ctx: Context) -> None:
    data = random_set()
    first = CUDA().protect(data, ctx).fingerprint

    assert CUDA().protect(data, replace(ctx, seed=1)).fingerprint == first
    assert CUDA(seed=1).protect(data, ctx).fingerprint != first


def test_the_global_generator_is_left_alone() -> None:
    before = np.random.get_state(legacy=False)["state"]  # noqa: NPY002
    CUDA(mix=0.5).draw(10, 50)
    after = np.random.get_state(legacy=False)["state"]  # noqa: NPY002
    assert before["pos"] == after["pos"]
    assert np.array_equal(before["key"], after["key"])


def test_a_share_of_the_images_is_filtered(ctx: Context) -> None:
    data = random_set(300, size=(6, 6))
    whole, part = CUDA().protect(data, ctx), CUDA(mix=0.3).protect(data, ctx)
    _, chosen = CUDA(mix=0.3).draw(4, 300)

    assert 0.2 < chosen.mean() < 0.4
    assert np.array_equal(part.images[chosen], whole.images[chosen])
    assert np.array_equal(part.images[~chosen], data.images[~chosen])
    assert np.array_equal(CUDA(mix=0).protect(data, ctx).images, data.images)


def test_the_share_is_drawn_after_the_filters_one_number_an_image() -> None:
    legacy = np.random.RandomState(0)
    for _ in range(4):
        legacy.uniform(size=27)
        legacy.randint(3)
        legacy.randint(3)
    assert np.array_equal(CUDA(mix=0.5).draw(4, 40)[1], [legacy.uniform() < 0.5 for _ in range(40)])


def test_parameters() -> None:
    [found] = registry().resolve("protector", "cuda[kernel=9,p_b=0.06]")
    assert found == CUDA(kernel=9, p_b=0.06)
    assert found.budget == "none"
    assert not found.uses_networks
    for wrong in ("cuda[kernel=4]", "cuda[mix=1.5]", "cuda[p_b=2]"):
        with pytest.raises(UserError, match="parameters: "):
            registry().resolve("protector", wrong)
