"""Noise against a classifier of pixels, strong views, and detection by such classifiers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch.nn import functional as F

from ue_bench.api import Context, ImageSet, UserError
from ue_bench_countermeasures import pixel_classifier
from ue_bench_countermeasures.detect_commands import detect
from ue_bench_countermeasures.detection import detected, passes
from ue_bench_countermeasures.pixel_classifier import PixelRecipe, attack, context, cropped, fit, unit
from ue_bench_countermeasures.sdaan import Sdaan

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {"width": 16, "epochs": 3}


def patterned(count: int = 200, strength: int = 8, seed: int = 0, side: int = 8) -> ImageSet:
    """Noise on a random colour, and a pattern of its class with ``side`` x ``side`` cells."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, count)
    patterns = np.random.default_rng(7).choice([-strength, strength], (4, side, side, 3))
    patterns = patterns.repeat(8 // side, 1).repeat(8 // side, 2)
    images = rng.normal(128, 40, (count, 1, 1, 3)) + rng.normal(0, 20, (count, 8, 8, 3)) + patterns[labels]
    return ImageSet(images.clip(0, 255).astype(np.uint8), labels, tuple("abcd"))


def silent(*progress: Any) -> None:
    pass


class TestClassifier:
    def test_rates_fall_at_the_milestones(self) -> None:
        recipe = PixelRecipe(epochs=100, width=0)
        assert [recipe.rate(epoch) for epoch in (0, 74, 75, 89, 90)] == pytest.approx([0.01, 0.01, 1e-3, 1e-3, 1e-4])

    def test_learns_and_is_the_same_twice(self, tmp_path: Path) -> None:
        data, recipe = patterned(), PixelRecipe(epochs=20, width=0, batch=20)
        first = fit(data, recipe, "cpu", tmp_path / "a", silent, "")
        again = fit(data, recipe, "cpu", tmp_path / "b", silent, "")
        assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
        right = first(unit(data.images, "cpu")).argmax(1) == torch.tensor(data.labels)
        assert right.float().mean() > 0.8

    def test_goes_on_after_a_kill(self, tmp_path: Path) -> None:
        data, recipe = patterned(), PixelRecipe(epochs=4, width=8, crop=2, eps=8 / 255)

        def killed(done: float, total: float, text: str) -> None:
            if done == 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            fit(data, recipe, "cpu", tmp_path / "a", killed, "")
        seen: list[float] = []
        resumed = fit(data, recipe, "cpu", tmp_path / "a", lambda done, *more: seen.append(done), "")
        assert seen == [2, 3]
        whole = fit(data, recipe, "cpu", tmp_path / "b", silent, "")
        assert all(torch.equal(a, b) for a, b in zip(resumed.parameters(), whole.parameters(), strict=True))

    def test_crops_are_windows_of_the_framed_image_or_its_mirror(self) -> None:
        x = torch.rand(20, 3, 5, 6, generator=torch.Generator().manual_seed(0))
        windows = cropped(x, 1, torch.Generator().manual_seed(1))
        framed = F.pad(x, (1,) * 4)
        for image, window in zip(framed, windows, strict=True):
            there = [image[:, r : r + 5, c : c + 6] for r in range(3) for c in range(3)]
            assert any(torch.equal(window, w) or torch.equal(window, w.flip(2)) for w in there)

    def test_the_attack_starts_at_the_image_and_raises_the_loss(self, tmp_path: Path) -> None:
        data = patterned()
        model = fit(data, PixelRecipe(epochs=5, width=0, batch=20), "cpu", tmp_path / "a", silent, "")
        x, y = unit(data.images, "cpu"), torch.tensor(data.labels)
        worst = attack(8 / 255, 8).attack(model, x, y, context("cpu"))
        assert torch.equal(worst, attack(8 / 255, 8).attack(model, x, y, context("cpu", 5)))
        assert F.cross_entropy(model(worst), y) > F.cross_entropy(model(x), y) + 0.1


class TestSdaan:
    def test_noise_is_bounded_and_bad_for_the_classifier(self, ctx: Context) -> None:
        data = patterned()
        noisy = Sdaan(**SMALL).purify(data, ctx)
        change = noisy.images.astype(int) - data.images
        assert np.abs(change).max() == 8
        assert (np.abs(change) == 8).mean() > 0.3
        assert np.array_equal(noisy.labels, data.labels)

    def test_no_noise_and_no_views_are_vanilla(self, ctx: Context) -> None:
        data = patterned(20)
        nothing = Sdaan(eps=0, strong=False)
        assert nothing.purify(data, ctx) is data
        x, y = torch.rand(4, 3, 8, 8), torch.arange(4)
        seen, labels = nothing.augment(x, y, torch.Generator())
        assert seen is x
        assert labels is y

    def test_views_are_strong(self) -> None:
        x = torch.rand(64, 3, 16, 16, generator=torch.Generator().manual_seed(0)).to(memory_format=torch.channels_last)
        views, _ = Sdaan().augment(x, torch.zeros(64).long(), torch.Generator().manual_seed(1))
        assert views.is_contiguous(memory_format=torch.channels_last)
        assert 0 <= views.min() <= views.max() <= 1
        gray = (views.amax(1) - views.amin(1)).flatten(1).amax(1) < 1e-5
        assert 0.05 < float(gray.float().mean()) < 0.4
        again, _ = Sdaan().augment(x, torch.zeros(64).long(), torch.Generator().manual_seed(1))
        assert torch.equal(views, again)

    def test_seeds_and_images_are_in_the_state(self, ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
        """A run that was killed in the attack goes on with the classifier that it had."""
        data, fitted = patterned(40), []
        known = pixel_classifier.fit

        def counted(*given: Any) -> Any:
            fitted.append(1)
            return known(*given)

        monkeypatch.setattr(pixel_classifier, "fit", counted)
        first = Sdaan(**SMALL).purify(data, ctx)
        again = Sdaan(**SMALL).purify(data, ctx)
        assert np.array_equal(first.images, again.images)
        assert len(fitted) == 2  # nothing is left behind

    def test_presets(self) -> None:
        assert (Sdaan().setting("width"), Sdaan().setting("epochs")) == (3072, 100)
        assert (Sdaan(preset="micro").setting("width"), Sdaan(preset="micro", epochs=2).setting("epochs")) == (256, 2)


class TestDetection:
    @pytest.mark.parametrize(("network", "strength", "side"), [("linear", 30, 8), ("mlp", 90, 1)])
    def test_patterns_show_and_their_absence(self, network: str, strength: int, side: int, tmp_path: Path) -> None:
        """One that crops move is nothing to the classifier that sees crops; a colour is."""
        found = [
            detected(patterned(400, much, side=side), network, 30, 64, 0, "cpu", tmp_path / str(much), silent)
            for much in (strength, 0)
        ]
        assert found[1][0] < 45
        assert found[0][0] > 70
        assert found[0][1] == 80

    @pytest.mark.parametrize(("classes", "expected"), [(2, 100), (99, 100), (100, 200), (200, 200)])
    def test_many_classes_take_twice_as_long(self, classes: int, expected: int) -> None:
        assert passes(classes) == expected

    def test_too_few_images(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="4 images are too few"):
            detected(patterned(4), "linear", 1, 1, 0, "cpu", tmp_path, silent)

    def test_one_class(self, tmp_path: Path) -> None:
        data = patterned(20)
        one = ImageSet(data.images, np.zeros(20, dtype=np.int64), ("a",))
        with pytest.raises(UserError, match="all images are of one class"):
            detected(one, "linear", 1, 1, 0, "cpu", tmp_path, silent)

    def test_command(self, tmp_path: Path) -> None:
        given = [
            "-D",
            "demo[train_per_class=20,test_per_class=2]",
            "--epochs",
            "1",
            "--device",
            "cpu",
            "--cache-dir",
            str(tmp_path),
        ]
        result = CliRunner().invoke(detect, [*given, "-P", "lsp", "--json"])
        assert result.exit_code == 0, result.output
        found = json.loads(result.stdout)
        assert found["protector"] == "lsp"
        assert found["protected"] == (found["accuracy"] > found["bound"])
        result = CliRunner().invoke(detect, given)
        assert "classifier of pixels has" in result.stdout
        assert f"% on {found['held_out']:,} held-out images" in result.stdout
        result = CliRunner().invoke(detect, [*given, "--width", "5"])
        assert isinstance(result.exception, UserError)
