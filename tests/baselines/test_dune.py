"""DUNE: its swarm against golden values, its noise against SEP's, both joined."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sets import corners
from torch import Tensor, nn

from ue_bench.api import Context, UserError
from ue_bench_baselines import dune, ensemble
from ue_bench_baselines.dune import DUNE
from ue_bench_baselines.dune_colour import cost, fitted, swarm
from ue_bench_baselines.ensemble import further_on
from ue_bench_baselines.presets import MICRO_NETWORK
from ue_bench_baselines.sep import SEP

from .helpers import difference, image_set

pytestmark = pytest.mark.usefixtures("one_thread")
NET = "resnet9[width=4,blocks=1]"
TRAINED: dict[str, Any] = {"preset": "micro", "surrogate": NET, "surrogate_epochs": 60, "checkpoints": 3}
QUICK: dict[str, Any] = TRAINED | {"iterations": 4, "step": "2/255", "images": 8}


@pytest.fixture
def ctx(ctx: Context, artifacts: Path) -> Context:
    """All tests share one surrogate."""
    return replace(ctx, artifacts=artifacts)


class TestSwarm:
    centre = np.array([0.05, -0.03, 0.02])

    def squared(self, z: np.ndarray) -> float:
        return float(((z - self.centre) ** 2).sum())

    def test_golden(self) -> None:
        """Computed from the formula with NumPy's old generator, seed 0, positions before velocities."""
        found, value = swarm(self.squared, 0.1, np.random.RandomState(0))
        assert found.tolist() == pytest.approx([0.051515, -0.028422, 0.019166], abs=5e-7)
        assert value == pytest.approx(5.481525e-6, abs=5e-13)

    def test_it_returns_the_best_that_it_evaluated(self) -> None:
        seen: list[tuple[float, tuple[float, ...]]] = []

        def noted(z: np.ndarray) -> float:
            seen.append((self.squared(z), tuple(z.tolist())))
            return seen[-1][0]

        found, value = swarm(noted, 0.1, np.random.default_rng(3))
        assert (value, tuple(found.tolist())) == min(seen)
        assert len(seen) == 100
        first = np.array([z for _, z in seen[:10]])
        assert np.abs(first).max() <= 0.1


class TestColour:
    images = np.random.default_rng(0).integers(60, 190, (5, 12, 10, 3), dtype=np.uint8)

    class Reddish(nn.Module):
        """Two classes: how red images are, and how blue."""

        def forward(self, x: Tensor) -> Tensor:
            return 20 * x.mean((2, 3))[:, ::2]

    def test_a_shift_goes_towards_the_wanted_class(self, ctx: Context) -> None:
        for wanted, sign in ((0, 1), (1, -1)):
            shift = fitted(self.images, wanted, [self.Reddish()], 0.1, ctx, 3, 7)
            assert sign * (shift[0] - shift[2]) > 0.1
        again = fitted(self.images, 1, [self.Reddish()], 0.1, ctx, 100, 7)
        assert np.allclose(again, shift, atol=1e-4)

    def test_the_cost_is_the_mean_over_states_and_what_quality_lacks(self, ctx: Context) -> None:
        class Other(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return torch.zeros(len(x), 2)

        shift = np.array([0.05, 0.05, 0.05])  # 26 dB and structure kept: nothing lacks
        reddish, both = (
            cost(self.images, shift, 0, nets, ctx) for nets in ([self.Reddish()], [self.Reddish(), Other()])
        )
        assert both == pytest.approx((reddish + np.log(2)) / 2, abs=1e-5)
        x = torch.from_numpy(self.images).permute(0, 3, 1, 2) / 255
        red, blue = (20 * (x + 0.05).mean((2, 3))[:, ::2]).double().T.numpy()
        assert reddish == pytest.approx(np.log1p(np.exp(blue - red)), abs=1e-4)

    @pytest.mark.parametrize("size", [0.15, 0.2])
    def test_what_lacks_of_twenty_decibels_costs(self, size: float, ctx: Context) -> None:
        class Sure(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return torch.tensor([[90.0, 0.0]]).expand(len(x), 2)

        found = cost(self.images, np.full(3, size), 0, [Sure()], ctx)
        assert found == pytest.approx(np.full(5, 20 + 20 * np.log10(size)), abs=0.06)  # of SSIM nothing lacks


def test_wanted_classes() -> None:
    assert further_on(np.arange(10), 3, "x").tolist() == [3, 4, 5, 6, 7, 8, 9, 0, 1, 2]
    assert further_on(np.array([0, 1, 2]), 3, "x").tolist() == [1, 2, 0]  # not the own
    assert further_on(np.array([7, 4, 4]), 3, "x").tolist() == [4, 7, 7]
    with pytest.raises(UserError, match="dune needs images of two classes"):
        further_on(np.array([2, 2]), 3, "dune")


def test_without_colour_it_is_sep_with_another_offset(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    data = corners(classes=4)
    ours = DUNE(**TRAINED, iterations=4, step="2/255", colour=0).protect(data, ctx)
    monkeypatch.setattr("ue_bench_baselines.sep.half_way_round", lambda labels, of: further_on(labels, 3, "sep", of))
    sep = SEP(**TRAINED, variant="sep", iterations=4, step="2/255").protect(data, ctx)
    assert np.array_equal(ours.images, sep.images)


def test_a_class_has_one_colour_beside_the_noise(ctx: Context) -> None:
    data = corners(classes=4)
    data = data.with_images(data.images.clip(60, 195))
    noise = difference(DUNE(**TRAINED, iterations=4, step="2/255", colour=0).protect(data, ctx), data)
    both = difference(DUNE(**QUICK).protect(data, ctx), data)
    colour = both - noise  # no pixel comes to black or white
    for label in range(4):
        pixels = colour[data.labels == label].reshape(-1, 3)
        assert (pixels.max(0) - pixels.min(0)).max() <= 1  # rounded
    assert np.abs(colour).max() > 8
    alone = difference(DUNE(**TRAINED, iterations=0, images=8).protect(data, ctx), data)
    assert np.abs(alone - colour).max() <= 1


def test_every_state_takes_images_for_the_class_three_further_on(ctx: Context) -> None:
    data = corners(60, classes=4)
    protector = DUNE(**QUICK | {"iterations": 30, "step": "3/255"}, eps="48/255", colour=0.05)
    protected = protector.protect(data, ctx)
    for state in ctx.checkpoints(data, NET, 3, **protector.recipe()):
        with torch.no_grad():
            seen = state(torch.from_numpy(protected.images.transpose(0, 3, 1, 2) / np.float32(255))).argmax(1).numpy()
        assert (seen == (data.labels + 3) % 4).mean() > 0.8


def test_images_keep_their_order_and_the_seed_matters(ctx: Context, tmp_path: Path) -> None:
    data = corners(classes=4)
    protected = DUNE(**QUICK).protect(data, ctx)
    assert np.array_equal(protected.labels, data.labels)
    assert np.square(difference(protected, data)).mean(axis=(1, 2, 3)).max() < 40**2
    again = DUNE(**QUICK).protect(data, replace(ctx, artifacts=tmp_path / "new"))
    assert np.array_equal(again.images, protected.images)
    assert not np.array_equal(DUNE(**QUICK).protect(data, replace(ctx, seed=1)).images, protected.images)
    assert not list((ctx.artifacts / "unfinished").iterdir())


def test_truncation_is_darker_by_a_level_at_most(ctx: Context) -> None:
    data = corners(classes=4)
    rounded, truncated = (DUNE(**QUICK, rounding=rule).protect(data, ctx) for rule in ("round", "truncate"))
    assert set(np.unique(difference(rounded, truncated))) == {0, 1}


def test_a_killed_generation_continues(ctx: Context, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data = corners(classes=4)
    monkeypatch.setattr(dune, "CPU_BATCH", 9)
    whole = DUNE(**QUICK).protect(data, ctx)
    for module, name, deadly in (("dune_colour", "fitted", 3), ("ensemble", "descend_mean", 2)):
        calls: list[int] = []
        original = getattr(__import__(f"ue_bench_baselines.{module}", fromlist=[name]), name)

        def dying(*given: Any, calls: list[int] = calls, original: Any = original, deadly: int = deadly) -> Any:
            calls.append(1)
            if len(calls) == deadly:
                raise KeyboardInterrupt
            return original(*given)

        monkeypatch.setattr(f"ue_bench_baselines.{module}.{name}", dying)
        with pytest.raises(KeyboardInterrupt):
            DUNE(**QUICK).protect(data, ctx)
        assert np.array_equal(DUNE(**QUICK).protect(data, ctx).images, whole.images)
        assert len(calls) == deadly - 1 + 1 + {"fitted": 2, "descend_mean": 4}[name]
        monkeypatch.undo()
        monkeypatch.setattr(dune, "CPU_BATCH", 9)


def test_a_class_that_has_no_images_has_no_colour(ctx: Context) -> None:
    data = image_set(corners(30).images, corners(30).labels * 2, 6)
    networks = ctx.checkpoints(data, NET, 1, **DUNE(**TRAINED | {"surrogate_epochs": 2}).recipe())
    shifts = DUNE(**QUICK).shifts(data, ctx, networks, "of a test")
    assert shifts.any(1).tolist() == [True, False] * 3


def test_presets_and_cost() -> None:
    left = {f for f, info in DUNE.model_fields.items() if info.default is None} - {"surrogate_epochs"} | {"recipe"}
    for preset in ("paper", "micro"):
        assert left == set(DUNE.PRESETS[preset])
    # 120 epochs, 150 passes to the image, 100 colours for a fifth of the images under five states.
    assert DUNE().cost(50_000).passes == pytest.approx(120 + 150 * 2 / 3 + 100 * 0.2 * 5 / 3)
    assert DUNE(colour=0).cost(50_000).passes == pytest.approx(120 + 150 * 2 / 3)
    assert DUNE(preset="micro").cost(10_000).victim == MICRO_NETWORK
    assert (DUNE().budget, DUNE().setting("step"), DUNE().eps) == ("none", 0.5 / 255, 8 / 255)
    assert ensemble.further_on(np.arange(100), dune.OFFSET, "dune")[99] == 2
