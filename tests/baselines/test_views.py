"""Random views: the identity, gradients through them, draws that are an image's own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ue_bench.api import Context
from ue_bench_baselines.views import NUMBERS, ViewDraws, viewed

ORDER = (0, 1, 2, 3)


def images(count: int = 6, size: tuple[int, int] = (12, 10)) -> Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(0))


def numbers(count: int, **fixed: float) -> Tensor:
    """What a view is drawn from, all in the middle: no mirror, no change of colour."""
    drawn = torch.full((count, NUMBERS), 0.5)
    names = (
        "area",
        "aspect",
        "left",
        "top",
        "mirror",
        "jittered",
        "brightness",
        "contrast",
        "saturation",
        "hue",
        "gray",
    )
    for name, value in ({"mirror": 0.9, "jittered": 0.999, "gray": 0.999} | fixed).items():
        drawn[:, names.index(name)] = value
    return drawn


def test_strength_zero_is_the_image() -> None:
    x = images()
    assert viewed(x, torch.rand(6, NUMBERS), ORDER, 0) is x


def test_the_whole_area_is_the_image_or_its_mirror() -> None:
    x = images()
    assert torch.allclose(viewed(x, numbers(6, area=1.0), ORDER, 1.0), x, atol=1e-5)
    assert torch.allclose(viewed(x, numbers(6, area=1.0, mirror=0.1), ORDER, 1.0), x.flip(3), atol=1e-5)


@pytest.mark.parametrize(("strength", "least"), [(0.4, 0.64), (0.6, 0.46), (1.0, 0.1), (1.2, 0.05)])
def test_the_smallest_window_has_the_least_area(strength: float, least: float) -> None:
    """Read off a ramp across: its slope within the window is the share of the width, that of one down of the height."""
    ramp = torch.linspace(0, 1, 41).expand(3, 41, 41)
    x = torch.stack([ramp, ramp.transpose(1, 2)])
    for aspect in (0.0, 0.5, 1.0):
        seen = viewed(x, numbers(2, area=0.0, aspect=aspect), ORDER, strength)
        w = (seen[0, 0, 20, 30] - seen[0, 0, 20, 10]).item() / 0.5
        h = (seen[1, 0, 30, 20] - seen[1, 0, 10, 20]).item() / 0.5
        assert w * h == pytest.approx(least, rel=0.02)
        assert 0.74 < w / h < 1.35


def test_an_aspect_that_would_not_fit_is_not_drawn() -> None:
    x = images()
    for aspect in (0.0, 1.0):
        almost = viewed(x, numbers(6, area=1 - 1e-6, aspect=aspect), ORDER, 0.5)
        assert torch.allclose(almost, x, atol=1e-3)


def test_colours_change_where_they_are_drawn_to() -> None:
    x = images()
    whole = {"area": 1.0, "jittered": 0.1}
    same = viewed(x, numbers(6, **whole), ORDER, 0.5)
    assert torch.allclose(same, x, atol=1e-4)  # amounts in the middle change nothing
    brighter = viewed(x, numbers(6, brightness=1.0, **whole), ORDER, 0.5)
    assert torch.allclose(brighter, (1.2 * x).clamp(max=1), atol=1e-4)
    gray = viewed(x, numbers(6, area=1.0, gray=0.05), ORDER, 0.5)
    assert (gray.amax(1) - gray.amin(1)).max() < 1e-6
    # At half strength 0.4 of the images are jittered and 0.1 gray.
    assert torch.allclose(viewed(x, numbers(6, area=1.0, jittered=0.41, brightness=1.0), ORDER, 0.5), x, atol=1e-5)
    assert torch.allclose(viewed(x, numbers(6, area=1.0, gray=0.11), ORDER, 0.5), x, atol=1e-5)


def test_the_order_of_colours_matters() -> None:
    x, drawn = images(), numbers(6, area=1.0, jittered=0.1, brightness=1.0, contrast=1.0)
    assert not torch.allclose(viewed(x, drawn, (0, 1, 2, 3), 1.0), viewed(x, drawn, (1, 0, 2, 3), 1.0), atol=1e-3)


def test_gradients_go_back_through_views() -> None:
    """Against finite differences of a linear function of the view, where it is smooth."""
    x = (0.3 + 0.4 * images(3)).double()
    drawn = numbers(
        3, area=0.3, left=0.3, mirror=0.1, jittered=0.1, brightness=0.6, contrast=0.4, saturation=0.7
    ).double()
    weights = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    way = torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def linear(p: Tensor) -> Tensor:
        return (viewed(p, drawn, ORDER, 0.6) * weights).sum()

    p = x.clone().requires_grad_()
    [gradient] = torch.autograd.grad(linear(p), p)
    h = 1e-6
    slope = (linear(x + h * way) - linear(x - h * way)).item() / (2 * h)
    assert (gradient * way).sum().item() == pytest.approx(slope, rel=1e-3)


def test_gradients_are_finite_where_there_is_no_colour() -> None:
    p = torch.full((2, 3, 6, 6), 0.5).requires_grad_()
    seen = viewed(p, numbers(2, jittered=0.1, hue=1.0, saturation=0.2), ORDER, 1.0)
    [gradient] = torch.autograd.grad(seen.sum(), p)
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0.5


def test_views_stay_in_the_box() -> None:
    x = images(200).round()
    seen = viewed(x, torch.rand(200, NUMBERS, generator=torch.Generator().manual_seed(3)), (2, 0, 3, 1), 1.0)
    assert seen.shape == x.shape
    assert -1e-6 <= seen.min() <= seen.max() <= 1 + 1e-6


def test_draws_are_an_images_own(ctx: Context) -> None:
    x = images(9)
    whole = ViewDraws(ctx, slice(0, 9), 3, 0.6, 5)
    part = ViewDraws(ctx, slice(4, 7), 3, 0.6, 5)
    other = ViewDraws(ctx, slice(4, 7), 3, 0.6, 6)
    assert torch.allclose(whole.viewed(x, 2)[4:7], part.viewed(x[4:7], 2), atol=1e-6)
    assert not torch.allclose(part.viewed(x[4:7], 2), part.viewed(x[4:7], 1), atol=1e-3)
    assert not torch.allclose(part.viewed(x[4:7], 2), other.viewed(x[4:7], 2), atol=1e-3)
