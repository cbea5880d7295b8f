"""HYPO on a net that trains in a second, and its descent in an L2 ball on losses whose answer is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError as BadParameters
from sets import corners
from torch import Tensor

from ue_bench.api import Context, ImageSet, NetworkCost
from ue_bench.catalogue.registry import registry
from ue_bench.contract.protocol import Protocol
from ue_bench_baselines import hypo, hypo_classes, pgd
from ue_bench_baselines.hypo import HYPO, descend_l2
from ue_bench_baselines.hypo_classes import universal
from ue_bench_baselines.presets import MICRO_NETWORK

from .helpers import difference

pytestmark = pytest.mark.usefixtures("one_thread")
NET = "resnet9[width=4,blocks=1]"
QUICK: dict[str, Any] = {"preset": "micro", "surrogate": NET, "surrogate_epochs": 40, "iterations": 12}


@pytest.fixture
def ctx(ctx: Context, artifacts: Path) -> Context:
    """All tests share one surrogate."""
    return replace(ctx, artifacts=artifacts)


def norms(v: Tensor) -> Tensor:
    found: Tensor = torch.linalg.vector_norm(v.flatten(1), dim=1)
    return found


class TestDescent:
    def test_a_linear_surrogate_is_descended_straight_to_the_ball(self) -> None:
        """Logits W x: along (w_own - w_other) by eps, once the way is at least that long."""
        generator = torch.Generator().manual_seed(0)
        weights = torch.randn(2, 48, generator=generator)
        x = 0.3 + 0.4 * torch.rand(5, 3, 4, 4, generator=generator)
        labels = torch.tensor([0, 1, 0, 1, 1])

        def loss(p: Tensor, t: int) -> Tensor:
            return torch.nn.functional.cross_entropy(p.flatten(1) @ weights.T, labels, reduction="none")

        way = (weights[labels] - weights[1 - labels]).view_as(x)
        way = way / norms(way).view(-1, 1, 1, 1)
        for steps, length in [(1, 0.04), (4, 0.16), (5, 0.2), (9, 0.2)]:
            found, losses = descend_l2(x, torch.zeros_like(x), loss, 0.2, 0.04, steps)
            assert torch.allclose(found, length * way, atol=1e-6)
        assert torch.allclose(losses, loss(x + 0.2 * way, 0), atol=1e-6)
        assert not losses.requires_grad

    def test_steps_are_equally_long_however_steep_the_loss(self) -> None:
        x = torch.full((4, 3, 4, 4), 0.5)
        slopes = torch.tensor([1e-6, 1.0, 1e6, 0.0]).view(-1, 1, 1, 1)
        found, _ = descend_l2(x, torch.zeros_like(x), lambda p, t: (p * slopes).sum((1, 2, 3)), 1.0, 0.1, 3)
        assert norms(found).numpy() == pytest.approx([0.3, 0.3, 0.3, 0], abs=1e-3)

    def test_the_ball_comes_first_then_the_box(self) -> None:
        x = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(1)).round()  # black and white
        slopes = torch.randn(10, 6, 3, 8, 8, generator=torch.Generator().manual_seed(2))
        found, _ = descend_l2(x, torch.zeros_like(x), lambda p, t: (p * slopes[t]).sum((1, 2, 3)), 0.5, 0.2, 10)
        assert norms(found).max() <= 0.5 + 1e-5
        cut = pgd.boxed(x, found)
        assert (x + cut).min() >= 0
        assert (x + cut).max() <= 1
        assert (norms(cut) < norms(found)).all()

    def test_an_image_does_not_depend_on_its_batch(self) -> None:
        x = torch.rand(9, 3, 6, 6, generator=torch.Generator().manual_seed(2))
        filters = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(3))

        def loss(p: Tensor, t: int) -> Tensor:
            return torch.nn.functional.conv2d(p, filters).relu().square().mean((1, 2, 3))

        whole, _ = descend_l2(x, torch.zeros_like(x), loss, 0.5, 0.1, 6)
        parts = [descend_l2(v, torch.zeros_like(v), loss, 0.5, 0.1, 6)[0] for v in x.split(2)]
        assert torch.allclose(torch.cat(parts), whole, atol=1e-6)


def lengths(moved: NDArray[np.int64]) -> NDArray[np.float64]:
    """L2 norms on the [0, 1] scale."""
    found: NDArray[np.float64] = np.sqrt(np.square(moved / 255).sum(axis=(1, 2, 3)))
    return found


PROTECTORS = [HYPO(**QUICK), HYPO(**QUICK, goal="adversarial"), HYPO(**QUICK, norm="linf")]
each = pytest.mark.parametrize("protector", PROTECTORS, ids=lambda p: f"{p.goal}-{p.norm}")


@each
def test_images_stay_within_the_budget_and_in_order(protector: HYPO, ctx: Context) -> None:
    data = corners()
    protected = protector.protect(data, ctx)
    assert protected.images.dtype == np.uint8
    assert protected.images.shape == data.images.shape
    assert np.array_equal(protected.labels, data.labels)
    moved = difference(protected, data)
    if protector.norm == "linf":
        assert np.abs(moved).max() == 8
    else:
        most = np.sqrt(moved[0].size) / 2 / 255  # half a level a value, by rounding
        assert lengths(moved).min() > 0.4
        assert lengths(moved).max() < 0.5 + most
        assert np.abs(moved).max() > 8
    again = protector.protect(data, ctx)
    assert np.array_equal(again.images, protected.images)
    assert not list((ctx.artifacts / "unfinished").iterdir())


@each
def test_a_killed_generation_continues_in_batches_of_any_width(
    protector: HYPO, ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = corners()
    whole = protector.protect(data, ctx)
    name = "descend" if protector.norm == "linf" else "descend_l2"
    home = pgd if protector.norm == "linf" else hypo
    calls: list[int] = []
    way = getattr(home, name)

    def dying(*arguments: Any) -> Any:
        calls.append(len(arguments[0]))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return way(*arguments)

    monkeypatch.setattr(home, name, dying)
    monkeypatch.setattr(hypo, "CPU_BATCH", 9)
    with pytest.raises(KeyboardInterrupt):
        protector.protect(data, ctx)
    continued = protector.protect(data, ctx)
    assert calls == [9, 9, 9, 9, 9, 4]
    # Sums in another order can turn the sign of a gradient that is all but zero.
    assert (continued.images != whole.images).mean() < 0.002


def losses_of(images: NDArray[np.uint8], labels: NDArray[np.int64], net: Any) -> NDArray[np.float32]:
    with torch.no_grad():
        logits = net(pgd.to_unit(images, "cpu"))
    found: NDArray[np.float32] = torch.nn.functional.cross_entropy(
        logits, torch.tensor(labels), reduction="none"
    ).numpy()
    return found


def test_goals(ctx: Context) -> None:
    """Hypocritical images are easier than clean ones; adversarial ones are taken for the next class."""
    data = corners()
    net = ctx.surrogate(data, NET, **HYPO(**QUICK).recipe())
    strong = QUICK | {"iterations": 40, "eps": 6}
    own, following = data.labels, (data.labels + 1) % 3

    easier = HYPO(**QUICK).protect(data, ctx)
    moved = HYPO(**strong, goal="adversarial").protect(data, ctx)

    clean = losses_of(data.images, own, net)
    assert clean.mean() < 0.5
    assert (losses_of(easier.images, own, net) < clean).all()
    with torch.no_grad():
        guessed = net(pgd.to_unit(moved.images, "cpu")).argmax(1).numpy()
    assert (guessed == following).mean() > 0.9
    assert len(list((ctx.artifacts / "plugin").iterdir())) == 1  # one surrogate for all


def test_no_random_start(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    starts = []

    def watched(x: Tensor, start: Tensor, *others: Any) -> Any:
        starts.append(start.clone())
        return descend_l2(x, start, *others)

    monkeypatch.setattr(hypo, "descend_l2", watched)
    HYPO(**QUICK | {"iterations": 1}).protect(corners(), ctx)
    assert len(starts) == 1
    assert not starts[0].any()


class TestUniversal:
    """One perturbation a class."""

    UNIVERSAL: ClassVar[dict[str, Any]] = QUICK | {"batch": 20, "goal": "universal-hypocritical"}

    def linear(self, classes: int) -> tuple[ImageSet, torch.Tensor, Any]:
        """Images that no perturbation takes out of [0, 1], and logits W x."""
        rng = np.random.default_rng(0)
        images = rng.integers(110, 140, (30, 4, 4, 3), dtype=np.uint8)
        data = ImageSet(images, np.arange(30) % classes, tuple(f"c{k}" for k in range(classes)))
        weights = torch.randn(classes, 48, generator=torch.Generator().manual_seed(0))
        return data, weights, lambda x: x.flatten(1) @ weights.T

    def test_a_linear_surrogate_is_descended_straight_to_the_ball(self, ctx: Context) -> None:
        data, weights, network = self.linear(2)
        for wanted in (0, 1):
            way = (weights[wanted] - weights[1 - wanted]).view(3, 4, 4)
            for steps, length in [(1, 0.1), (5, 0.5), (8, 0.5)]:
                found = universal(network, data, wanted, ctx, "l2", 0.5, 0.1, steps, 8)
                assert torch.allclose(found, length * way / way.norm(), atol=1e-5)

    def test_signed_steps_stay_in_the_linf_ball(self, ctx: Context) -> None:
        data, weights, network = self.linear(2)
        way = (weights[0] - weights[1]).view(3, 4, 4).sign()
        found = universal(network, data, 0, ctx, "linf", 0.03, 0.02, 3, 8)
        assert torch.allclose(found, 0.03 * way)

    def test_every_pass_sees_every_image_once(self, ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
        data, _, network = self.linear(3)
        seen: list[NDArray[np.uint8]] = []

        def watched(images: NDArray[np.uint8], device: str) -> Tensor:
            seen.append(images)
            return pgd.to_unit(images, device)

        monkeypatch.setattr(hypo_classes, "to_unit", watched)
        universal(network, data, 1, ctx, "l2", 0.5, 0.1, 6, 10)
        assert [len(images) for images in seen] == [10] * 6
        for turn in (seen[:3], seen[3:]):
            assert sorted(images.tobytes() for images in np.concatenate(turn)) == sorted(
                images.tobytes() for images in data.images
            )
        assert not np.array_equal(seen[0], seen[3])

    @pytest.mark.parametrize("goal", ["universal-hypocritical", "universal-adversarial", "universal-random"])
    @pytest.mark.parametrize("norm", ["l2", "linf"])
    def test_all_images_of_a_class_have_the_same_within_the_bound(self, goal: Any, norm: Any, ctx: Context) -> None:
        data = corners()  # no pixel is near black or white
        given = {"goal": goal, "norm": norm} if goal == "universal-random" else self.UNIVERSAL | {"goal": goal}
        protector = HYPO(**given | {"norm": norm})
        protected = protector.protect(data, ctx)
        moved = difference(protected, data)
        for label in range(3):
            assert len(np.unique(moved[data.labels == label], axis=0)) == 1
        assert len(np.unique(moved, axis=0)) == 3
        if norm == "linf":
            assert 4 <= np.abs(moved).max() <= 8
        else:
            assert lengths(moved).max() < 0.5 + np.sqrt(moved[0].size) / 2 / 255
            assert lengths(moved).min() > 0.3
        assert np.array_equal(protector.protect(data, ctx).images, protected.images)
        assert not np.array_equal(protector.protect(data, replace(ctx, seed=1)).images, protected.images)
        assert protector.one_size

    def test_the_adversarial_ones_are_those_of_the_next_class(self, ctx: Context) -> None:
        data = corners()
        own, following = (
            difference(HYPO(**self.UNIVERSAL | {"goal": goal}).protect(data, ctx), data)
            for goal in ("universal-hypocritical", "universal-adversarial")
        )
        for label in range(3):
            mine, next_one = np.flatnonzero(data.labels == label)[0], np.flatnonzero(data.labels == (label + 1) % 3)[0]
            assert np.array_equal(following[mine], own[next_one])

    def test_they_make_any_image_look_like_the_class(self, ctx: Context) -> None:
        data = corners()
        strong = self.UNIVERSAL | {"eps": 6, "iterations": 40}
        net = ctx.surrogate(data, NET, **HYPO(**QUICK).recipe())
        for wanted in range(3):
            found = universal(net, data, wanted, ctx, "l2", 6.0, 1.2, 40, 20)
            with torch.no_grad():
                guessed = net((pgd.to_unit(data.images, "cpu") + found).clamp(0, 1)).argmax(1)
            assert float((guessed == wanted).float().mean()) > 0.9
        easier = HYPO(**strong).protect(data, ctx)
        before, after = losses_of(data.images, data.labels, net), losses_of(easier.images, data.labels, net)
        assert after.mean() < before.mean()

    def test_a_killed_generation_continues_with_the_class_it_was_at(
        self, ctx: Context, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data, protector = corners(), HYPO(**self.UNIVERSAL)
        whole = protector.protect(data, ctx)
        calls: list[int] = []

        def dying(network: Any, data: ImageSet, wanted: int, *others: Any) -> Tensor:
            calls.append(wanted)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return universal(network, data, wanted, *others)

        monkeypatch.setattr(hypo_classes, "universal", dying)
        with pytest.raises(KeyboardInterrupt):
            protector.protect(data, ctx)
        assert np.array_equal(protector.protect(data, ctx).images, whole.images)
        assert calls == [0, 1, 1, 2]
        assert not list((ctx.artifacts / "unfinished").iterdir())

    def test_random_ones_have_the_length_and_need_no_network(self, ctx: Context) -> None:
        rng = np.random.default_rng(0)
        drawn = [hypo_classes.random((12, 10), "l2", 0.5, rng) for _ in range(4)]
        assert [float(np.linalg.norm(d)) for d in drawn] == pytest.approx([0.5] * 4, abs=1e-9)
        uniform = hypo_classes.random((40, 40), "linf", 0.1, rng)
        assert -0.1 <= uniform.min() < -0.099
        assert uniform.mean() == pytest.approx(0, abs=0.005)
        protector = HYPO(goal="universal-random")
        assert not protector.uses_networks
        assert protector.classes_needed == 1
        assert protector.cost(100) is None
        protector.protect(corners(), replace(ctx, networks=None))

    @pytest.mark.parametrize(
        "given",
        [
            {"batch": 9}, {"goal": "adversarial", "batch": 9}, {"goal": "universal-random", "iterations": 3},
            {"goal": "universal-random", "preset": "micro"}, {"goal": "universal-random", "surrogate": NET},
            {"goal": "universal-random", "step": 0.1},
        ],
    )  # fmt: skip
    def test_what_would_be_ignored_is_refused(self, given: dict[str, Any]) -> None:
        with pytest.raises(BadParameters, match="would do nothing with goal="):
            HYPO(**given)

    def test_cost(self) -> None:
        found = HYPO(goal="universal-adversarial").cost(50_000)
        assert found is not None
        assert found.passes == pytest.approx(150 + 500 * 256 * 10 / 50_000 * 2 / 3)


def test_truncation_darkens_by_half_a_level(ctx: Context) -> None:
    data = corners(45, (32, 32))
    rounded, cut = (HYPO(goal="universal-random", rounding=rule).protect(data, ctx) for rule in ("round", "truncate"))
    lower = difference(rounded, cut)
    assert set(np.unique(lower)) == {0, 1}
    assert lower.mean() == pytest.approx(0.5, abs=0.03)
    assert lengths(difference(cut, data)).max() == pytest.approx(0.514, abs=0.01)  # as was measured on CIFAR-10
    signed, signed_cut = (
        HYPO(goal="universal-random", norm="linf", rounding=rule).protect(data, ctx) for rule in ("round", "truncate")
    )
    assert np.abs(difference(signed_cut, data)).max() <= 8
    assert not np.array_equal(signed.images, signed_cut.images)


@pytest.mark.parametrize(
    ("given", "bound", "length", "text"),
    [
        ({}, 0.5, 0.1, "l2 0.5"),
        ({"eps": 1}, 1.0, 0.2, "l2 1.0"),
        ({"norm": "linf"}, 8 / 255, 0.8 / 255, "linf 8/255"),
        ({"norm": "linf", "eps": "4/255", "step": "1/255"}, 4 / 255, 1 / 255, "linf 4/255"),
    ],
)
def test_bounds_and_steps(given: dict[str, Any], bound: float, length: float, text: str) -> None:
    protector = HYPO(**given)
    assert (protector.bound, protector.length) == pytest.approx((bound, length))
    assert protector.budget == text


def test_presets() -> None:
    open_fields = {f for f, info in HYPO.model_fields.items() if info.default is None}
    for preset in ("paper", "micro"):
        assert open_fields - {"eps", "step", "surrogate_epochs"} <= set(HYPO.PRESETS[preset])
    assert HYPO().uses_networks
    cost = HYPO().cost(50_000)
    assert cost is not None
    assert cost.victim == "resnet18"
    assert cost.passes == pytest.approx(150 + 100 * 2 / 3)
    assert HYPO(preset="micro").cost(10) == NetworkCost(MICRO_NETWORK, 8 + 30 * 2 / 3)
    recipe = Protocol(name="surrogate", version=1, summary="", source="", **HYPO().recipe())
    rates = [recipe.rate(epoch * 391, 150 * 391) for epoch in (0, 99, 100, 124, 125)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001])


def test_parameters() -> None:
    [found] = registry().resolve("protector", "hypo[goal=adversarial,norm=linf,eps=4/255]")
    assert found == HYPO(goal="adversarial", norm="linf", eps=4 / 255)
