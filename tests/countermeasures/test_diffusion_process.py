"""Noising and denoising: schedules, samplers against formulas and exact denoisers, and the loop over a set."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ue_bench.api import Context, UserError
from ue_bench_countermeasures.diffusion import denoiser, process
from ue_bench_countermeasures.diffusion.recipe import PRESETS, Recipe
from ue_bench_countermeasures.diffusion.weights import locate

from .helpers import Images, image_set, tiny_model

diffusers = pytest.importorskip("diffusers")
DDPMScheduler: Any = diffusers.DDPMScheduler


@pytest.fixture
def scheduler() -> Any:
    return DDPMScheduler(**Recipe().scheduler)


@pytest.fixture
def x() -> Tensor:
    """Smooth images in [-1, 1], 48 of them."""
    y, x = np.mgrid[:8, :8]
    phases = np.random.default_rng(0).uniform(0, 6, (48, 3, 1, 1))
    return torch.tensor(0.8 * np.sin(x / 3 + phases) * np.cos(y / 4 + phases), dtype=torch.float32)


def random(count: int, seed: int = 0) -> list[torch.Generator]:
    return process.streams(seed, slice(0, count))


@pytest.mark.parametrize(("t", "level"), [(60, 0.95956), (75, 0.93912), (100, 0.89702), (150, 0.78832)])
def test_noise_levels_of_ddpm(t: int, level: float, scheduler: Any) -> None:
    assert float(scheduler.alphas_cumprod[t - 1]) == pytest.approx(level, abs=5e-6)


def test_noise_levels_of_eclipse() -> None:
    level = float(DDPMScheduler(**Recipe(**PRESETS["eclipse"]).scheduler).alphas_cumprod[99])
    assert level == pytest.approx(0.997513, abs=5e-7)
    assert math.sqrt(1 - level) * 127.5 == pytest.approx(6.4, abs=0.05)  # gray levels


@pytest.mark.parametrize(("preset", "parameters"), [("ddpm", 35_746_307), ("micro", 416_355)])
def test_parameters_of_the_networks(preset: str, parameters: int) -> None:
    with torch.device("meta"):
        network = diffusers.UNet2DModel(**Recipe(**PRESETS[preset]).network)
    assert sum(p.numel() for p in network.parameters()) == parameters


def test_attention_is_at_the_sides_that_are_named() -> None:
    network = Recipe(**PRESETS["eclipse"]).network
    assert network["down_block_types"] == ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "DownBlock2D")
    assert network["up_block_types"] == ("UpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D")


class TestLevels:
    def test_there_and_back(self) -> None:
        images = np.arange(256, dtype=np.uint8).repeat(3).reshape(2, 8, 16, 3)
        x = process.to_model(images, "cpu")
        assert (float(x.min()), float(x.max())) == (-1, 1)
        assert x.shape == (2, 3, 8, 16)
        np.testing.assert_array_equal(process.to_levels(x), images)

    def test_outside_is_clipped_and_fractions_are_rounded(self) -> None:
        x = torch.tensor([-1.2, 1.2, 2 * 0.6 / 255 - 1, 2 * 0.4 / 255 - 1])[:, None, None, None].expand(-1, 3, 1, 1)
        assert process.to_levels(x)[:, 0, 0].tolist() == [[0] * 3, [255] * 3, [1] * 3, [0] * 3]

    def test_wrapping_is_that_of_a_cast(self) -> None:
        """-0.01 and 1.01 of [0, 1] become 254 and 1."""
        x = (2 * torch.tensor([-0.01, 1.01, 0.5]) - 1)[:, None, None, None].expand(-1, 3, 1, 1)
        assert process.wrapped_levels(x)[:, 0, 0, 0].tolist() == [254, 1, 127]


@pytest.mark.parametrize(
    ("t", "count", "steps"),
    [(5, None, [4, 3, 2, 1, 0]), (5, 9, [4, 3, 2, 1, 0]), (101, 3, [100, 50, 0]), (1, 2, [0]), (100, 2, [99, 0])],
)
def test_steps(t: int, count: int | None, steps: list[int]) -> None:
    assert process.steps_down(t, count) == steps


@pytest.mark.parametrize("count", range(2, 60))
def test_no_step_is_taken_twice(count: int) -> None:
    steps = process.steps_down(60, count)
    assert len(set(steps)) == len(steps) == count
    assert (steps[0], steps[-1]) == (59, 0)


def test_noise_is_added_in_one_jump(x: Tensor, scheduler: Any) -> None:
    found = process.noised(scheduler, x, 99, random(48))
    noise = process.normal(x, random(48))
    torch.testing.assert_close(found, math.sqrt(0.89702) * x + 0.3209 * noise, atol=1e-4, rtol=0)
    assert float(noise.std()) == pytest.approx(1, abs=0.03)
    assert len({image.sum().item() for image in noise}) == 48


def test_every_image_has_noise_of_its_own(x: Tensor) -> None:
    together = process.normal(x, random(48))
    alone = process.normal(x[20:23], process.streams(0, slice(20, 23)))
    assert torch.equal(together[20:23], alone)
    assert not torch.equal(process.normal(x, random(48, seed=1)), together)


def oracle(clean: Tensor, scheduler: Any) -> process.Predict:
    """A network that knows the image, and so the noise."""

    def predict(x: Tensor, step: int) -> Tensor:
        level: Tensor = scheduler.alphas_cumprod[step]
        return (x - level.sqrt() * clean) / (1 - level).sqrt()

    return predict


def of_gaussians(scheduler: Any, std: float) -> process.Predict:
    """The best there is for images whose pixels are independent N(0, std^2)."""

    def predict(x: Tensor, step: int) -> Tensor:
        level: Tensor = scheduler.alphas_cumprod[step]
        return (1 - level).sqrt() * x / (level * std**2 + 1 - level)

    return predict


SAMPLERS = {"ancestral": process.ancestral, "euler_maruyama": process.euler_maruyama}


@pytest.mark.parametrize(("name", "error"), [("ancestral", 1e-5), ("euler_maruyama", 0.05)])
@pytest.mark.parametrize("count", [None, 10])
def test_who_knows_the_noise_recovers_the_image(
    name: str, error: float, count: int | None, x: Tensor, scheduler: Any
) -> None:
    steps = process.steps_down(100, count)
    stream = random(48)
    noisy = process.noised(scheduler, x, steps[0], stream)
    found = SAMPLERS[name](oracle(x, scheduler), scheduler, noisy, steps, stream)
    assert float((found - x).square().mean().sqrt()) < (error if count is None or name == "ancestral" else 0.15)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("variance", ["fixed_large", "fixed_small"])
def test_an_exact_denoiser_keeps_the_distribution_and_moves_images_further_with_more_noise(
    name: str, variance: str
) -> None:
    scheduler = DDPMScheduler(**{**Recipe().scheduler, "variance_type": variance})
    x = 0.25 * process.normal(torch.empty(64, 3, 8, 8), random(64))
    moved = []
    for t in (5, 25, 100):
        stream = random(64, seed=1)
        noisy = process.noised(scheduler, x, t - 1, stream)
        found = SAMPLERS[name](of_gaussians(scheduler, 0.25), scheduler, noisy, process.steps_down(t), stream)
        assert float(found.std()) == pytest.approx(0.25, rel=0.05)
        moved.append(float((found - x).std()))
    assert moved == sorted(moved)
    assert moved[2] > 2 * moved[0]


@pytest.mark.parametrize("variance", ["large", "small"])
def test_ancestral_sampling_is_that_of_the_paper(variance: Any, tmp_path: Path, x: Tensor) -> None:
    """DDPM, algorithm 2, written out, with a network's own outputs."""
    weights = locate(tiny_model(tmp_path / "model"))
    loaded = denoiser.load(weights, "cpu", variance)
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    levels = torch.cumprod(1 - betas, 0)
    x = 1.2 * x  # so that estimates are clipped
    expected, stream = x.double(), random(48)
    with torch.no_grad():
        for i in (3, 2, 1, 0):
            before = levels[i - 1] if i else torch.tensor(1.0)
            eps = loaded.predict(expected.float(), i).double()
            image = ((expected - (1 - levels[i]).sqrt() * eps) / levels[i].sqrt()).clamp(-1, 1)
            mean = before.sqrt() * betas[i] / (1 - levels[i]) * image
            mean = mean + (1 - betas[i]).sqrt() * (1 - before) / (1 - levels[i]) * expected
            spread = betas[i] if variance == "large" else betas[i] * (1 - before) / (1 - levels[i])
            expected = mean
            if i:
                expected = expected + spread.sqrt() * process.normal(x, stream)
        found = process.ancestral(loaded.predict, loaded.scheduler, x, [3, 2, 1, 0], random(48))
    torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=0)  # float32 levels


def test_the_sde_is_that_of_the_paper(x: Tensor, scheduler: Any) -> None:
    """Equation 3.9 of score-based SDEs with beta of a step: two steps written out, the first three long."""

    def predict(x: Tensor, step: int) -> Tensor:
        return 0.3 * x + step / 10

    betas = torch.linspace(1e-4, 0.02, 1000)
    levels = torch.cumprod(1 - betas, 0)
    expected, stream = x, random(48)
    for step, beta in ((5, betas[3:6].sum()), (2, betas[:3].sum())):
        score = -predict(expected, step) / (1 - levels[step]).sqrt()
        drift = -beta / 2 * expected - beta * score
        expected = expected - drift + beta.sqrt() * process.normal(x, stream)
    found = process.euler_maruyama(predict, scheduler, x, [5, 2], random(48))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_dropout_is_off(tmp_path: Path, x: Tensor) -> None:
    loaded = denoiser.load(locate(tiny_model(tmp_path / "model", dropout=0.5)), "cpu", "large")
    assert torch.equal(loaded.predict(x, 9), loaded.predict(x, 9))


def test_a_learned_variance_is_used_or_left(tmp_path: Path, x: Tensor) -> None:
    weights = locate(tiny_model(tmp_path / "model", variance_type="learned_range"))
    outputs = []
    for variance in ("large", "small"):
        loaded = denoiser.load(weights, "cpu", variance)
        with torch.no_grad():
            outputs.append(process.ancestral(loaded.predict, loaded.scheduler, x, [9, 8, 7], random(48)))
            process.euler_maruyama(loaded.predict, loaded.scheduler, x, [9, 8, 7], random(48))
    assert loaded.scheduler.config.variance_type == "fixed_small"
    assert 1e-4 < float((outputs[0] - outputs[1]).abs().max()) < 1


def test_a_guide_is_added_to_the_mean(x: Tensor, scheduler: Any) -> None:
    seen = []

    def guide(current: Tensor, step: int) -> Tensor:
        seen.append((step, current))
        return torch.full_like(current, 0.25)

    predict = oracle(x, scheduler)
    plain = process.ancestral(predict, scheduler, x, [1, 0], random(48))
    guided = process.ancestral(predict, scheduler, x, [1, 0], random(48), guide)
    assert [step for step, _ in seen] == [1, 0]
    assert torch.equal(seen[0][1], x)
    torch.testing.assert_close(guided, plain + 0.25, atol=1e-5, rtol=0)  # an oracle forgets the first step's


class TestPurify:
    @pytest.fixture
    def images(self) -> Images:
        return np.random.default_rng(0).integers(0, 256, (11, 8, 8, 3), dtype=np.uint8)

    def purify(self, images: Images, ctx: Context, clean: Any, batch: int, size: tuple[int, int] = (8, 8)) -> Images:
        return np.asarray(denoiser.purify(image_set(images), ctx, "key", size, clean, "purify", batch=batch).images)

    @pytest.mark.parametrize("batch", [1, 4, 11, 50])
    def test_images_stay_in_order(self, batch: int, images: Images, ctx: Context) -> None:
        np.testing.assert_array_equal(self.purify(images, ctx, lambda x, random: x, batch), images)

    def test_the_size_of_batches_does_not_matter(self, images: Images, ctx: Context, tmp_path: Path) -> None:
        loaded = denoiser.load(locate(tiny_model(tmp_path / "model")), "cpu", "large")

        def clean(x: Tensor, random: process.Streams) -> Tensor:
            noisy = process.noised(loaded.scheduler, x, 4, random)
            return process.ancestral(loaded.predict, loaded.scheduler, noisy, [4, 3, 2, 1, 0], random)

        first = self.purify(images, ctx, clean, 11)
        for batch in (1, 3):
            difference = np.abs(self.purify(images, ctx, clean, batch).astype(int) - first)
            assert difference.max() <= 1
            assert difference.mean() < 0.001

    def test_a_process_that_was_killed_continues(self, images: Images, ctx: Context) -> None:
        calls: list[int] = []

        def clean(x: Tensor, random: process.Streams) -> Tensor:
            if len(calls) == 2:
                calls.append(0)
                raise KeyboardInterrupt
            calls.append(len(x))
            return (x + 0.3 * process.normal(x, random)).clamp(-1, 1)

        with pytest.raises(KeyboardInterrupt):
            self.purify(images, ctx, clean, 4)
        assert calls == [4, 4, 0]
        continued = self.purify(images, ctx, clean, 4)
        assert calls == [4, 4, 0, 3]
        np.testing.assert_array_equal(continued, self.purify(images, ctx, clean, 4))
        assert calls == [4, 4, 0, 3, 4, 4, 3]  # done is done: nothing is left behind

    def test_other_work_is_not_taken_for_its_own(self, images: Images, ctx: Context) -> None:
        def stop(x: Tensor, random: process.Streams) -> Tensor:
            if x[0, 0, 0, 0] == process.to_model(images[4:5], "cpu")[0, 0, 0, 0]:
                raise KeyboardInterrupt
            return -x

        with pytest.raises(KeyboardInterrupt):
            self.purify(images, ctx, stop, 4)
        data = image_set(images)
        found = denoiser.purify(data, ctx, "other key", (8, 8), lambda x, random: x, "purify", batch=4)
        np.testing.assert_array_equal(found.images, images)

    def test_smaller_images_are_enlarged_and_reduced_again(self, ctx: Context) -> None:
        y, x = np.mgrid[:6, :5]
        ramp = np.repeat((20 * y + 25 * x)[None, :, :, None], 3, axis=3).astype(np.uint8)
        seen = []

        def clean(x: Tensor, random: process.Streams) -> Tensor:
            seen.append(tuple(x.shape))
            return x

        found = self.purify(ramp, ctx, clean, 4, (8, 8))
        assert seen == [(1, 3, 8, 8)]
        assert np.abs(found.astype(int) - ramp).max() <= 12  # at the border; a blur


@pytest.mark.parametrize(
    ("size", "images", "message"),
    [(8, (9, 8), "for images of 8 x 8, these are 9 x 8"), (None, (6, 7), "6 x 7 do not suit the network")],
)
def test_images_that_do_not_fit_are_refused(
    size: int | None, images: tuple[int, int], message: str, tmp_path: Path
) -> None:
    weights = locate(tiny_model(tmp_path / "model", size=size))
    with pytest.raises(UserError, match=message):
        denoiser.check(weights, 1, images, "avatar")


@pytest.mark.parametrize(("size", "images", "used"), [(8, (5, 8), (8, 8)), (None, (6, 10), (6, 10))])
def test_images_that_fit(size: int | None, images: tuple[int, int], used: tuple[int, int], tmp_path: Path) -> None:
    assert denoiser.check(locate(tiny_model(tmp_path / "model", size=size)), 1000, images, "avatar") == used
