from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from ue_bench.engine.crops import cut_pixels, cut_rows, padded_crop, resized_crop, rotated, to_unit


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int, height: int, width: int, seed: int = 0) -> Tensor:
    return torch.randint(1, 256, (count, height, width, 3), generator=generator(seed), dtype=torch.uint8)


def windows(image: Tensor, pad: int) -> list[Tensor]:
    height, width, _ = image.shape
    padded = torch.zeros(height + 2 * pad, width + 2 * pad, 3, dtype=torch.uint8)
    padded[pad : pad + height, pad : pad + width] = image
    places = [(r, c) for r in range(2 * pad + 1) for c in range(2 * pad + 1)]
    return [padded[r : r + height, c : c + width] for r, c in places]


@given(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6), st.integers(0, 3), st.booleans(), st.integers(0, 99))
@settings(max_examples=50)
def test_a_padded_crop_is_a_window_or_its_mirror(
    count: int, height: int, width: int, pad: int, flip: bool, seed: int
) -> None:
    images = pictures(count, height, width, seed)
    cut = padded_crop(images, pad, flip, generator(seed))
    assert cut.shape == images.shape
    assert cut.dtype == torch.uint8
    for before, after in zip(images, cut, strict=True):
        possible = windows(before, pad)
        if flip:
            possible += [w.flip(1) for w in possible]
        assert any(torch.equal(after, w) for w in possible)


def looked_up(images: Tensor, pad: int, flip: bool, g: torch.Generator) -> Tensor:
    """The crop that committed results were computed with: every pixel of the padded images by its index."""
    n, height, width, _ = images.shape
    rows = torch.randint(2 * pad + 1, (n, 1), generator=g) + torch.arange(height)
    columns = torch.randint(2 * pad + 1, (n, 1), generator=g) + torch.arange(width)
    if flip:
        columns = torch.where(torch.rand((n, 1), generator=g) < 0.5, columns.flip(1), columns)
    padded = torch.zeros(n, height + 2 * pad, width + 2 * pad, 3, dtype=torch.uint8)
    padded[:, pad : pad + height, pad : pad + width] = images
    return padded[torch.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.integers(0, 5), st.booleans(), st.integers(0, 99))
@settings(max_examples=100)
def test_copying_rows_changes_no_result(count: int, height: int, width: int, pad: int, flip: bool, seed: int) -> None:
    images, g, same = pictures(count, height, width, seed), generator(seed), generator(seed)
    assert torch.equal(padded_crop(images, pad, flip, g), looked_up(images, pad, flip, same))
    assert torch.equal(g.get_state(), same.get_state())  # and the next batch begins where it did


@pytest.mark.parametrize("size", [(32, 32), (64, 48), (224, 224)])
def test_copying_rows_changes_no_result_at_usual_sizes(size: tuple[int, int]) -> None:
    images = pictures(12, *size)
    assert torch.equal(padded_crop(images, 4, True, generator(5)), looked_up(images, 4, True, generator(5)))


def test_a_padded_crop_of_views_is_that_of_copies() -> None:
    shown_once = pictures(1, 6, 5).expand(10, 6, 5, 3)
    turned = pictures(10, 5, 6).transpose(1, 2)
    for images in (shown_once, turned):
        assert torch.equal(padded_crop(images, 2, True, generator()), looked_up(images, 2, True, generator()))


@pytest.mark.parametrize("cut", [cut_pixels, cut_rows])
def test_windows_are_cut_where_asked(cut: Callable[..., Tensor]) -> None:
    """An accelerator looks pixels up, a CPU copies rows: the same windows."""
    padded = pictures(3, 5, 7)
    top, left, mirrored = (torch.tensor(v)[:, None] for v in ([0, 2, 1], [3, 0, 1], [False, True, True]))
    found = cut(padded, top, left, mirrored, (3, 4))
    assert torch.equal(found[0], padded[0, 0:3, 3:7])
    assert torch.equal(found[1], padded[1, 2:5, 0:4].flip(1))
    assert torch.equal(found[2], padded[2, 1:4, 1:5].flip(1))


def test_without_padding_and_flip_nothing_changes() -> None:
    images = pictures(5, 6, 7)
    assert torch.equal(padded_crop(images, 0, False, generator()), images)


def test_every_window_comes_up_and_half_of_them_are_mirrored() -> None:
    image = pictures(1, 4, 5)[0]
    cut = padded_crop(image.expand(2000, 4, 5, 3), 1, True, generator())
    straight = [sum(torch.equal(c, w) for c in cut) for w in windows(image, 1)]
    mirrored = [sum(torch.equal(c, w.flip(1)) for c in cut) for w in windows(image, 1)]
    assert sum(straight) + sum(mirrored) == 2000
    assert min(straight + mirrored) > 60  # 111 on average, corners included
    assert 900 < sum(mirrored) < 1100


def test_a_crop_belongs_to_its_generator() -> None:
    images = pictures(20, 8, 8)
    crops: list[Callable[[torch.Generator], Tensor]] = [
        lambda g: padded_crop(images, 4, True, g),
        lambda g: resized_crop(images, True, g),
    ]
    for crop in crops:
        assert torch.equal(crop(generator(1)), crop(generator(1)))
        assert not torch.equal(crop(generator(1)), crop(generator(2)))


@pytest.mark.parametrize(("height", "width"), [(8, 8), (6, 10)])
def test_a_resized_crop_keeps_shape_type_and_range(height: int, width: int) -> None:
    images = pictures(50, height, width)
    cut = resized_crop(images, True, generator())
    assert cut.shape == images.shape
    assert cut.dtype == torch.uint8
    low, high = images.amin((1, 2)), images.amax((1, 2))
    assert (cut >= low[:, None, None]).all()
    assert (cut <= high[:, None, None]).all()


def test_a_resized_crop_of_a_flat_picture_is_that_picture() -> None:
    flat = torch.full((50, 9, 9, 3), 137, dtype=torch.uint8)
    assert torch.equal(resized_crop(flat, True, generator()), flat)


def test_a_flipped_resized_crop_is_the_mirror_of_the_same_window() -> None:
    images = pictures(200, 8, 8)
    straight = resized_crop(images, False, generator()).int()
    flipped = resized_crop(images, True, generator()).int()  # draws the same windows first
    same = ((straight - flipped).abs() <= 1).all(3).all(2).all(1)
    mirrored = ((straight.flip(2) - flipped).abs() <= 1).all(3).all(2).all(1)
    assert (same | mirrored).all()
    assert 70 < mirrored.sum() < 130


def test_windows_of_a_resized_crop_have_8_to_100_percent_of_the_area() -> None:
    """On a horizontal ramp the spread of gray levels across the output is the width of the window."""
    ramp = torch.arange(0, 256, 2, dtype=torch.uint8).repeat(128, 1)
    images = ramp[None, :, :, None].expand(400, 128, 128, 3)
    cut = resized_crop(images, False, generator())[..., 0].float()
    across = (cut[:, 64, -1] - cut[:, 64, 0]) / 254
    # area 0.08 at aspect 3/4 is 0.245 wide; a window never exceeds the picture
    assert 0.23 < across.min() < 0.4
    assert 0.97 < across.max() <= 1.0


def test_to_unit_is_channels_first_in_0_to_1() -> None:
    images = torch.tensor([[[[0, 51, 255]]]], dtype=torch.uint8)
    assert to_unit(images).shape == (1, 3, 1, 1)
    assert torch.allclose(to_unit(images).flatten(), torch.tensor([0.0, 0.2, 1.0]))


@pytest.mark.parametrize(("height", "width"), [(32, 32), (20, 31)])
def test_a_rotation_is_that_of_the_image_library(height: int, width: int) -> None:
    """But for pixels whose source lies between two: either neighbour is the nearest to within rounding."""
    smooth = torch.arange(height * width * 3).view(1, height, width, 3).remainder(251).add(1).to(torch.uint8)
    images = smooth.repeat(8, 1, 1, 1)
    turned = rotated(images, 20, generator(5))
    angles = ((2 * torch.rand(8, generator=generator(5)) - 1) * 20).tolist()
    assert max(map(abs, angles)) > 10
    for image, after, angle in zip(images, turned, angles, strict=True):
        expected = np.asarray(Image.fromarray(image.numpy()).rotate(angle))
        assert (after.numpy() == expected).all(-1).mean() > 0.97
    assert (turned == 0).any()  # beyond the edge


def test_no_rotation_leaves_pixels_as_they_are() -> None:
    images = pictures(4, 9, 7)
    assert torch.equal(rotated(images, 1e-9, generator()), images)
