"""Golden values were measured with the authors' released generator, seed 1; scikit-learn 1.2 and 1.9 agree."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from ue_bench.api import Context, UserError
from ue_bench.contract.bounds import read_bound
from ue_bench_baselines.lsp import LSP, assign

from .helpers import difference, image_set, random_set

Drawn = tuple[NDArray[np.float32], NDArray[np.int64]]


def draw(images: int, classes: int) -> Drawn:
    return LSP().draw(classes, np.full(classes, images // classes), (32, 32))


@pytest.fixture(scope="module")
def cifar() -> Drawn:
    return draw(50000, 10)


@pytest.fixture(scope="module")
def cifar_perturbations(cifar: Drawn) -> NDArray[np.float32]:
    return LSP().perturbations(cifar[0][:5000], 32, 32)


def test_points_of_cifar10(cifar: Drawn) -> None:
    points, owners = cifar

    assert owners[:20].tolist() == [4, 9, 1, 1, 1, 9, 8, 2, 7, 8, 3, 7, 3, 7, 5, 2, 8, 0, 0, 5]
    assert np.bincount(owners).tolist() == [5000] * 10
    assert points[0, :6] == pytest.approx([-18.015479, -2.066742, -10.942574, 10.556227, 9.021066, -5.533746], abs=2e-6)


def test_patches_of_cifar10(cifar_perturbations: NDArray[np.float32]) -> None:
    first = cifar_perturbations[0]

    assert first[0, 0] == pytest.approx([-10.2727, -1.1785, -6.2396], abs=1e-4)
    assert first[31, 31] == pytest.approx([10.9124, -2.1805, 4.3004], abs=1e-4)


def test_points_and_patches_of_a_hundred_images() -> None:
    points, owners = draw(100, 10)
    perturbations = LSP().perturbations(points, 32, 32)

    assert owners[:20].tolist() == [1, 1, 6, 1, 7, 4, 0, 0, 3, 2, 5, 7, 1, 5, 5, 0, 3, 0, 2, 5]
    assert points[0, :4] == pytest.approx([13.897359, 17.695292, 16.8467, -9.437567], abs=2e-6)
    assert points[99, -4:] == pytest.approx([3.426002, 11.850313, -7.481901, 12.048439], abs=2e-6)
    assert perturbations[0, 0, 0] == pytest.approx([7.589803, 9.663978, 9.200535], abs=1e-5)
    assert perturbations[99, 31, 31] == pytest.approx([6.771008, -4.274993, 6.884212], abs=1e-5)


def test_points_of_cifar100() -> None:
    points, owners = draw(50000, 100)

    assert owners[:10].tolist() == [14, 55, 69, 49, 69, 2, 40, 61, 65, 72]
    assert np.bincount(owners).tolist() == [500] * 100
    assert points[0, :4] == pytest.approx([-13.027397, -3.82473, 8.119449, -13.543549], abs=2e-6)
    assert nearest_centroid_accuracy(points, owners) == 1.0


def nearest_centroid_accuracy(points: NDArray[np.float32], owners: NDArray[np.int64]) -> float:
    centroids = np.stack([points[owners == k].mean(axis=0) for k in np.unique(owners)])
    guessed = ((centroids**2).sum(axis=1) - 2 * points @ centroids.T).argmin(axis=1)
    return float((guessed == owners).mean())


def test_clusters_are_as_far_apart_and_as_wide_as_the_release_s(cifar: Drawn) -> None:
    points, owners = cifar
    means = np.stack([points[owners == k].mean(axis=0) for k in range(10)])

    assert np.abs(means).min() == pytest.approx(9.83, abs=0.01)
    assert np.abs(means).max() == pytest.approx(10.26, abs=0.01)
    within = np.mean([points[owners == k].std(axis=0).mean() for k in range(10)])
    assert within == pytest.approx(3.99, abs=0.01)


def test_perturbations_are_linearly_separable(cifar: Drawn, cifar_perturbations: NDArray[np.float32]) -> None:
    corners = cifar_perturbations[:, ::8, ::8].reshape(len(cifar_perturbations), -1)

    assert nearest_centroid_accuracy(corners, cifar[1][:5000]) == 1.0


def test_perturbations_of_a_class_are_alike(cifar: Drawn, cifar_perturbations: NDArray[np.float32]) -> None:
    flat = cifar_perturbations[:, ::8, ::8].reshape(5000, -1)
    unit = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    cosines = [(unit[cifar[1][:5000] == k] @ unit[cifar[1][:5000] == k].T).mean() for k in range(10)]

    assert np.mean(cosines) == pytest.approx(0.865, abs=0.005)


def test_norms(cifar_perturbations: NDArray[np.float32]) -> None:
    norms = np.linalg.norm(cifar_perturbations.reshape(5000, -1) / 255, axis=1)

    assert norms == pytest.approx(np.full(5000, 1.304132), abs=1e-5)


def test_largest_values(cifar: Drawn) -> None:
    largest = np.abs(LSP(patch=1).perturbations(cifar[0], 4, 4)).max(axis=(1, 2, 3))  # a pixel for a patch, same rms

    assert largest.mean() == pytest.approx(10.5, abs=0.05)
    assert largest.min() == pytest.approx(7.8, abs=0.05)
    assert largest.max() == pytest.approx(16.9, abs=0.05)


def test_norm_at_224_pixels() -> None:
    lsp = LSP(patch=32)
    points, _ = lsp.draw(3, np.array([2, 2, 2]), (224, 224))

    assert points.shape == (6, 147)
    assert np.linalg.norm(lsp.perturbations(points, 224, 224)[0] / 255) == pytest.approx(9.1289, abs=1e-4)


def test_truncated_patches_have_one_value_each(ctx: Context) -> None:
    data = random_set(size=(32, 32), low=30, high=220)

    change = difference(LSP().protect(data, ctx), data)

    blocks = change.reshape(len(data), 4, 8, 4, 8, 3)
    assert (blocks == blocks[:, :, :1, :, :1]).all()
    assert max(len(np.unique(image.reshape(-1, 3), axis=0)) for image in change) <= 16


def test_truncation_darkens_by_half_a_level_and_rounding_does_not(ctx: Context) -> None:
    data = random_set(500, size=(32, 32), low=30, high=220, classes=5)
    points, owners = LSP().draw(5, np.bincount(data.labels, minlength=5), data.size)
    exact = LSP().perturbations(points[assign(data.labels, owners)], 32, 32)

    truncated = difference(LSP().protect(data, ctx), data)
    rounded = difference(LSP(rounding="round").protect(data, ctx), data)

    assert (truncated - exact).mean() == pytest.approx(-0.5, abs=0.01)
    assert (rounded - exact).mean() == pytest.approx(0, abs=0.01)
    assert np.abs(rounded - exact).max() <= 0.5 + 1e-4
    norms = np.sqrt((truncated.astype(float) ** 2).sum(axis=(1, 2, 3))) / 255
    assert norms.mean() == pytest.approx(1.309, abs=0.01)  # of 1.304; 500 images, and their classes' own mean noise


@pytest.mark.parametrize("rounding", ["truncate", "round"])
def test_the_declared_budget_holds_for_every_stored_image(rounding: Literal["truncate", "round"], ctx: Context) -> None:
    lsp = LSP(rounding=rounding)
    gray = image_set(np.full((200, 32, 32, 3), 128, np.uint8), np.arange(200) % 10, 10)

    rms = np.sqrt((difference(lsp.protect(gray, ctx), gray).astype(float) ** 2).mean(axis=(1, 2, 3)))

    assert 6 < rms.max() < 6.5  # over the nominal 6, as in the release
    assert rms.max() <= 255 * read_bound(lsp.budget).limit


def test_the_mth_image_of_a_class_takes_its_mth_point() -> None:
    labels = np.array([2, 0, 2, 1, 0])
    owners = np.array([0, 1, 2, 2, 0, 1])

    assert assign(labels, owners).tolist() == [2, 0, 3, 1, 4]


@pytest.mark.parametrize(
    ("counts", "drawn"),
    [([5, 5, 5], 15), ([6, 5, 4], 30), ([13, 1, 1], 45), ([15, 0, 0], 45), ([1, 0, 0], 3)],
    ids=str,
)
def test_unbalanced_classes_draw_more_points(counts: list[int], drawn: int) -> None:
    _, owners = LSP().draw(3, np.array(counts), (32, 32))

    assert len(owners) == drawn
    assert (np.bincount(owners, minlength=3) >= counts).all()


def test_images_of_unbalanced_classes_all_get_points_of_their_own(ctx: Context) -> None:
    data = image_set(np.full((15, 32, 32, 3), 128, np.uint8), [0] * 13 + [1, 2], 3)

    change = difference(LSP().protect(data, ctx), data)

    assert len({image.tobytes() for image in change}) == 15


def test_grid_is_rounded_up_for_sides_that_are_not_multiples(ctx: Context) -> None:
    data = image_set(np.full((6, 20, 33, 3), 128, np.uint8), [0, 1, 2] * 2, 3)

    assert LSP().grid(data.size) == (3, 5)
    points, _ = LSP().draw(3, np.array([2, 2, 2]), data.size)
    assert points.shape == (6, 3 * 5 * 3)
    exact = LSP().perturbations(points, 20, 33)
    assert exact.shape == (6, 20, 33, 3)
    assert np.sqrt((exact**2).mean(axis=(1, 2, 3))) == pytest.approx(np.full(6, 6), abs=1e-4)
    change = difference(LSP().protect(data, ctx), data)
    assert (change[:, 16:, 32:] == change[:, 16:17, 32:33]).all()
    assert (change[:, 8, 8] != change[:, 7, 8]).any(axis=1).all()


def test_features_run_over_rows_then_columns_then_channels() -> None:
    points = np.arange(1, 1 + 2 * 3 * 3, dtype=np.float32)[None]

    perturbation = LSP(patch=4).perturbations(points, 8, 12)[0]

    scale = perturbation[0, 0, 0]
    assert perturbation[0, 4] / scale == pytest.approx([4, 5, 6], rel=1e-5)
    assert perturbation[4, 0] / scale == pytest.approx([10, 11, 12], rel=1e-5)


def test_the_run_s_seed_does_not_matter_but_the_parameter_does(ctx: Context) -> None:
    data = random_set()
    other = Context("cpu", 99, ctx.scratch, ctx.artifacts, ctx.data_dir)

    assert LSP().protect(data, ctx).fingerprint == LSP().protect(data, other).fingerprint
    assert LSP(seed=2).protect(data, ctx).fingerprint != LSP().protect(data, ctx).fingerprint


def test_norm_follows_eps() -> None:
    points, _ = draw(10, 5)

    norms = np.linalg.norm(LSP(eps="12/255").perturbations(points, 32, 32).reshape(10, -1), axis=1)

    assert norms == pytest.approx(np.full(10, 12 * math.sqrt(3072)), rel=1e-5)


def test_too_few_patches_for_the_classes() -> None:
    with pytest.raises(UserError, match="3 patch colours cannot separate 9 classes"):
        LSP(patch=32).draw(9, np.full(9, 2), (32, 32))
    LSP(patch=32).draw(8, np.full(8, 2), (32, 32))
