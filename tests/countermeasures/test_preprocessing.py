from __future__ import annotations

import math
import os
import subprocess
import sys
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageFilter
from PIL.JpegImagePlugin import JpegImageFile
from toys import noting, torchvision_module

from ue_bench.api import Context, Countermeasure, Preprocessing
from ue_bench_countermeasures.preprocessing import (
    BitDepthReduction,
    ColourSpace,
    GaussianFilter,
    Gray,
    Jpeg,
    Mean,
    Median,
    Resize,
    filter_3x3,
    gray,
    mean_3x3,
    median_3x3,
)

from .helpers import Images, Purify, image_set, is_kept, planes

ALL = [
    *(Mean(), Median(), BitDepthReduction(), BitDepthReduction(variant="round"), Gray(), Gray(variant="mean")),
    *(GaussianFilter(sigma=0.7), Jpeg(quality=10), Resize()),
    *(ColourSpace(), ColourSpace(variant="quarter"), ColourSpace(variant="value"), ColourSpace(variant="chroma")),
]
COUNTING = planes(*np.arange(25).reshape(5, 5).tolist())  # 0..24 row by row
SMALL = hnp.arrays(np.uint8, st.tuples(st.integers(1, 3), st.integers(2, 9), st.integers(2, 9), st.just(3)))


@pytest.mark.parametrize("countermeasure", ALL, ids=lambda c: c.selector)
class TestEveryPreprocessing:
    def test_each_image_is_treated_by_itself(
        self, countermeasure: Countermeasure, noise_images: Images, purify: Purify
    ) -> None:
        together = purify(countermeasure, noise_images)
        for at in (0, 1, 77, 149):
            np.testing.assert_array_equal(purify(countermeasure, noise_images[at : at + 1])[0], together[at])

    def test_labels_names_and_input_stay(
        self, countermeasure: Countermeasure, noise_images: Images, ctx: Context
    ) -> None:
        before = image_set(noise_images.copy())
        after = countermeasure.purify(before, ctx)
        assert after.labels is before.labels
        assert after.class_names == before.class_names
        np.testing.assert_array_equal(before.images, noise_images)

    def test_something_changes(self, countermeasure: Countermeasure, noise_images: Images, purify: Purify) -> None:
        assert (purify(countermeasure, noise_images) != noise_images).mean() > 0.5

    def test_test_images_are_left_alone_unless_asked(self, countermeasure: Countermeasure) -> None:
        assert isinstance(countermeasure, Preprocessing)
        assert not countermeasure.apply_to_test
        plain = type(countermeasure)()
        assert type(plain)(apply_to_test=True).selector == f"{plain.name}[apply_to_test=true]"


class TestMean:
    def test_border_is_mirrored_without_the_edge(self, purify: Purify) -> None:
        image = np.zeros((1, 5, 5, 3), np.uint8)
        image[0, 0, 0] = image[0, 2, 2] = 90
        filtered = purify(Mean(), image)[0, :, :, 1]
        assert filtered[0].tolist() == [10, 10, 0, 0, 0]
        assert filtered[1].tolist() == [10, 20, 10, 10, 0]

    def test_counting(self, purify: Purify) -> None:
        assert purify(Mean(), COUNTING)[0, 0, :, 0].tolist() == [4, 4, 5, 6, 7]

    @pytest.mark.parametrize("level", [0, 1, 127, 255])
    def test_constant_images_stay(self, level: int, purify: Purify) -> None:
        image = np.full((1, 4, 7, 3), level, np.uint8)
        np.testing.assert_array_equal(purify(Mean(), image), image)

    def test_agrees_with_kornia(self, noise_images: Images) -> None:
        kornia = pytest.importorskip("kornia.filters")
        x = torch.from_numpy(noise_images).permute(0, 3, 1, 2).double()
        expected = kornia.box_blur(x, 3, border_type="reflect").round().permute(0, 2, 3, 1)
        np.testing.assert_array_equal(mean_3x3(noise_images), expected.numpy())


class TestMedian:
    def test_border_repeats_the_edge(self, purify: Purify) -> None:
        filtered = purify(Median(), COUNTING)[0, :, :, 2]
        assert filtered[0].tolist() == [1, 2, 3, 4, 4]
        assert filtered[4].tolist() == [20, 20, 21, 22, 23]

    @pytest.mark.parametrize("at", [(0, 0), (0, 3), (2, 2), (4, 4)])
    def test_single_pixel_is_removed(self, at: tuple[int, int], purify: Purify) -> None:
        image = np.full((1, 5, 5, 3), 60, np.uint8)
        image[0, *at] = (255, 0, 61)
        assert (purify(Median(), image) == 60).all()

    @given(images=SMALL)
    def test_agrees_with_pillow(self, images: Images) -> None:
        expected = np.stack([np.asarray(Image.fromarray(i).filter(ImageFilter.MedianFilter(3))) for i in images])
        np.testing.assert_array_equal(median_3x3(images), expected)


class TestBitDepthReduction:
    def test_posterize_has_four_values_and_darkens_white(self) -> None:
        table = BitDepthReduction(bits=2).table()
        assert np.unique(table).tolist() == [0, 64, 128, 192]
        assert np.flatnonzero(np.diff(table.astype(int))).tolist() == [63, 127, 191]

    def test_squeeze_has_four_values_and_keeps_white(self) -> None:
        table = BitDepthReduction(bits=2, variant="squeeze").table()
        assert np.unique(table).tolist() == [0, 85, 170, 255]
        assert np.flatnonzero(np.diff(table.astype(int))).tolist() == [42, 127, 212]

    @pytest.mark.parametrize("bits", range(1, 9))
    @pytest.mark.parametrize("variant", ["posterize", "squeeze"])
    def test_tables_are_idempotent_monotone_and_complete(self, bits: int, variant: str) -> None:
        table = BitDepthReduction(bits=bits, variant=variant).table()
        np.testing.assert_array_equal(table[table], table)
        assert (np.diff(table.astype(int)) >= 0).all()
        assert len(np.unique(table)) == 2**bits

    @pytest.mark.parametrize(
        ("variant", "levels", "thresholds"),
        [
            ("posterize", [0, 64, 128, 192], [64, 128, 192]),
            ("squeeze", [0, 85, 170, 255], [43, 128, 213]),
            ("truncate", [0, 64, 128, 191, 255], [64, 128, 192, 255]),
            ("round", [0, 64, 128, 191, 255], [32, 96, 160, 224]),
            ("float", [0, 64, 128, 191], [64, 128, 192]),
        ],
    )
    def test_five_definitions_of_two_bits(self, variant: Any, levels: list[int], thresholds: list[int]) -> None:
        table = BitDepthReduction(bits=2, variant=variant).table()
        assert np.unique(table).tolist() == levels
        assert (np.flatnonzero(np.diff(table.astype(int))) + 1).tolist() == thresholds

    @pytest.mark.parametrize("bits", range(1, 9))
    @pytest.mark.parametrize(
        ("variant", "formula"),
        [("truncate", np.trunc), ("round", np.rint), ("float", lambda v: np.minimum(np.trunc(v), v.max() - 1))],
    )
    def test_definitions_on_floats(self, variant: Any, formula: Any, bits: int) -> None:
        steps = 2**bits
        scaled = np.arange(256) * steps / 255
        expected = np.floor(formula(scaled) / steps * 255 + 0.5)
        np.testing.assert_array_equal(BitDepthReduction(bits=bits, variant=variant).table(), expected)

    @pytest.mark.parametrize("bits", range(1, 9))
    def test_float_agrees_with_torchvision_on_floats(self, bits: int) -> None:
        v2 = torchvision_module("torchvision.transforms.v2.functional")
        ramp = (torch.arange(256).float() / 255).expand(3, 1, 256)
        expected = (v2.posterize(ramp, bits)[0, 0].double() * 255 + 0.5).floor()
        np.testing.assert_array_equal(BitDepthReduction(bits=bits, variant="float").table(), expected.numpy())

    @pytest.mark.parametrize("bits", range(1, 9))
    def test_squeeze_rounds_to_nearest(self, bits: int) -> None:
        top = 2**bits - 1
        expected = np.rint(np.rint(np.arange(256) / 255 * top) / top * 255)
        np.testing.assert_array_equal(BitDepthReduction(bits=bits, variant="squeeze").table(), expected)

    def test_posterize_agrees_with_pillow(self, noise_images: Images, purify: Purify) -> None:
        from PIL import ImageOps

        for bits in (1, 2, 5):
            expected = np.stack([np.asarray(ImageOps.posterize(Image.fromarray(i), bits)) for i in noise_images])
            np.testing.assert_array_equal(purify(BitDepthReduction(bits=bits), noise_images), expected)


class TestGray:
    @pytest.mark.parametrize(
        ("colour", "luma"),
        [
            ((255, 0, 0), 76),
            ((0, 255, 0), 150),
            ((0, 0, 255), 29),
            ((255, 255, 255), 255),  # torchvision's path for tensors gives 254
            ((128, 64, 32), 79),
        ],
    )
    def test_known_colours(self, colour: tuple[int, int, int], luma: int, purify: Purify) -> None:
        image = np.full((1, 2, 2, 3), colour, np.uint8)
        assert (purify(Gray(), image) == luma).all()

    def test_every_gray_stays(self) -> None:
        grays = np.repeat(np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1), 3, axis=3)
        np.testing.assert_array_equal(gray(grays), grays)

    def test_agrees_with_pillow(self, noise_images: Images) -> None:
        expected = np.stack([np.asarray(Image.fromarray(i).convert("L")) for i in noise_images])
        for channel in range(3):
            np.testing.assert_array_equal(gray(noise_images)[..., channel], expected)

    @given(images=SMALL)
    def test_all_channels_are_alike_and_a_second_time_changes_nothing(self, images: Images) -> None:
        for variant in ("luma", "mean", "red", "green", "blue"):
            gray = Gray(variant=variant).change(images)
            assert (gray == gray[..., :1]).all()
            np.testing.assert_array_equal(Gray(variant=variant).change(gray), gray)

    @pytest.mark.parametrize(
        ("variant", "level"), [("luma", 118), ("mean", 98), ("red", 200), ("green", 96), ("blue", 1)]
    )
    def test_variants(self, variant: Any, level: int, purify: Purify) -> None:
        image = np.full((1, 2, 2, 3), (200, 96, 1), np.uint8)  # mean 99: bright channels must not overflow
        image[0, 0, 0] = (200, 96, 0)  # mean 98.67, cut
        assert (
            purify(Gray(variant=variant), image)[0, 0, 0].tolist()
            == [0 if variant == "blue" else 116 if variant == "luma" else level] * 3
        )


class TestColourSpace:
    def test_channels_rotate(self, noise_images: Images, purify: Purify) -> None:
        rotated = purify(ColourSpace(variant="rotate"), noise_images)
        np.testing.assert_array_equal(rotated, noise_images[..., [1, 2, 0]])

    def test_a_quarter_is_cut(self, purify: Purify) -> None:
        image = np.array([0, 3, 4, 7, 254, 255], np.uint8).reshape(1, 1, 2, 3)
        assert purify(ColourSpace(variant="quarter"), image).ravel().tolist() == [0, 0, 1, 1, 63, 63]

    def test_value_is_that_of_pillow(self, noise_images: Images, purify: Purify) -> None:
        expected = np.stack([np.asarray(Image.fromarray(i).convert("HSV"))[..., 2] for i in noise_images])
        value = purify(ColourSpace(variant="value"), noise_images)
        for channel in range(3):
            np.testing.assert_array_equal(value[..., channel], expected)

    @pytest.mark.parametrize("size", [(8, 8), (5, 7), (1, 1)])
    def test_chroma_is_averaged_over_blocks(self, size: tuple[int, int], purify: Purify) -> None:
        image = np.random.default_rng(0).integers(60, 190, (1, *size, 3), dtype=np.uint8)  # no colour out of range
        before = np.asarray(Image.fromarray(image[0]).convert("YCbCr")).astype(float)
        after = np.asarray(Image.fromarray(purify(ColourSpace(variant="chroma"), image)[0]).convert("YCbCr"))
        for row in range(0, size[0], 2):
            for column in range(0, size[1], 2):
                block = np.s_[row : row + 2, column : column + 2, 1:]
                assert np.abs(after[block] - before[block].mean(axis=(0, 1))).max() <= 2
        assert np.abs(after[..., 0] - before[..., 0]).max() <= 2  # Y stays, but for the way through RGB

    def test_gray_images_have_no_chroma(self, purify: Purify) -> None:
        grays = np.repeat(np.random.default_rng(0).integers(0, 256, (2, 9, 6, 1), dtype=np.uint8), 3, axis=3)
        after = purify(ColourSpace(variant="chroma"), grays)
        assert (after == after[..., :1]).all()
        assert np.abs(after.astype(int) - grays).max() <= 1  # Pillow cuts what it converts


class TestGaussianFilter:
    def test_published_sigma_changes_nothing(self, noise_images: Images, purify: Purify) -> None:
        np.testing.assert_array_equal(purify(GaussianFilter(), noise_images), noise_images)
        side, centre, _ = GaussianFilter().kernel()
        assert side / centre == pytest.approx(1.93e-22, rel=1e-2)
        assert "returns every 8-bit image unchanged" in GaussianFilter.identity_note

    def test_sigma_zero_is_the_kernel_of_opencv(self) -> None:
        assert GaussianFilter(sigma=0).kernel() == (0.25, 0.5, 0.25)

    @pytest.mark.parametrize("sigma", [0.3, 0.8, 5.0])
    def test_kernel_is_normalised_and_gaussian(self, sigma: float) -> None:
        left, centre, right = GaussianFilter(sigma=sigma).kernel()
        assert left + centre + right == pytest.approx(1)
        assert left == right == pytest.approx(centre * math.exp(-1 / (2 * sigma**2)))

    def test_halves_round_up_and_borders_mirror(self, purify: Purify) -> None:
        image = planes([8, 0, 0], [0, 0, 0], [0, 0, 0])
        # the neighbours beyond the border are the zeros of row and column 1: 8 * 4/16, 8 * 2/16, 8 * 1/16 = 0.5
        assert purify(GaussianFilter(sigma=0), image)[0, :, :, 0].tolist() == [[2, 1, 0], [1, 1, 0], [0, 0, 0]]

    @pytest.mark.parametrize("sigma", [0.4, 1.3])
    def test_agrees_with_a_float64_convolution(self, sigma: float, noise_images: Images) -> None:
        kernel = torch.tensor(GaussianFilter(sigma=sigma).kernel(), dtype=torch.float64)
        x = torch.from_numpy(noise_images).permute(0, 3, 1, 2).double().flatten(0, 1)[:, None]
        padded = torch.nn.functional.pad(x, (1, 1, 1, 1), mode="reflect")
        exact = torch.nn.functional.conv2d(padded, torch.outer(kernel, kernel)[None, None])
        exact = exact.unflatten(0, (-1, 3))[:, :, 0].permute(0, 2, 3, 1).numpy()
        side, centre, _ = GaussianFilter(sigma=sigma).kernel()
        assert np.abs(filter_3x3(noise_images, side, centre) - exact).max() <= 0.5 + 1e-4

    @given(images=SMALL, sigma=st.floats(0, 100))
    def test_stays_within_the_range_of_the_image(self, images: Images, sigma: float) -> None:
        side, centre, _ = GaussianFilter(sigma=sigma).kernel()
        filtered = filter_3x3(images, side, centre)
        assert images.min() <= filtered.min()
        assert filtered.max() <= images.max()


class TestJpeg:
    def test_constant_gray_stays(self, purify: Purify) -> None:
        image = np.full((1, 32, 32, 3), 128, np.uint8)
        np.testing.assert_array_equal(purify(Jpeg(quality=10), image), image)

    def test_gray_as_rgb_equals_gray_as_one_channel(self, purify: Purify) -> None:
        import io

        single = np.random.default_rng(1).integers(0, 256, (32, 32), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(single).save(file, "JPEG", quality=10)
        compressed = purify(Jpeg(quality=10), np.repeat(single[None, :, :, None], 3, axis=3))
        for channel in range(3):
            np.testing.assert_array_equal(compressed[0, :, :, channel], np.asarray(Image.open(file)))

    @pytest.mark.parametrize(
        ("quality", "luma", "chroma"),
        [
            *((1, 255, 255), (2, 255, 255), (4, 200, 213), (6, 133, 142), (8, 100, 106), (10, 80, 85), (50, 16, 17)),
            *((70, 10, 10), (90, 3, 3), (100, 1, 1)),
        ],
    )
    def test_quantisation_tables(self, quality: int, luma: int, chroma: int, monkeypatch: pytest.MonkeyPatch) -> None:
        files: list[BytesIO] = []
        opened = Image.open
        monkeypatch.setattr(Image, "open", noting(files, opened))
        Jpeg(quality=quality).compress(np.zeros((16, 16, 3), np.uint8))
        with opened(BytesIO(files[0].getvalue())) as written:
            assert isinstance(written, JpegImageFile)
            assert (written.quantization[0][0], written.quantization[1][0]) == (luma, chroma)

    def test_default_subsampling_is_that_of_pillow(self, noise_images: Images) -> None:
        import io

        file = io.BytesIO()
        Image.fromarray(noise_images[0]).save(file, "JPEG", quality=10)
        np.testing.assert_array_equal(Jpeg(quality=10).compress(noise_images[0]), np.asarray(Image.open(file)))

    def test_highest_quality_is_close(self, noise_images: Images, purify: Purify) -> None:
        compressed = purify(Jpeg(quality=100, subsampling="4:4:4"), noise_images[:5])
        assert np.abs(compressed.astype(int) - noise_images[:5]).max() <= 4

    def test_lower_quality_loses_more(self, noise_images: Images, purify: Purify) -> None:
        errors = [
            np.abs(purify(Jpeg(quality=quality), noise_images[:5]).astype(int) - noise_images[:5]).mean()
            for quality in (90, 50, 10)
        ]
        assert errors == sorted(errors)
        assert errors[0] < errors[-1]

    def test_purified_sets_are_kept(self) -> None:
        assert is_kept(Jpeg())
        assert not is_kept(Gray())  # made again in less time than it takes to read


class TestResize:
    def test_full_scale_is_the_identity(self, noise_images: Images, purify: Purify) -> None:
        np.testing.assert_array_equal(purify(Resize(scale=1), noise_images), noise_images)

    @pytest.mark.parametrize("scale", [0.01, 0.5, 0.9])
    def test_constant_images_stay(self, scale: float, purify: Purify) -> None:
        image = np.full((1, 6, 9, 3), 77, np.uint8)
        np.testing.assert_array_equal(purify(Resize(scale=scale), image), image)

    def test_smallest_image_has_one_pixel(self, noise_images: Images, purify: Purify) -> None:
        for image in purify(Resize(scale=0.001), noise_images[:3]):
            assert (image == image[0, 0]).all()

    def test_agrees_with_antialiased_interpolation(self, noise_images: Images, purify: Purify) -> None:
        x = torch.from_numpy(noise_images).permute(0, 3, 1, 2).float()
        kind: dict[str, Any] = {"mode": "bilinear", "antialias": True, "align_corners": False}
        small = torch.nn.functional.interpolate(x, size=(10, 16), **kind)  # 16.5 columns are rounded to even
        expected = torch.nn.functional.interpolate(small, size=(20, 33), **kind).permute(0, 2, 3, 1).numpy()
        assert np.abs(purify(Resize(), noise_images) - expected).max() < 2


def test_modules_do_not_import_torch() -> None:
    code = """
import sys
from ue_bench_countermeasures import adversarial, augmentation, denoising, preprocessing
sys.exit("torch" in sys.modules)
"""
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )
