from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from torch import Tensor, nn

from ue_bench_countermeasures.augmentation import (
    Coin,
    CutMix,
    Cutout,
    GaussianNoise,
    Mixup,
    box,
    partners,
    whole_span,
    window,
)

from .helpers import train_context


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(count: int = 64, size: int = 16) -> tuple[Tensor, Tensor]:
    g = generator(99)
    return torch.rand(count, 3, size, size, generator=g), torch.randint(10, (count,), generator=g)


def spans(where: Tensor) -> Tensor:
    """Number of true rows and columns, N x 2, of masks N x 1 x H x W that are boxes; fails when they are not."""
    rows, columns = where[:, 0].any(2), where[:, 0].any(1)
    torch.testing.assert_close(where, box(rows, columns))
    for line in (rows, columns):  # one run of neighbours at most
        assert (
            line.int().diff(dim=1, prepend=torch.zeros(len(line), 1, dtype=torch.int)).clamp(min=0).sum(1) <= 1
        ).all()
    return torch.stack([rows.sum(1), columns.sum(1)], dim=1)


class TestCutout:
    def test_sides_at_every_centre(self) -> None:
        sides = window(torch.arange(32)[:, None], 8, 32).sum(1)
        assert sides[0] == 8
        assert sides[31] == 9
        assert sides[8:25].eq(16).all()
        areas = torch.outer(sides, sides)
        assert areas.double().mean() == 196

    def test_sides_at_every_centre_of_large_images(self) -> None:
        sides = window(torch.arange(224)[:, None], Cutout().side(224, 224) // 2, 224).sum(1)
        areas = torch.outer(sides, sides).double()
        assert areas.min() == 58 * 58
        assert areas.mean() / 224**2 == pytest.approx(0.2032, abs=1e-4)

    @pytest.mark.parametrize(("size", "side"), [(28, 14), (32, 16), (64, 32), (224, 116)])
    def test_default_length(self, size: int, side: int) -> None:
        assert Cutout().side(size, size) == side

    def test_default_length_follows_the_shorter_side(self) -> None:
        assert Cutout().side(32, 64) == Cutout().side(64, 32) == 16

    def test_one_hole_shared_by_channels(self) -> None:
        x = torch.rand(2000, 3, 32, 32, generator=generator()) + 0.01
        cut, _ = Cutout().augment(x, torch.zeros(2000), generator(1))
        hole = (cut == 0).all(1, keepdim=True)
        torch.testing.assert_close(cut, torch.where(hole, 0.0, x))
        sides = spans(hole)
        assert sides.min() == 8
        assert sides.max() == 16
        # standard deviation of the area over centres is 60.4 pixels, of this mean 1.35
        assert sides.prod(1).double().mean() == pytest.approx(196, abs=5)

    def test_centres_cover_the_image(self) -> None:
        cut, _ = Cutout(length=2).augment(torch.ones(4000, 3, 6, 6), torch.zeros(4000), generator())
        holes = (cut[:, 0] == 0).double().mean(0)
        # rows 0..4 lie in the holes of two centres of six, row 5 in that of one
        share = torch.tensor([2, 2, 2, 2, 2, 1], dtype=torch.float64) / 6
        torch.testing.assert_close(holes, torch.outer(share, share), atol=0.02, rtol=0)

    def test_images_that_are_not_square(self) -> None:
        cut, _ = Cutout(length=4).augment(torch.ones(500, 3, 8, 30), torch.zeros(500), generator())
        hole = (cut == 0)[:, :1]
        assert spans(hole).max() == 4
        assert hole[:, 0].any(0).all()  # every pixel is hit sooner or later

    @pytest.mark.parametrize("fill", ["gray", "mean"])
    def test_fill(self, fill: Any) -> None:
        x, y = batch()
        cut, _ = Cutout(fill=fill).augment(x, y, generator())
        black, _ = Cutout().augment(x, y, generator())
        value = x.mean((2, 3), keepdim=True) if fill == "mean" else torch.tensor(0.5)
        torch.testing.assert_close(cut, torch.where(black == 0, value, x))

    def test_labels_and_input_stay(self) -> None:
        x, y = batch()
        before = x.clone()
        _, labels = Cutout().augment(x, y, generator())
        assert labels is y
        torch.testing.assert_close(x, before, atol=0, rtol=0)


class TestGaussianNoise:
    def test_standard_deviation(self) -> None:
        x = torch.full((100, 3, 32, 32), 0.5)
        noisy, _ = GaussianNoise().augment(x, torch.zeros(100), generator())
        assert noisy.std().item() == pytest.approx(0.1, rel=0.01)
        assert noisy.mean().item() == pytest.approx(0.5, abs=0.001)

    def test_pixels_and_channels_are_independent(self) -> None:
        x = torch.full((2000, 3, 2, 2), 0.5)
        noisy, _ = GaussianNoise().augment(x, torch.zeros(2000), generator())
        correlation = torch.corrcoef(noisy.flatten(1).T)
        torch.testing.assert_close(correlation, torch.eye(12), atol=0.1, rtol=0)

    def test_bounds(self) -> None:
        x, y = batch()
        noisy, _ = GaussianNoise(std=0.5).augment(x, y, generator())
        assert noisy.min() == 0
        assert noisy.max() == 1

    def test_input_stays(self) -> None:
        x, y = batch()
        before = x.clone()
        GaussianNoise().augment(x, y, generator())
        torch.testing.assert_close(x, before, atol=0, rtol=0)

    def test_std_may_be_a_fraction(self) -> None:
        assert GaussianNoise(std="8/255").selector == "gaussian-noise[std=8/255]"


class TestCoin:
    def grid(self, count: int, height: int, width: int) -> Tensor:
        return torch.randint(256, (count, 3, height, width), generator=generator(1)).float() / 255

    @pytest.mark.parametrize(("height", "width", "alpha"), [(32, 32, 2.0), (9, 20, 3.2), (4, 3, 20.0), (6, 1, 1.0)])
    def test_is_that_of_the_authors(self, height: int, width: int, alpha: float) -> None:
        x = self.grid(40, height, width)
        moved, _ = Coin(alpha=alpha).augment(x, torch.zeros(40), generator(3))
        dx, dy = (alpha * (2 * torch.rand(2, 40, height, width, generator=generator(3)) - 1)).double().numpy()
        rows, columns = np.mgrid[:height, :width]
        different = 0
        for image, result, across, down in zip(x.numpy(), moved.numpy(), dx, dy, strict=True):
            for channel, found in zip(image, result, strict=True):
                place = rows + down, columns + across
                expected = np.uint8(map_coordinates(channel.astype(np.float64), place, order=1, mode="wrap") * 255)
                gap = np.abs(np.rint(found * 255) - expected)
                assert gap.max() <= 1
                different += (gap > 0).sum()
        assert different < 2e-3 * x.numel()

    def test_no_offset_is_the_identity(self) -> None:
        x = torch.arange(256).float().view(1, 1, 16, 16).expand(2, 3, -1, -1) / 255
        assert torch.equal(Coin(alpha=0).augment(x, torch.zeros(2), generator())[0], x)

    @pytest.mark.parametrize("level", [0, 1, 77, 254, 255])
    def test_constant_images_stay(self, level: int) -> None:
        x = torch.full((8, 3, 7, 12), level / 255)
        assert torch.equal(Coin().augment(x, torch.zeros(8), generator())[0], x)

    def test_channels_move_together_and_pixels_by_themselves(self) -> None:
        x = self.grid(1, 16, 16)[:, :1].expand(30, 3, -1, -1)
        moved, _ = Coin().augment(x, torch.zeros(30), generator())
        assert torch.equal(moved[:, 0], moved[:, 1])
        assert len(moved.unique(dim=0)) == 30

    def test_values_are_cut_and_not_rounded(self) -> None:
        x = torch.zeros(200, 3, 8, 8)
        x[..., 1::2] = 1 / 255
        moved, _ = Coin(alpha=0.9).augment(x, torch.zeros(200), generator())
        assert (moved[..., ::2] == 0).all()  # always some way from the brighter column
        assert (moved[..., 1::2] == 0).float().mean() > 0.9


@pytest.mark.parametrize("countermeasure", [Cutout(), GaussianNoise(), Coin()], ids=lambda c: c.name)
class TestEveryAugmentation:
    def test_same_generator_same_result(self, countermeasure: Cutout | GaussianNoise | Coin) -> None:
        x, y = batch()
        first, _ = countermeasure.augment(x, y, generator(5))
        again, _ = countermeasure.augment(x, y, generator(5))
        other, _ = countermeasure.augment(x, y, generator(6))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    def test_draws_are_fresh(self, countermeasure: Cutout | GaussianNoise | Coin) -> None:
        x, y = batch()
        g = generator()
        first, _ = countermeasure.augment(x, y, g)
        second, _ = countermeasure.augment(x, y, g)
        assert not torch.equal(first, second)

    def test_global_generator_is_not_used(self, countermeasure: Cutout | GaussianNoise | Coin) -> None:
        x, y = batch()
        before = torch.get_rng_state()
        countermeasure.augment(x, y, generator())
        assert torch.equal(torch.get_rng_state(), before)

    def test_memory_format_stays(self, countermeasure: Cutout | GaussianNoise | Coin) -> None:
        x, y = batch()
        changed, _ = countermeasure.augment(x.to(memory_format=torch.channels_last), y, generator())
        assert changed.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(changed, countermeasure.augment(x, y, generator())[0])


class Recorder(nn.Module):
    """Return fixed logits and keeps the batch it was called with."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits
        self.seen = torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        self.seen = x
        return self.logits


def cross_entropies(logits: Tensor, labels: Tensor) -> Tensor:
    return -logits.log_softmax(1)[torch.arange(len(labels)), labels]


MIXING = [Mixup(), Mixup(variant="standard"), CutMix(), CutMix(size="side_ratio"), CutMix(label="original")]


@pytest.mark.parametrize("countermeasure", MIXING, ids=lambda c: c.selector)
class TestEveryMixing:
    def test_loss_is_that_of_the_mixed_batch(self, countermeasure: Mixup | CutMix) -> None:
        x, y = batch()
        model = Recorder(torch.randn(64, 10, generator=generator(1)))
        loss = countermeasure.loss(model, x, y, train_context(3))
        mixed, partner, own = countermeasure.mix(x, train_context(3).generator)
        expected = cross_entropies(model.logits, y)
        if countermeasure.selector not in ("mixup", "cutmix[label=original]"):  # these two keep the original label
            expected = own * expected + (1 - own) * cross_entropies(model.logits, y[partner])
        torch.testing.assert_close(loss, expected.mean())
        assert torch.equal(model.seen, mixed)

    def test_labels_and_input_stay(self, countermeasure: Mixup | CutMix) -> None:
        x, y = batch()
        images, labels = x.clone(), y.clone()
        countermeasure.loss(Recorder(torch.zeros(64, 10)), x, y, train_context())
        assert torch.equal(x, images)
        assert torch.equal(y, labels)

    def test_loss_is_computed_in_float32(self, countermeasure: Mixup | CutMix) -> None:
        x, y = batch()
        loss = countermeasure.loss(Recorder(torch.zeros(64, 10, dtype=torch.bfloat16)), x, y, train_context())
        assert loss.dtype == torch.float32

    def test_memory_format_stays(self, countermeasure: Mixup | CutMix) -> None:
        x, _ = batch()
        mixed, _, _ = countermeasure.mix(x.to(memory_format=torch.channels_last), generator())
        assert mixed.is_contiguous(memory_format=torch.channels_last)

    def test_same_generator_same_result(self, countermeasure: Mixup | CutMix) -> None:
        x, _ = batch()
        first, _, _ = countermeasure.mix(x, generator(5))
        assert torch.equal(first, countermeasure.mix(x, generator(5))[0])
        assert not torch.equal(first, countermeasure.mix(x, generator(6))[0])


@pytest.mark.parametrize("count", [2, 3, 128])
def test_partners_are_a_permutation_without_fixed_points(count: int) -> None:
    g = generator()
    for _ in range(20):
        partner = partners(count, g)
        assert sorted(partner.tolist()) == list(range(count))
        assert (partner != torch.arange(count)).all()


def test_a_single_image_is_its_own_partner() -> None:
    assert partners(1, generator()).tolist() == [0]


def test_partners_are_uniform() -> None:
    g = generator()
    counts = torch.zeros(5, 5)
    for _ in range(4000):
        counts[torch.arange(5), partners(5, g)] += 1
    torch.testing.assert_close(counts / 4000, (1 - torch.eye(5)) / 4, atol=0.04, rtol=0)


class TestMixup:
    def test_images_are_convex_combinations(self) -> None:
        x, _ = batch()
        mixed, partner, weight = Mixup().mix(x, generator())
        exact = weight[:, None, None, None] * x + (1 - weight[:, None, None, None]) * x[partner]
        torch.testing.assert_close(mixed, exact)
        assert (mixed >= torch.minimum(x, x[partner]) - 1e-6).all()
        assert (mixed <= torch.maximum(x, x[partner]) + 1e-6).all()

    def test_full_weight_is_the_image(self, monkeypatch: pytest.MonkeyPatch) -> None:
        x, _ = batch()
        monkeypatch.setattr(torch, "rand", lambda *size, **_: torch.linspace(1, 1 + 1e-9, *size))
        mixed, _, weight = Mixup().mix(x, generator())
        assert (weight == 1).all()
        assert torch.equal(mixed, x)

    def test_weights_are_uniform_and_one_an_image(self) -> None:
        _, _, weight = Mixup().mix(torch.zeros(20000, 1, 1, 1), generator())
        quantiles = torch.tensor([0.1, 0.25, 0.5, 0.75, 0.9])
        torch.testing.assert_close(weight.quantile(quantiles), quantiles, atol=0.02, rtol=0)

    def test_original_label_whatever_the_weight(self) -> None:
        x, y = batch()
        certain = 50 * nn.functional.one_hot(y, 10).float()
        assert Mixup().loss(Recorder(certain), x, y, train_context()).item() < 1e-6
        assert Mixup(variant="standard").loss(Recorder(certain), x, y, train_context()).item() > 1

    def test_the_original_label_counts_for_half_in_expectation(self) -> None:
        """(i, j, l) and (j, i, 1 - l) are the same image: the partner's label counts as much as the own one."""
        pictures = torch.randn(10, 3, 4, 4, generator=generator(5))
        y = torch.arange(40_000) % 10
        mixed, partner, weight = Mixup().mix(pictures[y], generator())
        logits = mixed.flatten(1) @ torch.randn(48, 10, generator=generator(6)) / 4
        own, other = (nn.functional.cross_entropy(logits, label, reduction="none") for label in (y, y[partner]))
        difference = own - (own + other) / 2
        error = difference.std().item() / len(y) ** 0.5
        assert abs(difference.mean().item()) < 3 * error < 0.03
        usual = weight * own + (1 - weight) * other
        assert abs((own - usual).mean().item()) > 10 * error


class TestCutMix:
    @pytest.mark.parametrize("size", ["area_ratio", "side_ratio"])
    def test_pixels_come_from_the_image_or_the_same_place_of_its_partner(self, size: Any) -> None:
        x, _ = batch()
        mixed, partner, own = CutMix(size=size).mix(x, generator())
        pasted = (mixed != x).any(1, keepdim=True)  # random floats: two images never agree
        spans(pasted)
        torch.testing.assert_close(mixed, torch.where(pasted, x[partner], x), atol=0, rtol=0)
        torch.testing.assert_close(own, 1 - pasted.float().mean((1, 2, 3)))
        assert own.unique().numel() > 20

    @pytest.mark.parametrize(("size", "pasted"), [("area_ratio", 0.299), ("side_ratio", 0.204)])
    def test_average_area(self, size: Any, pasted: float) -> None:
        _, _, own = CutMix(size=size).mix(torch.zeros(20000, 1, 32, 32), generator())
        assert 1 - own.mean().item() == pytest.approx(pasted, abs=0.006)  # three standard errors

    def test_empty_box_is_the_identity(self, monkeypatch: pytest.MonkeyPatch) -> None:
        x, y = batch()
        monkeypatch.setattr(CutMix, "side_ratio", lambda self, u: torch.zeros_like(u))
        mixed, _, own = CutMix().mix(x, generator())
        assert torch.equal(mixed, x)
        assert (own == 1).all()
        certain = 50 * nn.functional.one_hot(y, 10).float()
        assert CutMix().loss(Recorder(certain), x, y, train_context()).item() < 1e-6

    def test_side_is_the_root_of_the_area(self) -> None:
        u = torch.tensor([0.0, 0.36, 0.75])
        torch.testing.assert_close(CutMix().side_ratio(u), torch.tensor([1.0, 0.8, 0.5]))
        torch.testing.assert_close(CutMix(size="side_ratio").side_ratio(u), u)


class TestKorniasBox:
    """Numbers of kornia 0.6.12, from its rule: sides k of probability (2k + 1) / S^2 and share k^2 / S^2."""

    def mixed(self, size: int, count: int, batches: int) -> Tensor:
        """Where the images of some batches are pasted, one batch after the other."""
        draws = generator()
        x = torch.zeros(count, 1, size, size)
        x[::2] = 1
        spans = []
        for _ in range(batches):
            mixed, partner, own = CutMix(box="kornia").mix(x, draws)
            differ = x[partner] != x  # elsewhere nothing is to be seen
            pasted = (mixed != x)[differ.flatten(1).all(1)][:, 0]
            torch.testing.assert_close(1 - own[differ.flatten(1).all(1)], pasted.float().mean((1, 2)))
            spans.append(pasted)
        return torch.cat(spans)

    @pytest.mark.parametrize(("size", "share"), [(32, 0.47917), (224, 0.49702)])
    def test_share_that_is_pasted(self, size: int, share: float) -> None:
        exact = sum(k**2 * (2 * k + 1) for k in range(size)) / size**4
        assert exact == pytest.approx(share, abs=1e-5)
        u = torch.rand(400_000, 1, generator=generator())
        side = (size * CutMix().side_ratio(u)).long()
        spanned = whole_span(side[:2000], size, generator()).sum(1, keepdim=True)
        assert torch.equal(spanned, side[:2000])  # never clipped
        assert float((side / size).square().mean()) == pytest.approx(share, abs=0.005)

    def test_share_in_images(self) -> None:
        assert float(self.mixed(32, 2000, 20).float().mean()) == pytest.approx(0.479, abs=0.008)

    def test_the_last_row_and_column_are_never_pasted(self) -> None:
        pasted = self.mixed(32, 64, 200).float().mean(0)
        assert pasted[-1].max() == 0
        assert pasted[:, -1].max() == 0
        assert pasted[0].max() > 0.1

    def test_boxes_of_a_batch_are_at_one_relative_place(self) -> None:
        side = torch.arange(1, 31)[:, None]
        start = whole_span(side, 32, generator()).int().argmax(1)
        place = torch.rand(1, generator=generator())
        assert start.tolist() == [int((31 - k) * float(place)) for k in range(1, 31)]

    def test_the_box_of_before_is_the_default(self) -> None:
        assert CutMix(box="kornia").selector == "cutmix[box=kornia]"
        assert CutMix().box == "clipped"
