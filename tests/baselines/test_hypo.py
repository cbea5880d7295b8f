"""HYPO on a net that trains in a second, and its descent in an L2 ball on losses whose answer is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sets import corners
from torch import Tensor

from ue_bench.api import Context, NetworkCost
from ue_bench.catalogue.registry import registry
from ue_bench.contract.protocol import Protocol
from ue_bench_baselines import hypo, pgd
from ue_bench_baselines.hypo import HYPO, descend_l2
from ue_bench_baselines.presets import MICRO_NETWORK

from .helpers import difference

pytestmark = pytest.mark.usefixtures("one_thread")
NET = "resnet9[width=4,blocks=1]"
QUICK: dict[str, Any] = {"preset": "micro", "surrogate": NET, "surrogate_epochs": 40, "iterations": 12}


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("artifacts")


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
    assert cost.victim == "resnet18"
    assert cost.passes == pytest.approx(150 + 100 * 2 / 3)
    assert HYPO(preset="micro").cost(10) == NetworkCost(MICRO_NETWORK, 8 + 30 * 2 / 3)
    recipe = Protocol(name="surrogate", version=1, summary="", source="", **HYPO().recipe())
    rates = [recipe.rate(epoch * 391, 150 * 391) for epoch in (0, 99, 100, 124, 125)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001])


def test_parameters() -> None:
    [found] = registry().resolve("protector", "hypo[goal=adversarial,norm=linf,eps=4/255]")
    assert found == HYPO(goal="adversarial", norm="linf", eps=4 / 255)
