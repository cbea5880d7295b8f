from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ue_bench.api import TrainContext
from ue_bench_countermeasures.ueraser import OPERATIONS, UEraser, diamond_square, trivial_augment

from .helpers import train_context

pytestmark = pytest.mark.usefixtures("one_thread")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(count: int = 48, height: int = 12, width: int = 17) -> tuple[Tensor, Tensor]:
    """8-bit images, as training has them."""
    g = generator(99)
    x = torch.randint(256, (count, 3, height, width), generator=g).float() / 255
    x[::4] *= 0.3
    return (x * 255).round() / 255, torch.randint(10, (count,), generator=g)


def epoch(number: int, of: int = 200, seed: int = 0) -> TrainContext:
    return replace(train_context(seed), epoch=number, epochs=of)


class Linear(nn.Module):
    """A linear classifier that keeps what it was called with."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3 * 12 * 17, 10, generator=generator(7)) / 10)
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x)
        return x.flatten(1) @ self.weight


@pytest.mark.parametrize("size", [(32, 32), (12, 17), (33, 9), (9, 40), (64, 10), (2, 3), (1, 1), (3, 3)], ids=str)
def test_fractals_are_those_of_kornia(size: tuple[int, int]) -> None:
    kornia = pytest.importorskip("kornia.contrib", exc_type=ImportError)
    roughness = torch.linspace(0.1, 0.9, 6)
    draw = partial(torch.rand, generator=generator(3))
    expected = kornia.diamond_square((6, 1, *size), roughness, random_fn=draw)[:, 0]
    maps = diamond_square(*size, roughness, generator(3))
    torch.testing.assert_close(maps, expected, atol=1e-6, rtol=0)
    assert 0 <= maps.min() <= maps.max() <= 1


def kornia_operation(name: str, x: Tensor, strength: Tensor, sign: Tensor) -> Any:
    """kornia's version of an operation of TrivialAugment, a tensor; kornia has no types."""
    enhance = pytest.importorskip("kornia.enhance")
    geometry = pytest.importorskip("kornia.geometry.transform")
    factor = 0.1 + 1.8 * strength
    mean = {"align_corners": True, "padding_mode": "zeros"}
    zero = torch.zeros_like(strength)
    centre = torch.tensor([[(x.shape[3] - 1) / 2, (x.shape[2] - 1) / 2]]).expand(len(x), -1)
    size = (x.shape[2], x.shape[3])

    def sheared(sx: Tensor, sy: Tensor) -> Any:
        matrix = geometry.get_shear_matrix2d(centre, sx, sy)
        return geometry.warp_affine(x, matrix[:, :2], size, **mean)

    match name:
        case "auto contrast":
            return enhance.normalize_min_max(x).clamp(0, 1)
        case "equalize":
            return enhance.equalize(x)
        case "rotate":
            return geometry.rotate(x, sign * strength * 30, **mean)
        case "posterize":
            return enhance.posterize(x, (4 * strength).round().int())
        case "solarize":
            return enhance.solarize(x, strength)
        case "contrast":
            return enhance.adjust_contrast(x, factor)
        case "brightness":
            return enhance.adjust_brightness(x, factor - 1)
        case "sharpness":
            return enhance.sharpness(x, factor)
        case "shear x":
            return sheared((sign * strength * 54).deg2rad(), zero)
        case "shear y":
            return sheared(zero, (sign * strength * 54).deg2rad())
        case "translate x":
            return geometry.translate(x, torch.stack([-sign * strength * x.shape[3] / 2, zero], 1), **mean)
        case "translate y":
            return geometry.translate(x, torch.stack([zero, -sign * strength * x.shape[2] / 2], 1), **mean)
    raise AssertionError(name)


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_are_those_of_kornia(name: str) -> None:
    x, _ = batch(60, 20, 33)
    x[::5] = x[::5, :1, :1, :1]  # constant images
    strength, sign = torch.linspace(0, 1, 60), 1.0 - 2 * (torch.arange(60) % 2)
    which = torch.full((60,), OPERATIONS.index(name))
    expected = kornia_operation(name, x, strength, sign)
    torch.testing.assert_close(trivial_augment(x, which, strength, sign), expected, atol=2e-5, rtol=0)


class TestTransform:
    @pytest.mark.parametrize("countermeasure", [UEraser(), UEraser(plasma=1), UEraser(trivial="batch")])
    def test_range_shape_and_input(self, countermeasure: UEraser) -> None:
        x, _ = batch()
        before, state = x.clone(), torch.get_rng_state()
        changed = countermeasure.transform(x, generator())
        assert changed.shape == x.shape
        assert 0 <= changed.min() <= changed.max() <= 1
        assert torch.equal(x, before)
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.equal(changed, countermeasure.transform(x, generator()))
        assert not torch.equal(changed, countermeasure.transform(x, generator(1)))

    def test_memory_format_stays(self) -> None:
        x, _ = batch()
        changed = UEraser().transform(x.to(memory_format=torch.channels_last), generator())
        assert changed.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(changed, UEraser().transform(x, generator()), atol=1e-6, rtol=0)

    def test_each_image_has_its_own_draws(self, monkeypatch: pytest.MonkeyPatch) -> None:
        drawn: dict[str, Tensor] = {}
        monkeypatch.setattr(
            "ue_bench_countermeasures.ueraser.trivial_augment",
            lambda x, which, strength, sign: drawn.update(which=which, strength=strength, sign=sign) or x,
        )
        x = torch.zeros(6000, 3, 2, 2)
        UEraser().transform(x, generator())
        counts = torch.bincount(drawn["which"], minlength=12)
        assert counts.min() > 400  # 500 expected, standard deviation 21
        assert drawn["strength"].unique().numel() > 5900
        assert drawn["sign"].unique().tolist() == [-1, 1]
        UEraser(trivial="batch").transform(x, generator())
        assert len(drawn["which"]) == 6000
        assert drawn["which"].unique().numel() == 1
        assert drawn["strength"].unique().numel() > 5900

    @pytest.mark.parametrize("plasma", [0.0, 0.5, 1.0])
    def test_probability_of_fractals_and_of_the_shuffle(self, plasma: float, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("ue_bench_countermeasures.ueraser.trivial_augment", lambda x, *_: x)
        x = torch.tensor([0.4, 0.5, 0.6])[:, None, None].repeat(2000, 1, 2, 2)
        changed = UEraser(plasma=plasma).transform(x, generator())
        untouched = (changed.sort(dim=1).values == x).flatten(1).all(dim=1)
        assert untouched.float().mean().item() == pytest.approx((1 - plasma) ** 2, abs=0.04)
        if plasma == 0:
            kept = (changed == x).flatten(1).all(dim=1).float().mean().item()
            assert kept == pytest.approx(0.5 + 0.5 / 6, abs=0.04)  # one permutation of six is none


class TestLoss:
    def test_worst_copy_of_every_image_counts(self) -> None:
        x, y = batch()
        model = Linear()
        loss = UEraser(variant="max").loss(model, x, y, epoch(199))
        g = generator()
        copies = [UEraser().transform(x, g) for _ in range(5)]
        assert all(torch.equal(a, b) for a, b in zip(model.seen, copies, strict=True))
        each = torch.stack([F.cross_entropy(model(c), y, reduction="none") for c in copies])
        torch.testing.assert_close(loss, each.max(dim=0).values.mean())
        assert loss > each.mean(dim=1).max()

    @pytest.mark.parametrize("countermeasure", [UEraser(variant="lite"), UEraser(variant="max", copies=1)])
    def test_one_copy_is_plain_cross_entropy(self, countermeasure: UEraser) -> None:
        x, y = batch()
        model = Linear()
        loss = countermeasure.loss(model, x, y, epoch(0))
        assert len(model.seen) == 1
        torch.testing.assert_close(loss, F.cross_entropy(model(UEraser().transform(x, generator())), y))

    def test_more_copies_never_lower_it(self) -> None:
        x, y = batch()
        losses = [UEraser(variant="max", copies=k).loss(Linear(), x, y, epoch(0)).item() for k in (1, 2, 3, 5)]
        assert losses == sorted(losses)

    @pytest.mark.parametrize(("variant", "first"), [("lite", 0), ("standard", 50), ("max", 200)])
    def test_epochs_of_the_worst_case(self, variant: Any, first: int) -> None:
        x, y = batch(4)
        for number in {0, first - 1, first, 199} & set(range(200)):
            model = Linear()
            UEraser(variant=variant).loss(model, x, y, epoch(number))
            assert len(model.seen) == (5 if number < first else 1), number

    @pytest.mark.parametrize(("epochs", "worst"), [(200, 50), (15, 4), (1, 1)])
    def test_a_quarter_is_rounded_up(self, epochs: int, worst: int) -> None:
        assert UEraser().worst_case_epochs(epochs) == worst

    def test_gradient_comes_from_the_worst_copy_alone(self) -> None:
        x, y = batch()
        model = Linear()
        UEraser(variant="max").loss(model, x, y, epoch(0)).backward()
        assert model.weight.grad is not None
        each = torch.stack([F.cross_entropy(c.flatten(1) @ model.weight, y, reduction="none") for c in model.seen])
        worst = torch.stack(model.seen)[each.argmax(dim=0), torch.arange(len(y))]
        [expected] = torch.autograd.grad(F.cross_entropy(worst.flatten(1) @ model.weight, y), model.weight)
        torch.testing.assert_close(model.weight.grad, expected)

    def test_works_under_autocast(self) -> None:
        x, y = batch()
        ctx = replace(epoch(0), autocast=lambda: torch.autocast("cpu", dtype=torch.bfloat16))
        model, exact = Linear(), Linear()
        assert UEraser().loss(model, x, y, ctx).dtype == torch.float32
        UEraser().loss(exact, x, y, epoch(0))
        assert all(torch.equal(a, b) for a, b in zip(model.seen, exact.seen, strict=True))  # images are as sharp


@pytest.mark.parametrize(("variant", "passes"), [("lite", 1), ("standard", 2), ("max", 5)])
def test_passes(variant: Any, passes: float) -> None:
    assert UEraser(variant=variant).passes == passes
