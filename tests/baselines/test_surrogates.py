"""EM, TAP and their kin on nets that train in a second."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sets import corners

from ue_bench.api import Context, Diverged, ImageSet
from ue_bench.catalogue.registry import registry
from ue_bench_baselines import em, em_rounds, pgd, pue_rounds, tap
from ue_bench_baselines.advin import ADVINLike
from ue_bench_baselines.em import EM
from ue_bench_baselines.em_rounds import MinMin
from ue_bench_baselines.pue import PUE
from ue_bench_baselines.tap import TAP

pytestmark = pytest.mark.usefixtures("one_thread")
NET = "resnet9[width=4,blocks=1]"
QUICK_EM = {"preset": "micro", "surrogate": NET, "batch": 16, "train_steps": 2, "max_rounds": 3}
QUICK_TAP = {"preset": "micro", "surrogate": NET, "surrogate_epochs": 30, "iterations": 12, "step": "1.6/255"}

STRONG = QUICK_TAP | {"iterations": 40, "eps": "48/255", "step": "4/255"}


def change(protected: ImageSet, data: ImageSet) -> NDArray[np.int64]:
    return protected.images.astype(np.int64) - data.images


PROTECTORS = [
    EM(**QUICK_EM),
    EM(**QUICK_EM, mode="class"),
    EM(**QUICK_EM, apply="release"),
    TAP(**QUICK_TAP),
    TAP(**QUICK_TAP, augment=True),
    TAP(**QUICK_TAP, goal="untargeted", restarts=2),
    ADVINLike(**QUICK_TAP, eps="8/255", surrogate_training="at[steps=1]"),
    PUE(**QUICK_EM),
    PUE(**QUICK_EM, mode="sample", steps=1),
]
each = pytest.mark.parametrize("protector", PROTECTORS, ids=lambda p: f"{p.name}-{getattr(p, 'mode', p.budget)}")


@each
def test_images_stay_within_the_budget_and_in_order(protector: Any, ctx: Context) -> None:
    data = corners()
    protected = protector.protect(data, ctx)
    assert np.array_equal(protected.labels, data.labels)
    assert protected.images.shape == data.images.shape
    moved = change(protected, data)
    assert 4 < abs(moved).max() <= 8
    again = protector.protect(data, replace(ctx, artifacts=ctx.artifacts / "new"))
    assert np.array_equal(again.images, protected.images)
    assert not list((ctx.artifacts / "unfinished").iterdir())


@each
def test_the_width_of_batches_moves_nothing(protector: Any, ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    data = corners()
    whole = protector.protect(data, ctx)
    monkeypatch.setattr(em, "CPU_BATCH", 7)
    monkeypatch.setattr(tap, "CPU_BATCH", 7)
    parts = protector.protect(data, replace(ctx, artifacts=ctx.artifacts / "new"))
    # Sums in another order can turn the sign of a gradient that is all but zero.
    assert (whole.images != parts.images).mean() < 0.002


@each
def test_a_killed_generation_continues(protector: Any, ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    data = corners()
    whole = protector.protect(data, replace(ctx, artifacts=ctx.artifacts / "whole"))
    calls: list[int] = []
    descend = pgd.descend
    deadly = 2 if getattr(protector, "mode", "") == "class" else 3  # in the second round, or the third batch

    def dying(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == deadly:
            raise KeyboardInterrupt
        return descend(*arguments)

    monkeypatch.setattr(tap, "CPU_BATCH", 9)  # five batches a start
    monkeypatch.setattr(em, "CPU_BATCH", 20)  # two batches a round
    for module in (pgd, em_rounds, pue_rounds):
        monkeypatch.setattr(module, "descend", dying)
    with pytest.raises(KeyboardInterrupt):
        protector.protect(data, ctx)
    before = len(calls)
    continued = protector.protect(data, ctx)
    full = len(calls) - before
    assert (continued.images != whole.images).mean() < 0.002
    calls.clear()
    calls += [1] * 10
    protector.protect(data, replace(ctx, artifacts=ctx.artifacts / "again"))
    assert full < len(calls) - 10  # some of it had been done


class TestEM:
    def test_the_net_learns_the_noise(self, ctx: Context) -> None:
        """What unlearnable means: the net is right on noisy images."""
        data = corners(60)
        game = EM(preset="micro", surrogate=NET, batch=20, max_rounds=12).game(data, ctx)
        game.play(ctx.scratch / "state.pt", 0.01, 12)
        assert game.error <= 0.01
        assert game.error == game.measure()
        assert game.rounds <= 12
        assert game.noise.abs().max() <= 8 / 255 + 1e-6

    def test_a_damaged_state_is_not_resumed(self, ctx: Context, caplog: pytest.LogCaptureFixture) -> None:
        state = ctx.scratch / "state.pt"
        whole = EM(**QUICK_EM).game(corners(), ctx)
        whole.play(state, 0, 1)
        state.write_bytes(state.read_bytes()[:-100])
        again = EM(**QUICK_EM).game(corners(), ctx)
        again.play(state, 0, 1)
        assert torch.equal(again.noise, whole.noise)
        assert "is not used" in caplog.text

    def test_noise_may_leave_the_box_by_one_step(self, ctx: Context) -> None:
        data = corners().with_images(np.where(corners().images > 110, 255, 0).astype(np.uint8))
        game = EM(**QUICK_EM).game(data, ctx)
        game.play(ctx.scratch / "state.pt", 0, 3)
        noisy = data.images.transpose(0, 3, 1, 2) / 255 + game.noise.numpy()
        assert -1.6 / 255 - 1e-6 <= noisy.min() < -1e-4
        assert 1e-4 < noisy.max() - 1 <= 1.6 / 255 + 1e-6

    def test_a_class_has_one_noise(self, ctx: Context) -> None:
        data = corners()
        moved = change(EM(**QUICK_EM, mode="class").protect(data, ctx), data)  # no pixel is near black or white
        for label in range(3):
            assert len(np.unique(moved[data.labels == label], axis=0)) == 1
        assert len(np.unique(moved, axis=0)) == 3

    def test_a_class_moves_by_the_mean_of_its_images(self, ctx: Context) -> None:
        data = corners(30)
        game = EM(**QUICK_EM, mode="class", steps=1).game(data, ctx)
        game.train()
        rows = game.fifth()
        assert np.bincount(data.labels[rows]).tolist() == [2, 2, 2]
        x, y = game.images(rows), game.labels[rows]
        moved = game.stepped(x, game.noise[y], y)
        game.perturb_classes()
        for label in range(3):
            assert torch.allclose(game.noise[label], moved[y == label].mean(0), atol=1e-6)

    def test_the_release_drops_what_darkens(self, ctx: Context) -> None:
        data = corners()
        signed, release = (EM(**QUICK_EM, apply=how).protect(data, replace(ctx, artifacts=ctx.artifacts / how))
                           for how in ("signed", "release"))  # fmt: skip
        moved = change(release, data)
        assert moved.min() == 0
        assert np.array_equal(moved > 0, np.floor(np.maximum(change(signed, data), 0)) > 0) or moved.max() == 8

    def test_training_takes_the_images_in_their_order(self, ctx: Context) -> None:
        game = EM(**QUICK_EM).game(corners(40), ctx)
        batches = []
        for _ in range(4):
            batches.append(game.next_batch().tolist())
            game.trained += 1
        assert batches == [list(range(16)), list(range(16, 32)), list(range(32, 40)), list(range(16))]

    def test_classes_are_trained_on_shuffled_whole_batches(self, ctx: Context) -> None:
        game = EM(**QUICK_EM, mode="class").game(corners(40), ctx)
        first, second, third = (game.next_batch() for game.trained in range(3))
        assert len({*first.tolist(), *second.tolist()}) == 32
        assert {len(b) for b in (first, second, third)} == {16}
        assert first.tolist() != list(range(16))

    def test_presets(self, ctx: Context) -> None:
        data = corners(40)
        paper = EM(surrogate=NET).game(data, ctx)
        assert (paper.steps, paper.step, paper.train_steps, paper.batch) == (20, 0.8 / 255, 10, 40)
        assert EM(surrogate=NET, mode="class").game(data, ctx).steps == 1
        assert EM(preset="micro", steps=3).game(data, ctx).steps == 3
        assert isinstance(paper, MinMin)


class TestTAP:
    def accuracy(self, data: ImageSet, labels: NDArray[np.int64], ctx: Context) -> float:
        protector = TAP(**QUICK_TAP)
        net = ctx.surrogate(data, NET, **protector.recipe())
        with torch.no_grad():
            return float((net(pgd.to_unit(data.images, "cpu")).argmax(1).numpy() == labels).mean())

    def test_the_surrogate_takes_images_for_the_next_class(self, ctx: Context) -> None:
        data = corners(60)
        net = ctx.surrogate(data, NET, **TAP(**QUICK_TAP).recipe())
        protected = TAP(**STRONG).protect(data, ctx)
        with torch.no_grad():
            before = net(pgd.to_unit(data.images, "cpu")).argmax(1).numpy()
            after = net(pgd.to_unit(protected.images, "cpu")).argmax(1).numpy()
        assert (before == data.labels).mean() > 0.9
        assert (after == (data.labels + 1) % 3).mean() > 0.9

    def test_untargeted_images_leave_their_class(self, ctx: Context) -> None:
        data = corners(60)
        net = ctx.surrogate(data, NET, **TAP(**QUICK_TAP).recipe())
        protected = TAP(**STRONG, goal="untargeted").protect(data, ctx)
        with torch.no_grad():
            after = net(pgd.to_unit(protected.images, "cpu")).argmax(1).numpy()
        assert (after == data.labels).mean() < 0.1

    def test_the_best_start_is_kept_for_all_images(self, ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
        found = {}

        def restart(self: TAP, data: ImageSet, ctx: Context, net: Any, key: Any, number: int, of: int) -> Any:
            found[number] = data.with_images(data.images + np.uint8(number))
            return found[number], [5.0, 3.0, 4.0][number]

        monkeypatch.setattr(TAP, "_restart", restart)
        data = corners()
        assert np.array_equal(TAP(**QUICK_TAP, restarts=3).protect(data, ctx).images, data.images + np.uint8(1))


class TestADVINLike:
    def test_it_is_tap_on_a_robust_net(self, ctx: Context) -> None:
        data = corners()
        given = QUICK_TAP | {"eps": "8/255"}
        found = ADVINLike(**given).protect(data, ctx)
        same = TAP(**given, surrogate_training="at[steps=5]").protect(data, ctx)
        assert np.array_equal(found.images, same.images)
        assert len(list((ctx.artifacts / "plugin").iterdir())) == 1  # the robust net is shared

    def test_presets(self) -> None:
        paper, micro = ADVINLike(), ADVINLike(preset="micro")
        assert paper.budget == "linf 32/255"
        assert paper.setting("surrogate_training") == "at"
        assert paper.cost(50_000).passes == pytest.approx(100 * (1 + 10 * 2 / 3) + 250 * 2 / 3)
        assert micro.cost(10).passes == pytest.approx(4 * (1 + 5 * 2 / 3) + 100 * 2 / 3)
        assert TAP().cost(50_000).passes == pytest.approx(40 + 8 * 250 * 2 / 3)


class TestPUE:
    def test_without_disturbance_it_is_em(self, ctx: Context) -> None:
        data = corners()
        plain, found = (
            protector.protect(data, replace(ctx, artifacts=ctx.artifacts / protector.name))
            for protector in (EM(**QUICK_EM, mode="class"), PUE(**QUICK_EM, disturbance=0, train_draws=1))
        )
        assert np.array_equal(found.images, plain.images)
        disturbed = PUE(**QUICK_EM).protect(data, ctx)
        assert not np.array_equal(disturbed.images, plain.images)

    def test_deviations(self) -> None:
        assert PUE().deviations == pytest.approx([0.05 * number for number in range(21)])
        assert PUE(disturbance=0.12).deviations == pytest.approx([0, 0.05, 0.1])
        assert PUE(preset="micro", increment=0.1).deviations == pytest.approx([0, 0.1])

    @pytest.mark.parametrize(
        ("disturbance", "count"),
        [(0.05, 2), (0.1, 3), (0.15, 3), (0.2, 5), (0.25, 6), (0.3, 6), (0.35, 7), (0.5, 11), (0.6, 12), (0.7, 14),
         (1.0, 21)],
    )  # fmt: skip
    def test_as_many_deviations_as_the_release_has(self, disturbance: float, count: int) -> None:
        """One more than the whole part of the float quotient: 0.15, 0.3, 0.35 and 0.6 have fewer than in decimals."""
        assert len(PUE(disturbance=disturbance).deviations) == count

    def test_weights_are_disturbed_by_as_much_and_stay_what_they_are(self, ctx: Context) -> None:
        """A net that sums its input: its logits tell its weights."""

        class Weights(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.own = torch.nn.Parameter(torch.full((40_000,), 3.0))

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.own + 0 * x

        game: Any = PUE(**QUICK_EM).game(corners(), ctx)
        game.network = Weights()
        found = game.passed(torch.zeros(1), 0.5, "here", 1).detach()
        assert float(found.mean()) == pytest.approx(3, abs=0.01)
        assert float(found.std()) == pytest.approx(0.5, rel=0.02)
        assert torch.equal(game.passed(torch.zeros(1), 0.5, "here", 1), found)
        assert not torch.equal(game.passed(torch.zeros(1), 0.5, "here", 2), found)
        assert torch.equal(game.passed(torch.zeros(1), 0, "here", 1), game.network.own)

    @pytest.mark.parametrize(
        ("disturbance", "draws", "weight"), [(0.12, 2, 0.4597442831759318), (0.0, 1, 0.5), (0.0, 3, 0.5)]
    )
    def test_a_batch_moves_the_weights_as_the_release_does(
        self, disturbance: float, draws: int, weight: float, ctx: Context
    ) -> None:
        """One weight from 0, loss log(1 + exp(-w)), a rate of 1, neither momentum nor decay nor noise.

        Golden values of the released formula: three deviations of two draws, divided by all six; by the draws alone
        they would make 1.171228.
        """

        class Sign(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.w = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return torch.stack([self.w, torch.zeros_like(self.w)])[None]

        game: Any = PUE(**QUICK_EM, disturbance=disturbance, train_draws=draws).game(corners(), ctx)
        game.network = Sign()
        game.optimizer = torch.optim.SGD(game.network.parameters(), 1.0)
        game.passed = lambda x, deviation, *axes: game.network(x)
        loss = game.learn(torch.zeros(1, 3, 2, 2), torch.zeros(1, dtype=torch.long))
        assert float(game.network.w.detach()) == pytest.approx(weight, abs=1e-12)
        assert 0.4 < float(loss) <= math.log(2) + 1e-6

    def test_gradients_are_cut_after_every_draw(self, ctx: Context) -> None:
        """A gradient of 8 in each of 4 draws: what is summed has norms of 2, 4, 5 and 5."""

        class Slope(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.w = torch.nn.Parameter(torch.zeros(1))

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return torch.stack([0 * self.w[0], 8 * self.w[0] + 60])[None]  # a loss of 8 w + 60

        game: Any = PUE(**QUICK_EM, disturbance=0, train_draws=4).game(corners(), ctx)
        game.network = Slope()
        game.optimizer = torch.optim.SGD(game.network.parameters(), 1.0)
        norms: list[float] = []

        def passed(x: torch.Tensor, deviation: float, *axes: object) -> torch.Tensor:
            norms.append(0.0 if game.network.w.grad is None else float(game.network.w.grad.norm()))
            logits: torch.Tensor = game.network(x)
            return logits

        game.passed = passed
        game.learn(torch.zeros(1, 3, 2, 2), torch.zeros(1, dtype=torch.long))
        assert [*norms, -float(game.network.w.detach())] == pytest.approx([0, 2, 4, 5, 5], abs=1e-4)

    def test_each_deviation_takes_one_training_step_on_its_draws(self, ctx: Context) -> None:
        game: Any = PUE(**QUICK_EM, train_draws=4).game(corners(), ctx)
        game.network.train()
        passes: list[float] = []
        passed = game.passed

        def watched(x: Any, deviation: float, *axes: object) -> Any:
            passes.append(deviation)
            return passed(x, deviation, *axes)

        game.passed = watched
        steps: list[int] = []
        game.optimizer.register_step_post_hook(lambda *_: steps.append(len(passes)))
        game.learn(game.images(slice(0, 16)), game.labels[:16])
        assert passes == pytest.approx([0] * 4 + [0.05] * 4 + [0.1] * 4)
        assert steps == [4, 8, 12]

    def test_noise_takes_a_step_for_each_deviation_down_the_mean(self, ctx: Context) -> None:
        """Logits that are linear in the image: a step is along the sign of the mean slope of the draws."""
        game: Any = PUE(**QUICK_EM, disturbance=0.1, noise_draws=3, steps=1).game(corners(), ctx)
        slopes = torch.randn(5, 3, 12, 10, generator=torch.Generator().manual_seed(0))
        calls: list[tuple[object, ...]] = []

        def passed(x: Any, deviation: float, *axes: object) -> Any:
            loss = (x * slopes[len(calls) % 5]).sum((1, 2, 3))
            calls.append((deviation, *axes))
            return torch.stack([torch.zeros_like(loss), loss + 60], 1)  # a loss of all but that

        game.passed = passed
        x, y = torch.full((2, 3, 12, 10), 0.5), torch.zeros(2, dtype=torch.long)
        found = game.stepped(x, torch.zeros_like(x), y, 7)
        assert [c[0] for c in calls] == pytest.approx([0, 0.05, 0.05, 0.05, 0.1, 0.1, 0.1])
        assert len(set(calls)) == 7
        # Draws 1 to 3 and 4, 0, 1 make the means of the second and third step.
        ways = [slopes[0], slopes[1:4].mean(0), slopes[[4, 0, 1]].mean(0)]
        expected = torch.stack([-1.6 / 255 * way.sign() for way in ways]).sum(0)
        assert torch.allclose(found, torch.stack([expected] * 2), atol=1e-6)

    def test_cost(self) -> None:
        plain, full = EM(mode="class", batch=128).cost(50_000), PUE().cost(50_000)
        training, noise = 10 * 128 / 50_000, 2 / 3
        assert plain.passes == pytest.approx(10 * (training + 0.2 * (noise + 1 / 3)))
        assert full.passes == pytest.approx(10 * (training * 2100 + 0.2 * (noise * 201 + 1 / 3)))


def test_surrogates_are_trained_once_and_shared(ctx: Context) -> None:
    data = corners()
    TAP(**QUICK_TAP).protect(data, ctx)
    [kept] = (ctx.artifacts / "plugin").iterdir()
    TAP(**QUICK_TAP, goal="untargeted").protect(data, ctx)
    assert list((ctx.artifacts / "plugin").iterdir()) == [kept]
    TAP(**QUICK_TAP, surrogate_training="at[steps=1]").protect(data, ctx)
    assert len(list((ctx.artifacts / "plugin").iterdir())) == 2


@pytest.mark.parametrize("name", ["em", "tap", "advin-like", "pue"])
def test_presets_hold_every_parameter_that_is_left_to_them(name: str) -> None:
    plugin: Any = registry().find("protector", name).plugin_class
    open_fields = {f for f, info in plugin.model_fields.items() if info.default is None} - {"step", "surrogate_epochs"}
    for preset in ("paper", "micro"):
        assert open_fields <= set(plugin.PRESETS[preset])
    assert plugin(preset="micro").uses_networks


@pytest.mark.parametrize("kind", [EM, PUE])
def test_a_network_at_play_that_diverges_protects_nothing(kind: type[EM], ctx: Context) -> None:
    game = kind(**QUICK_EM).game(corners(), ctx)
    game.optimizer.param_groups[0]["lr"] = 1e38
    with pytest.raises(Diverged, match=r"at step \d+ of \d+: .* of the network at play not finite"):
        game.play(ctx.scratch / "state.pt", 0, 3)
    assert not (ctx.scratch / "state.pt").exists()
