"""DeepConfuse: its look-ahead against oracles, its rounds on nets that train in a second."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sets import corners
from torch import Tensor, nn
from torch.nn import functional as F

from ue_bench.api import Context, Diverged, ImageSet, UserError
from ue_bench.catalogue.registry import registry
from ue_bench_baselines import deepconfuse_rounds
from ue_bench_baselines.deepconfuse import DeepConfuse
from ue_bench_baselines.deepconfuse_rounds import Confusion, lookahead, split
from ue_bench_baselines.pgd import to_unit
from ue_bench_baselines.presets import MICRO_NETWORK
from ue_bench_baselines.unet import UNet

from .helpers import difference, image_set, random_set, same, weights_of

pytestmark = pytest.mark.usefixtures("one_thread")
NET = "resnet9[width=4,blocks=1]"
QUICK: dict[str, Any] = {
    "preset": "trial", "surrogate": NET, "width": 2, "rounds": 2, "interval": 1, "judge_epochs": 1, "batch": 12,
}  # fmt: skip


class TestGenerator:
    @pytest.mark.parametrize("size", [(32, 32), (12, 10), (33, 20), (5, 7), (1, 2)], ids=str)
    def test_noise_has_the_size_of_the_image(self, size: tuple[int, int]) -> None:
        found = UNet(2)(torch.rand(3, 3, *size))
        assert found.shape == (3, 3, *size)
        assert 0.1 < found.abs().max() <= 1

    def test_channels_are_those_of_the_paper(self) -> None:
        convolutions = [m for m in UNet(64).modules() if isinstance(m, nn.Conv2d)]
        assert [(m.in_channels, m.out_channels) for m in convolutions] == [
            (3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512), (512, 512),
            (768, 256), (256, 256), (384, 128), (128, 128), (192, 64), (64, 64), (64, 3),
        ]  # fmt: skip

    def test_each_block_works_at_half_the_resolution(self) -> None:
        net = UNet(2)
        sizes: list[tuple[int, ...]] = []
        for block in (*net.down, net.bottom, *net.up):
            block.register_forward_hook(lambda module, given, out: sizes.append(tuple(out.shape[2:])))
        net(torch.rand(2, 3, 21, 16))
        assert sizes == [(21, 16), (11, 8), (6, 4), (3, 2), (6, 4), (11, 8), (21, 16)]

    def test_an_image_does_not_depend_on_its_batch(self, ctx: Context) -> None:
        data = corners()
        game = DeepConfuse(**QUICK).game(data, ctx)
        for _ in range(3):
            game.train()  # statistics are no longer those of the start
        game.hand_over()
        x = to_unit(data.images, "cpu")
        with torch.no_grad():
            whole = game.protected(game.frozen, x) - x
            parts = torch.cat([game.protected(game.frozen, part) - part for part in x.split(7)])
        assert whole.abs().max() <= 0.032 + 1e-6
        assert torch.allclose(parts, whole, atol=1e-6)
        game.wide = 7
        assert (np.abs(difference(game.shown, data) - whole.permute(0, 2, 3, 1).numpy() * 255) < 0.51).all()


class TestSplit:
    labels = np.repeat([0, 1, 2, 4], [40, 20, 4, 1])

    def test_it_is_stratified(self) -> None:
        training, validation = split(self.labels, 0.1, np.random.default_rng(0))
        assert sorted([*training, *validation]) == list(range(65))
        assert np.bincount(self.labels[validation], minlength=5).tolist() == [4, 2, 1, 0, 0]

    def test_it_is_drawn(self) -> None:
        first, again, other = (split(self.labels, 0.1, np.random.default_rng(seed))[1].tolist() for seed in (0, 0, 1))
        assert first == again != other

    def test_something_is_left_to_train_on(self) -> None:
        training, _ = split(self.labels, 0.99, np.random.default_rng(0))
        assert np.unique(self.labels[training]).tolist() == [0, 1, 2, 4]

    @pytest.mark.parametrize("labels", [[0], [1, 1], [0, 1, 2, 3]], ids=str)
    def test_too_few_images_are_refused(self, labels: list[int], ctx: Context) -> None:
        data = image_set(np.full((len(labels), 9, 16, 3), 100, np.uint8), labels, classes=4)
        with pytest.raises(UserError, match="two images of a class"):
            DeepConfuse(**QUICK).protect(data, ctx)


class TestRound:
    def test_what_each_player_sees(self, ctx: Context) -> None:
        """The look-ahead the target's images and then clean ones, the classifier the frozen generator's."""
        data = corners()
        game = DeepConfuse(**QUICK).game(data, ctx)
        game.train()
        rows = game.next_batch()
        x = to_unit(data.images[rows], "cpu")
        targets = game.protected(copy.deepcopy(game.target), x).detach()
        seen: list[Tensor] = []
        game.classifier.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
        game.train()
        assert len(seen) == 3
        assert torch.equal(seen[0], targets)
        assert torch.equal(seen[1], x)
        assert torch.equal(seen[2], to_unit(game.shown.images[rows], "cpu"))
        with torch.no_grad():
            assert (seen[2] - game.protected(game.frozen, x)).abs().max() < 0.51 / 255
        assert (seen[2] - seen[0]).abs().max() > 2 / 255

    def test_the_frozen_generator_moves_between_rounds_only(self, ctx: Context) -> None:
        game = DeepConfuse(**QUICK).game(corners(), ctx)
        start = weights_of(game.frozen)
        assert same(start, game.target.state_dict())
        for _ in range(4):
            game.train()
        assert same(game.frozen.state_dict(), start)
        assert not any(module.training for module in game.frozen.modules())
        learned = weights_of(game.target)
        assert not torch.equal(learned["head.0.weight"], start["head.0.weight"])
        game.hand_over()
        game.learn()
        assert same(game.frozen.state_dict(), learned)
        assert same(game.target.state_dict(), learned)  # nothing of it moves while it is judged

    def test_the_classifier_takes_plain_steps(self, ctx: Context) -> None:
        game = DeepConfuse(**QUICK, classifier_rate=0.3).game(corners(), ctx)
        rows = game.next_batch()
        before = copy.deepcopy(game.classifier)
        F.cross_entropy(before(to_unit(game.shown.images[rows], "cpu")), game.labels[rows]).backward()
        game.train()
        for old, new in zip(before.parameters(), game.classifier.parameters(), strict=True):
            assert old.grad is not None
            assert torch.allclose(new, old - 0.3 * old.grad, atol=1e-6)

    def test_every_classifier_is_another(self, ctx: Context) -> None:
        game = DeepConfuse(**QUICK).game(corners(), ctx)
        first = [weights_of(game.classifier)]
        game.hand_over()
        first.append(weights_of(game.classifier))
        game.judge()
        first.append(weights_of(game.classifier))
        game.hand_over()
        first.append(weights_of(game.classifier))
        assert len({weights["0.0.weight"].sum().item() for weights in first}) == 4

    def test_the_generator_goes_up_its_objective(self, ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
        """On one batch, before a classifier that stays as it is."""
        data = corners()
        game = DeepConfuse(**QUICK | {"width": 4}, eps=0.1, rate=0.003).game(data, ctx)
        monkeypatch.setattr(game, "descend", lambda rows: torch.zeros(()))
        rows = game.next_batch()
        x, y = to_unit(data.images[rows], "cpu"), game.labels[rows]

        def objective() -> float:
            with torch.no_grad():
                seen = game.protected(copy.deepcopy(game.target), x)
            return lookahead(game.classifier, seen, x, y, game.classifier_rate).item()

        before = objective()
        for _ in range(25):
            game.train()
        assert objective() > 1.1 * before

    def test_batches_are_shuffled_and_hold_nothing_of_the_judges_images(
        self, ctx: Context, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data = corners(50, classes=2)
        game = DeepConfuse(**QUICK | {"batch": 20}).game(data, ctx)
        batches: list[list[int]] = []

        def noted(self: Confusion, rows: np.ndarray) -> Tensor:
            batches.append(rows.tolist())
            return torch.zeros(())

        monkeypatch.setattr(Confusion, "descend", noted)
        game.play(ctx.scratch / "state.pt", 2)
        assert np.bincount(data.labels[game.validation]).tolist() == [2, 2]
        assert {len(rows) for rows in batches} == {20}
        assert not set(game.validation) & {row for rows in batches for row in rows}
        epochs = [{*a, *b} for a, b in zip(batches[::2], batches[1::2], strict=True)]
        assert [len(epoch) for epoch in epochs] == [40] * 4
        assert len({frozenset(epoch) for epoch in epochs}) > 1

    def test_the_set_is_protected_once_for_each_frozen_generator(
        self, ctx: Context, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """And only the last one is still on the disk."""
        folders: list[int] = []
        published = Confusion.published

        def counted(self: Confusion, ctx: Context) -> ImageSet:
            found = published(self, ctx)
            folders.append(len(list(self.ctx.scratch.glob("*/*.npy"))))
            return found

        monkeypatch.setattr(Confusion, "published", counted)
        game = DeepConfuse(**QUICK).game(corners(), ctx)
        game.play(ctx.scratch / "state.pt", 3)
        assert folders == [1, 1, 1, 1]  # as it began, and after each round
        game.finish()
        assert folders[4:] == [0]


class TestJudge:
    def test_it_is_judged_in_eval_mode_on_clean_images_that_are_held_out(self, ctx: Context) -> None:
        data = corners(60)
        game = DeepConfuse(**QUICK).game(data, ctx)
        game.wide = 4
        game.train()
        modes: list[bool] = []
        seen: list[Tensor] = []

        def look(module: nn.Module, inputs: tuple[Tensor]) -> None:
            modes.append(module.training)
            seen.append(inputs[0])

        game.classifier.register_forward_pre_hook(look)
        accuracy = game.accuracy()
        assert modes == [False, False]
        assert torch.equal(torch.cat(seen), to_unit(data.images[game.validation], "cpu"))
        with torch.no_grad():
            guessed = game.classifier(torch.cat(seen)).argmax(1).numpy()
        assert accuracy == (guessed == data.labels[game.validation]).mean()

    def test_the_best_generator_is_kept(self, ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
        told = iter([0.5, 0.3, 0.4, 0.3])
        judged: list[dict[str, Tensor]] = []

        def accuracy(self: Confusion) -> float:
            judged.append(weights_of(self.frozen))
            return next(told)

        monkeypatch.setattr(Confusion, "accuracy", accuracy)
        game = DeepConfuse(**QUICK).game(corners(), ctx)
        game.play(ctx.scratch / "state.pt", 4)
        assert game.scores == [0.5, 0.3, 0.4, 0.3]
        assert game.best is not None
        assert same(game.best, judged[1])
        assert not same(game.best, judged[3])

    def test_one_is_kept_even_if_its_judge_is_always_right(self, ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Confusion, "accuracy", lambda self: 1.0)
        game = DeepConfuse(**QUICK).game(corners(), ctx)
        game.play(ctx.scratch / "state.pt", 1)
        assert game.best is not None


def test_images_stay_within_the_budget_and_in_order(ctx: Context) -> None:
    data = corners()
    protected = DeepConfuse(**QUICK).protect(data, ctx)
    assert np.array_equal(protected.labels, data.labels)
    assert (protected.images.shape, protected.images.dtype) == (data.images.shape, np.dtype(np.uint8))
    moved = np.abs(difference(protected, data)).max(axis=(1, 2, 3))
    assert moved.min() > 0  # the judges' images are protected too
    assert moved.max() <= 8
    again = DeepConfuse(**QUICK).protect(data, replace(ctx, artifacts=ctx.artifacts / "new"))
    assert np.array_equal(again.images, protected.images)
    other = DeepConfuse(**QUICK).protect(data, replace(ctx, seed=1))
    assert not np.array_equal(other.images, protected.images)
    assert not list((ctx.artifacts / "unfinished").iterdir())


def test_layers_may_run_in_half_precision(ctx: Context) -> None:
    data = corners()
    seen: list[torch.dtype] = []
    half = replace(ctx, precision="bf16")
    game = DeepConfuse(**QUICK).game(data, half)
    game.target.register_forward_hook(lambda module, inputs, out: seen.append(out.dtype))
    game.train()
    assert seen == [torch.bfloat16]
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in game.target.parameters())
    assert np.abs(difference(DeepConfuse(**QUICK).protect(data, half), data)).max() <= 8


@pytest.mark.parametrize(
    ("deadly", "left"),
    # Rounds of three steps of the game and three of a judge, saved at 2, 4 and their end.
    [(2, 12), (6, 8), (12, 2)],
)
def test_a_killed_generation_continues(deadly: int, left: int, ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    data, protector = corners(), DeepConfuse(**QUICK)
    monkeypatch.setattr(deepconfuse_rounds, "SAVE_EVERY", 2)
    whole = protector.protect(data, replace(ctx, artifacts=ctx.artifacts / "whole"))
    steps: list[int] = []
    descend = Confusion.descend

    def dying(self: Confusion, rows: np.ndarray) -> Tensor:
        steps.append(1)
        if len(steps) == deadly:
            raise KeyboardInterrupt
        return descend(self, rows)

    monkeypatch.setattr(Confusion, "descend", dying)
    with pytest.raises(KeyboardInterrupt):
        protector.protect(data, ctx)
    continued = protector.protect(data, ctx)
    assert np.array_equal(continued.images, whole.images)
    assert len(steps) == deadly + left


@pytest.mark.parametrize(("count", "size", "classes"), [(45, (20, 33), 4), (30, (9, 16), 17), (5, (8, 9), 2)])
def test_any_size_and_number_of_classes(count: int, size: tuple[int, int], classes: int, ctx: Context) -> None:
    data = random_set(count, size, classes)
    protected = DeepConfuse(**QUICK).protect(data, ctx)
    assert protected.images.shape == data.images.shape
    assert np.abs(difference(protected, data)).max() <= 8


def test_progress_goes_up(ctx: Context) -> None:
    reports: list[tuple[float, str]] = []
    watched = replace(ctx, report=lambda done, total, text: reports.append((done / total, text)))
    DeepConfuse(**QUICK).game(corners(), watched).play(ctx.scratch / "state.pt", 2)
    assert [done for done, _ in reports] == pytest.approx([*(np.arange(12) / 12), 1])
    assert reports[0][1] == "round 1"
    assert reports[8][1].startswith("round 2, lowest accuracy")


def test_presets(ctx: Context) -> None:
    open_fields = {f for f, info in DeepConfuse.model_fields.items() if info.default is None}
    for preset in ("paper", "trial"):
        assert open_fields - {"weights"} == set(DeepConfuse.PRESETS[preset])
    paper = DeepConfuse(surrogate=NET).game(corners(500), ctx)
    assert (paper.batch, paper.classifier_rate, paper.eps) == (256, 0.01, 0.032)
    assert (paper.game_steps, paper.judge_steps) == (20, 20)
    assert paper.adam.param_groups[0]["lr"] == 1e-4
    assert (paper.sgd.param_groups[0]["lr"], paper.sgd.param_groups[0]["momentum"]) == (0.01, 0)
    assert DeepConfuse().uses_networks
    cost = DeepConfuse().cost(50_000)
    assert cost is not None
    assert cost.victim == "resnet18"
    assert cost.passes == pytest.approx(1000 * (20 * 7 + 20) * 0.9)
    assert DeepConfuse(preset="trial").PRESETS["trial"]["surrogate"] == MICRO_NETWORK
    with pytest.raises(UserError, match="preset=micro"):  # a name for what protects on a small scale, as this does not
        registry().resolve("protector", "deepconfuse[preset=micro]")


def test_parameters() -> None:
    [found] = registry().resolve("protector", "deepconfuse[eps=8/255,rounds=3,validation=0.2]")
    assert found == DeepConfuse(eps=8 / 255, rounds=3, validation=0.2)
    assert DeepConfuse(eps="8/255").budget == "linf 8/255"
    assert DeepConfuse().budget == "linf 0.032"


@pytest.mark.parametrize("judge", [False, True])
def test_a_judge_that_diverges_does_not_find_its_generator_the_best(
    judge: bool, ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its guesses would all be the first class."""
    descend = Confusion.descend

    def wild(self: Confusion, rows: np.ndarray) -> Tensor:
        self.sgd.param_groups[0]["lr"] = 1e30 if judge == (self.step >= self.game_steps) else 0.01
        return descend(self, rows)

    monkeypatch.setattr(Confusion, "descend", wild)
    with pytest.raises(Diverged, match=r"at step \d of 12: .* of the networks at play not finite") as caught:
        DeepConfuse(**QUICK).protect(corners(), ctx)
    assert caught.value.step is not None
    assert (caught.value.step > 3) is judge
