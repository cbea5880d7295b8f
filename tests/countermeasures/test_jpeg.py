"""JPEG on real images: what every paper does, Pillow on one image after the other, to the bit."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from real import DATA

from ue_bench_countermeasures.preprocessing import Jpeg

from .helpers import Images, Purify

CIFAR = DATA / "cifar10" / "test-00000-of-00001.parquet"


@pytest.fixture(scope="module")
def real_images() -> Images:
    """The first 2,000 test images of CIFAR-10, 32 x 32."""
    if not CIFAR.is_file():
        pytest.skip(f"real data is not there: {CIFAR}")
    from pyarrow import parquet

    rows = next(parquet.ParquetFile(CIFAR).iter_batches(2000, columns=["img"])).column("img").to_pylist()
    images = np.stack([np.asarray(Image.open(io.BytesIO(row["bytes"])).convert("RGB")) for row in rows])
    assert images.shape == (2000, 32, 32, 3)
    return images


def plainly(image: Images, **options: Any) -> Images:
    """Saved and loaded with Pillow."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="JPEG", **options)
    return np.array(Image.open(io.BytesIO(file.getvalue())).convert("RGB"))


@pytest.mark.parametrize("quality", [2, 4, 6, 8, 10, 50, 90])
def test_is_identical_to_pillow(quality: int, real_images: Images, purify: Purify) -> None:
    expected = np.stack([plainly(image, quality=quality) for image in real_images])
    found = purify(Jpeg(quality=quality), real_images)
    assert np.count_nonzero((found != expected).any(axis=(1, 2, 3))) == 0
    assert (found != real_images).any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize("subsampling", ["4:2:0", "4:2:2", "4:4:4"])
@pytest.mark.parametrize("quality", [1, 33, 75, 100])
def test_is_identical_to_pillow_at_any_subsampling(
    quality: int, subsampling: Any, real_images: Images, purify: Purify
) -> None:
    some = real_images[:100]
    number = {"4:4:4": 0, "4:2:2": 1, "4:2:0": 2}[subsampling]
    expected = np.stack([plainly(image, quality=quality, subsampling=number) for image in some])
    np.testing.assert_array_equal(purify(Jpeg(quality=quality, subsampling=subsampling), some), expected)


def test_subsampling_matters_as_much_as_quality(real_images: Images, purify: Purify) -> None:
    some = real_images[:100]
    coarse, fine = (purify(Jpeg(quality=10, subsampling=s), some).astype(int) for s in ("4:2:0", "4:4:4"))
    assert np.abs(coarse - fine).mean() > 1


def test_a_batch_is_not_one_mosaic(real_images: Images, purify: Purify) -> None:
    """Tiled side by side, images bleed into one another."""
    pair = real_images[:2]
    mosaic = plainly(np.concatenate(list(pair), axis=1), quality=10)
    assert (mosaic[:, :32] != purify(Jpeg(quality=10), pair)[0]).any()
