"""GUE: its multiplier and losses against golden values, its game on nets that train in a second, released weights."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from sets import corners
from torch import Tensor, nn
from torch.nn import functional as F

from ue_bench.api import Context, Diverged, UserError
from ue_bench.catalogue.registry import registry
from ue_bench_baselines import gue_rounds
from ue_bench_baselines.gue import GUE
from ue_bench_baselines.gue_rounds import Stackelberg, multiplier, protected, wrong_class_loss
from ue_bench_baselines.pgd import to_unit
from ue_bench_baselines.released_unet import BLOCKS
from ue_bench_baselines.unet import UNet

from .helpers import difference, random_set

pytestmark = pytest.mark.usefixtures("one_thread")
NET = "resnet9[width=4,blocks=1]"
QUICK: dict[str, Any] = {"surrogate": NET, "width": 2, "epochs": 2, "batch": 12, "answers": 3}


def released(network: nn.Module) -> dict[str, Tensor]:
    """Return the weights of a U-Net under the names of the releases."""
    names = {ours: theirs for theirs, ours in BLOCKS.items()}
    found = {}
    for name, value in network.state_dict().items():
        ours = max((prefix for prefix in names if name.startswith(prefix + ".")), key=len)
        found[names[ours] + name[len(ours) :]] = value
    return found


def some_unet(width: int = 3) -> UNet:
    """A U-Net with statistics of its own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        network = UNet(width)
        network.train()(torch.rand(8, 3, 16, 16))
    return network.eval()


class TestLosses:
    def test_golden_loss_of_the_least_likely_wrong_class(self) -> None:
        logits = torch.tensor([[2.0, 1, 0, -1]], dtype=torch.float64)
        assert wrong_class_loss(logits, torch.tensor([0])).item() == pytest.approx(3.4401896985611953, abs=1e-14)
        assert wrong_class_loss(logits, torch.tensor([3])).item() == pytest.approx(2.4401896985611953, abs=1e-14)

    def test_it_is_least_where_all_wrong_classes_are_alike(self) -> None:
        """log(C - 1), with nothing left for the own class."""
        logits = torch.tensor([[-50.0, 0, 0, 0, 0]], dtype=torch.float64)
        assert wrong_class_loss(logits, torch.tensor([0])).item() == pytest.approx(np.log(4))

    def test_golden_multiplier(self) -> None:
        upper, lower, leader = (
            [torch.tensor([1.0, 1.0]).double()],
            [torch.tensor([1.0, 2.0]).double()],
            [torch.tensor([2.0]).double()],
        )
        assert multiplier(upper, lower, leader, 1.5).item() == pytest.approx(1.1666666654, abs=1e-10)
        assert multiplier([5 * upper[0]], lower, leader, 1.5).item() == 0  # <u, q> is 15, eta N 13.5
        assert multiplier(upper, [0 * lower[0]], [0 * leader[0]], 1.5).item() == 0


class TestStep:
    def test_by_hand(self, ctx: Context) -> None:
        """One step of both players from the equations, with autograd on copies."""
        data = corners()
        game = GUE(**QUICK, rate=0.3, classifier_rate=0.05).game(data, ctx)
        rows = game.next_batch()
        x, y = to_unit(data.images[rows], "cpu"), game.labels[rows]
        theta, phi = copy.deepcopy(game.classifier), copy.deepcopy(game.generator)

        noisy = (x + 8 / 255 * phi(x)).clamp(0, 1)
        answer = copy.deepcopy(theta)
        adam = torch.optim.Adam(answer.parameters(), 1e-4)
        for _ in range(3):
            adam.zero_grad()
            F.cross_entropy(answer(noisy.detach()), y).backward()
            adam.step()
        answer.requires_grad_(False)
        u = torch.autograd.grad(wrong_class_loss(theta(x), y), list(theta.parameters()))
        gap = F.cross_entropy(theta(noisy), y) - F.cross_entropy(answer(noisy), y)
        q_theta = torch.autograd.grad(gap, list(theta.parameters()), retain_graph=True)
        q_phi = torch.autograd.grad(gap, list(phi.parameters()))
        norm = sum((g**2).sum() for g in (*q_theta, *q_phi))
        inner = sum((a * b).sum() for a, b in zip(u, q_theta, strict=True))
        mu = max(0.0, float((1.5 * norm - inner) / (norm + 1e-8)))
        game.train()
        for new, old, g in zip(game.generator.parameters(), phi.parameters(), q_phi, strict=True):
            assert torch.allclose(new, old - 0.3 * mu * g, atol=1e-6)
        for new, old, a, b in zip(game.classifier.parameters(), theta.parameters(), u, q_theta, strict=True):
            assert torch.allclose(new, old - 0.05 * (a + mu * b), atol=1e-5)
        assert mu > 0

    def test_the_answer_learns_and_the_classifier_stays(self, ctx: Context) -> None:
        data = corners()
        game = GUE(**QUICK | {"answers": 30, "answer_rate": 0.01}).game(data, ctx)
        x, y = to_unit(data.images, "cpu"), game.labels
        before = copy.deepcopy(game.classifier.state_dict())
        answer = game.answer(x, y)
        assert F.cross_entropy(answer(x), y) < 0.5 * F.cross_entropy(copy.deepcopy(game.classifier)(x), y)
        assert all(torch.equal(value, before[name]) for name, value in game.classifier.state_dict().items())

    def test_batches_are_shuffled_and_whole(self, ctx: Context) -> None:
        game = GUE(**QUICK).game(corners(40), ctx)
        batches = [game.next_batch().tolist() for game.step in range(6)]
        assert {len(batch) for batch in batches} == {12}
        assert len({row for batch in batches[:3] for row in batch}) == 36
        assert batches[:3] != batches[3:]


def test_images_stay_within_the_budget_and_in_order(ctx: Context) -> None:
    data = corners()
    protected_set = GUE(**QUICK).protect(data, ctx)
    assert np.array_equal(protected_set.labels, data.labels)
    moved = np.abs(difference(protected_set, data)).max(axis=(1, 2, 3))
    assert moved.min() > 0
    assert moved.max() <= 8
    again = GUE(**QUICK).protect(data, replace(ctx, artifacts=ctx.artifacts / "new"))
    assert np.array_equal(again.images, protected_set.images)
    assert not np.array_equal(GUE(**QUICK).protect(data, replace(ctx, seed=1)).images, protected_set.images)
    assert not list((ctx.artifacts / "unfinished").iterdir())


def test_images_it_never_saw_are_protected_by_the_same_generator(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    train, unseen = corners(), random_set(9, (12, 10), 3)
    GUE(**QUICK).protect(train, ctx)
    monkeypatch.setattr(Stackelberg, "play", None)
    seen = replace(ctx, learn_from=train)
    generator = GUE(**QUICK).generator(train, ctx)
    with torch.no_grad():
        expected = protected(generator, to_unit(unseen.images, "cpu"), 8 / 255, ctx)
    found = to_unit(GUE(**QUICK).protect(unseen, seen).images, "cpu")
    assert (found - expected).abs().max() < 0.51 / 255


@pytest.mark.parametrize("deadly", [2, 5])
def test_a_killed_training_continues(deadly: int, ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    data = corners()
    monkeypatch.setattr(gue_rounds, "SAVE_EVERY", 2)
    whole = GUE(**QUICK).protect(data, replace(ctx, artifacts=ctx.artifacts / "whole"))
    steps: list[int] = []
    train = Stackelberg.train

    def dying(self: Stackelberg) -> Tensor:
        steps.append(self.step)
        if len(steps) == deadly:
            raise KeyboardInterrupt
        return train(self)

    monkeypatch.setattr(Stackelberg, "train", dying)
    with pytest.raises(KeyboardInterrupt):
        GUE(**QUICK).protect(data, ctx)
    assert np.array_equal(GUE(**QUICK).protect(data, ctx).images, whole.images)
    assert steps[deadly] == (deadly - 1) // 2 * 2


def test_a_game_that_diverges_protects_nothing(ctx: Context) -> None:
    with pytest.raises(Diverged, match="of the networks at play not finite"):
        GUE(**QUICK, classifier_rate=1e30).protect(corners(), ctx)


class TestWeights:
    def test_a_released_generator_makes_the_noise(self, ctx: Context, tmp_path: Path) -> None:
        network = some_unet()
        torch.save(released(network), tmp_path / "gue.pth")
        data = random_set(10, (16, 24))
        found = GUE(weights=tmp_path / "gue.pth").protect(data, ctx)
        with torch.no_grad():
            expected = protected(network, to_unit(data.images, "cpu"), 8 / 255, ctx)
        assert (to_unit(found.images, "cpu") - expected).abs().max() < 0.51 / 255
        again = GUE(weights=tmp_path / "gue.pth").protect(data, replace(ctx, seed=9, precision="bf16"))
        assert np.array_equal(found.images, again.images)

    def test_another_file_is_refused(self, ctx: Context, tmp_path: Path) -> None:
        torch.save({"epoch": torch.zeros(1)}, tmp_path / "state.pth")
        with pytest.raises(UserError, match="is not a released generator"):
            GUE(weights=tmp_path / "state.pth").protect(corners(), ctx)

    def test_parameters_of_training_are_refused_beside_them(self, tmp_path: Path) -> None:
        with pytest.raises(ValidationError, match="epochs would do nothing"):
            GUE(weights=tmp_path / "gue.pth", epochs=3)
        assert GUE(weights=tmp_path / "gue.pth", eps="4/255").budget == "linf 4/255"

    def test_the_content_is_part_of_the_identity(self, tmp_path: Path) -> None:
        torch.save(released(some_unet(2)), tmp_path / "gue.pth")
        first = GUE(weights=tmp_path / "gue.pth")
        identity = first.identity()
        assert str(tmp_path) not in str(identity)
        assert first.cost(10) is None
        assert not first.one_size
        (tmp_path / "other").mkdir()
        torch.save(released(some_unet(3)), tmp_path / "other" / "gue.pth")
        assert GUE(weights=tmp_path / "other" / "gue.pth").identity() != identity


def test_half_precision(ctx: Context) -> None:
    moved = difference(GUE(**QUICK).protect(corners(), replace(ctx, precision="bf16")), corners())
    assert 0 < np.abs(moved).max() <= 8


def test_defaults_are_the_releases() -> None:
    fields = {name: info.default for name, info in GUE.model_fields.items()}
    assert fields == {
        "eps": 8 / 255, "weights": None, "epochs": 50, "batch": 256, "width": 64, "answers": 10, "answer_rate": 1e-4,
        "rate": 0.1, "classifier_rate": 0.01, "eta": 1.5, "surrogate": "resnet18",
    }  # fmt: skip
    cost = GUE().cost(50_000)
    assert cost is not None
    assert cost.passes == pytest.approx(50 * (12 + 2 / 3))
    assert GUE().one_size
    [found] = registry().resolve("protector", "gue[epochs=3,width=16]")
    assert found == GUE(epochs=3, width=16)
