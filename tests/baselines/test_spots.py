"""What the docstring of spots promises. Golden values are of the first form of the method, that of its board row."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ue_bench.api import Context, ImageSet, UserError
from ue_bench_baselines.spot_codes import BORDER, PLACES, codebook, smallest, words
from ue_bench_baselines.spots import Spots

from .helpers import difference, image_set, random_set

GOLDEN_WORDS = ["4v+", "4v-", "1h+", "5h-", "2v+", "2v-", "0v+", "5v+", "1v+", "5v-"]


def written(word: NDArray[np.int8]) -> str:
    """Place, direction and sign of the symbols of a word."""
    marks = [(place, "hv"[axis], "-+"[int(word[place, axis] > 0)]) for place, axis in np.argwhere(word)]
    return " ".join(f"{place}{direction}{sign}" for place, direction, sign in marks)


def flat(level: int, labels: list[int], classes: int, size: tuple[int, int] = (32, 32)) -> ImageSet:
    return image_set(np.full((len(labels), *size, 3), level, np.uint8), labels, classes)


def smooth() -> ImageSet:
    images = np.random.default_rng(0).normal(128, 8, (40, 8, 8, 3)).repeat(4, axis=1).repeat(4, axis=2)
    return image_set(images.clip(0, 255).astype(np.uint8), np.arange(40) % 10, 10)


def of_class(data: ImageSet, label: int) -> NDArray[np.bool_]:
    return np.asarray(data.labels == label)


class TestCodes:
    @pytest.mark.parametrize(
        ("classes", "expected"),
        [
            (1, (6, 1)),
            (10, (6, 1)),
            (24, (6, 1)),
            (25, (8, 1)),
            (32, (8, 1)),
            (33, (6, 2)),
            (100, (6, 2)),
            (1000, (6, 3)),
        ],
    )
    def test_few_classes_have_few_symbols_at_the_border(self, classes: int, expected: tuple[int, int]) -> None:
        assert smallest(classes) == expected
        assert words(*expected) >= classes

    @pytest.mark.parametrize("classes", [1, 10, 24, 100, 1000])
    def test_words_differ_and_are_of_equal_weight(self, classes: int) -> None:
        book = codebook(classes, np.random.default_rng(0))
        places, weight = smallest(classes)

        assert book.shape == (classes, len(PLACES), 2)
        assert len(np.unique(book, axis=0)) == classes
        assert (np.abs(book).sum(axis=(1, 2)) == weight).all()
        assert np.abs(book).max(axis=(1, 2)).max() == np.abs(book.astype(int)).sum(axis=2).max() == 1
        assert not book[:, places:].any()

    def test_the_first_words_share_no_symbol_and_few_are_nearly_the_same(self) -> None:
        few = codebook(33, np.random.default_rng(1)).reshape(33, -1).astype(int)
        many = codebook(1000, np.random.default_rng(1)).reshape(1000, -1).astype(int)

        assert (few @ few.T)[:8, :8][np.triu_indices(8, 1)].max() <= 0
        assert (many @ many.T)[:50, :50][np.triu_indices(50, 1)].max() <= 1

    def test_border_is_the_border(self) -> None:
        assert all(row in (0, 3) or column == 0 for row, column in BORDER)
        assert {(row, column) for row, column in PLACES} == {(row, column) for row in range(4) for column in range(2)}


class TestSpots:
    def test_golden_words_of_a_board(self) -> None:
        book, without = Spots().draw(10, 0)

        assert [written(word) for word in book] == GOLDEN_WORDS
        assert without == 4

    def test_golden_image(self, ctx: Context) -> None:
        data = flat(128, [0, 4], 10)

        green = Spots().protect(data, ctx).images[..., 1]

        assert green[0, 27, :9].tolist() == [
            114,
            70,
            98,
            227,
            227,
            98,
            70,
            114,
            131,
        ]  # bright in the middle, between columns 3 and 4
        assert green[1, 3, :9].tolist() == [96, 83, 155, 255, 255, 155, 83, 96, 120]  # a decoy

    def test_golden_bytes(self, ctx: Context) -> None:
        assert Spots().protect(smooth(), ctx).fingerprint == "f6263fb76ac8ad27f2271751437c9bba"

    @pytest.mark.parametrize("level", [0, 3, 128, 250, 255])
    @pytest.mark.parametrize("color", ["green", "gray"])
    def test_no_image_exceeds_the_budget_after_rounding(self, level: int, color: str, ctx: Context) -> None:
        data = flat(level, list(range(10)), 10)
        protector = Spots.model_validate({"color": color})

        rms = np.sqrt(np.square(difference(protector.protect(data, ctx), data)).mean(axis=(1, 2, 3)))

        assert (rms <= 8).all()
        assert (rms > (7.5 if level == 128 else 1)).all()

    def test_green_alone_changes(self, ctx: Context) -> None:
        moved = difference(Spots().protect(random_set(), ctx), random_set())

        assert not moved[..., (0, 2)].any()
        assert moved[..., 1].any(axis=(1, 2)).all()

    def test_gray_spots_change_all_channels_alike(self, ctx: Context) -> None:
        data = flat(128, [0, 1, 2, 3], 4)

        moved = difference(Spots(color="gray").protect(data, ctx), data)

        assert np.array_equal(moved[..., 0], moved[..., 1])
        assert np.array_equal(moved[..., 0], moved[..., 2])

    def test_mirrored_images_carry_the_same_code(self, ctx: Context) -> None:
        data = flat(128, list(range(10)), 10, size=(33, 46))

        images = Spots().protect(data, ctx).images

        assert np.array_equal(images, images[:, :, ::-1])

    def test_images_of_a_class_are_alike_but_decoys_are_not(self, ctx: Context) -> None:
        data = flat(128, [0] * 6 + [4] * 6, 10)

        images = Spots().protect(data, ctx).images

        assert len(np.unique(images[of_class(data, 0)], axis=0)) == 1
        assert len(np.unique(images[of_class(data, 4)], axis=0)) > 2

    def test_decoys_carry_no_word(self, ctx: Context) -> None:
        """As a filter matched to any word sees them."""
        data = flat(128, [*range(10), *[4] * 20], 10)
        moved = difference(Spots().protect(data, ctx), data)[..., 1].reshape(len(data), -1).astype(float)
        moved /= np.linalg.norm(moved, axis=1, keepdims=True)
        labelled = moved[:10][np.arange(10) != 4]

        likeness = labelled @ moved[of_class(data, 4)].T

        assert np.abs(labelled @ labelled.T - np.eye(9)).max() > 0.9  # opposite words
        assert np.abs(likeness).max() < 0.7

    def test_the_other_rests(self, ctx: Context) -> None:
        data = random_set(classes=3, low=20, high=236)
        _, without = Spots().draw(3, 0)
        assert without is not None

        unchanged = difference(Spots(rest="unchanged").protect(data, ctx), data).any(axis=(1, 2, 3))

        assert np.array_equal(unchanged, data.labels != without)
        assert Spots(rest="word").draw(3, 0)[1] is None
        assert Spots().draw(1, 0)[1] is None

    def test_a_spot_moves_no_mean(self, ctx: Context) -> None:
        data = flat(128, list(range(10)), 10, size=(64, 64))

        moved = difference(Spots().protect(data, ctx), data)

        assert np.abs(moved.mean(axis=(1, 2, 3))).max() < 0.15

    def test_jpeg_of_quality_10_keeps_most_of_it(self, ctx: Context) -> None:
        """The share of the luminance that is left along the pattern; noise of the same energy has next to none."""
        data = flat(128, list(range(10)), 10)
        protected = Spots().protect(data, ctx).images
        noise = np.random.default_rng(0).normal(0, 8 * np.sqrt(3), (10, 32, 32))

        kept = [remaining(image) for image in protected]
        noisy = data.images.astype(float)
        noisy[..., 1] += noise
        of_noise = [remaining(image) for image in np.clip(noisy, 0, 255).astype(np.uint8)]

        assert min(kept) > 0.6
        assert max(of_noise) < 0.3

    def test_larger_images_have_larger_spots(self, ctx: Context) -> None:
        small = Spots().protect(flat(128, [0, 1], 2), ctx).images[0, :, :, 1].astype(float)
        large = Spots().protect(flat(128, [0, 1], 2, size=(224, 224)), ctx).images[0, :, :, 1].astype(float)

        shrunk = large[3::7, 3::7] - 128

        assert np.corrcoef(shrunk.ravel(), (small - 128).ravel())[0, 1] > 0.999

    def test_a_hundred_classes_of_gray_images(self, ctx: Context) -> None:
        data = flat(90, list(range(100)), 100)

        moved = difference(Spots().protect(data, ctx), data).reshape(100, -1)

        assert len(np.unique(moved, axis=0)) == 100

    def test_more_classes_than_words_are_refused(self) -> None:
        with pytest.raises(UserError, match="spots: 200000 classes need more code words"):
            Spots().draw(200_000, 0)

    def test_a_secret_seed_draws_other_words_the_same_at_every_size(self, ctx: Context) -> None:
        owner, other = replace(ctx, secret=True, seed=1), replace(ctx, secret=True, seed=2)
        data = flat(128, [0, 1, 2], 3)

        mine, others = (Spots(rest="word").protect(data, context).images for context in (owner, other))
        wide = Spots(rest="word").protect(flat(128, [0, 1, 2], 3, size=(64, 64)), owner).images

        assert not np.array_equal(mine, others)
        likeness = np.corrcoef(wide[0, ::2, ::2, 1].ravel().astype(float), mine[0, :, :, 1].ravel().astype(float))
        assert likeness[0, 1] > 0.8


def remaining(image: NDArray[np.uint8]) -> float:
    """Share of a pattern on gray 128 that JPEG 10 leaves in the luminance, along the pattern."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=10)
    before, after = (np.asarray(i.convert("L")).astype(float) for i in (Image.fromarray(image), Image.open(file)))
    before, after = before - before.mean(), after - after.mean()
    return float((before * after).sum() / (before * before).sum())
