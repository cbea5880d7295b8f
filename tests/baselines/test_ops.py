"""Golden values were measured with the authors' released search; the naive loop is its definition."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from ue_bench.api import Context, ImageSet, UserError
from ue_bench_baselines.ops import COLOURS, OPS, Pixel

from .helpers import difference, image_set, random_set


@pytest.fixture(scope="module")
def golden() -> ImageSet:
    n, r, c, ch = np.ogrid[:200, :32, :32, :3]
    values = 7 * n**2 + n * (3 * r + 5 * c + 11 * ch) + 13 * r * c + 29 * r + 17 * c + 53 * ch
    values = (values + 9 * (n % 10) * ((r * c) % 7)) % 256
    assert values.sum() == 78371804
    return image_set(values.astype(np.uint8), np.arange(200) % 10, classes=10)


GOLDEN = [
    (5, 14, "110", 2.639704),
    (8, 7, "100", 2.463158),
    (13, 21, "010", 2.606672),
    (17, 9, "110", 2.491279),
    (12, 16, "010", 2.457831),
    (24, 6, "010", 2.395539),
    (16, 21, "000", 2.457308),
    (25, 9, "010", 2.615597),
    (17, 11, "010", 2.584581),
    (2, 24, "010", 2.462551),
]


def test_golden_pixels(golden: ImageSet, ctx: Context) -> None:
    chosen = OPS().choose(golden, ctx)

    for (pixel,), (row, column, colour, score) in zip(chosen, GOLDEN, strict=True):
        assert (pixel.row, pixel.column) == (row, column)
        assert pixel.colour == tuple(255 * int(bit) for bit in colour)
        assert pixel.score == pytest.approx(score, abs=1e-6)


def test_one_pixel_of_each_image_is_set_and_no_other_byte_changes(golden: ImageSet, ctx: Context) -> None:
    protected = OPS().protect(golden, ctx)

    expected = golden.images.copy()
    for image, label in zip(expected, golden.labels, strict=True):
        row, column, colour, _ = GOLDEN[label]
        image[row, column] = [255 * int(bit) for bit in colour]
    assert np.array_equal(protected.images, expected)
    assert (difference(protected, golden) != 0).any(axis=3).sum(axis=(1, 2)).max() == 1


def naive(images: NDArray[np.uint8], labels: NDArray[np.int64], classes: int, sparsity: int) -> list[list[Pixel]]:
    """The search as loops over float distances."""
    taken: set[tuple[int, int, int]] = set()
    result = []
    for k in range(classes):
        x = images[labels == k] / 255
        scored = []
        for row in range(images.shape[1]):
            for column in range(images.shape[2]):
                for v, colour in enumerate(COLOURS):
                    distance = np.abs(colour / 255 - x[:, row, column])
                    score = 0.0 if (row, column, v) in taken else distance.mean() / distance.std()
                    scored.append((-score, row, column, v))
        best = sorted(scored)[:sparsity]
        taken.update(s[1:] for s in best)
        result.append([Pixel(r, c, (v // 4 * 255, v // 2 % 2 * 255, v % 2 * 255), -s) for s, r, c, v in best])
    return result


@pytest.mark.parametrize(("classes", "sparsity"), [(1, 1), (3, 1), (4, 5), (13, 2)])
def test_agrees_with_the_naive_search(classes: int, sparsity: int, ctx: Context) -> None:
    generator = np.random.default_rng(classes)
    images = generator.integers(0, 256, (60, 6, 9, 3), dtype=np.uint8)
    images[:, 1, :5] //= 8  # dark pixels, sought by every class
    labels = np.arange(60) % classes

    found = OPS(sparsity=sparsity).choose(image_set(images, labels, classes), ctx)

    for mine, theirs in zip(found, naive(images, labels, classes, sparsity), strict=True):
        assert [p[:3] for p in mine] == [p[:3] for p in theirs]
        assert [p.score for p in mine] == pytest.approx([p.score for p in theirs], rel=1e-9)


def test_colours_count_in_binary_with_red_first() -> None:
    assert [[v // 4 * 255, v // 2 % 2 * 255, v % 2 * 255] for v in range(8)] == COLOURS.tolist()


def same_pixel_everywhere(images: int, classes: int) -> ImageSet:
    """All positions alike, so that all scores of a colour are equal."""
    values = np.random.default_rng(0).integers(100, 120, (images, 1, 1, 3), dtype=np.uint8)
    return image_set(
        np.tile(values.repeat(classes, axis=0), (1, 3, 4, 1)), np.arange(images * classes) % classes, classes
    )


def test_equal_scores_go_to_the_smallest_index(ctx: Context) -> None:
    (pixel,) = OPS().choose(same_pixel_everywhere(8, classes=1), ctx)[0]

    assert (pixel.row, pixel.column) == (0, 0)


def test_a_pair_serves_one_class(ctx: Context) -> None:
    chosen = OPS(sparsity=2).choose(same_pixel_everywhere(8, classes=3), ctx)

    pixels = [p for of_class in chosen for p in of_class]
    assert [(p.row, p.column) for p in pixels] == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1)]
    assert len({p.colour for p in pixels}) == 1


def test_a_position_serves_two_classes_with_two_colours(ctx: Context) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 4, 4, 3), dtype=np.uint8)
    images[:, 2, 1] = np.random.default_rng(1).integers(100, 104, (40, 3))  # far from black and white, little spread
    data = image_set(images, np.arange(40) % 2, classes=2)

    (first,), (second,) = OPS().choose(data, ctx)

    assert first[:2] == second[:2] == (2, 1)
    assert (first.colour, second.colour) == ((255, 255, 255), (0, 0, 0))


@pytest.mark.parametrize("level", [0, 100, 255])
def test_a_constant_position_is_chosen_in_a_colour_it_does_not_have(level: int, ctx: Context) -> None:
    images = np.random.default_rng(0).integers(0, 256, (10, 4, 5, 3), dtype=np.uint8)
    images[:, 3, 2] = level
    data = image_set(images, [0] * 10, classes=1)

    (pixel,) = OPS().choose(data, ctx)[0]

    # of the three kinds of spread, only a uniform distance has none: gray 100 has it for black and for white
    assert (pixel.row, pixel.column, pixel.score) == (3, 2, np.inf)
    assert pixel.colour == {0: (255, 255, 255), 100: (0, 0, 0), 255: (0, 0, 0)}[level]
    assert (difference(OPS().protect(data, ctx), data)[:, 3, 2] != 0).any(axis=1).all()


def test_a_class_that_has_the_colour_everywhere_scores_nothing(ctx: Context) -> None:
    data = image_set(np.zeros((5, 2, 2, 3), np.uint8), [0] * 5, classes=1)

    scores = {p.colour: p.score for p in OPS(sparsity=32).choose(data, ctx)[0]}

    assert scores[0, 0, 0] == 0
    assert scores[255, 255, 255] == np.inf


def test_later_pairs_of_a_position_overwrite_earlier_ones(ctx: Context) -> None:
    data = random_set(20, size=(1, 1), classes=1)

    pixels = OPS(sparsity=8).choose(data, ctx)[0]
    protected = OPS(sparsity=8).protect(data, ctx)

    assert [p.score for p in pixels] == sorted((p.score for p in pixels), reverse=True)
    assert (protected.images == pixels[-1].colour).all()


def test_pixels_are_distinct_across_a_hundred_classes(ctx: Context) -> None:
    data = random_set(300, size=(8, 6), classes=1)
    data = image_set(data.images, np.arange(300) % 100, classes=100)

    pixels = [p[:3] for of_class in OPS().choose(data, ctx) for p in of_class]

    assert len(set(pixels)) == 100


def test_large_classes_are_summed_exactly(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    data = random_set(200, size=(6, 5), classes=2)
    whole = OPS().choose(data, ctx)

    monkeypatch.setattr("ue_bench_baselines.ops.GATHER_BYTES", 1000)

    assert OPS().choose(data, ctx) == whole


def test_more_classes_than_pairs(ctx: Context) -> None:
    data = random_set(9, size=(1, 1), classes=9)

    with pytest.raises(UserError, match="9 classes of 1 pixels need more than the 8 pairs of a 1 x 1 image"):
        OPS().protect(data, ctx)
