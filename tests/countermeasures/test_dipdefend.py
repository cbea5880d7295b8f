from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ue_bench.api import Context, Diverged, UserError
from ue_bench_countermeasures import dip_network, dipdefend
from ue_bench_countermeasures.dip_network import Priors, Smoothed, drawn_anew
from ue_bench_countermeasures.dipdefend import DIPDefend

from .helpers import Images, Purify, image_set

QUICK = DIPDefend(iterations=4)
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def images() -> Images:
    """Neither side is a multiple of 32."""
    return np.random.default_rng(0).integers(0, 256, (5, 33, 20, 3), dtype=np.uint8)


def streams(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def smooth() -> torch.Tensor:
    """1 x 3 x 32 x 32 in [0, 1]."""
    at = torch.arange(32.0)
    return (0.5 + 0.4 * torch.sin(at[:, None] / 7 + torch.arange(3.0)[:, None, None]) * torch.cos(at / 9))[None]


class TestNetworks:
    def test_shapes_and_range(self) -> None:
        found = Priors(streams(0, 1), (4, 8, 16))()
        assert found.shape == (2, 3, 32, 32)
        assert 0 < found.min() <= found.max() < 1

    def test_each_is_alone(self) -> None:
        both, first, second = (
            Priors(streams(0, 1), (3, 3, 4)),
            Priors(streams(0), (3, 3, 4)),
            Priors(streams(1), (3, 3, 4)),
        )
        drawings = both()
        torch.testing.assert_close(drawings, torch.cat([first(), second()]))
        drawings[0].sum().backward()
        first()[0].sum().backward()
        mine, other, alone = [], [], []
        for shared, own in zip(both.parameters(), first.parameters(), strict=True):
            assert shared.grad is not None
            assert own.grad is not None
            mine.append(shared.grad.chunk(2)[0].flatten())
            other.append(shared.grad.chunk(2)[1].flatten())
            alone.append(own.grad.flatten())
        assert not torch.cat(other).any()
        assert (torch.cat(mine) - torch.cat(alone)).norm() < 0.01 * torch.cat(alone).norm()  # single precision

    def test_it_is_an_hourglass_of_torch_s_layers(self) -> None:
        """With the weights of the one in the other, both draw the same."""
        net = Priors(streams(5), (4, 8, 16))
        assert net.start.shape == (1, 32, 32)
        assert 0 <= net.start.min() <= net.start.max() < 0.1
        layers: list[nn.Module] = []
        before = 1
        for width in (4, 8, 16):
            for inputs, stride in ((before, 2), (width, 1)):
                conv = nn.Conv2d(inputs, width, 3, stride, 1, padding_mode="reflect")
                layers += [conv, nn.BatchNorm2d(width), nn.LeakyReLU(0.2)]
            before = width
        for width in (16, 8, 4):
            layers += [nn.Upsample(scale_factor=2, mode="bilinear"), nn.BatchNorm2d(before)]
            layers += [
                nn.Conv2d(before, width, 3, 1, 1, padding_mode="reflect"),
                nn.BatchNorm2d(width),
                nn.LeakyReLU(0.2),
            ]
            layers += [nn.Conv2d(width, width, 1), nn.BatchNorm2d(width), nn.LeakyReLU(0.2)]
            before = width
        layers += [nn.Conv2d(4, 3, 1), nn.Sigmoid()]
        twin = nn.Sequential(*layers)
        own = iter(net.convolutions)
        with torch.no_grad():
            for layer in layers:
                if isinstance(layer, nn.Conv2d):
                    bound = 1 / np.sqrt(layer.in_channels * layer.kernel_size[0] ** 2)
                    for value in (layer.weight, layer.bias):
                        assert value is not None
                        value.copy_(next(own))
                        assert value.abs().max() <= bound
                    assert layer.weight.abs().max() > 0.5 * bound
            assert next(own, None) is None
            torch.testing.assert_close(net(), twin(net.start[None]), rtol=1e-4, atol=1e-5)
        assert len(list(net.norms)) == 2 * sum(isinstance(layer, nn.BatchNorm2d) for layer in layers)


class TestSmoothing:
    def test_formula(self) -> None:
        values, weight = [10.0, 14.0, 13.0, 20.0], 0.25
        smoothed = Smoothed(weight)
        level, trend = values[0], 0.0
        for value in values:
            smoothed.rises(torch.tensor([value]))
            before = level
            level = weight * value + (1 - weight) * (level + trend)
            trend = weight * (level - before) + (1 - weight) * trend
            assert smoothed.level is not None
            assert float(smoothed.level) == pytest.approx(level)
            assert float(smoothed.trend) == pytest.approx(trend)

    def test_only_new_heights_count_each_for_itself(self) -> None:
        smoothed = Smoothed(1.0)
        series = torch.tensor([[5.0, 9.0], [6.0, 8.0], [4.0, 8.5], [6.0, 9.5], [7.0, 9.0]])
        found = [smoothed.rises(values).tolist() for values in series]
        assert found == [[True, True], [True, False], [False, False], [False, True], [True, False]]


class TestDrawing:
    def draw(self, x: torch.Tensor, iterations: int, smoothing: float = 0.1, seed: int = 0) -> torch.Tensor:
        random = streams(*range(seed, seed + len(x)))
        return drawn_anew(x, random, (4, 8, 16), iterations, 0.01, smoothing, lambda done: None)

    def test_it_comes_to_resemble_the_image(self) -> None:
        x = smooth()
        short, longer = (float(F.mse_loss(self.draw(x, count), x)) for count in (3, 60))
        assert longer < 0.4 * short
        assert longer < 0.4 * float(x.var())

    def test_what_is_natural_is_learned_before_noise(self) -> None:
        x = smooth()
        noisy = (x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
        found = self.draw(noisy, 150)
        assert F.mse_loss(found, x) < 0.5 * F.mse_loss(noisy, x)

    def test_networks_and_their_noise_are_trained(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made: list[Priors] = []

        def kept(net: Priors) -> Priors:
            made.append(net)
            return net

        monkeypatch.setattr(dip_network, "Priors", lambda *given: kept(Priors(*given)))
        self.draw(smooth(), 2)
        [net] = made
        for name, old in Priors(streams(0), (4, 8, 16)).named_parameters():
            assert (net.get_parameter(name) != old).any() or "convolutions" in name, (
                name
            )  # biases before norms do nothing
        assert (net.start != Priors(streams(0), (4, 8, 16)).start).any()

    def test_the_drawing_at_the_highest_level_is_kept(self, monkeypatch: pytest.MonkeyPatch) -> None:
        drawings: list[torch.Tensor] = []
        forward = Priors.forward

        def watched(self: Priors) -> torch.Tensor:
            drawings.append(forward(self))
            return drawings[-1]

        given: list[torch.Tensor] = []

        def rises(self: Smoothed, value: torch.Tensor) -> torch.Tensor:
            given.append(value)
            return torch.tensor([len(given) in (1, 3), len(given) == 2])

        monkeypatch.setattr(Priors, "forward", watched)
        monkeypatch.setattr(Smoothed, "rises", rises)
        x = smooth().repeat(2, 1, 1, 1)
        found = self.draw(x, 5)
        assert torch.equal(found[0], drawings[2][0])
        assert torch.equal(found[1], drawings[1][1])
        psnr = -10 * (drawings[3] - x).square().mean(dim=(1, 2, 3)).log10()
        torch.testing.assert_close(given[3], psnr.detach())


class TestPurify:
    def test_order_labels_and_input_stay(self, images: Images, ctx: Context) -> None:
        data, before = image_set(images), images.copy()
        after = QUICK.purify(data, ctx)
        assert after.labels is data.labels
        assert after.images.shape == images.shape
        np.testing.assert_array_equal(images, before)
        assert not list((ctx.artifacts / "unfinished").iterdir())

    def test_every_square_has_a_network(self, images: Images, purify: Purify) -> None:
        changed = images.copy()
        changed[2, 32:] = 255 - changed[2, 32:]
        one, other = purify(QUICK, images), purify(QUICK, changed)
        same = (one == other).all(axis=(2, 3))
        assert same[2, :32].all()
        assert not same[2, 32:].any()
        assert same[[0, 1, 3, 4]].all()

    def test_seed_decides(self, images: Images, ctx: Context) -> None:
        same = image_set(np.repeat(images[:1], 2, axis=0))
        state = torch.get_rng_state()
        first = QUICK.purify(same, ctx).images
        np.testing.assert_array_equal(QUICK.purify(same, ctx).images, first)
        assert (first[0] != first[1]).any()
        assert (QUICK.purify(same, replace(ctx, seed=1)).images != first).any()
        assert torch.equal(torch.get_rng_state(), state)

    def test_how_many_at_once_moves_nothing(
        self, images: Images, purify: Purify, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        together = purify(QUICK, images).astype(int)
        monkeypatch.setattr(dipdefend, "CPU_SQUARES", 1)
        assert np.abs(purify(QUICK, images) - together).max() <= 1

    @pytest.mark.parametrize(
        ("recipe", "channels", "iterations"), [("cifar", (4, 8, 16), 4000), ("imagenet", (3, 3, 4), 1200)]
    )
    def test_recipes(
        self, recipe: Any, channels: tuple[int, ...], iterations: int, images: Images, purify: Purify,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        asked: list[tuple[Any, ...]] = []

        def drawn(x: torch.Tensor, random: Any, *rest: Any) -> torch.Tensor:
            asked.append(rest[:-1])
            return 1 - x

        monkeypatch.setattr(dip_network, "drawn_anew", drawn)
        np.testing.assert_array_equal(purify(DIPDefend(recipe=recipe), images), 255 - images)
        assert asked == [(channels, iterations, 0.01, 0.002)]
        purify(DIPDefend(recipe=recipe, iterations=7, learning_rate=0.5, smoothing=0.25), images)
        assert asked[1] == (channels, 7, 0.5, 0.25)

    def test_large_sets_are_refused_with_their_cost(self, purify: Purify, ctx: Context) -> None:
        images = np.zeros((400, 33, 65, 3), np.uint8)  # six squares each
        with pytest.raises(UserError, match=r"2,400 squares of 32 px, some 3\.3 hours") as caught:
            purify(DIPDefend(), images)
        assert "most=2400" in str(caught.value.hint)
        with pytest.raises(UserError, match=r"some 0\.8 hours"):
            purify(DIPDefend(iterations=1000), images)
        exact = np.zeros((2, 32, 32, 3), np.uint8)
        assert purify(DIPDefend(iterations=1, most=2), exact).shape == exact.shape
        with pytest.raises(UserError):
            purify(DIPDefend(iterations=1, most=1), exact)

    def test_it_continues_where_it_was_killed(
        self, images: Images, ctx: Context, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(dipdefend, "CPU_SQUARES", 4)
        whole = QUICK.purify(image_set(images), replace(ctx, artifacts=ctx.artifacts / "whole")).images
        calls: list[int] = []
        plain = drawn_anew

        def dying(x: torch.Tensor, *rest: Any) -> torch.Tensor:
            calls.append(len(x))
            if len(calls) == 3:
                raise KeyboardInterrupt
            return plain(x, *rest)

        monkeypatch.setattr(dip_network, "drawn_anew", dying)
        with pytest.raises(KeyboardInterrupt):
            QUICK.purify(image_set(images), ctx)
        assert (QUICK.purify(image_set(images), replace(ctx, seed=1)).images != whole).any()  # work of its own
        np.testing.assert_array_equal(QUICK.purify(image_set(images), ctx).images, whole)
        assert calls == [4, 4, 2, 4, 4, 2, 2]

    def test_progress(self, images: Images, ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(dipdefend, "CPU_SQUARES", 4)
        monkeypatch.setattr(dipdefend, "REPORT_EVERY", 2)
        seen: list[tuple[float, float, str]] = []
        QUICK.purify(image_set(images), replace(ctx, report=lambda *report: seen.append(report)))
        inner = [(done / total, text) for done, total, text in seen if "of 4" in text]
        assert [done for done, _ in inner] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.9, 1])
        assert inner[0][1] == "dipdefend[iterations=4]: 2 of 4 iterations"


def test_drawings_that_diverge_are_not_returned() -> None:
    with pytest.raises(Diverged, match=r"at step \d of 4: .* of deep image priors not finite"):
        drawn_anew(smooth(), streams(0), (4, 4), 4, 1e36, 0.9, lambda done: None)
