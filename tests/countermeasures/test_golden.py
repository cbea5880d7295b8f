"""Known results on two synthetic images.

Computed once with the reference libraries: Pillow 13.0 with libjpeg-turbo 3.2 for posterize, gray, median and JPEG,
OpenCV 5.0 for the mean and Gaussian filters, scikit-image 0.26 for total variation and wavelets. All but the JPEG
rows are exact: definitions in integers, or in float64 with no result near the middle of two levels.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest
from PIL import features

from ue_bench.api import Countermeasure
from ue_bench.contract.combination import combine
from ue_bench_countermeasures.augmentation import Vanilla
from ue_bench_countermeasures.denoising import TotalVariation, Wavelet
from ue_bench_countermeasures.preprocessing import BitDepthReduction, GaussianFilter, Gray, Jpeg, Mean, Median, Resize

from .helpers import Images, Purify

LIBJPEG_TURBO = features.check_feature("libjpeg_turbo")
LIBJPEG_TOLERANCE = 2  # levels; other JPEG libraries upsample chroma differently


class Golden(NamedTuple):
    """Sums and CRC-32 of both images, and three pixels (row, column) of the first: (0, 0), (5, 7), (31, 31)."""

    sum_a: int
    crc_a: int
    pixels_a: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    sum_b: int
    crc_b: int


def gray(*levels: int) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    first, second, third = ((level,) * 3 for level in levels)
    return first, second, third


# fmt: off
INPUT = Golden(394752, 0xC35B9097, ((0, 50, 100), (219, 13, 63), (175, 225, 19)), 380928, 0xEBE5E73B)
EXACT = [
    (BitDepthReduction(), Golden(296768, 0x59CA61E2, ((0, 0, 64), (192, 0, 0), (128, 192, 0)), 292864, 0x1338681B)),
    (BitDepthReduction(variant="squeeze"),
     Golden(395165, 0x82AAED05, ((0, 85, 85), (255, 0, 85), (170, 255, 0)), 383095, 0xB273F032)),
    (Gray(), Golden(396066, 0x1B39D263, gray(41, 80, 187), 380928, 0x2393AA92)),
    (Median(), Golden(395606, 0xCF0FFBCA, ((7, 57, 107), (204, 72, 63), (175, 125, 72)), 380928, 0x3FF31C8E)),
    (Mean(), Golden(394348, 0xB65E9E99, ((15, 65, 115), (191, 127, 63), (153, 89, 111)), 380928, 0xAA7A1787)),
    (GaussianFilter(sigma=0),
     Golden(394461, 0x46BF458A, ((11, 61, 111), (203, 109, 63), (137, 123, 109)), 380928, 0x97A30A63)),
    (GaussianFilter(), INPUT),
    (Resize(), Golden(395773, 0x5B99EB70, ((16, 66, 116), (164, 135, 86), (144, 116, 119)), 381056, 0xCEDFCF91)),
    (TotalVariation(), Golden(394770, 0x65882E65, ((9, 59, 109), (216, 37, 62), (160, 210, 34)), 380927, 0x54B4ADDD)),
    (TotalVariation(weight=0.1),
     Golden(394740, 0x3104386D, ((26, 76, 126), (191, 72, 68), (136, 174, 70)), 380928, 0x74832698)),
    (Wavelet(), INPUT),  # no diagonal detail of either looks like noise
    (Wavelet(wavelet="db2"),
     Golden(395135, 0x83EEBE9A, ((11, 61, 111), (255, 107, 2), (132, 213, 50)), 380928, 0xEBE5E73B)),
]
JPEG = [
    (Jpeg(quality=10),
     Golden(400810, 0x16058601, ((21, 40, 116), (138, 152, 165), (193, 170, 178)), 381731, 0x8F0F16B2)),
    (Jpeg(quality=50), Golden(395550, 0x76BBEF28, ((0, 46, 68), (146, 113, 20), (195, 195, 195)), 380928, 0x22C7C606)),
    (Jpeg(quality=90), Golden(394498, 0x8D14BF9F, ((12, 42, 94), (114, 76, 11), (184, 190, 162)), 380991, 0x1C905BB2)),
    (Jpeg(quality=10, subsampling="4:4:4"),
     Golden(398283, 0x32B21517, ((5, 61, 48), (174, 143, 114), (198, 171, 162)), 382070, 0x374CA56A)),
    (combine(Gray(), Jpeg(quality=10)), Golden(398982, 0x29BE0183, gray(43, 149, 178), 381705, 0x6D12F7C4)),
]
# fmt: on


@pytest.fixture
def both() -> Images:
    """A wraps around and is rough, B is a ramp in every channel."""
    y, x, c = np.indices((32, 32, 3))
    rough = (7 * x + 13 * y + 50 * c + 3 * x * y) % 256
    ramps = np.where(c == 0, 8 * x, np.where(c == 1, 8 * y, 4 * (x + y)))
    return np.stack([rough, ramps]).astype(np.uint8)


def named(cases: Sequence[tuple[Countermeasure, Golden]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("countermeasure", "golden"), cases, ids=[c.selector for c, _ in cases])


def measured(images: Images) -> Golden:
    a, b = images
    first, second, third = (tuple(map(int, a[at])) for at in ((0, 0), (5, 7), (31, 31)))
    return Golden(int(a.sum()), zlib.crc32(a.tobytes()), (first, second, third), int(b.sum()), zlib.crc32(b.tobytes()))


def test_input(both: Images) -> None:
    assert measured(both) == INPUT


@named(EXACT)
def test_exact(countermeasure: Countermeasure, golden: Golden, both: Images, purify: Purify) -> None:
    assert measured(purify(countermeasure, both)) == golden


@named(JPEG)
@pytest.mark.skipif(not LIBJPEG_TURBO, reason="Pillow is built with another JPEG library")
def test_jpeg_exact(countermeasure: Countermeasure, golden: Golden, both: Images, purify: Purify) -> None:
    assert measured(purify(countermeasure, both)) == golden


@named(JPEG)
def test_jpeg_pixels_with_any_library(
    countermeasure: Countermeasure, golden: Golden, both: Images, purify: Purify
) -> None:
    pixels = np.array(measured(purify(countermeasure, both)).pixels_a)
    np.testing.assert_allclose(pixels, golden.pixels_a, atol=LIBJPEG_TOLERANCE, rtol=0)


def test_vanilla_purifies_nothing() -> None:
    assert not any(Vanilla.overrides(method) for method in ("purify", "augment", "loss"))
