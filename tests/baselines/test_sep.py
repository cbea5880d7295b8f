"""SEP on nets that train in a second, and its descent on losses whose answer is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sets import corners
from torch import Tensor

from ue_bench.api import Context, UserError
from ue_bench.contract.protocol import Protocol
from ue_bench_baselines import pgd, sep
from ue_bench_baselines.presets import MICRO_NETWORK
from ue_bench_baselines.sep import SEP, half_way_round

from .helpers import difference

pytestmark = pytest.mark.usefixtures("one_thread")
NET = "resnet9[width=4,blocks=1]"
QUICK: dict[str, Any] = {
    "preset": "micro", "surrogate": NET, "surrogate_epochs": 120, "checkpoints": 3, "iterations": 6, "step": "2/255",
}  # fmt: skip

each = pytest.mark.parametrize("variant", ["sep", "fa", "fa-vr"])


@pytest.fixture
def ctx(ctx: Context, artifacts: Path) -> Context:
    """All tests share one surrogate."""
    return replace(ctx, artifacts=artifacts)


def test_targets_are_half_way_round() -> None:
    assert half_way_round(np.arange(10)).tolist() == [5, 6, 7, 8, 9, 0, 1, 2, 3, 4]
    assert half_way_round(np.array([0, 99, 1, 50])).tolist() == [50, 1, 99, 0]  # four classes have images
    assert half_way_round(np.array([4, 4, 7])).tolist() == [7, 7, 4]
    assert half_way_round(np.array([0, 1, 2])).tolist() == [1, 2, 0]
    with pytest.raises(UserError, match="images of two classes"):
        half_way_round(np.array([3, 3]))


class TestDescent:
    x = torch.full((2, 3, 6, 5), 0.5)
    slopes = torch.randn(4, 2, 3, 6, 5, generator=torch.Generator().manual_seed(0))

    @each
    def test_constant_gradients_are_averaged(self, variant: Any, ctx: Context) -> None:
        protector = SEP(variant=variant, checkpoints=4, iterations=5, step="2/255", eps="7/255")
        found = protector.descend(self.x, lambda state, p: self.slopes[state], ctx)
        assert torch.allclose(found, -self.slopes.mean(0).sign() * 7 / 255, atol=1e-6)  # five steps of 2, cut at 7

    def test_variance_reduction_step_by_step(self, ctx: Context) -> None:
        """Quadratic losses, in NumPy and in the order of the paper's algorithm."""
        protector = SEP(checkpoints=4, inner=3, iterations=4, step="1/255", eps="3/255")
        centres = 0.5 + 0.01 * self.slopes
        weights = torch.tensor([1.0, 5.0, 0.2, 2.0])

        def gradient(state: int, p: Tensor) -> Tensor:
            return weights[state] * (p - centres[state])

        found = protector.descend(self.x, gradient, ctx)

        draws = ctx.rng("states").integers(4, size=(4, 3))
        c, w, outer = centres.numpy(), weights.numpy(), np.full(self.x.shape, 0.5, np.float32)
        for drawn in draws:
            full = sum(w[j] * (outer - c[j]) for j in range(4)) / 4
            inner, met = outer.copy(), np.zeros_like(outer)
            for j in drawn:
                met = met + w[j] * (inner - c[j]) - (w[j] * (outer - c[j]) - full)
                inner = np.clip(inner - np.sign(met) / 255, 0.5 - 3 / 255, 0.5 + 3 / 255)
            outer = np.clip(outer - np.sign(met) / 255, 0.5 - 3 / 255, 0.5 + 3 / 255)
        agree = np.isclose((self.x + found).numpy(), outer, atol=1e-6)
        assert agree.mean() > 0.99  # the sign of what is all but zero may turn

    def test_gradients_are_taken_within_the_box(self, ctx: Context) -> None:
        seen = []

        def gradient(state: int, p: Tensor) -> Tensor:
            seen.append((float(p.min()), float(p.max())))
            return torch.where(p > 0.5, -1.0, 1.0)  # outwards

        for variant in ("sep", "fa-vr"):
            SEP(variant=variant, preset="micro").descend(self.x.round(), gradient, ctx)
            SEP(variant=variant, preset="micro").descend(1 - self.x.round(), gradient, ctx)
        assert min(low for low, _ in seen) >= 0
        assert max(high for _, high in seen) <= 1


@each
def test_images_stay_within_the_budget_and_in_order(variant: Any, ctx: Context) -> None:
    data = corners(classes=4)
    protected = SEP(**QUICK, variant=variant).protect(data, ctx)
    assert np.array_equal(protected.labels, data.labels)
    assert np.abs(difference(protected, data)).max() == 8
    again = SEP(**QUICK, variant=variant).protect(data, ctx)
    assert np.array_equal(again.images, protected.images)
    assert not list((ctx.artifacts / "unfinished").iterdir())


@each
def test_a_killed_generation_continues_in_batches_of_any_width(
    variant: Any, ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = corners(classes=4)
    whole = SEP(**QUICK, variant=variant).protect(data, ctx)
    calls: list[int] = []
    descend = SEP.descend

    def dying(self: SEP, x: Tensor, *others: Any) -> Tensor:
        calls.append(len(x))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return descend(self, x, *others)

    monkeypatch.setattr(SEP, "descend", dying)
    monkeypatch.setattr(sep, "CPU_BATCH", 9)
    with pytest.raises(KeyboardInterrupt):
        SEP(**QUICK, variant=variant).protect(data, ctx)
    continued = SEP(**QUICK, variant=variant).protect(data, ctx)
    assert calls == [9, 9, 9, 9, 9, 4]
    # Sums in another order can turn the sign of a gradient that is all but zero.
    assert (continued.images != whole.images).mean() < 0.005


@each
def test_every_state_takes_images_for_the_class_half_way_round(variant: Any, ctx: Context) -> None:
    data = corners(60, classes=4)
    protector = SEP(**QUICK | {"iterations": 30, "eps": "48/255", "step": "3/255"}, variant=variant)
    protected = protector.protect(data, ctx)
    states = ctx.checkpoints(data, NET, 3, **protector.recipe())
    wanted = half_way_round(data.labels)
    assert set(zip(data.labels.tolist(), wanted.tolist(), strict=True)) == {(0, 2), (1, 3), (2, 0), (3, 1)}
    for state in states:
        with torch.no_grad():
            before = state(pgd.to_unit(data.images, "cpu")).argmax(1).numpy()
            after = state(pgd.to_unit(protected.images, "cpu")).argmax(1).numpy()
        assert (before == wanted).mean() < 0.2
        assert (after == wanted).mean() > 0.8


def test_presets() -> None:
    paper = SEP()
    recipe = Protocol(name="surrogate", version=1, summary="", source="", **paper.recipe())
    assert [recipe.rate(e * 391, 120 * 391) for e in (0, 74, 75, 89, 90)] == pytest.approx(
        [0.1, 0.1, 0.01, 0.01, 0.001]
    )
    for variant, states in (("sep", 30), ("fa", 30), ("fa-vr", 15)):
        protector = SEP(variant=variant)
        means = 0 if variant == "sep" else states / 3
        # 900 gradients an image in all variants
        cost = protector.cost(10)
        assert cost.victim == "resnet18"
        assert cost.passes == pytest.approx(120 + means + 900 * 2 / 3)
    cost = SEP(preset="micro").cost(10)
    assert cost.victim == MICRO_NETWORK
    assert cost.passes == pytest.approx(8 + 4 / 3 + 80 * 2 / 3)
    assert SEP(preset="micro", checkpoints=7).states == 7
    assert SEP(eps="2/255").budget == "linf 2/255"


def test_more_states_than_epochs(ctx: Context) -> None:
    with pytest.raises(UserError, match="5 states of a network that is trained for 4 epochs"):
        SEP(**QUICK | {"checkpoints": 5, "surrogate_epochs": 4}).protect(corners(classes=4), ctx)
