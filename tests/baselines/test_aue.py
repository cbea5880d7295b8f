"""AUE and AAP: their steps against EM's and known answers, their training on nets that train in a second."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sets import corners
from torch import Tensor
from torch.nn import functional as F

from ue_bench.api import Context, Diverged, Protector
from ue_bench.catalogue.registry import registry
from ue_bench_baselines import aap, aue, aue_rounds, pgd, view_training
from ue_bench_baselines.aap import AAP
from ue_bench_baselines.aue import AUE
from ue_bench_baselines.pgd import to_unit
from ue_bench_baselines.presets import MICRO_NETWORK
from ue_bench_baselines.view_training import ViewTraining
from ue_bench_baselines.views import ViewDraws

from .helpers import difference
from .test_rem import Linear

pytestmark = pytest.mark.usefixtures("one_thread")
NET = "resnet9[width=4,blocks=1]"
QUICK_AUE: dict[str, Any] = {"preset": "micro", "surrogate": NET, "epochs": 3, "batch": 16, "steps": 3}
QUICK_AAP: dict[str, Any] = {
    "preset": "micro", "surrogate": NET, "surrogate_epochs": 20, "batch": 16, "iterations": 6,
}  # fmt: skip
PROTECTORS: list[Protector] = [
    AUE(**QUICK_AUE), AUE(**QUICK_AUE, strength=0), AAP(**QUICK_AAP), AAP(**QUICK_AAP, goal="untargeted"),
]  # fmt: skip
each = pytest.mark.parametrize("protector", PROTECTORS, ids=lambda p: p.selector.replace(NET, "net"))
LEVEL = 1 / 255


@each
def test_images_stay_within_the_budget_and_in_order(protector: Protector, ctx: Context) -> None:
    data = corners()
    protected = protector.protect(data, ctx)
    assert np.array_equal(protected.labels, data.labels)
    assert (protected.images.shape, protected.images.dtype) == (data.images.shape, np.dtype(np.uint8))
    assert 4 < np.abs(difference(protected, data)).max() <= 8
    again = protector.protect(data, replace(ctx, artifacts=ctx.artifacts / "new"))
    assert np.array_equal(again.images, protected.images)
    other = protector.protect(data, replace(ctx, seed=1))
    assert not np.array_equal(other.images, protected.images)
    assert not list((ctx.artifacts / "unfinished").iterdir())


@each
def test_the_width_of_batches_moves_nothing(
    protector: Protector, ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = corners()
    whole = protector.protect(data, ctx)
    monkeypatch.setattr(aue, "CPU_BATCH", 7)
    monkeypatch.setattr(aap, "CPU_BATCH", 7)
    parts = protector.protect(data, replace(ctx, artifacts=ctx.artifacts / "new"))
    # Sums in another order can turn the sign of a gradient that is all but zero.
    assert (whole.images != parts.images).mean() < 0.005


@pytest.mark.parametrize("deadly", [2, 4])
@each
def test_a_killed_generation_continues(
    deadly: int, protector: Protector, ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the second epoch of AUE and its last; in the second batch of AAP and the fourth."""
    data = corners()
    monkeypatch.setattr(aue, "CPU_BATCH", 20)
    monkeypatch.setattr(aap, "CPU_BATCH", 9)
    whole = protector.protect(data, replace(ctx, artifacts=ctx.artifacts / "whole"))
    calls: list[int] = []
    descend = pgd.descend

    def dying(*given: Any) -> Any:
        calls.append(1)
        if len(calls) == deadly:
            raise KeyboardInterrupt
        return descend(*given)

    for module in (pgd, aue_rounds):
        monkeypatch.setattr(module, "descend", dying)
    with pytest.raises(KeyboardInterrupt):
        protector.protect(data, ctx)
    assert np.array_equal(protector.protect(data, ctx).images, whole.images)


class TestTraining:
    def training(self, ctx: Context, **changes: Any) -> ViewTraining:
        data = corners(20)
        options: dict[str, Any] = {"strength": 0.0, "epochs": 4, "warm_up": 0, "batch": 8, "rate": 0.1}
        return ViewTraining(data, ctx, ctx.network(data, NET), **options | changes)

    def seen(self, training: ViewTraining) -> list[Tensor]:
        batches: list[Tensor] = []
        training.network.register_forward_pre_hook(
            lambda module, inputs: batches.append(inputs[0].detach()) if module.training else None
        )
        return batches

    def test_an_epoch_is_every_image_once_with_its_noise_uncut(self, ctx: Context) -> None:
        training = self.training(ctx)
        batches = self.seen(training)
        noise = torch.randn(20, 3, 12, 10, generator=torch.Generator().manual_seed(0))
        training.learn(noise)
        assert [len(batch) for batch in batches] == [8, 8, 4]
        noisy = to_unit(training.data.images, "cpu") + noise
        met = torch.cat(batches)
        assert torch.equal(met[met.sum((1, 2, 3)).argsort()], noisy[noisy.sum((1, 2, 3)).argsort()])
        assert not training.network.training

    def test_batches_and_views_are_drawn_for_each_epoch(self, ctx: Context) -> None:
        training = self.training(ctx, strength=0.6, batch=20)
        batches = self.seen(training)
        training.learn()
        training.learn()
        clean = to_unit(training.data.images, "cpu")
        assert not torch.allclose(batches[0], clean, atol=0.01)
        assert not torch.allclose(batches[0], batches[1], atol=0.01)

    def test_rates(self, ctx: Context) -> None:
        training = self.training(ctx, epochs=60)
        rates = [training.current_rate() for training.epoch in (0, 30, 59)]
        assert rates == pytest.approx([0.1, 0.05, 1e-6 + 0.1 * (1 - np.cos(np.pi / 60)) / 2], rel=1e-4)
        training = self.training(ctx, epochs=40, warm_up=10, rate=0.5)
        rates = [training.current_rate() for training.epoch in (0, 4, 9, 10, 25)]
        assert rates == pytest.approx([0.05, 0.25, 0.5, 0.5, 0.25], rel=1e-4)

    def test_it_takes_steps_with_weight_decay_and_no_clipping(self, ctx: Context) -> None:
        training = self.training(ctx, batch=20, rate=0.3)
        before = ctx.network(training.data, NET).train()
        F.cross_entropy(before(to_unit(training.data.images, "cpu")), training.labels).backward()
        training.learn()
        for old, new in zip(before.parameters(), training.network.parameters(), strict=True):
            assert old.grad is not None
            assert torch.allclose(new, old - 0.3 * (old.grad + 1e-4 * old), atol=1e-5)

    def test_it_is_trained_once_for_a_recipe(self, ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
        data = corners()
        first = AAP(**QUICK_AAP).trained(data, ctx).state_dict()
        monkeypatch.setattr(ViewTraining, "learn", None)
        again = AAP(**QUICK_AAP, goal="untargeted").trained(data, ctx).state_dict()
        assert all(torch.equal(first[name], again[name]) for name in first)

    def test_training_that_was_killed_continues(self, ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
        data = corners()
        whole = AAP(**QUICK_AAP).trained(data, replace(ctx, artifacts=ctx.artifacts / "whole")).state_dict()
        epochs: list[int] = []
        learn = ViewTraining.learn

        def dying(self: ViewTraining, noise: Tensor | None = None) -> None:
            epochs.append(self.epoch)
            if len(epochs) == 4:
                raise KeyboardInterrupt
            learn(self, noise)

        monkeypatch.setattr(ViewTraining, "learn", dying)
        with pytest.raises(KeyboardInterrupt):
            AAP(**QUICK_AAP).trained(data, ctx)
        continued = AAP(**QUICK_AAP).trained(data, ctx).state_dict()
        assert epochs == [0, 1, 2, 3, *range(3, 20)]
        assert all(torch.equal(whole[name], continued[name]) for name in whole)


class TestSteps:
    def test_without_views_it_is_ems_step_cut_to_the_box(self, ctx: Context) -> None:
        """Five steps of a tenth of eps by hand, as EM's equation has them."""
        data = corners(12)
        game = AUE(**QUICK_AUE | {"steps": 5}, strength=0).game(data, ctx)
        game.training.learn()
        x, y = to_unit(data.images, "cpu"), game.training.labels
        p = x
        for _ in range(5):
            p = p.detach().requires_grad_()
            [gradient] = torch.autograd.grad(F.cross_entropy(game.training.network(p), y, reduction="sum"), p)
            p = (x + (p - 0.8 * LEVEL * gradient.sign() - x).clamp(-8 * LEVEL, 8 * LEVEL)).clamp(0, 1)
        game.perturb()
        assert ((game.noise - (p.detach() - x)).abs() > 1e-6).float().mean() < 0.002

    def test_noise_goes_on_from_where_it_was_and_stays_in_the_box(self, ctx: Context) -> None:
        data = corners(12).with_images(np.where(corners(12).images > 110, 255, 0).astype(np.uint8))
        game = AUE(**QUICK_AUE).game(data, ctx)
        sizes = []
        for _ in range(3):
            game.training.learn(game.noise)
            game.perturb()
            sizes.append(game.noise.abs().max().item())
        noisy = to_unit(data.images, "cpu") + game.noise
        assert (noisy.min().item(), noisy.max().item()) == (0, 1)
        assert 2.3 * LEVEL < sizes[0] < sizes[1] < sizes[2] <= 8 * LEVEL + 1e-6

    def test_aap_takes_a_linear_network_to_the_corner_of_the_next_class(
        self, ctx: Context, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data = corners(8, (6, 9), 2)
        net = Linear().requires_grad_(False)
        net.weights.mul_(0.01)  # a network that is sure has no gradient left
        monkeypatch.setattr(AAP, "trained", lambda self, data, ctx: net)
        for goal in ("targeted", "untargeted"):  # of two classes, the next is the only other one
            moved = difference(AAP(preset="micro", strength=0, goal=goal).protect(data, ctx), data)
            expected = 8 * net.signs(torch.tensor(data.labels)).permute(0, 2, 3, 1).numpy()
            assert np.array_equal(moved, expected)

    def test_noise_makes_views_easy(self, ctx: Context) -> None:
        """What AUE is for: its network's loss is small on views of noisy images."""
        data = corners(60)
        game = AUE(**QUICK_AUE | {"epochs": 30, "steps": 5}).game(data, ctx)
        game.play(ctx.scratch / "state.pt")
        net, x, y = game.training.network, to_unit(data.images, "cpu"), game.training.labels
        views = ViewDraws(ctx, slice(0, 60), 1, 0.6, "test")
        noisy, clean = (F.cross_entropy(net(views.viewed(v, 0)), y).item() for v in (x + game.noise, x))
        assert noisy < 0.7 * clean

    def test_aap_makes_its_network_see_the_next_class_in_views(self, ctx: Context) -> None:
        data = corners(60)
        protector = AAP(**QUICK_AAP | {"iterations": 40, "surrogate_epochs": 60}, eps="48/255")
        protected = protector.protect(data, ctx)
        net = protector.trained(data, ctx)
        views = ViewDraws(ctx, slice(0, 60), 1, 0.4, "test")
        seen = net(views.viewed(to_unit(protected.images, "cpu"), 0)).argmax(1).numpy()
        assert (seen == (data.labels + 1) % 3).mean() > 0.8


def test_a_surrogate_that_diverges_protects_nothing(ctx: Context) -> None:
    for protector in (AUE(**QUICK_AUE, rate=1e30), AAP(**QUICK_AAP, rate=1e30)):
        with pytest.raises(Diverged, match="of the surrogate not finite"):
            protector.protect(corners(), ctx)


def test_half_precision(ctx: Context) -> None:
    for protector in (AUE(**QUICK_AUE), AAP(**QUICK_AAP)):
        moved = difference(protector.protect(corners(), replace(ctx, precision="bf16")), corners())
        assert 4 < np.abs(moved).max() <= 8


def test_presets_and_costs(ctx: Context) -> None:
    for kind in (AUE, AAP):
        left = {f for f, info in kind.model_fields.items() if info.default is None} - {"step"}
        for preset in ("paper", "micro"):
            assert left == set(kind.PRESETS[preset])
        assert kind().budget == "linf 8/255"
    assert AUE().cost(10).passes == pytest.approx(60 + 300 * 2 / 3)
    assert AAP().cost(10).passes == pytest.approx(40 + 250 * 2 / 3)
    assert AUE(preset="micro").cost(10).victim == MICRO_NETWORK
    assert AUE(surrogate=NET).game(corners(), ctx).step == pytest.approx(0.8 * LEVEL)
    found = registry().resolve("protector", "aap[strength=0.8,goal=untargeted],aue[strength=1]")
    assert found == [AAP(strength=0.8, goal="untargeted"), AUE(strength=1)]


def test_nothing_of_views_is_drawn_without_them(ctx: Context) -> None:
    assert not hasattr(ViewDraws(ctx, slice(0, 3), 2, 0), "drawn")
    assert view_training.LEAST_RATE == 1e-6
