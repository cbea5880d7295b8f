"""SEM: REM whose noise meets a random draw in the adversary's place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sets import corners
from torch import Tensor

from ue_bench.api import Context
from ue_bench_baselines.rem import REM
from ue_bench_baselines.rem_rounds import pictures
from ue_bench_baselines.sem import SEM

from .helpers import difference
from .test_rem import LEVEL, NET, Linear, any_draws, random_images, signs

pytestmark = pytest.mark.usefixtures("one_thread")
QUICK: dict[str, Any] = {
    "preset": "micro", "surrogate": NET, "train_steps": 6, "batch": 16, "steps": 3, "adv_steps": 2, "eot": 2,
}  # fmt: skip


def test_it_is_rem_with_a_random_inner_adversary(ctx: Context) -> None:
    data = corners()
    random = SEM(**QUICK).protect(data, ctx)
    assert np.array_equal(REM(**QUICK, inner="random").protect(data, ctx).images, random.images)
    assert not np.array_equal(SEM(**QUICK, inner="pgd").protect(data, ctx).images, random.images)
    assert np.array_equal(SEM(**QUICK, inner="pgd").protect(data, ctx).images, REM(**QUICK).protect(data, ctx).images)


def test_without_a_radius_both_are_one(ctx: Context) -> None:
    data = corners()
    quick = {name: value for name, value in QUICK.items() if name != "adv_steps"}
    sem, rem = (kind(**quick, adv_eps=0).protect(data, ctx) for kind in (SEM, REM))
    assert np.array_equal(sem.images, rem.images)


def test_noise_takes_one_pass_a_step_and_transform(ctx: Context) -> None:
    game = SEM(**QUICK | {"steps": 4, "eot": 3}).game(corners(), ctx)
    images: list[int] = []
    game.network.register_forward_pre_hook(lambda _, inputs: images.append(len(inputs[0])))
    game.perturb(torch.rand(5, 3, 12, 10), game.labels[:5], any_draws(5))
    assert images == [15] * 4


def test_the_network_trains_against_an_adversary(ctx: Context) -> None:
    game = SEM(**QUICK).game(corners(), ctx)
    images: list[int] = []
    game.network.register_forward_pre_hook(lambda _, inputs: images.append(len(inputs[0])))
    game.train()
    assert images == [32] * 3 + [16] * (2 + 1)  # the noise's steps, the adversary's, training


def test_the_noise_meets_a_draw_in_the_ball_and_in_the_box(ctx: Context) -> None:
    game = SEM(**QUICK).game(corners(), ctx)
    seen = torch.rand(5, 3, 6, 9, generator=torch.Generator().manual_seed(6)).round() - 0.5
    start = pictures(any_draws(5), 1, (6, 9))
    met = game.attacked(seen, torch.ones(5, dtype=torch.long), start, game.inner_steps)
    assert torch.equal(met, (seen + 4 * LEVEL * start).clamp(-0.5, 0.5))
    assert (met != seen).any()


def test_a_linear_networks_noise_ends_at_the_bound(ctx: Context) -> None:
    """Its gradient is the same wherever it is taken."""
    net = Linear()
    game = SEM(preset="micro", surrogate="linear", steps=10, pad=0).game(corners(size=(6, 9), classes=2), ctx)
    game.network = net
    y = torch.tensor([0, 1, 1, 0, 1])
    draws = any_draws(5)

    def unmirrored(*shape: int) -> Tensor:
        drawn = draws(*shape)
        return drawn.fill_(0.5) if shape[-1] == 3 and len(shape) == 2 else drawn  # those of the transforms

    noise = game.perturb(random_images(5), y, unmirrored)
    assert torch.allclose(noise, -8 * LEVEL * signs(game, y), atol=1e-6)


def test_whole_levels_within_the_budget(ctx: Context) -> None:
    data = corners()
    moved = np.abs(difference(SEM(**QUICK).protect(data, ctx), data)).max(axis=(1, 2, 3))
    assert (moved == 8).all()


@pytest.mark.parametrize(
    ("settings", "images", "passes"),
    [
        # 818 passes forward and back to the image, 12.8 of training.
        ({}, 50_000, 818 * 2 / 3 + 12.8),
        ({"preset": "micro"}, 10_000, 3.84 * (15 * 2 / 3 + 5 * 2 / 3 + 1) + 15 * 2 / 3),
        ({"adv_eps": 0}, 50_000, (12.8 * 50 + 50) * 2 / 3 + 12.8),
    ],
)
def test_cost_is_that_of_all_passes(settings: dict[str, Any], images: int, passes: float) -> None:
    assert SEM(**settings).cost(images).passes == pytest.approx(passes)


def test_presets(ctx: Context) -> None:
    assert (SEM().setting("eot"), SEM(preset="micro").setting("eot")) == (5, 3)
    assert {field for field in REM.PRESETS["micro"] if SEM.PRESETS["micro"][field] != REM.PRESETS["micro"][field]} == {
        "eot"
    }
    assert SEM.PRESETS["paper"] == REM.PRESETS["paper"]
    assert SEM().budget == "linf 8/255"
