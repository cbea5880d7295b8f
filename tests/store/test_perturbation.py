from __future__ import annotations

import math
from dataclasses import astuple

import numpy as np
import pytest
from numpy.typing import NDArray
from toys import Clean, random_set

from ue_bench.contract.imageset import ImageSet
from ue_bench.errors import ValidationError
from ue_bench.store import perturbation
from ue_bench.store.perturbation import Measurement, check, measure, ssim

C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def gray(*values: int) -> NDArray[np.uint8]:
    return np.stack([np.full((8, 8, 3), v, np.uint8) for v in values])


def measured_set(images: NDArray[np.uint8]) -> ImageSet:
    return ImageSet(images, np.zeros(len(images), dtype=np.int64), ("a",))


def test_measures_computed_by_hand() -> None:
    """Two 8 x 8 images: in the first one pixel changes by (3, -4, 0) and one by (0, 0, 12); the second stays."""
    clean = gray(100, 50)
    protected = clean.copy()
    protected[0, 2, 3] = (103, 96, 100)
    protected[0, 7, 0] = (100, 100, 112)
    found = measure(measured_set(clean), measured_set(protected), "pixels 2")
    mse = (9 + 16 + 144) / (2 * 8 * 8 * 3)
    assert found.declared == "pixels 2"
    assert (found.linf_max, found.linf_mean) == (12, 6.0)
    assert found.l2_mean == pytest.approx(math.sqrt(9 + 16 + 144) / 255 / 2)
    assert found.l0_mean == 1.0
    assert found.rms == pytest.approx(math.sqrt(mse))
    assert found.psnr == pytest.approx(10 * math.log10(255**2 / mse))
    assert found.over_8 == 1 / (2 * 8 * 8 * 3)


def test_a_change_of_8_levels_is_not_over_8() -> None:
    clean = measured_set(gray(100))
    assert measure(clean, measured_set(gray(108)), "").over_8 == 0
    assert measure(clean, measured_set(gray(109)), "").over_8 == 1
    assert measure(clean, measured_set(gray(91)), "").over_8 == 1


def test_the_largest_change_does_not_overflow() -> None:
    found = measure(measured_set(gray(0)), measured_set(gray(255)), "none")
    assert (found.linf_max, found.l0_mean, found.rms, found.psnr) == (255, 64, 255, 0)
    assert found.l2_mean == pytest.approx(math.sqrt(8 * 8 * 3))


def test_no_change_has_no_psnr() -> None:
    data = random_set()
    found = measure(data, data, "none")
    assert (found.linf_max, found.rms, found.l0_mean, found.psnr, found.ssim) == (0, 0, 0, None, 1)


def test_means_are_over_all_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    clean, protected = random_set(10, seed=1), random_set(10, seed=2)
    whole = measure(clean, protected, "none")
    monkeypatch.setattr("ue_bench.contract.imageset.CHUNK_BYTES", 3 * clean.images[0].nbytes)
    parts = measure(clean, protected, "none")
    assert parts.model_dump(exclude={"declared"}) == pytest.approx(whole.model_dump(exclude={"declared"}))


def noisy(shape: tuple[int, ...]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    clean = rng.integers(0, 256, shape, dtype=np.uint8)
    return clean, np.clip(clean + rng.integers(-8, 9, shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("count", "size"), [(130, 32), (70, 30), (3, 224), (300, 5), (4, 1)])
def test_ssim_is_the_same_to_the_bit_however_images_are_grouped(
    count: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean, protected = noisy((count, size, size, 3))
    grouped = ssim(clean, protected)
    for pixels in (1, 5 * size * size, 2**40):  # one by one, by five, all at once
        monkeypatch.setattr(perturbation, "GROUP_PIXELS", pixels)
        assert np.array_equal(ssim(clean, protected), grouped)


@pytest.mark.parametrize("shape", [(70, 32, 32, 3), (2, 9, 5, 3), (1, 1, 1, 3), (1, 1100, 1000, 3)])
def test_images_that_did_not_change_are_measured_as_if_looked_at(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    clean, protected = noisy(shape)
    quick, slow = Measurement(), Measurement()
    first = quick.add(clean, clean.copy())
    with monkeypatch.context() as patch:
        patch.setattr(np, "array_equal", lambda *arrays: False)
        second = slow.add(clean, clean.copy())
    for one, other in zip(astuple(first), astuple(second), strict=True):
        assert one.dtype == other.dtype
        assert np.array_equal(one, other)
    for measurement in (quick, slow):
        measurement.add(clean, protected)
    assert quick.result("") == slow.result("")


def test_images_that_did_not_change_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perturbation, "ssim", lambda *images: pytest.fail("compared"))
    data = random_set()
    assert measure(data, data, "none").ssim == 1


def test_ssim_of_a_picture_with_itself_is_one() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 20, 3), dtype=np.uint8)
    assert ssim(images, images).tolist() == [1, 1, 1]


def test_ssim_is_symmetric() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 256, (2, 3, 16, 16, 3), dtype=np.uint8)
    assert ssim(a, b) == pytest.approx(ssim(b, a), abs=1e-6)
    assert (ssim(a, b) < 0.2).all()


@pytest.mark.parametrize(("a", "b"), [(100, 108), (0, 255), (10, 10)])
def test_ssim_of_flat_pictures_is_the_luminance_term(a: int, b: int) -> None:
    expected = (2 * a * b + C1) / (a * a + b * b + C1)
    assert ssim(gray(a), gray(b))[0] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("size", [7, 9, 12])
def test_ssim_by_the_formula(size: int) -> None:
    """Wang et al., equation 13, window by window, in double precision."""
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
    b = np.clip(a.astype(int) + rng.integers(-20, 21, a.shape), 0, 255).astype(np.uint8)
    values = []
    for row in range(size - 6):
        for column in range(size - 6):
            for channel in range(3):
                x = a[row : row + 7, column : column + 7, channel].astype(float).ravel()
                y = b[row : row + 7, column : column + 7, channel].astype(float).ravel()
                (vx, vxy), (_, vy) = np.cov(x, y)
                mx, my = x.mean(), y.mean()
                values.append((2 * mx * my + C1) * (2 * vxy + C2) / ((mx**2 + my**2 + C1) * (vx + vy + C2)))
    assert ssim(a[None], b[None])[0] == pytest.approx(np.mean(values), abs=1e-4)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_ssim_of_pictures_smaller_than_the_window(size: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    assert ssim(images, images).tolist() == [1, 1]


def test_a_protector_keeps_shape_and_labels() -> None:
    data = random_set()
    check(Clean(), data, random_set(seed=5))
    with pytest.raises(ValidationError, match="clean returned images of shape"):
        check(Clean(), data, random_set(9))
    with pytest.raises(ValidationError, match="clean changed labels"):
        check(Clean(), data, ImageSet(data.images, 1 - data.labels, data.class_names))
    with pytest.raises(ValidationError, match="clean changed labels"):
        check(Clean(), data, ImageSet(data.images, data.labels, ("a", "z")))


def test_large_images_are_measured_in_stripes_as_they_are_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    clean = rng.integers(0, 256, (2, 61, 40, 3), dtype=np.uint8)
    protected = np.clip(clean + rng.normal(0, 9, clean.shape), 0, 255).astype(np.uint8)
    whole = measure(measured_set(clean), measured_set(protected), "").model_dump()

    monkeypatch.setattr(perturbation, "STRIPED_PIXELS", 400)  # ten rows
    striped = measure(measured_set(clean), measured_set(protected), "").model_dump()

    assert striped.pop("ssim") == pytest.approx(whole.pop("ssim"), abs=1e-6)
    assert striped == whole


@pytest.mark.parametrize("size", [(400, 2), (3, 500)])
def test_stripes_of_images_that_are_smaller_than_a_window(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    first, second = (rng.integers(0, 256, (1, *size, 3), dtype=np.uint8) for _ in range(2))
    whole = ssim(first, second)

    monkeypatch.setattr(perturbation, "STRIPED_PIXELS", 100)

    assert ssim(first, second) == pytest.approx(whole, abs=1e-6)
