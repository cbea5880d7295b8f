from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from real import DATA

from ue_bench.api import Context, Countermeasure, Dataset, Diverged, ImageSet, Preprocessing, Protector, UserError
from ue_bench.catalogue.registry import registry
from ue_bench_countermeasures import projection
from ue_bench_countermeasures.projection import OrthogonalProjection, gradient, project

from .helpers import Images

SHORT = OrthogonalProjection(epochs=8, batch=50)
CIFAR = DATA / "cifar10"


def noisy_set(count: int = 120, size: tuple[int, int] = (6, 7), classes: int = 4, level: int = 0) -> ImageSet:
    """Random images from 40 to 215; those of a class share a pattern of +-``level``. The last class has no image."""
    rng = np.random.default_rng(1)
    images = rng.integers(40, 216, (count, *size, 3))
    patterns = rng.choice([-level, level], (classes, *size, 3))
    labels = np.arange(count) % (classes - 1)
    names = tuple(f"class{k}" for k in range(classes))
    return ImageSet((images + patterns[labels]).astype(np.uint8), labels, names)


def flat(images: Images) -> NDArray[np.float64]:
    return images.reshape(len(images), -1) / 255


def basis_of(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.linalg.qr(weights.T)[0]


@pytest.mark.parametrize("epochs", [2, 8, 11])
def test_the_classifier_is_that_of_torch(epochs: int, ctx: Context) -> None:
    """Batches of 50, 50 and 20 images, a tenth of the rate after half and after three quarters of the epochs."""
    data = noisy_set(level=8)
    countermeasure = OrthogonalProjection(epochs=epochs, batch=50, learning_rate=0.5)
    found = countermeasure.fit(data, ctx, ctx.scratch / "state.npz")
    layer = torch.nn.Linear(6 * 7 * 3, 4, bias=False)
    bound = layer.in_features**-0.5
    start = ctx.rng("weights").uniform(-bound, bound, (4, 6 * 7 * 3))
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(start))
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [int(epochs * 0.5), int(epochs * 0.75)])
    x, y = torch.from_numpy(flat(data.images)).float(), torch.from_numpy(data.labels.copy())
    for _ in range(epochs):
        for images, labels in zip(x.split(50), y.split(50), strict=True):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(layer(images), labels).backward()
            optimizer.step()
        schedule.step()
    np.testing.assert_allclose(found, layer.weight.detach().numpy(), atol=1e-5)
    assert np.abs(found - start).max() > 0.01


def test_gradient_does_not_depend_on_the_size_of_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    data = noisy_set()
    weights = np.random.default_rng(0).normal(0, 0.1, (4, 6 * 7 * 3))
    whole = gradient(weights, data.images, data.labels)
    monkeypatch.setattr(projection, "CHUNK_VALUES", 7 * 6 * 7 * 3)
    np.testing.assert_allclose(gradient(weights, data.images, data.labels), whole, atol=1e-7)


class TestProjection:
    def test_nothing_is_left_along_the_weights(self, ctx: Context) -> None:
        weights = SHORT.fit(noisy_set(level=8), ctx, ctx.scratch / "state.npz")
        basis = basis_of(weights)
        unit = weights / np.linalg.norm(weights, axis=1, keepdims=True)
        left = unit - unit @ basis @ basis.T
        assert np.abs(left).max() < 1e-5
        assert np.abs(unit @ unit.T - np.eye(4)).max() > 0.1  # weights are not orthogonal by themselves

    def test_images_are_rounded_and_cut(self) -> None:
        images = np.random.default_rng(3).choice([0, 100, 255], (30, 6, 7, 3)).astype(np.uint8)
        basis = basis_of(np.random.default_rng(0).normal(0, 1, (4, 6 * 7 * 3)))
        x = images.reshape(30, -1).astype(float)
        expected = x - x @ basis @ basis.T
        assert expected.min() < -10
        assert expected.max() > 265
        found = project(images, basis).reshape(30, -1)
        assert np.abs(found - expected.clip(0, 255)).max() <= 0.5

    def test_again_changes_nothing_but_rounding(self) -> None:
        images = np.random.default_rng(3).integers(100, 156, (30, 16, 17, 3), dtype=np.uint8)
        patterns = np.random.default_rng(0).normal(0, 1, (4, 16 * 17 * 3))
        basis = basis_of(patterns - patterns.mean(axis=1, keepdims=True))
        once = project(images, basis)
        assert np.abs(once.astype(int) - images).max() > 2
        assert np.abs(project(once, basis).astype(int) - once).max() <= 1

    def test_few_of_many_dimensions_hold_little(self) -> None:
        rng = np.random.default_rng(0)
        images = rng.normal(0, 1, (50, 3072))
        basis = basis_of(rng.normal(0, 1, (10, 3072)))
        assert np.square(images - images @ basis @ basis.T).sum() > 0.99 * np.square(images).sum()


class TestPurify:
    def test_patterns_of_classes_go(self, ctx: Context) -> None:
        """After projection the same classifier finds no more than in images without patterns."""
        data, plain = noisy_set(240, level=12), noisy_set(240)
        countermeasure = OrthogonalProjection(epochs=60, batch=80, learning_rate=0.5)
        after = countermeasure.purify(data, ctx)

        def accuracy(images: ImageSet) -> float:
            weights = countermeasure.fit(images, ctx, ctx.scratch / f"{images.fingerprint}.npz")
            return float(((flat(images.images) @ weights.T).argmax(axis=1) == images.labels).mean())

        assert accuracy(data) > 0.95
        assert accuracy(after) < accuracy(plain)
        np.testing.assert_array_equal(
            after.images, project(data.images, basis_of(self.weights(countermeasure, data, ctx)))
        )

    def weights(self, countermeasure: OrthogonalProjection, data: ImageSet, ctx: Context) -> NDArray[np.float64]:
        return countermeasure.fit(data, ctx, ctx.scratch / f"{data.fingerprint}.npz")

    def test_labels_and_input_stay(self, ctx: Context) -> None:
        data = noisy_set()
        before = data.images.copy()
        after = SHORT.purify(data, ctx)
        assert after.labels is data.labels
        np.testing.assert_array_equal(data.images, before)
        assert not list((ctx.artifacts / "unfinished").iterdir())

    def test_seed_labels_and_images_decide(self, ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
        data = noisy_set(level=8)
        found = SHORT.purify(data, ctx).images
        shifted = ImageSet(data.images, (data.labels + 1) % 3, data.class_names)
        assert (SHORT.purify(shifted, ctx).images != found).any()
        assert (SHORT.purify(data, replace(ctx, seed=1)).images != found).any()
        monkeypatch.setattr(projection, "CHUNK_VALUES", 7 * 6 * 7 * 3)
        np.testing.assert_array_equal(SHORT.purify(data, ctx).images, found)

    def test_killed_work_continues(self, ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
        """Three steps an epoch; killed in the sixth epoch, five are kept."""
        data = noisy_set(level=8)
        whole = SHORT.purify(data, replace(ctx, artifacts=ctx.artifacts / "whole")).images
        steps: list[int] = []

        def dying(*arguments: Any) -> NDArray[np.float64]:
            steps.append(1)
            if len(steps) == 17:
                raise KeyboardInterrupt
            return gradient(*arguments)

        monkeypatch.setattr(projection, "gradient", dying)
        with pytest.raises(KeyboardInterrupt):
            SHORT.purify(data, ctx)
        np.testing.assert_array_equal(SHORT.purify(data, ctx).images, whole)
        assert len(steps) == 17 + 9

    def test_more_classes_than_numbers_are_refused(self, ctx: Context) -> None:
        with pytest.raises(UserError, match="7 classes, but images of 1 x 2 have 6 numbers"):
            SHORT.purify(noisy_set(size=(1, 2), classes=7), ctx)
        assert SHORT.purify(noisy_set(size=(1, 2), classes=6), ctx).images.max() <= 1  # all dimensions went


def test_test_images_cannot_be_treated_alike() -> None:
    assert not issubclass(OrthogonalProjection, Preprocessing)


def test_combination_that_the_docstring_names() -> None:
    [found] = registry().resolve("countermeasure", "orthogonal-projection+randaugment+cutmix")
    assert isinstance(found, Countermeasure)
    assert all(found.overrides(method) for method in ("purify", "augment", "loss"))


@pytest.mark.parametrize("protector", ["lsp", "ops"])
def test_shortcuts_in_real_images(protector: str, ctx: Context) -> None:
    """Ten directions of 3,072 hold much of the shortcut in 1,000 images of CIFAR-10, and little of the images."""
    if not CIFAR.exists():
        pytest.skip(f"real data is not there: {CIFAR}")
    [dataset], [plugin] = (
        registry().resolve(*one) for one in (("dataset", "cifar10[limit_per_class=100]"), ("protector", protector))
    )
    assert isinstance(dataset, Dataset)
    assert isinstance(plugin, Protector)
    clean = dataset.load("train", replace(ctx, data_dir=CIFAR.parent))
    data = plugin.protect(clean, ctx)
    countermeasure = OrthogonalProjection(batch=20)
    basis = basis_of(countermeasure.fit(data, ctx, ctx.scratch / "state.npz"))
    shortcut = data.images.reshape(1000, -1) / 255 - clean.images.reshape(1000, -1) / 255
    means = np.stack([shortcut[data.labels == k].mean(axis=0) for k in range(10)])
    means -= means.mean(axis=0)
    assert np.square(means @ basis).sum() > 0.4 * np.square(means).sum()
    assert np.square(flat(clean.images) @ basis).sum() < 0.03 * np.square(flat(clean.images)).sum()


def test_a_classifier_that_diverges_projects_nothing(ctx: Context) -> None:
    wild = SHORT.model_copy(update={"learning_rate": 1e308})
    with np.errstate(all="ignore"), pytest.raises(Diverged, match=r"at step \d+ of 24: weights of the linear"):
        wild.purify(noisy_set(), ctx)
