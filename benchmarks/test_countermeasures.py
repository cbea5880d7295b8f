"""Every cheap countermeasure against the libraries that have the same operation: ratios within one run.

    pytest benchmarks/test_countermeasures.py --benchmark-only --benchmark-json=out.json -rs

From stored images to stored images, or in training from a batch to a batch. Libraries that work on one picture are
called picture by picture, as data loaders of releases do; those that work on batches are given the whole one, as
floats on which they may start at once. What a library gives need not be the same to the bit: kornia's gray images have
one channel, torchvision mixes a whole batch by one number. What is not installed is skipped, and ``-rs`` says so.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pairs import in_pairs, sized
from PIL import Image, ImageFilter, ImageOps
from pytest_benchmark.fixture import BenchmarkFixture

from ue_bench.api import Context, Countermeasure, ImageSet
from ue_bench.catalogue.registry import registry
from ue_bench.engine.crops import to_unit

IMAGES = sized(256, 1024)
Work = Callable[[], object]


@dataclass(frozen=True)
class Given:
    """The same images in the shapes that ways of changing them take."""

    array: Any  # N x 32 x 32 x 3, uint8
    batch: torch.Tensor  # N x 3 x 32 x 32 in [0, 1]
    labels: torch.Tensor


@pytest.fixture(scope="module")
def given() -> Given:
    array = np.random.default_rng(0).integers(0, 256, (IMAGES, 32, 32, 3), dtype=np.uint8)
    return Given(array, to_unit(torch.from_numpy(array)), torch.arange(IMAGES) % 10)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def each(change: Callable[[Image.Image], Image.Image]) -> Callable[[Given], Work]:
    """Return what changes an array by one PIL image after the other."""
    return lambda given: lambda: np.stack([np.asarray(change(Image.fromarray(image))) for image in given.array])


def pil_jpeg(image: Image.Image) -> Image.Image:
    from peer import Jpeg10

    return Jpeg10()(image)


def pil_resize(image: Image.Image) -> Image.Image:
    return image.resize((16, 16), Image.Resampling.BILINEAR).resize((32, 32), Image.Resampling.BILINEAR)


def torchvision(name: str, *arguments: Any, **more: Any) -> Callable[[Given], Work]:
    """Return torchvision's transform of one PIL image after the other."""

    def work(given: Given) -> Work:
        from torchvision import transforms

        change = getattr(transforms, name)(*arguments, **more)
        return each(change)(given)

    return work


def on_tensors(name: str, *arguments: Any, **more: Any) -> Callable[[Given], Work]:
    """Return torchvision's transform of one tensor after the other."""

    def work(given: Given) -> Work:
        from torchvision import transforms

        change = getattr(transforms, name)(*arguments, **more)
        return lambda: torch.stack([change(image) for image in given.batch])

    return work


def mixing(name: str) -> Callable[[Given], Work]:
    """Return torchvision's mixing of a whole batch."""

    def work(given: Given) -> Work:
        from torchvision.transforms import v2

        change = getattr(v2, name)(num_classes=10, alpha=1.0)
        return lambda: change(given.batch, given.labels)

    return work


def kornia(path: str, *arguments: Any, **more: Any) -> Callable[[Given], Work]:
    """Return kornia's function ``path`` of a whole batch."""

    def work(given: Given) -> Work:
        module, _, name = path.rpartition(".")
        function = getattr(importlib.import_module(f"kornia.{module}"), name)
        return lambda: function(given.batch, *arguments, **more)

    return work


def kornia_module(name: str, *arguments: Any, **more: Any) -> Callable[[Given], Work]:
    """Return kornia's augmentation ``name`` of a whole batch, done to every image."""

    def work(given: Given) -> Work:
        change = getattr(importlib.import_module("kornia.augmentation"), name)(*arguments, p=1.0, **more)
        mixes = name.endswith("V2")
        return lambda: change(given.batch, given.labels) if mixes else change(given.batch)

    return work


def opencv(call: Callable[[Any, Any], Any]) -> Callable[[Given], Work]:
    """Return ``call(cv2, image)`` for one array after the other."""

    def work(given: Given) -> Work:
        cv2 = importlib.import_module("cv2")
        cv2.setNumThreads(1)
        return lambda: np.stack([call(cv2, image) for image in given.array])

    return work


def opencv_jpeg(cv2: Any, image: Any) -> Any:
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 10])[1], cv2.IMREAD_COLOR)


def scipy_places(given: Given) -> Work:
    """COIN as its authors do it: SciPy's interpolation of one channel of one image after the other."""
    ndimage = importlib.import_module("scipy.ndimage")
    rng = np.random.default_rng(0)
    rows, columns = np.meshgrid(np.arange(32), np.arange(32), indexing="ij")

    def moved(image: Any) -> Any:
        shifts = rng.uniform(-2, 2, (2, 32, 32))
        places = [rows + shifts[0], columns + shifts[1]]
        return np.stack([ndimage.map_coordinates(image[..., c], places, order=1, mode="wrap") for c in range(3)], -1)

    return lambda: np.stack([moved(image) for image in given.array])


def scikit_image(name: str, **more: Any) -> Callable[[Given], Work]:
    def work(given: Given) -> Work:
        function = getattr(importlib.import_module("skimage.restoration"), name)
        return lambda: np.stack([function(image / 255, channel_axis=-1, **more) for image in given.array])

    return work


# A countermeasure, the library, the package it needs, and how it is called.
CASES: list[tuple[str, str, str, Callable[[Given], Work]]] = [
    ("gray", "Pillow", "PIL", each(lambda image: image.convert("L").convert("RGB"))),
    ("gray", "torchvision on PIL", "torchvision", torchvision("Grayscale", 3)),
    ("gray", "kornia", "kornia", kornia("color.rgb_to_grayscale")),
    ("gray", "OpenCV", "cv2", opencv(lambda cv2, image: cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))),
    ("bdr", "Pillow", "PIL", each(lambda image: ImageOps.posterize(image, 2))),
    ("bdr", "torchvision on PIL", "torchvision", torchvision("RandomPosterize", 2, p=1.0)),
    ("bdr", "kornia", "kornia", kornia("enhance.posterize", 2)),
    ("jpeg[quality=10]", "Pillow", "PIL", each(pil_jpeg)),
    ("jpeg[quality=10]", "kornia", "kornia",
     kornia("enhance.jpeg_codec_differentiable", torch.tensor([10.0]))),
    ("jpeg[quality=10]", "OpenCV", "cv2", opencv(opencv_jpeg)),
    ("median", "Pillow", "PIL", each(lambda image: image.filter(ImageFilter.MedianFilter(3)))),
    ("median", "kornia", "kornia", kornia("filters.median_blur", (3, 3))),
    ("median", "OpenCV", "cv2", opencv(lambda cv2, image: cv2.medianBlur(image, 3))),
    ("mean", "Pillow", "PIL", each(lambda image: image.filter(ImageFilter.BoxBlur(1)))),
    ("mean", "kornia", "kornia", kornia("filters.box_blur", (3, 3))),
    ("mean", "OpenCV", "cv2", opencv(lambda cv2, image: cv2.blur(image, (3, 3)))),
    ("gaussian-filter[sigma=1]", "torchvision on PIL", "torchvision", torchvision("GaussianBlur", 3, 1.0)),
    ("gaussian-filter[sigma=1]", "kornia", "kornia", kornia("filters.gaussian_blur2d", (3, 3), (1.0, 1.0))),
    ("gaussian-filter[sigma=1]", "OpenCV", "cv2", opencv(lambda cv2, image: cv2.GaussianBlur(image, (3, 3), 1))),
    ("resize", "Pillow", "PIL", each(pil_resize)),
    ("resize", "OpenCV", "cv2", opencv(lambda cv2, image: cv2.resize(cv2.resize(image, (16, 16)), (32, 32)))),
    ("tvm", "scikit-image", "skimage", scikit_image("denoise_tv_chambolle", weight=0.03)),
    ("wavelet", "scikit-image", "skimage", scikit_image("denoise_wavelet")),
    ("cutout", "torchvision on tensors", "torchvision", on_tensors("RandomErasing", p=1.0, scale=(0.25, 0.25),
                                                                  ratio=(1.0, 1.0))),
    ("cutout", "kornia", "kornia", kornia_module("RandomErasing", scale=(0.25, 0.25), ratio=(1.0, 1.0))),
    ("cutmix", "torchvision", "torchvision", mixing("CutMix")),
    ("cutmix", "kornia", "kornia", kornia_module("RandomCutMixV2")),
    ("mixup", "torchvision", "torchvision", mixing("MixUp")),
    ("mixup", "kornia", "kornia", kornia_module("RandomMixUpV2")),
    ("gaussian-noise", "kornia", "kornia", kornia_module("RandomGaussianNoise", std=0.1)),
    ("rotation", "torchvision on PIL", "torchvision", torchvision("RandomRotation", 20)),
    ("rotation", "kornia", "kornia", kornia_module("RandomRotation", 20.0)),
    ("randaugment", "torchvision on PIL", "torchvision", torchvision("RandAugment", 2, 9)),
    ("autoaugment", "torchvision on PIL", "torchvision", torchvision("AutoAugment")),
    ("coin", "SciPy, as released", "scipy", scipy_places),
]  # fmt: skip


def ours(column: str, given: Given, folder: Path) -> Work:
    """Return the work of a countermeasure on all images, whatever kind it is."""
    [countermeasure] = registry().resolve("countermeasure", column)
    assert isinstance(countermeasure, Countermeasure)
    if countermeasure.overrides("purify"):
        data = ImageSet(given.array, given.labels.numpy(), tuple("abcdefghij"))
        ctx = Context("cpu", 0, folder, folder, folder)
        return lambda: countermeasure.purify(data, ctx)
    generator = torch.Generator().manual_seed(0)
    if mix := getattr(countermeasure, "mix", None):
        return lambda: mix(given.batch, generator)
    assert countermeasure.overrides("augment")
    return lambda: countermeasure.augment(given.batch, given.labels, generator)


@pytest.mark.benchmark(group="countermeasures")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize(("column", "library", "package", "way"), CASES, ids=[f"{c}-{lib}" for c, lib, *_ in CASES])
def test_countermeasure(
    benchmark: BenchmarkFixture,
    given: Given,
    column: str,
    library: str,
    package: str,
    way: Callable[[Given], Work],
    tmp_path: Path,
) -> None:
    pytest.importorskip(package, reason=f"{library} is not installed")
    with torch.random.fork_rng():
        in_pairs(
            benchmark, f"{column}, {IMAGES} images", ours(column, given, tmp_path), library, way(given),
            rounds=sized(5, 15),
        )  # fmt: skip
