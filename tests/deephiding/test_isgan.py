"""ISGAN: gray images in the luminance, and its training against a critic."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from ue_bench.api import ValidationError
from ue_bench_deephiding import banks, isgan_training
from ue_bench_deephiding.isgan import (
    FLOOR,
    Critic,
    Isgan,
    luminance,
    ms_ssim,
    scales,
    ssim,
    to_rgb,
    to_ycbcr,
)
from ue_bench_deephiding.isgan_training import dissimilarity, isgan_losses, train_isgan
from ue_bench_deephiding.recipe import Recipe
from ue_bench_deephiding.training import Covers

from .helpers import generator, smooth_set, unit_images

TINY = Recipe(steps=6, batch=3, size=16, validate_every=2, seed=3)
BANK = banks.procedural(3, 2, (16, 16), 0)


def used(width: int = 4) -> Isgan:
    """In eval mode, with outputs that depend on the inputs and with running statistics that fit."""
    network, source = Isgan(width), generator(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # running statistics are those of the one batch
    with torch.no_grad():
        for coder in (network.encoder, network.decoder):
            last = coder.layers[-1]
            assert isinstance(last, nn.Conv2d)
            last.weight.copy_(torch.randn(last.weight.shape, generator=source) * 2)
        network.reveal(network.hide(unit_images(4), unit_images(4, seed=1)))
    return network.eval()


def gray_covers() -> Covers:
    """Covers about mid-gray, where stego images start: within 20 dB from the first step."""
    data = smooth_set(6, (16, 16))
    return Covers(112 + data.images // 8, data.labels, 16)


def noisy(images: Tensor, amount: float) -> Tensor:
    return images + amount * torch.randn(images.shape, generator=generator(5), dtype=images.dtype)


@pytest.mark.parametrize("size", [(32, 32), (17, 30), (9, 9)])
def test_any_size_is_hidden_and_revealed_as_gray(size: tuple[int, int]) -> None:
    network = used()
    with torch.no_grad():
        stego = network.hide(unit_images(2, size), unit_images(2, size, seed=1))
        revealed = network.reveal(stego)
    assert stego.shape == revealed.shape == (2, 3, *size)
    y = luminance(stego)
    assert -1e-6 < y.min() < 0.4
    assert 0.6 < y.max() < 1 + 1e-6
    assert 0 <= revealed.min() < 0.4
    assert 0.6 < revealed.max() <= 1
    assert torch.equal(revealed[:, 0], revealed[:, 1])
    assert torch.equal(revealed[:, 0], revealed[:, 2])


def test_only_the_luminance_changes() -> None:
    cover = unit_images(2)
    with torch.no_grad():
        before, after = to_ycbcr(cover), to_ycbcr(used().hide(cover, unit_images(2, seed=1)))
    assert (after - before)[:, 1:].abs().max() < 1e-6
    assert (after - before)[:, 0].abs().max() > 0.1


def test_only_the_luminance_of_the_hidden_image_counts() -> None:
    network, cover, hidden = used(), unit_images(2), unit_images(2, seed=1)
    with torch.no_grad():
        stego = network.hide(cover, hidden)
        of_gray = network.hide(cover, luminance(hidden).expand(-1, 3, -1, -1))
        of_other = network.hide(cover, unit_images(2, seed=2))
    assert (stego - of_gray).abs().max() < 1e-5
    assert (stego - of_other).abs().max() > 0.1


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.float64, 1e-15)])
def test_ycbcr_is_undone_by_its_inverse(dtype: torch.dtype, bound: float) -> None:
    x = unit_images(2, dtype=dtype)
    assert (to_rgb(to_ycbcr(x)) - x).abs().max() < bound


def test_ycbcr_is_that_of_jpeg() -> None:
    # JFIF 1.02, page 3, of pure red, green and blue: its coefficients, which it gives to four digits.
    found = to_ycbcr(torch.eye(3)[:, :, None, None])[..., 0, 0]
    expected = [[0.299, 0.5 - 0.1687, 1.0], [0.587, 0.5 - 0.3313, 0.5 - 0.4187], [0.114, 1.0, 0.5 - 0.0813]]
    assert (found - torch.tensor(expected)).abs().max() < 5e-5


def test_an_image_does_not_depend_on_its_batch_in_eval_mode() -> None:
    network, cover, hidden = used(), unit_images(5), unit_images(5, seed=1)

    def apart() -> Tensor:
        with torch.no_grad():
            alone = torch.cat([network.hide(c[None], h[None]) for c, h in zip(cover, hidden, strict=True)])
            return (network.hide(cover, hidden) - alone).abs().max()

    assert apart() < 1e-5
    network.train()
    assert apart() > 1e-3


def test_outputs_start_as_mid_gray() -> None:
    network = Isgan(4)
    with torch.no_grad():
        stego = network.encoder(luminance(unit_images(2)), luminance(unit_images(2, seed=1)))
        revealed = network.decoder(stego)
    assert torch.equal(stego, torch.full_like(stego, 0.5))
    assert torch.equal(revealed, torch.full_like(revealed, 0.5))


@pytest.mark.parametrize("kind", [lambda seed: Isgan(4, seed), Critic])
def test_weights_depend_on_the_seed_only(kind: Any) -> None:
    before = torch.random.get_rng_state()
    one, same, other = (kind(seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_network_has_the_parameters_of_its_layer_table() -> None:
    # Module from i to o channels: 4 heads i o/4 + o/4, a 3x3 and a 5x5 of (o/4)^2 each with o/4 biases, shortcut
    # i o + o. Over 16-32-64-128-256-128-64-32: sum i o = 86 528, sum o^2 = 108 544, sum o = 704.
    modules = 2 * 86_528 + 34 * 108_544 // 16 + 5 * 704 // 2
    # 3x3 without bias, then scale and shift of the normalisation: 2 to 16 and 32 to 16; 1x1 from 16.
    encoder = modules + 9 * 2 * 16 + 9 * 32 * 16 + 2 * (16 + 16) + 17
    # The same over 1-32-64-128-64-32: sum i o = 20 512, sum o = 320; 1x1 from 32.
    decoder = 9 * 20_512 + 2 * 320 + 33
    network = Isgan()
    assert sum(p.numel() for p in network.encoder.parameters()) == encoder == 410_449
    assert sum(p.numel() for p in network.decoder.parameters()) == decoder == 185_281


def test_critic_has_the_parameters_of_its_layer_table() -> None:
    convolutions = 9 * 8 + 9 * 8 * 16 + 16 * 32 + 32 * 64 + 9 * 64 * 128 + 2 * (8 + 16 + 32 + 64 + 128)
    linear = (1 + 4 + 16) * 128 * 128 + 128 + 128 + 1
    assert sum(p.numel() for p in Critic().parameters()) == convolutions + linear == 422_329


@pytest.mark.parametrize("width", [0, 2, 6])
def test_a_width_without_four_equal_branches_is_refused(width: int) -> None:
    with pytest.raises(ValueError, match="multiple of 4"):
        Isgan(width)


@pytest.mark.parametrize("size", [(16, 16), (32, 32), (64, 64), (17, 40)])
def test_critic_judges_images_of_any_size(size: tuple[int, int]) -> None:
    y = luminance(unit_images(3, size)).requires_grad_()
    logits = Critic()(y)
    assert logits.shape == (3,)
    logits.square().sum().backward()
    assert y.grad is not None
    assert (y.grad.abs() > 0).float().mean() > 0.9  # no part of the image is left out


@pytest.mark.parametrize("amp", [False, True])
def test_critic_does_not_see_brightness(amp: bool) -> None:
    critic, y = Critic(), luminance(unit_images(4)) / 16
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=amp):
        logits, brighter, other = critic(y), critic(y + 0.5), critic(y.flip(-1))
    assert (brighter - logits).abs().max() < 0.02 * (other - logits).abs().max()


def by_formula(a: NDArray[np.float64], b: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both terms of Wang et al. (2004), section III B, with SciPy's Gaussian."""

    def mean(v: NDArray[np.float64]) -> NDArray[np.float64]:
        found: NDArray[np.float64] = gaussian_filter(v, 1.5, radius=5)[5:-5, 5:-5]
        return found

    c1, c2 = 0.01**2, 0.03**2
    ma, mb = mean(a), mean(b)
    va, vb, vab = mean(a * a) - ma**2, mean(b * b) - mb**2, mean(a * b) - ma * mb
    return (2 * ma * mb + c1) / (ma**2 + mb**2 + c1), (2 * vab + c2) / (va + vb + c2)


def test_ssim_by_the_formula() -> None:
    a = luminance(unit_images(2, (16, 20), dtype=torch.float64))
    b = noisy(a, 0.1)
    for found, x, y in zip(ssim(a, b), a[:, 0].numpy(), b[:, 0].numpy(), strict=True):
        light, structure = by_formula(x, y)
        assert float(found) == pytest.approx(float(np.mean(light * structure)), abs=1e-12)


@pytest.mark.parametrize(("a", "b"), [(0.4, 0.5), (0.0, 1.0)])
def test_ssim_of_flat_pictures_is_the_luminance_term(a: float, b: float) -> None:
    flat = torch.ones(1, 1, 16, 16, dtype=torch.float64)
    assert float(ssim(a * flat, b * flat)) == pytest.approx((2 * a * b + 1e-4) / (a * a + b * b + 1e-4))


def test_ms_ssim_by_the_formula() -> None:
    a = luminance(unit_images(1, (44, 46), dtype=torch.float64))
    b = noisy(a, 0.1)
    expected, weights = np.float64(1), [0.0448, 0.2856, 0.3001]  # 44, 22 and 11 pixels
    for scale, weight in enumerate(weights):
        x, y = (v[0, 0].numpy()[: 44 >> scale << scale, : 46 >> scale << scale] for v in (a, b))
        cells = 2**scale
        x, y = (v.reshape(len(v) // cells, cells, -1, cells).mean(axis=(1, 3)) for v in (x, y))
        light, structure = by_formula(x, y)
        expected *= np.mean(light * structure if scale == 2 else structure) ** (weight / sum(weights))
    assert float(ms_ssim(a, b)) == pytest.approx(expected, abs=1e-12)


def test_scales_hold_a_whole_window() -> None:
    assert [scales(side, side) for side in (8, 16, 21, 22, 32, 64, 175, 176, 224)] == [1, 1, 1, 2, 2, 3, 4, 5, 5]
    assert scales(224, 32) == scales(32, 224) == 2


@pytest.mark.parametrize("size", [(5, 5), (16, 16), (32, 40), (180, 176)])
@pytest.mark.parametrize("similarity", [ssim, ms_ssim])
def test_similarity_is_one_for_equal_images_and_falls_with_noise(similarity: Any, size: tuple[int, int]) -> None:
    y = luminance(unit_images(2, size))
    found = [similarity(y, noisy(y, amount)).tolist() for amount in (0, 0.02, 0.1, 0.5)]
    assert found[0] == pytest.approx([1, 1], abs=1e-6)
    for one in zip(*found, strict=True):
        assert sorted(one, reverse=True) == list(one)
        assert one[-1] < 0.6


def test_ms_ssim_of_opposite_images_has_a_value_and_a_gradient() -> None:
    y = luminance(unit_images(1)).requires_grad_()
    found = ms_ssim(y, 1 - y.detach())
    assert float(found.detach()) == pytest.approx(FLOOR)
    dissimilarity(y, 1 - y.detach()).backward()
    assert y.grad is not None
    assert torch.isfinite(y.grad).all()
    assert y.grad.abs().max() > 0


def test_loss_weighs_its_terms_as_isgan() -> None:
    a, b, c, d = (luminance(unit_images(2, seed=seed, dtype=torch.float64)) for seed in range(4))

    def distance(x: Tensor, y: Tensor) -> float:
        similar = float((ssim(x, y) + ms_ssim(x, y)).mean())
        return 1 - similar / 2 + 0.3 * float((x - y).square().mean())

    found = isgan_losses(cover=a, secret=b, stego=c, revealed=d)
    assert float(found.hide) == pytest.approx(distance(a, c))
    assert float(found.total) == pytest.approx(distance(a, c) + 0.85 * distance(b, d))
    assert float(found.mse_reveal) == pytest.approx(float((b - d).square().mean()))


def test_mean_squared_error_of_luminance_is_that_of_the_colours() -> None:
    network, cover, hidden = used(), unit_images(2), unit_images(2, seed=1)
    with torch.no_grad():
        stego = network.hide(cover, hidden)
        found = isgan_losses(*(luminance(x) for x in (cover, hidden, stego, hidden)))
    assert float(found.mse) == pytest.approx(float((stego - cover).square().mean()), rel=1e-4)


def test_a_small_network_learns_one_pair() -> None:
    cover, secret = luminance(unit_images(1, (16, 16))), luminance(unit_images(1, (16, 16), 1))
    network = Isgan(width=8)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    totals = []
    for _ in range(40):
        stego = network.encoder(cover, secret)
        found = isgan_losses(cover, secret, stego, network.decoder(stego))
        optimizer.zero_grad()
        found.total.backward()
        optimizer.step()
        totals.append(float(found.total.detach()))
    assert np.mean(totals[-10:]) < 0.5 * totals[0]


def test_a_resumed_training_equals_an_uninterrupted_one() -> None:
    states: list[dict[str, Any]] = []

    def save(state: dict[str, Any]) -> None:
        states.append(copy.deepcopy(state))

    weights, curve = train_isgan(Isgan(4), gray_covers(), BANK, TINY, save=save)
    assert [state["step"] for state in states] == [2, 4, 6]
    whole, states = states, []
    steps = []
    resumed, resumed_curve = train_isgan(
        Isgan(4, seed=8),
        gray_covers(),
        BANK,
        TINY,
        on_step=lambda step, now: steps.append(step),
        state=whole[0],
        save=save,
    )
    assert steps == [3, 4, 5, 6]
    assert resumed_curve == curve
    assert all(torch.equal(resumed[name], value) for name, value in weights.items())
    for one, other in zip(states, whole[1:], strict=True):
        # Network, critic and both optimizers, at every validation.
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_stopping_early_takes_the_same_steps() -> None:
    curves = [train_isgan(Isgan(4), gray_covers(), BANK, replace(TINY, stop_after=stop))[1] for stop in (None, 4)]
    assert curves[1] == curves[0][:2]


def test_curve_and_weights_are_of_the_best_validation() -> None:
    covers = gray_covers()
    losses: list[dict[str, float]] = []
    weights, curve = train_isgan(Isgan(4), covers, BANK, TINY, on_step=lambda step, now: losses.append(now))
    assert [set(point) for point in curve] == 3 * [
        {"step", "skipped", "total", "hide", "reveal", "mse", "psnr", "psnr_reveal"}
    ]
    assert len(losses) == TINY.steps
    assert all(math.isfinite(value) for now in losses for value in now.values())
    assert weights["encoder.layers.0.1.num_batches_tracked"] == min(curve, key=lambda point: point["total"])["step"]
    network = Isgan(4)
    network.load_state_dict(weights)  # with the running statistics
    assert network.state_dict()["decoder.layers.0.1.running_mean"].abs().max() > 0


def test_bfloat16_trains() -> None:
    _, exact = train_isgan(Isgan(4), gray_covers(), BANK, TINY)
    weights, curve = train_isgan(Isgan(4), gray_covers(), BANK, TINY, amp=True)
    assert all(value.dtype != torch.bfloat16 for value in weights.values())
    assert curve[-1]["total"] == pytest.approx(exact[-1]["total"], rel=0.05)
    assert curve != exact


def test_critic_learns_which_images_are_stego(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isgan_training, "LEARNING_RATE", 1e-3)
    noise = np.random.default_rng(0).integers(118, 138, (8, 16, 16, 3), dtype=np.uint8)
    states: list[dict[str, Any]] = []
    network, recipe = Isgan(4), replace(TINY, steps=30, validate_every=30)
    train_isgan(network, Covers(noise, np.zeros(8, np.int64), 16), BANK, recipe, save=states.append)
    critic = Critic(seed=9).eval()
    critic.load_state_dict({k[2:]: v for k, v in states[0]["models"].items() if k.startswith("1.")})
    cover = torch.from_numpy(noise).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        assert critic(luminance(network.hide(cover, cover))).min() > critic(luminance(cover)).max() + 0.5


def test_network_learns_to_fool_its_critic(monkeypatch: pytest.MonkeyPatch) -> None:
    class LooksForLight(nn.Module):
        def __init__(self, seed: int) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(10.0))

        def forward(self, y: Tensor) -> Tensor:
            return self.scale * y.mean((1, 2, 3))

    monkeypatch.setattr(isgan_training, "Critic", LooksForLight)
    monkeypatch.setattr(isgan_training, "LEARNING_RATE", 1e-3)
    light = []
    for weight in (0.0, 100.0):
        monkeypatch.setattr(isgan_training, "OMEGA_CRITIC", weight)
        network = Isgan(4)
        train_isgan(network, gray_covers(), BANK, replace(TINY, steps=10))
        with torch.no_grad():
            light.append(float(network.train().hide(unit_images(4), unit_images(4, seed=1)).mean()))
    assert light[1] < light[0] - 0.005


class Poisoned(Covers):
    """Gives covers that are not numbers from one draw on, for some draws."""

    first, last, drawn = 0, 0, 0

    def draw(
        self, count: int, rng: np.random.Generator, sampler: str = "uniform"
    ) -> tuple[Tensor, Tensor, NDArray[np.int64]]:
        x, y, labels = super().draw(count, rng, sampler)
        self.drawn += 1
        return (x * math.nan if self.first <= self.drawn <= self.last else x), y, labels


def poisoned(first: int, last: int) -> Poisoned:
    """Steps ``first`` to ``last``, counted from 1; four validation batches are drawn before them."""
    data = smooth_set(6, (16, 16))
    covers = Poisoned(112 + data.images // 8, data.labels, 16)
    covers.first, covers.last = 4 + first, 4 + last
    return covers


def test_a_step_that_is_not_finite_leaves_no_trace() -> None:
    states: list[dict[str, Any]] = []
    weights, curve = train_isgan(
        Isgan(4),
        poisoned(3, 3),
        BANK,
        replace(TINY, validate_every=1),
        save=lambda state: states.append(copy.deepcopy(state)),
    )
    assert [point["skipped"] for point in curve] == [0, 0, 1, 1, 1, 1]
    for name in ("models", "optimizer", "critic_optimizer"):
        torch.testing.assert_close(states[2][name], states[1][name], rtol=0, atol=0)
    assert not torch.equal(states[3]["models"]["1.head.2.bias"], states[2]["models"]["1.head.2.bias"])
    assert all(torch.isfinite(value).all() for value in weights.values())


def test_steps_that_are_not_finite_end_the_training() -> None:
    with pytest.raises(ValidationError, match="were not finite"):
        train_isgan(Isgan(4), poisoned(1, 100), BANK, replace(TINY, steps=40, validate_every=40))


def test_a_network_that_ruins_its_covers_is_refused() -> None:
    black = Covers(np.zeros((6, 16, 16, 3), np.uint8), np.zeros(6, np.int64), 16)
    with pytest.raises(ValidationError, match=r"at 6\.0 dB, under 20 dB"):  # of mid-gray, -20 log10(0.5)
        train_isgan(Isgan(4), black, BANK, replace(TINY, steps=1))
