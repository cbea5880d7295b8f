"""REM: its transforms and gradients against oracles, its game on nets that train in a second."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sets import corners
from torch import Tensor, nn
from torch.nn import functional as F

from ue_bench.api import Context, Diverged
from ue_bench.catalogue.registry import registry
from ue_bench_baselines import rem, rem_rounds
from ue_bench_baselines.pgd import to_unit
from ue_bench_baselines.rem import REM
from ue_bench_baselines.rem_rounds import Crops, RobustMinMin, Uniform, batch_draws, own_draws, pictures

from .helpers import difference, image_set, random_set

pytestmark = pytest.mark.usefixtures("one_thread")
NET = "resnet9[width=4,blocks=1]"
QUICK: dict[str, Any] = {
    "preset": "micro", "surrogate": NET, "train_steps": 6, "batch": 16, "steps": 3, "adv_steps": 2,
}  # fmt: skip
WITHOUT_ADVERSARY = {name: value for name, value in QUICK.items() if name != "adv_steps"} | {"adv_eps": 0}
LEVEL = 1 / 255


def random_images(count: int, size: tuple[int, int] = (6, 9)) -> Tensor:
    """In [0.2, 0.8]: no noise takes them out of the box."""
    return 0.2 + 0.6 * torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(0))


def any_draws(count: int) -> Uniform:
    generator = torch.Generator().manual_seed(4)
    return lambda *shape: torch.rand(count, *shape, generator=generator)


def upper_draws(count: int) -> Uniform:
    """Nothing is mirrored, and noise starts positive."""
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: 0.5 + 0.5 * torch.rand(count, *shape, generator=generator)


class Linear(nn.Module):
    """Two classes, logits W x: the sign of every gradient is that of ``w_other - w_own``."""

    def __init__(self, size: tuple[int, int] = (6, 9)) -> None:
        super().__init__()
        weights = torch.randn(2, 3 * size[0] * size[1], generator=torch.Generator().manual_seed(1))
        self.weights, self.size = nn.Parameter(weights), size

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weights.T

    def signs(self, y: Tensor) -> Tensor:
        return (self.weights[1 - y] - self.weights[y]).sign().view(-1, 3, *self.size).detach()


def signs(game: RobustMinMin, y: Tensor) -> Tensor:
    assert isinstance(game.network, Linear)
    return game.network.signs(y)


def linear_game(ctx: Context, **settings: Any) -> RobustMinMin:
    data = random_set(5, (6, 9), 2)
    game = REM(surrogate="linear", **settings).game(data, ctx)
    game.network = Linear()
    game.hold()
    return game


class TestCrops:
    x = torch.rand(4, 3, 5, 8, generator=torch.Generator().manual_seed(2))

    def crops(self, rows: int, columns: int, mirrored: bool) -> Crops:
        return Crops(torch.full((4,), rows), torch.full((4,), columns), torch.full((4,), mirrored))

    def test_no_offset_and_no_mirror_is_the_image(self) -> None:
        assert torch.equal(self.crops(0, 0, False).cut(self.x), self.x)
        assert torch.equal(self.crops(0, 0, False).pull_back(self.x), self.x)

    def test_images_are_mirrored_before_they_are_cut(self) -> None:
        cut = self.crops(-2, 3, True).cut(self.x)
        assert torch.equal(cut[:, :, 2:, :-3], self.x.flip(3)[:, :, :-2, 3:])
        assert not cut[:, :, :2].any()
        assert not cut[:, :, :, -3:].any()

    def test_gradients_are_put_back_at_their_offset(self) -> None:
        back = self.crops(-2, 3, False).pull_back(self.x)
        assert torch.equal(back[:, :, :-2, 3:], self.x[:, :, 2:, :-3])
        assert not back[:, :, -2:].any()
        assert not back[:, :, :, :3].any()

    def test_gradients_of_mirrored_images_are_mirrored(self) -> None:
        assert torch.equal(self.crops(0, 0, True).pull_back(self.x), self.x.flip(3))

    @pytest.mark.parametrize("pad", [0, 2, 11])
    def test_gradients_are_those_of_autograd(self, pad: int) -> None:
        crops = Crops.draw(any_draws(2), 2, pad)
        x = self.x.clone().requires_grad_()
        g = torch.rand(4, 3, 5, 8, generator=torch.Generator().manual_seed(3))
        [expected] = torch.autograd.grad((crops.cut(x) * g).sum(), x)
        assert torch.equal(crops.pull_back(g), expected)

    def test_offsets_are_within_the_frame_and_fill_it(self) -> None:
        crops = Crops.draw(any_draws(600), 3, 4)
        for offsets in (crops.rows, crops.columns):
            assert sorted(offsets.unique().tolist()) == list(range(-4, 5))
            assert torch.bincount(offsets + 4).min() > 140  # of 1,800, 200 each
        assert 0.4 < crops.mirrored.float().mean() < 0.6

    @pytest.mark.parametrize("pad", [0, 4, 16, 32])
    def test_the_largest_draw_is_within_the_frame(self, pad: int) -> None:
        below = torch.nextafter(torch.ones(()), torch.zeros(()))
        crops = Crops.draw(lambda *shape: below.expand(1, *shape), 1, pad)
        assert crops.rows.tolist() == crops.columns.tolist() == [pad]


class TestDraws:
    def test_an_image_has_its_own(self, ctx: Context) -> None:
        whole, part = own_draws(ctx, slice(0, 6)), own_draws(ctx, slice(2, 4))
        for shape in [(3,), (2, 4)]:
            assert torch.equal(whole(*shape)[2:4], part(*shape))

    def test_a_step_has_its_own(self, ctx: Context) -> None:
        first, again, second = (batch_draws(ctx, 3, "step", step)(4) for step in (0, 0, 1))
        assert torch.equal(first, again)
        assert not torch.equal(first, second)

    def test_pictures_fill_the_ball(self) -> None:
        drawn = pictures(any_draws(5), 2, (7, 4))
        assert drawn.shape == (10, 3, 7, 4)
        assert -1 <= drawn.min() < -0.98
        assert 0.98 < drawn.max() < 1


class TestPerturb:
    y = torch.tensor([0, 1, 1, 0, 1])

    @pytest.mark.parametrize("settings", [{"adv_eps": 0, "eot": 1}, {"adv_eps": 4 * LEVEL, "eot": 3}])
    def test_a_constant_gradient_ends_at_the_bound(self, settings: dict[str, Any], ctx: Context) -> None:
        game = linear_game(ctx, pad=0, **settings)
        noise = game.perturb(random_images(5), self.y, upper_draws(5))
        assert torch.allclose(noise, -8 * LEVEL * signs(game, self.y), atol=1e-6)

    def test_what_is_out_of_the_box_stays(self, ctx: Context) -> None:
        """White images with a positive start are white to the network, which gives them no gradient."""
        game = linear_game(ctx, pad=0)
        noise = game.perturb(torch.ones(5, 3, 6, 9), self.y, upper_draws(5))
        start = 8 * LEVEL * pictures(upper_draws(5), 1, (6, 9))
        assert torch.equal(noise, start)
        assert start.min() >= 0

    def test_what_leaves_the_box_stops_there(self, ctx: Context) -> None:
        game = linear_game(ctx, pad=0)
        noise = game.perturb(torch.zeros(5, 3, 6, 9), self.y, upper_draws(5))
        falls = signs(game, self.y) > 0
        assert (noise[~falls] - 8 * LEVEL).abs().max() < 1e-6
        assert noise[falls].max() < 0
        assert noise[falls].min() >= -1.6 * LEVEL - 1e-6

    def test_gradients_of_all_transforms_are_summed(self, ctx: Context) -> None:
        """One step against autograd through clipping, transforms and the network."""
        data = corners(6)
        game = REM(surrogate="linear", adv_eps=0, eot=4, pad=3, steps=1).game(data, ctx)
        start = torch.Generator().manual_seed(5)
        x, y = torch.rand(6, 3, 12, 10, generator=start), game.labels
        noise = game.perturb(x, y, any_draws(6))

        same = any_draws(6)
        d = (8 * LEVEL * pictures(same, 1, data.size)).requires_grad_()
        crops = Crops.draw(same, 4, 3)
        seen = crops.cut((x + d).clamp(0, 1).repeat_interleave(4, 0)) - 0.5
        loss = F.cross_entropy(game.network(seen), y.repeat_interleave(4), reduction="sum")
        [gradient] = torch.autograd.grad(loss, d)
        expected = (d - 1.6 * LEVEL * gradient.sign()).clamp(-8 * LEVEL, 8 * LEVEL)
        assert ((noise - expected).abs() > 1e-6).float().mean() < 0.002  # signs of sums that are all but zero
        assert (gradient == 0).any()  # cut off by every transform, or out of the box

    def test_the_gradient_is_taken_where_the_adversary_is(self, ctx: Context) -> None:
        """A loss |v| whose adversary starts, and stays, on the other side of zero than the noisy image."""

        class Even(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                sizes = x.abs().flatten(1).sum(1)
                return torch.stack([-sizes, sizes], 1)

        game = linear_game(ctx, pad=0, eot=1, steps=1, adv_step=LEVEL, adv_steps=4)
        game.network = Even()
        noise_transform_adversary = iter([0.55, 0.55, 0.05])  # 0.8 levels, no mirror, 3.6 levels down
        noise = game.perturb(
            torch.full((5, 3, 6, 9), 0.5),
            torch.zeros(5, dtype=torch.long),
            lambda *shape: torch.full((5, *shape), next(noise_transform_adversary)),
        )
        assert torch.allclose(noise, torch.full_like(noise, (0.8 + 1.6) * LEVEL), atol=1e-6)

    def test_transforms_are_one_forward(self, ctx: Context) -> None:
        game = linear_game(ctx, steps=2, adv_steps=3, eot=4)
        sizes: list[int] = []
        game.network.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
        game.perturb(random_images(5), self.y, upper_draws(5))
        assert sizes == [20] * (2 * (3 + 1))

    def test_an_image_does_not_depend_on_its_batch(self, ctx: Context) -> None:
        data = random_set(9, (12, 10))
        game = REM(**QUICK, eot=2, pad=2).game(data, ctx)
        x = to_unit(data.images, "cpu")
        whole = game.perturb(x, game.labels, own_draws(ctx, slice(0, 9)))
        parts = [game.perturb(x[w], game.labels[w], own_draws(ctx, w)) for w in (slice(0, 4), slice(4, 5), slice(5, 9))]
        assert ((torch.cat(parts) - whole).abs() > 1e-6).float().mean() < 0.002

    def test_the_network_is_left_alone(self, ctx: Context) -> None:
        data = corners()
        game = REM(**QUICK).game(data, ctx)
        game.train()
        before = {name: value.clone() for name, value in game.network.state_dict().items()}
        game.perturb(to_unit(data.images, "cpu"), game.labels, own_draws(ctx, slice(0, 40)))
        assert all(torch.equal(value, before[name]) for name, value in game.network.state_dict().items())
        assert not any(module.training for module in game.network.modules())
        assert all(parameter.grad is None or not parameter.requires_grad for parameter in game.network.parameters())


class TestAdversary:
    def test_it_goes_up_the_loss_to_its_bound(self, ctx: Context) -> None:
        game = linear_game(ctx)
        y = torch.tensor([0, 1, 1, 0, 1])
        seen = random_images(5) - 0.5
        worst = game.attacked(seen, y, pictures(any_draws(5), 1, (6, 9)), 10)
        assert torch.allclose(worst, seen + 4 * LEVEL * signs(game, y), atol=1e-6)

    def test_it_stays_in_the_ball_and_in_the_box(self, ctx: Context) -> None:
        game = linear_game(ctx, adv_step=3 * LEVEL)
        seen = torch.rand(5, 3, 6, 9, generator=torch.Generator().manual_seed(6)).round() - 0.5
        worst = game.attacked(seen, torch.ones(5, dtype=torch.long), pictures(any_draws(5), 1, (6, 9)), 10)
        assert 3.9 * LEVEL < (worst - seen).abs().max() <= 4 * LEVEL + 1e-6
        assert worst.abs().max() == 0.5

    def test_no_radius_is_no_adversary(self, ctx: Context) -> None:
        seen = random_images(5) - 0.5
        game = linear_game(ctx, adv_eps=0)
        assert torch.equal(game.attacked(seen, torch.zeros(5, dtype=torch.long), torch.ones_like(seen), 10), seen)


class TestTraining:
    def test_the_network_learns_from_whole_levels_less_half(self, ctx: Context) -> None:
        data = corners()
        game = REM(**WITHOUT_ADVERSARY).game(data, ctx)
        seen: list[Tensor] = []
        game.network.register_forward_pre_hook(
            lambda module, inputs: seen.append(inputs[0].detach()) if module.training else None
        )
        game.train()
        levels = (seen[0] + 0.5) * 255
        assert len(seen) == 1
        assert (levels - levels.round()).abs().max() < 1e-3
        clean = to_unit(data.images[game.next_batch()], "cpu") * 255
        moved = torch.minimum((levels - clean).abs().amax((1, 2, 3)), (levels.flip(3) - clean).abs().amax((1, 2, 3)))
        assert (moved.round() == 8).all()

    def test_it_learns_from_crops(self, ctx: Context) -> None:
        """No image is black anywhere, but what frames it is."""
        for pad in (0, 3):
            game = REM(**WITHOUT_ADVERSARY, pad=pad).game(corners(), ctx)
            seen: list[Tensor] = []
            game.network.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0].detach()))
            game.train()
            black = (seen[-1] == -0.5).any(1)
            assert black.any() == (pad > 0)
            assert not black[:, 3:-3, 3:-3].any()

    def test_it_learns_from_the_adversarys_images(self, ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
        game = REM(**QUICK).game(corners(), ctx)
        worst: list[Tensor] = []
        seen: list[Tensor] = []
        attacked: Callable[..., Tensor] = game.attacked

        def noted(*given: Any) -> Tensor:
            worst.append(attacked(*given))
            return worst[-1]

        monkeypatch.setattr(game, "attacked", noted)
        game.network.register_forward_pre_hook(
            lambda module, inputs: seen.append(inputs[0].detach()) if module.training else None
        )
        game.train()
        assert torch.equal(seen[0], worst[-1])

    def test_batches_are_shuffled_and_whole(self, ctx: Context) -> None:
        game = REM(**QUICK).game(corners(40), ctx)
        first, second, third = (game.next_batch() for game.trained in range(3))
        assert len({*first.tolist(), *second.tolist()}) == 32
        assert {len(b) for b in (first, second, third)} == {16}
        assert first.tolist() != third.tolist() != list(range(16))

    def test_the_rate_falls_after_two_and_four_fifths(self, ctx: Context) -> None:
        game = REM(surrogate=NET).game(corners(), ctx)
        rates = [game.rate() for game.trained in (0, 1999, 2000, 3999, 4000, 4999)]
        assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
        game = REM(**QUICK, decay=2).game(corners(), ctx)
        game.trained = 5
        game.train()
        assert game.optimizer.param_groups[0]["lr"] == pytest.approx(0.001)

    def test_noisy_images_are_easy_under_attack(self, ctx: Context) -> None:
        """What REM is for: its network's adversarial loss is small on images with their noise, not with any other."""
        data = corners(60)
        game = REM(**QUICK | {"train_steps": 40, "batch": 30, "steps": 5}).game(data, ctx)
        game.play(ctx.scratch / "state.pt")
        x = to_unit(data.images, "cpu")
        noise = game.perturb(x, game.labels, own_draws(ctx, slice(0, 60)))

        def loss(images: Tensor) -> float:
            start = pictures(any_draws(60), 1, data.size)
            worst = game.attacked((images - 0.5).clamp(-0.5, 0.5), game.labels, start, game.adv_steps)
            return F.cross_entropy(game.network(worst), game.labels).item()

        other = game.eps * pictures(any_draws(60), 1, data.size)
        assert loss(x + noise) < 0.3 * min(loss(x), loss(x + other))


PROTECTORS = [REM(**QUICK), REM(**QUICK, eot=2, pad=2), REM(**WITHOUT_ADVERSARY)]
each = pytest.mark.parametrize("protector", PROTECTORS, ids=lambda p: p.selector.replace(NET, "net"))


@each
def test_images_stay_within_the_budget_and_in_order(protector: REM, ctx: Context) -> None:
    data = corners()
    protected = protector.protect(data, ctx)
    assert np.array_equal(protected.labels, data.labels)
    assert protected.images.shape == data.images.shape
    assert protected.images.dtype == np.uint8
    moved = np.abs(difference(protected, data)).max(axis=(1, 2, 3))
    assert (moved == 8).all()  # all images, also those that a last, smaller batch would hold
    again = protector.protect(data, replace(ctx, artifacts=ctx.artifacts / "new"))
    assert np.array_equal(again.images, protected.images)
    other = protector.protect(data, replace(ctx, seed=1))
    assert not np.array_equal(other.images, protected.images)
    assert not list((ctx.artifacts / "unfinished").iterdir())


def test_layers_may_run_in_half_precision(ctx: Context) -> None:
    data = corners()
    protected = REM(**QUICK).protect(data, replace(ctx, precision="bf16"))
    assert np.abs(difference(protected, data)).max(axis=(1, 2, 3)).tolist() == [8] * len(data)


@each
def test_the_width_of_the_last_pass_moves_nothing(
    protector: REM, ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = corners()
    whole = protector.protect(data, ctx)
    monkeypatch.setattr(rem, "CPU_BATCH", 7)
    parts = protector.protect(data, replace(ctx, artifacts=ctx.artifacts / "new"))
    # Sums in another order can turn the sign of a gradient that is all but zero.
    assert (whole.images != parts.images).mean() < 0.002


@pytest.mark.parametrize(
    ("deadly", "left"),
    # Six training steps, saved at four and six, then five batches.
    [pytest.param(6, 2 + 5, id="training"), pytest.param(10, 2, id="last pass")],
)
def test_a_killed_generation_continues(deadly: int, left: int, ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    data, protector = corners(), REM(**QUICK)
    monkeypatch.setattr(rem, "CPU_BATCH", 8)
    monkeypatch.setattr(rem_rounds, "SAVE_EVERY", 4)
    whole = protector.protect(data, replace(ctx, artifacts=ctx.artifacts / "whole"))
    calls: list[int] = []
    perturb = RobustMinMin.perturb

    def dying(self: RobustMinMin, *given: Any) -> Tensor:
        calls.append(1)
        if len(calls) == deadly:
            raise KeyboardInterrupt
        return perturb(self, *given)

    monkeypatch.setattr(RobustMinMin, "perturb", dying)
    with pytest.raises(KeyboardInterrupt):
        protector.protect(data, ctx)
    continued = protector.protect(data, ctx)
    assert np.array_equal(continued.images, whole.images)
    assert len(calls) == deadly + left


@pytest.mark.parametrize("labels", [[0], [1, 1, 1], [2, 0, 0, 0, 1]], ids=str)
def test_few_images_and_classes_without_any(labels: list[int], ctx: Context) -> None:
    data = image_set(np.full((len(labels), 9, 16, 3), 100, np.uint8), labels, classes=3)
    protected = REM(**QUICK, pad=4).protect(data, ctx)
    assert np.abs(difference(protected, data)).max(axis=(1, 2, 3)).tolist() == [8] * len(labels)


def test_black_and_white_are_cut_off(ctx: Context) -> None:
    data = corners()
    data = data.with_images(np.where(data.images > 110, 255, 0).astype(np.uint8))
    moved = difference(REM(**QUICK).protect(data, ctx), data)
    assert (moved[data.images == 0].min(), moved[data.images == 255].max()) == (0, 0)
    assert np.abs(moved).max() == 8


def test_a_radius_between_levels_is_kept(ctx: Context) -> None:
    data = corners()
    assert np.abs(difference(REM(**QUICK, eps=7.6 / 255).protect(data, ctx), data)).max() == 7


@pytest.mark.parametrize(
    ("settings", "images", "passes"),
    [
        # Forward and backward to the image for 12.8 * (550 + 10) + 550 images, 12.8 training passes.
        ({}, 50_000, (12.8 * 560 + 550) * 2 / 3 + 12.8),
        ({"adv_eps": 0}, 50_000, (12.8 * 50 + 50) * 2 / 3 + 12.8),
        ({"preset": "micro"}, 10_000, 3.84 * (30 * 2 / 3 + 5 * 2 / 3 + 1) + 30 * 2 / 3),
        ({"preset": "micro"}, 10, 600 * (30 * 2 / 3 + 5 * 2 / 3 + 1) + 30 * 2 / 3),
    ],
)
def test_cost_is_that_of_all_passes(settings: dict[str, Any], images: int, passes: float) -> None:
    assert REM(**settings).cost(images).passes == pytest.approx(passes)


def test_presets(ctx: Context) -> None:
    paper = REM(surrogate=NET).game(corners(), ctx)
    assert (paper.step, paper.adv_step) == pytest.approx((1.6 / 255, 0.8 / 255))
    assert (paper.steps, paper.adv_steps, paper.eot) == (10, 10, 5)
    assert (paper.pad, paper.train_steps, paper.decay) == (4, 5000, 2000)
    assert REM().setting("batch") == 128
    assert REM().budget == "linf 8/255"
    imagenet = REM(surrogate=NET, train_steps=3000).game(corners(), ctx)
    assert imagenet.decay == 1200
    micro = REM(preset="micro", surrogate=NET, eps="16/255", decay=7).game(corners(), ctx)
    assert micro.step == pytest.approx(3.2 / 255)
    assert (micro.steps, micro.eot, micro.decay) == (5, 1, 7)


def test_presets_hold_every_parameter_that_is_left_to_them() -> None:
    plugin: Any = registry().find("protector", "rem").plugin_class
    derived = {"step", "adv_step", "decay"}
    for preset in ("paper", "micro"):
        assert {f for f, info in plugin.model_fields.items() if info.default is None} - derived == set(
            plugin.PRESETS[preset]
        )
    assert plugin(preset="micro").uses_networks


def test_a_training_that_diverges_protects_nothing(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rem_rounds, "RATE", 1e30)
    with pytest.raises(Diverged, match=r"at step [2-6] of 6: .* of the network at play not finite"):
        REM(**QUICK).protect(corners(), ctx)
