"""Where a library's operation of the same name gives something else: each mistake, made here, fails a check.

The wrong versions are written out, because libraries change; what they stand for is named beside them. The right values
are those that the golden tests hold the countermeasures to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from toys import noting

from ue_bench_countermeasures.augmentation import GaussianNoise
from ue_bench_countermeasures.preprocessing import Resize, gray, mean_3x3, median_3x3
from ue_bench_countermeasures.ueraser import UEraser

from .helpers import Images, planes

COUNTING = planes(*np.arange(25).reshape(5, 5).tolist())


def truncated_gray(images: Images) -> Images:
    """Torchvision on tensors: weights that sum to 0.9999, and no rounding."""
    luma = (images * np.array([0.2989, 0.587, 0.114])).sum(axis=3).astype(np.uint8)
    return np.repeat(luma[..., None], 3, axis=3)


@pytest.mark.parametrize(("right", "white", "green"), [(gray, 255, 150), (truncated_gray, 254, 149)])
def test_white_stays_white_in_gray(right: Callable[[Images], Images], white: int, green: int) -> None:
    assert right(np.full((1, 1, 1, 3), 255, np.uint8)).max() == white
    assert right(np.array([[[[0, 255, 0]]]], np.uint8)).max() == green


def windows(images: Images, mode: Any) -> Images:
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode=mode)
    return np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))


@pytest.mark.parametrize(
    ("mode", "corner", "row"),
    [("edge", 1, [1, 2, 3, 4, 4]), ("constant", 0, [0, 1, 2, 3, 0]), ("reflect", 5, [5, 5, 6, 7, 8])],
    ids=["replicated", "zeros", "mirrored, as kornia"],
)
def test_the_border_of_the_median_is_replicated(mode: str, corner: int, row: list[int]) -> None:
    found = np.median(windows(COUNTING, mode), axis=(4, 5))[0, 0, :, 0]
    assert found.tolist() == row
    assert (median_3x3(COUNTING)[0, 0, :, 0].tolist() == row) == (mode == "edge")
    assert found[0] == corner


@pytest.mark.parametrize("mode", ["reflect", "edge", "constant"])
def test_the_border_of_the_mean_is_mirrored(mode: str) -> None:
    found = np.rint(windows(COUNTING, mode).mean(axis=(4, 5)))
    assert np.array_equal(mean_3x3(COUNTING), found) == (mode == "reflect")


def on_uint8(x: Tensor, generator: torch.Generator) -> Tensor:
    """Torchvision's noise on 8-bit images: what is drawn is cut towards zero before it is added."""
    noise = (255 * 0.1 * torch.randn(x.shape, generator=generator)).trunc()
    return ((255 * x).round() + noise).clamp(0, 255) / 255


def unclipped(x: Tensor, generator: torch.Generator) -> Tensor:
    """Kornia's noise leaves [0, 1]."""
    return x + 0.1 * torch.randn(x.shape, generator=generator)


def ours(x: Tensor, generator: torch.Generator) -> Tensor:
    return GaussianNoise().augment(x, torch.zeros(len(x)), generator)[0]


@pytest.mark.parametrize(
    ("noisy", "exact", "in_range"), [(ours, True, True), (on_uint8, False, True), (unclipped, True, False)]
)
def test_noise_is_added_to_floats_and_clipped(
    noisy: Callable[[Tensor, torch.Generator], Tensor], exact: bool, in_range: bool
) -> None:
    gray, black = torch.full((200, 3, 32, 32), 0.5), torch.zeros(8, 3, 32, 32)
    found = noisy(gray, torch.Generator().manual_seed(0))
    assert (abs(found.std().item() / 0.1 - 1) < 0.01) == exact
    assert (noisy(black, torch.Generator().manual_seed(0)).min().item() >= 0) == in_range


@pytest.mark.parametrize(("trivial", "alike"), [("image", 0.0), ("batch", 1.0)])
def test_trivial_augment_is_drawn_for_every_image(trivial: Any, alike: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kornia draws one operation a call: then all images of a batch share it, in every batch."""
    drawn: list[Tensor] = []
    monkeypatch.setattr("ue_bench_countermeasures.ueraser.trivial_augment", noting(drawn, lambda x, which, *_: x, 1))
    for seed in range(30):
        UEraser(trivial=trivial).transform(torch.zeros(16, 3, 2, 2), torch.Generator().manual_seed(seed))
    assert np.mean([which.unique().numel() == 1 for which in drawn]) == alike
    assert torch.stack(drawn).unique().numel() > 6


@pytest.mark.parametrize("antialias", [True, False])
def test_resizing_looks_at_every_pixel(antialias: bool) -> None:
    """Torch's interpolation passes over pixels on the way down, unless told otherwise; Pillow's never does."""
    images = np.random.default_rng(0).integers(0, 256, (20, 30, 31, 3), dtype=np.uint8)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    small = F.interpolate(x, size=(10, 10), mode="bilinear", antialias=antialias)
    back = F.interpolate(small, size=(30, 31), mode="bilinear", antialias=antialias).permute(0, 2, 3, 1).numpy()
    mine = np.stack([Resize(scale=1 / 3).shrink(image) for image in images])
    assert (np.abs(mine - back).max() < 2) == antialias
