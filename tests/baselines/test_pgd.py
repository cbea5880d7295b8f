"""The descent that all protectors with a surrogate share, and the transform of TAP and EntF."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ue_bench.api import Context
from ue_bench_baselines.pgd import boxed, descend, resumable, to_levels, to_unit
from ue_bench_baselines.shift import Draws, shifted

from .helpers import random_set

LEVEL = 1 / 255


def slope(sign: float) -> Any:
    """A loss whose gradient has one sign everywhere."""
    return lambda p, t: sign * p.sum((1, 2, 3))


def pixels(*levels: float) -> Tensor:
    return torch.tensor(levels).view(1, 1, 1, -1).expand(1, 3, 1, -1) * LEVEL


# EM returns the perturbation before its last cut to [0, 1], TAP after it: constant gradient, 20 steps of 0.8 levels.
@pytest.mark.parametrize(
    ("level", "sign", "uncut", "cut"),
    [
        (0, 1, -0.8, 0), (3, 1, -3.8, -3), (5, 1, -5.8, -5), (7, 1, -7.8, -7), (7.2, 1, -8, -7.2), (8, 1, -8, -8),
        (100, 1, -8, -8), (255, -1, 0.8, 0), (100, -1, 8, 8),
    ],
)  # fmt: skip
def test_a_constant_gradient_ends_at_the_bound_or_at_the_box(level: float, sign: int, uncut: float, cut: float) -> None:
    x = pixels(level)
    found, _ = descend(x, torch.zeros_like(x), slope(sign), 8 * LEVEL, 0.8 * LEVEL, 20)
    assert found.numpy() * 255 == pytest.approx(uncut, abs=1e-4)
    assert boxed(x, found).numpy() * 255 == pytest.approx(cut, abs=1e-4)


def test_a_linear_surrogate_is_descended_to_the_corner() -> None:
    """Logits W x: every entry goes to eps against sign(w_other - w_own)."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(2, 3 * 4 * 4, generator=generator)
    x = 0.3 + 0.4 * torch.rand(5, 3, 4, 4, generator=generator)
    labels = torch.tensor([0, 1, 0, 1, 1])

    def loss(p: Tensor, t: int) -> Tensor:
        return torch.nn.functional.cross_entropy(p.flatten(1) @ weights.T, labels, reduction="none")

    found, _ = descend(x, torch.zeros_like(x), loss, 8 * LEVEL, 0.8 * LEVEL, 20)
    expected = -8 * LEVEL * (weights[1 - labels] - weights[labels]).sign().view_as(x)
    assert torch.allclose(found, expected, atol=1e-6)


def test_steps_from_zero_lie_on_a_lattice() -> None:
    x = 0.2 + 0.6 * torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    slopes = torch.randn(13, 4, 3, 8, 8, generator=torch.Generator().manual_seed(7))
    found, _ = descend(x, torch.zeros_like(x), lambda p, t: (p * slopes[t]).sum((1, 2, 3)), 8 * LEVEL, 0.8 * LEVEL, 13)
    steps = found * 255 / 0.8
    assert (steps - steps.round()).abs().max() < 1e-3
    assert found.abs().max() <= 8 * LEVEL + 1e-6
    assert len(steps.round().unique()) > 5


def test_losses_are_those_before_the_last_step() -> None:
    x = pixels(100, 101)
    _, losses = descend(x, torch.zeros_like(x), slope(1), 8 * LEVEL, LEVEL, 3)
    assert losses.item() == pytest.approx(3 * (98 + 99) * LEVEL, rel=1e-5)
    assert not losses.requires_grad


def test_an_image_does_not_depend_on_its_batch() -> None:
    x = torch.rand(9, 3, 6, 6, generator=torch.Generator().manual_seed(2))
    filters = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(3))

    def loss(p: Tensor, t: int) -> Tensor:
        return torch.nn.functional.conv2d(p, filters).relu().square().mean((1, 2, 3))

    whole, _ = descend(x, torch.zeros_like(x), loss, 8 * LEVEL, LEVEL, 6)
    parts = [
        descend(x[i : i + 2], torch.zeros_like(x[i : i + 2]), loss, 8 * LEVEL, LEVEL, 6)[0] for i in range(0, 9, 2)
    ]
    assert torch.allclose(torch.cat(parts), whole, atol=1e-6)


def test_pixels_there_and_back() -> None:
    data = random_set()
    x = to_unit(data.images, "cpu")
    assert x.shape == (len(data), 3, *data.size)
    assert to_levels(x) == pytest.approx(data.images.astype(np.float32), abs=1e-4)


def test_no_shift_is_no_change() -> None:
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(4))
    zero = torch.zeros(2)
    assert torch.allclose(shifted(x, zero, zero, torch.tensor([False, False])), x, atol=1e-5)
    mirrored = shifted(x, zero, zero, torch.tensor([True, False]))
    assert torch.allclose(mirrored, torch.stack([x[0].flip(2), x[1]]), atol=1e-5)


@pytest.mark.parametrize("size", [(32, 32), (20, 28)])
def test_whole_pixels_are_moved_and_zeros_follow(size: tuple[int, int]) -> None:
    x = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(5))
    keep, one, two = torch.zeros(1), torch.ones(1), torch.full((1,), -2.0)
    right = shifted(x, keep, one, torch.tensor([False]))
    assert torch.allclose(right[..., :-1], x[..., 1:], atol=1e-5)
    assert right[..., -1].abs().max() < 1e-4
    both = shifted(x, two, one, torch.tensor([True]))  # the mirror comes first
    assert torch.allclose(both[:, :, 2:, :-1], x.flip(3)[:, :, :-2, 1:], atol=1e-5)
    half = shifted(x, keep, one / 2, torch.tensor([False]))
    assert torch.allclose(half[..., :-1], (x[..., 1:] + x[..., :-1]) / 2, atol=1e-5)


def test_gradients_go_back_through_the_shift() -> None:
    x = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(6)).requires_grad_()
    shifted(x, torch.zeros(1), torch.ones(1), torch.tensor([True])).sum().backward()
    assert x.grad is not None
    expected = torch.ones(8)
    expected[-1] = 0  # this column was mirrored to the left, and moved out
    assert torch.allclose(x.grad, expected.expand(1, 3, 8, 8), atol=1e-5)


def test_draws_are_an_images_own(ctx: Context) -> None:
    whole = Draws(ctx, slice(0, 10), 7, (8, 12), 0)
    part = Draws(ctx, slice(4, 6), 7, (8, 12), 0)
    for name in ("normal", "rows", "columns", "mirrored"):
        assert torch.equal(getattr(whole, name)[4:6], getattr(part, name))
    assert not torch.equal(whole.rows, Draws(ctx, slice(0, 10), 7, (8, 12), 1).rows)
    assert whole.rows.abs().max() <= 1
    assert 1 < whole.columns.abs().max() <= 1.5  # an eighth of the width
    assert 0.2 < whole.mirrored.float().mean() < 0.8
    start = whole.start(0.5)
    assert start.abs().max() == 0.5
    assert 0.25 < (start.abs() == 0.5).float().mean() < 0.4  # 31.7 % of a normal is beyond its deviation


def test_finished_batches_are_found_again(ctx: Context) -> None:
    data = random_set(10)
    computed: list[slice] = []

    def double(x: Tensor, where: slice) -> dict[str, Any]:
        computed.append(where)
        if len(computed) == 3:
            raise KeyboardInterrupt
        return {"sum": x.sum((1, 2, 3)).numpy()}

    with pytest.raises(KeyboardInterrupt):
        list(resumable(ctx, "key", "part", data, 4, "work", double))
    found = list(resumable(ctx, "key", "part", data, 4, "work", double))
    assert computed == [slice(0, 4), slice(4, 8), slice(8, 10), slice(8, 10)]
    assert [where for where, _ in found] == computed[:3]
    sums = np.concatenate([arrays["sum"] for _, arrays in found])
    assert sums == pytest.approx(data.images.astype(float).sum((1, 2, 3)) / 255, rel=1e-4)
    list(resumable(ctx, "other", "part", data, 4, "work", double))
    assert len(computed) == 7
    [part, *_] = sorted(ctx.checkpoint_dir("key").rglob("*.npz"))
    part.write_bytes(part.read_bytes()[:-1])
    again = list(resumable(ctx, "key", "part", data, 4, "work", double))
    assert len(computed) == 8
    assert np.array_equal(np.concatenate([arrays["sum"] for _, arrays in again]), sums)
    assert not list(Path(ctx.artifacts).rglob(".*.npz*"))
