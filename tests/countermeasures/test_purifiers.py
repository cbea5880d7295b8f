"""DiffPure, AVATAR, LE-JCDP and ECLIPSE with tiny networks of random weights."""

from __future__ import annotations

import math
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ue_bench.api import Context, EnvironmentProblem, ImageSet, UserError
from ue_bench_countermeasures import relearning
from ue_bench_countermeasures.diffusion import denoiser, process, training
from ue_bench_countermeasures.diffusion.recipe import Recipe
from ue_bench_countermeasures.diffusion.weights import locate
from ue_bench_countermeasures.purifiers import Avatar, DiffPure
from ue_bench_countermeasures.relearning import Eclipse, LeJcdp, pull

from .helpers import Images, Purify, image_set, is_kept, tiny_model

diffusers = pytest.importorskip("diffusers")
pytestmark = pytest.mark.usefixtures("one_thread")

Kinds = [DiffPure, Avatar, LeJcdp, Eclipse]
by_name = pytest.mark.parametrize("kind", Kinds, ids=lambda k: k.name)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("purifiers") / "model")


@pytest.fixture
def images() -> Images:
    """Smooth ones, so that noise is seen."""
    y, x = np.mgrid[:8, :8]
    phases = np.random.default_rng(3).uniform(0, 6, (10, 1, 1, 3))
    found: Images = (128 + 80 * np.sin(x[..., None] / 3 + phases) * np.cos(y[..., None] / 4 + phases)).astype(np.uint8)
    return found


def made(kind: Any, model: Path | None, **parameters: Any) -> Any:
    """With few steps, and without the network of LPIPS."""
    if kind is LeJcdp:
        parameters = {"distance": "pixels", "repeats": 2} | parameters
    return kind(**({"model": model, "t": 4} | parameters))


@by_name
class TestEveryPurifier:
    def test_labels_stay_and_images_change(self, kind: Any, model: Path, images: Images, ctx: Context) -> None:
        before = image_set(images.copy())
        after = made(kind, model).purify(before, ctx)
        assert after.labels is before.labels
        assert after.images.dtype == np.uint8
        np.testing.assert_array_equal(before.images, images)
        difference = np.abs(after.images.astype(int) - images)
        assert (difference.mean(axis=(1, 2, 3)) > 0.5).all()
        assert difference.mean() < 30  # it is little noise that an untrained network leaves there

    def test_the_seed_decides(self, kind: Any, model: Path, images: Images, ctx: Context) -> None:
        first, again, other = (
            np.asarray(made(kind, model).purify(image_set(images), replace(ctx, seed=seed)).images)
            for seed in (0, 0, 1)
        )
        np.testing.assert_array_equal(first, again)
        assert (first != other).any(axis=(1, 2, 3)).all()

    def test_images_are_treated_each_by_itself(self, kind: Any, model: Path, images: Images, purify: Purify) -> None:
        """Every image is denoised with its own noise, whatever the others are."""
        together = purify(made(kind, model), images)
        other = np.concatenate([images[:4], 255 - images[4:]])
        found = purify(made(kind, model), other)
        np.testing.assert_array_equal(found[:4], together[:4])
        assert (found[4:] != together[4:]).any(axis=(1, 2, 3)).all()

    def test_more_noise_moves_images_further(self, kind: Any, model: Path, images: Images, purify: Purify) -> None:
        moved = [(purify(made(kind, model, t=t), images).astype(int) - images).std() for t in (2, 8, 30)]
        assert moved == sorted(moved)
        assert moved[2] > 2 * moved[0]

    def test_smaller_images_and_larger_ones(self, kind: Any, model: Path, images: Images, purify: Purify) -> None:
        assert purify(made(kind, model), images[:, :6, :7]).shape == (10, 6, 7, 3)
        with pytest.raises(UserError, match="for images of 8 x 8, these are 16 x 8"):
            purify(made(kind, model), np.concatenate([images, images], axis=1))

    def test_more_noise_than_the_network_knows_is_refused(
        self, kind: Any, model: Path, images: Images, purify: Purify
    ) -> None:
        with pytest.raises(UserError, match="knows 1000 noise levels, t=1001 needs more"):
            purify(made(kind, model, t=1001), images)

    def test_results_are_kept_and_test_images_left_alone(self, kind: Any, model: Path) -> None:
        assert is_kept(made(kind, model))
        assert "apply_to_test" not in kind.model_fields

    def test_it_continues_where_it_was_killed(
        self, kind: Any, model: Path, images: Images, ctx: Context, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(denoiser, "BATCH_PIXELS", 4 * 64)
        expected = np.asarray(made(kind, model).purify(image_set(images), ctx).images)
        seen: list[slice] = []

        def counted(seed: int, where: slice) -> Any:
            seen.append(where)
            if len(seen) == 3:
                raise KeyboardInterrupt
            return process.streams(seed, where)

        monkeypatch.setattr(denoiser, "streams", counted)
        with pytest.raises(KeyboardInterrupt):
            made(kind, model).purify(image_set(images), ctx)
        continued = made(kind, model).purify(image_set(images), ctx)
        assert [where.start for where in seen] == [0, 4, 8, 8]
        np.testing.assert_array_equal(continued.images, expected)


@pytest.mark.parametrize("kind", [DiffPure, Avatar])
def test_no_noise_changes_nothing_and_needs_no_model(kind: Any, images: Images, purify: Purify) -> None:
    np.testing.assert_array_equal(purify(kind(t=0), images), images)


@pytest.mark.parametrize(
    ("plugin", "sampler", "variance"),
    [
        (DiffPure(t=6), process.euler_maruyama, "large"),
        (Avatar(t=6), process.ancestral, "large"),
        (Avatar(t=6, reverse="sde"), process.euler_maruyama, "large"),
        (Avatar(t=6, reverse="vp-sde"), process.euler_maruyama_in_time, "large"),
        (DiffPure(t=6, reverse="ddpm"), process.ancestral, "large"),
        (Avatar(t=6, reverse="ddpm-small"), process.ancestral, "small"),
        (Avatar(t=6, steps=3), process.ancestral, "large"),
    ],
    ids=lambda v: getattr(v, "selector", ""),
)
def test_noise_is_added_and_taken_away_as_it_is_said(
    plugin: Any, sampler: Any, variance: Any, model: Path, images: Images, purify: Purify
) -> None:
    loaded = denoiser.load(locate(model), "cpu", variance)
    random = process.streams(0, slice(0, 10))
    steps = [5, 2, 0] if plugin.steps else [5, 4, 3, 2, 1, 0]
    with torch.no_grad():
        noisy = process.noised(loaded.scheduler, process.to_model(images, "cpu"), 5, random)
        expected = process.to_levels(sampler(loaded.predict, loaded.scheduler, noisy, steps, random))
    found = purify(type(plugin)(**{**dict(plugin), "model": model}), images)
    np.testing.assert_array_equal(found, expected)


def test_values_out_of_range_wrap_where_that_is_asked_for(model: Path, purify: Purify) -> None:
    white = np.full((2, 8, 8, 3), 255, np.uint8)
    settings = {"model": model, "t": 3, "reverse": "sde"}
    clipped = purify(Avatar(**settings), white)
    wrapped = purify(Avatar(**settings, legacy_wrap=True), white)
    assert clipped.min() > 200
    outside = (clipped == 255) & (wrapped < 100)
    assert outside.mean() > 0.1
    inside = (clipped < 255) & (clipped > 0)
    assert (clipped[inside].astype(int) - wrapped[inside]).max() == 1  # cut, not rounded
    assert (clipped[inside].astype(int) - wrapped[inside]).min() == 0


class TestEclipse:
    @pytest.fixture
    def x(self) -> Tensor:
        return torch.rand(400, 3, 8, 8, generator=torch.Generator().manual_seed(0))

    def augment(self, eclipse: Eclipse, x: Tensor, seed: int = 0) -> Tensor:
        y = torch.arange(len(x))
        changed, labels = eclipse.augment(x, y, torch.Generator().manual_seed(seed))
        assert labels is y
        return changed

    def test_nothing_is_left_without_its_parts(self, x: Tensor) -> None:
        x = (255 * x).round() / 255
        assert torch.equal(self.augment(Eclipse(t=0, gray=0, noise=0), x), x)

    def test_some_images_turn_gray(self, x: Tensor) -> None:
        found = self.augment(Eclipse(t=0, noise=0), x)
        gray = (found.amax(1) == found.amin(1)).flatten(1).all(1)
        assert float(gray.float().mean()) == pytest.approx(0.4, abs=0.08)
        luma = (x * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
        torch.testing.assert_close(found[gray], luma.expand_as(x)[gray], atol=1 / 255 + 1e-6, rtol=0)
        torch.testing.assert_close(found[~gray], x[~gray], atol=0.5 / 255 + 1e-6, rtol=0)
        assert torch.equal(self.augment(Eclipse(t=0, gray=1, noise=0), torch.ones(1, 3, 2, 2)), torch.ones(1, 3, 2, 2))

    def test_noise_is_fresh_and_lands_on_whole_levels(self, x: Tensor) -> None:
        inner = 0.5 + 0.1 * (x - 0.5)
        found = self.augment(Eclipse(t=0, gray=0), inner)
        assert float((found - inner).std()) == pytest.approx(0.05, rel=0.02)
        torch.testing.assert_close(255 * found, (255 * found).round(), atol=1e-4, rtol=0)
        assert not torch.equal(found, self.augment(Eclipse(t=0, gray=0), inner, seed=1))
        assert torch.equal(found, self.augment(Eclipse(t=0, gray=0), inner))

    def test_fractions_are_cut_off_as_in_the_release(self, x: Tensor) -> None:
        """Half a level darker on average than rounded; what is a whole level stays."""
        inner = 0.5 + 0.1 * (x - 0.5)
        cut, rounded = (self.augment(Eclipse(t=0, gray=0, rounding=rule), inner) for rule in ("truncate", "round"))
        lower = (255 * (rounded - cut)).round()
        assert lower.unique().tolist() == [0, 1]
        assert float(lower.mean()) == pytest.approx(0.5, abs=0.01)
        for rule in ("truncate", "round"):
            levels = torch.arange(256.0).view(1, 1, 16, 16).expand(1, 3, 16, 16) / 255
            assert torch.equal(self.augment(Eclipse(t=0, noise=0, rounding=rule), levels), levels)
            halved = self.augment(Eclipse(t=0, noise=0, rounding=rule), levels.bfloat16())
            assert torch.equal(halved, levels.bfloat16())
        for fraction in (0.1, 0.9):
            values = ((torch.arange(256.0) + fraction) / 127.5 - 1).view(1, 1, 16, 16)
            assert process.cut_levels(values).ravel().tolist() == [*range(256)]

    def test_results_stay_in_range(self, x: Tensor) -> None:
        found = self.augment(Eclipse(t=0, noise=0.5), x.round())
        assert (float(found.min()), float(found.max())) == (0, 1)

    def test_half_precision_and_memory_layout_stay(self, x: Tensor) -> None:
        batch = x.bfloat16().to(memory_format=torch.channels_last)
        found = self.augment(Eclipse(t=0), batch)
        assert found.dtype == torch.bfloat16
        assert found.is_contiguous(memory_format=torch.channels_last)

    def test_its_last_part_alone_needs_no_clean_images(self, images: Images, purify: Purify) -> None:
        assert Eclipse(t=0).clean_images == 0
        np.testing.assert_array_equal(purify(Eclipse(t=0), images), images)


TINY: dict[str, Any] = {
    "channels": (8, 8), "layers": 1, "attention": (), "middle_attention": False, "groups": 4, "dropout": 0.0,
    "steps": 3, "batch": 4, "warmup": 0,
}  # fmt: skip


@pytest.mark.parametrize("kind", [Eclipse, LeJcdp], ids=lambda k: k.name)
class TestOwnModel:
    @pytest.fixture
    def tiny(self, kind: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
        monkeypatch.setattr(kind, "PRESETS", {"paper": TINY, "micro": TINY | {"timesteps": 500}})
        return made(kind, None, clean=5, t=6)

    @pytest.fixture
    def fits(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[ImageSet, Recipe]]:
        """What is trained on what."""
        seen: list[tuple[ImageSet, Recipe]] = []
        fit = training.fit

        def watch(data: ImageSet, recipe: Recipe, *rest: Any) -> None:
            seen.append((data, recipe))
            fit(data, recipe, *rest)

        monkeypatch.setattr(training, "fit", watch)
        return seen

    def test_it_is_trained_on_the_clean_images_once(
        self, kind: Any, tiny: Any, fits: list[Any], images: Images, ctx: Context
    ) -> None:
        assert tiny.clean_images == 5
        clean = image_set(images[5:])
        ctx = replace(ctx, clean=clean)
        first = tiny.purify(image_set(images), ctx)
        again = tiny.purify(image_set(255 - images), ctx)
        assert (first.images != again.images).any()
        [(data, recipe)] = fits
        assert data is clean
        assert (recipe.size, recipe.steps, recipe.deepest) == (8, 3, None)
        tiny.purify(image_set(images), replace(ctx, clean=image_set(images[:5])))
        assert len(fits) == 2

    def test_the_small_preset_trains_the_noise_that_is_taken_away(
        self, kind: Any, tiny: Any, fits: list[Any], images: Images, ctx: Context
    ) -> None:
        small = made(kind, None, preset="micro", t=6, train_steps=2)
        small.purify(image_set(images[:, :7, :6]), replace(ctx, clean=image_set(images[:5, :7, :6])))
        [(_, recipe)] = fits
        assert (recipe.deepest, recipe.timesteps, recipe.steps, recipe.size) == (6, 500, 2, 8)

    def test_a_given_model_needs_no_clean_images(self, kind: Any, model: Path) -> None:
        assert made(kind, model).clean_images == 0
        with pytest.raises(ValueError, match="clean, preset would do nothing with a model that is given"):
            kind(model=model, clean=7, preset="micro")

    def test_without_clean_images_it_does_not_work(self, kind: Any, tiny: Any, images: Images, purify: Purify) -> None:
        with pytest.raises(RuntimeError, match="no clean data"):
            purify(tiny, images)


def test_recipes_are_those_of_the_papers() -> None:
    eclipse, jcdp = Eclipse().recipe, LeJcdp().recipe
    assert (eclipse.timesteps, eclipse.schedule, eclipse.layers, eclipse.attention) == (4000, "cosine", 3, (16, 8))
    assert (eclipse.steps, eclipse.ema, eclipse.channels[0]) == (250_000, 0.9999, 128)
    assert (jcdp.timesteps, jcdp.schedule, jcdp.layers, jcdp.attention) == (1000, "linear", 2, (16,))
    assert (jcdp.channels, jcdp.dropout, jcdp.ema) == ((128, 256, 256, 256), 0.1, 0.9999)
    assert Eclipse(preset="micro").recipe.deepest == 100
    assert LeJcdp(preset="micro", t=30).recipe.deepest == 30


@pytest.mark.parametrize("parameters", [{"clean": 3}, {"preset": "micro"}, {"train_steps": 3}, {"model": "a/b"}])
def test_settings_of_a_model_that_is_not_used_are_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="would do nothing with t=0"):
        Eclipse(t=0, **parameters)


@pytest.fixture(scope="module")
def random_lpips() -> nn.Module:
    """The library's own, with random weights in AlexNet."""
    package = pytest.importorskip("lpips")
    trunk = package.pretrained_networks.tv

    def untrained(pretrained: bool) -> nn.Module:
        with torch.device("meta"):  # its classifier, most of it, is not used
            network: nn.Module = trunk.AlexNet()
        for layer in network.get_submodule("features").to_empty(device="cpu").children():
            if isinstance(layer, nn.Conv2d):
                layer.reset_parameters()
        return network

    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        patch.setattr(trunk, "alexnet", untrained)
        return relearning.lpips("cpu")


class TestLeJcdp:
    def test_without_guidance_it_is_avatar_several_times(self, model: Path, images: Images, purify: Purify) -> None:
        loaded = denoiser.load(locate(model), "cpu", "large")
        random = process.streams(0, slice(0, 10))
        x = process.to_model(images, "cpu")
        with torch.no_grad():
            for _ in range(4):
                noisy = process.noised(loaded.scheduler, x, 19, random)
                x = process.ancestral(loaded.predict, loaded.scheduler, noisy, range(19, -1, -1), random)
        np.testing.assert_array_equal(purify(LeJcdp(model=model, guidance=0), images), process.to_levels(x))
        once = purify(LeJcdp(model=model, guidance=0, repeats=1), images)
        np.testing.assert_array_equal(once, purify(Avatar(model=model, t=20), images))

    def test_variance_of_the_steps(self) -> None:
        """log(append(posterior_variance[1], betas[1:])) in the release, for 1,000 linear steps."""
        scheduler = diffusers.DDPMScheduler(**Recipe().scheduler)
        assert process.large_variance(scheduler, 0) == pytest.approx(5.4529e-5, rel=1e-3)
        assert process.large_variance(scheduler, 1) == pytest.approx(1.1992e-4, rel=1e-3)
        assert process.large_variance(scheduler, 19) == pytest.approx(float(scheduler.betas[19]))

    def test_scale_of_guidance(self) -> None:
        scheduler = diffusers.DDPMScheduler(**Recipe().scheduler)
        assert LeJcdp().scale(scheduler, 19) == pytest.approx(254_946, rel=1e-4)

    def test_guidance_is_the_formula_with_a_fresh_copy(self, model: Path, images: Images, purify: Purify) -> None:
        """One step of one repeat, written out: diffuse, denoise, add the variance * s * g."""
        loaded = denoiser.load(locate(model), "cpu", "large")
        random = process.streams(0, slice(0, 10))
        x = process.to_model(images, "cpu")
        # The last step, whose variance is that of the posterior of step 1.
        level, following = 1 - 1e-4, 1e-4 + (0.02 - 1e-4) / 999
        variance = following * (1 - level) / (1 - level * (1 - following))
        strength = 6e7
        with torch.no_grad():
            noisy = process.noised(loaded.scheduler, x, 0, random)
            clean = process.ancestral(loaded.predict, loaded.scheduler, noisy, [0], [])
            copy = math.sqrt(level) * x + math.sqrt(1 - level) * process.normal(x, random)
            scale = math.sqrt(1 - level) / (math.sqrt(level) * (8 * 2 / 255 / 3 / 70_000))
            expected = clean - strength * variance * scale * 2 * (noisy - copy) / (500 * 3 * 8 * 8)
        assert float((expected - clean).abs().max()) > 0.1
        found = purify(LeJcdp(model=model, t=1, repeats=1, guidance=strength, distance="pixels"), images)
        difference = np.abs(found.astype(int) - process.to_levels(expected))
        assert difference.max() <= 1
        assert difference.mean() < 0.01

    def test_guidance_pulls_towards_the_protected_image(self, model: Path, images: Images, purify: Purify) -> None:
        distances = []
        for guidance in (0.0, 30.0, 200.0):
            extra = {"distance": "pixels"} if guidance else {}
            found = purify(LeJcdp(model=model, repeats=1, guidance=guidance, **extra), images)
            distances.append(np.abs(found.astype(int) - images).mean())
        assert distances[0] > 1.1 * distances[1] > 1.1 * distances[2]

    def test_pixels_guide_the_upper_half_of_the_steps_and_lpips_the_lower(
        self, tmp_path: Path, purify: Purify, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[bool] = []

        def watch(x: Tensor, target: Tensor, distance: Any) -> Tensor:
            asked.append(distance is not None)
            return torch.zeros_like(x)

        monkeypatch.setattr(relearning, "pull", watch)
        monkeypatch.setattr(relearning, "lpips", lambda device: nn.Identity())
        model = tiny_model(tmp_path / "model", size=32)
        purify(LeJcdp(model=model, repeats=1), np.zeros((1, 32, 32, 3), np.uint8))
        assert asked == 9 * [False] + 11 * [True]  # steps 19 to 11, and 10 to 0
        with pytest.raises(UserError, match="8 x 8 are too small for LPIPS"):
            purify(LeJcdp(model=tiny_model(tmp_path / "small")), np.zeros((1, 8, 8, 3), np.uint8))

    def test_pull_of_pixels_is_the_gradient(self) -> None:
        x, target = torch.rand(2, 3, 3, 4, 4, generator=torch.Generator().manual_seed(0))
        found = pull(x, target, None)
        by_autograd = pull(x, target, lambda a, b: (a - b).square().mean(dim=(1, 2, 3)))
        torch.testing.assert_close(found, by_autograd)

    def test_pull_of_lpips_leads_closer(self, random_lpips: nn.Module) -> None:
        x, target = torch.rand(2, 3, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
        direction = pull(x, target, random_lpips)
        assert not direction.requires_grad
        with torch.no_grad():
            before = random_lpips(x, target).flatten()
            after = random_lpips(x + 0.5 * direction / direction.abs().amax(dim=(1, 2, 3), keepdim=True), target)
        assert (after.flatten() < before).all()
        alone = pull(x[1:2], target[1:2], random_lpips)
        torch.testing.assert_close(direction[1:2], alone, atol=1e-7, rtol=1e-3)

    def test_lpips_guides_a_purification(
        self, tmp_path: Path, random_lpips: nn.Module, purify: Purify, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(relearning, "lpips", lambda device: random_lpips)
        model = tiny_model(tmp_path / "model", size=32)
        y, x = np.mgrid[:32, :32]
        image = np.repeat((4 * x + 3 * y)[None, :, :, None], 3, axis=3).astype(np.uint8)
        settings: dict[str, Any] = {"model": model, "t": 4, "repeats": 1}
        found = purify(LeJcdp(**settings, guidance=2000), image)
        assert (found != purify(LeJcdp(**settings, guidance=0), image)).any()
        assert (found != purify(LeJcdp(**settings, guidance=2000, distance="pixels"), image)).any()

    def test_weights_of_alexnet_that_cannot_be_had_are_one_line(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pytest.importorskip("lpips")

        def offline(*_: Any, **__: Any) -> None:
            raise URLError("no network")

        monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
        monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
        with pytest.raises(EnvironmentProblem, match="AlexNet for LPIPS cannot be had: <urlopen error no network>"):
            relearning.lpips("cpu")

    def test_missing_package_is_named(self, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "lpips", None)
        with pytest.raises(EnvironmentProblem, match=r"LPIPS needs lpips \(pip install 'ue-bench\[diffusion\]'"):
            relearning.lpips("cpu")

    def test_a_distance_that_would_be_ignored_is_refused(self) -> None:
        with pytest.raises(ValueError, match="distance would do nothing with guidance=0"):
            LeJcdp(guidance=0, distance="pixels")


def test_weights_that_change_change_the_key_and_nothing_is_taken_over(
    model: Path, images: Images, ctx: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch left by a process that was killed is not mixed into a set of other weights."""
    monkeypatch.setattr(denoiser, "BATCH_PIXELS", 4 * 64)
    calls: list[slice] = []

    def once(seed: int, where: slice) -> Any:
        calls.append(where)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return process.streams(seed, where)

    monkeypatch.setattr(denoiser, "streams", once)
    path = shutil.copytree(model, tmp_path / "one")
    with pytest.raises(KeyboardInterrupt):
        Avatar(model=path, t=3).purify(image_set(images), ctx)
    other = tiny_model(tmp_path / "two", seed=1)
    Avatar(model=other, t=3).purify(image_set(images), ctx)
    assert [where.start for where in calls] == [0, 4, 0, 4, 8]
