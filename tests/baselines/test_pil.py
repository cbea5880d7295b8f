"""PIL: its closed form against golden values and autograd, its noise on sets that a matrix learns in a second."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sets import corners
from torch import Tensor
from torch.nn import functional as F

from ue_bench.api import Context, Diverged, ImageSet
from ue_bench.catalogue.registry import registry
from ue_bench_baselines import pil
from ue_bench_baselines.pgd import to_unit
from ue_bench_baselines.pil import PIL
from ue_bench_baselines.pil_linear import descend, gradient, loss, trained

from .helpers import difference, image_set, random_set

pytestmark = pytest.mark.usefixtures("one_thread")
QUICK: dict[str, Any] = {"epochs": 40, "batch": 16, "rate": 0.1}
LEVEL = 1 / 255

# The toy of golden values: three classes, six values, one image. Computed in float64 by the formula and by autograd.
MATRIX = torch.tensor([[math.sin(1 + 6 * c + d) for d in range(6)] for c in range(3)], dtype=torch.float64)
IMAGE = torch.tensor([[(d + 1) / 7 for d in range(6)]], dtype=torch.float64)
LABEL = torch.tensor([1])
NOTHING = torch.zeros_like(IMAGE)


def toy_loss(noise: Tensor) -> float:
    return loss(MATRIX, IMAGE @ MATRIX.T, noise, LABEL, 0.9).item()


def toy_noise(eps: float, step: float, steps: int) -> Tensor:
    return descend(MATRIX, IMAGE, LABEL, NOTHING, eps, step, steps, 0.9)


class TestClosedForm:
    def test_golden_loss_and_gradient(self) -> None:
        assert toy_loss(NOTHING) == pytest.approx(0.9887820697972434, abs=1e-14)
        assert loss(MATRIX, IMAGE @ MATRIX.T, NOTHING, LABEL, 0).item() == pytest.approx(0.0003101000, abs=1e-10)
        found = gradient(MATRIX, IMAGE @ MATRIX.T, NOTHING, LABEL, 0.9)
        assert found[0].tolist() == pytest.approx(
            [-0.015372, -0.023670, -0.010207, 0.012641, 0.023867, 0.013149], abs=6e-7
        )

    @pytest.mark.parametrize(
        ("steps", "levels", "left"),
        [(1, [0.8, 0.8, 0.8, -0.8, -0.8, -0.8], 0.9884718329), (30, [8, 8, 8, -8, -8, -8], 0.9856846100)],
    )
    def test_golden_steps(self, steps: int, levels: list[float], left: float) -> None:
        noise = toy_noise(8 * LEVEL, 0.8 * LEVEL, steps)
        assert (255 * noise[0]).tolist() == pytest.approx(levels)
        assert toy_loss(noise) == pytest.approx(left, abs=1e-10)

    def test_golden_steps_that_do_not_end_in_a_corner(self) -> None:
        noise = toy_noise(1, 0.1, 30)
        assert noise[0].tolist() == pytest.approx([1, 1, 0.8, -1, -1, -1])
        assert toy_loss(noise) == pytest.approx(0.8952704291, abs=1e-10)

    @pytest.mark.parametrize("weight", [0.0, 0.3, 0.9, 1.0])
    def test_it_is_the_gradient_of_the_loss(self, weight: float) -> None:
        generator = torch.Generator().manual_seed(0)
        matrix, x = (torch.randn(n, 11, generator=generator, dtype=torch.float64) for n in (4, 5))
        labels = torch.tensor([0, 3, 1, 1, 2])
        noise = torch.randn(5, 11, generator=generator, dtype=torch.float64).requires_grad_()
        own, left = noise @ matrix.T, (x - noise) @ matrix.T
        uniform = torch.full_like(left, 0.25)
        told = weight * F.cross_entropy(own, labels, reduction="none")
        silent = (1 - weight) * F.kl_div(left.log_softmax(1), uniform, reduction="none").sum(1)
        assert torch.allclose(loss(matrix, x @ matrix.T, noise, labels, weight), told + silent, atol=1e-12)
        [expected] = torch.autograd.grad((told + silent).sum(), noise)
        assert torch.allclose(gradient(matrix, x @ matrix.T, noise.detach(), labels, weight), expected, atol=1e-12)

    def test_without_silence_the_image_has_no_say(self) -> None:
        other = descend(MATRIX, 1 - IMAGE, LABEL, NOTHING, 0.1, 0.01, 7, 1.0)
        assert torch.equal(descend(MATRIX, IMAGE, LABEL, NOTHING, 0.1, 0.01, 7, 1.0), other)


class TestSurrogate:
    def test_it_is_one_matrix_of_two_layers_that_learned(self, ctx: Context) -> None:
        data = corners(60)
        matrix = trained(data, ctx, **QUICK)
        assert matrix.shape == (3, 3 * 12 * 10)
        x, labels = to_unit(data.images, "cpu").flatten(1), torch.tensor(data.labels)
        assert ((x @ matrix.T).argmax(1) == labels).float().mean() > 0.9

    def test_plain_gradient_descent_in_the_order_of_the_set(self, ctx: Context) -> None:
        """One epoch of three batches by hand: momentum 0.9, no weight decay, the last batch smaller."""
        data = corners(20, classes=2)
        first, second = self.start(data, ctx)
        speeds = [torch.zeros_like(first), torch.zeros_like(second)]
        for rows in (slice(0, 8), slice(8, 16), slice(16, 20)):
            x, labels = to_unit(data.images[rows], "cpu").flatten(1), torch.tensor(data.labels[rows])
            told = (x @ first.T @ second.T).softmax(1) - F.one_hot(labels, 2)
            slopes = [(told @ second).T @ x / len(x), told.T @ (x @ first.T) / len(x)]
            speeds = [0.9 * v + g for v, g in zip(speeds, slopes, strict=True)]
            first, second = first - 0.01 * speeds[0], second - 0.01 * speeds[1]
        assert torch.allclose(trained(data, ctx, 1, 8, 0.01), second @ first, atol=1e-6)

    def start(self, data: ImageSet, ctx: Context) -> list[Tensor]:
        """The two layers before the first step: a rate of all but nothing leaves their product."""
        layers: list[Tensor] = []
        build = torch.nn.Linear.__init__

        def noted(module: torch.nn.Linear, *given: Any, **options: Any) -> None:
            build(module, *given, **options)
            layers.append(module.weight.detach().clone())

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.nn.Linear, "__init__", noted)
            trained(data, ctx, 1, 100, 1e-30)
        return layers

    def test_a_set_that_comes_class_by_class_is_shuffled(self, ctx: Context) -> None:
        data = corners(60)
        order = np.argsort(data.labels, kind="stable")
        sorted_set = image_set(data.images[order], data.labels[order], 3)
        x, labels = to_unit(data.images, "cpu").flatten(1), torch.tensor(data.labels)
        right = ((x @ trained(sorted_set, ctx, **QUICK).T).argmax(1) == labels).float().mean()
        assert right > 0.9

    def test_it_is_trained_once(self, ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
        data = corners()
        first = PIL(**QUICK).protect(data, ctx)
        monkeypatch.setattr("ue_bench_baselines.pil_linear.trained", None)
        assert PIL(**QUICK, weight=0.8).surrogate(data, ctx).shape == (3, 360)
        assert np.array_equal(PIL(**QUICK).protect(data, ctx).images, first.images)

    def test_a_surrogate_that_diverges_protects_nothing(self, ctx: Context) -> None:
        with pytest.raises(Diverged, match="of the linear surrogate not finite"):
            PIL(epochs=20, batch=16, rate=1e20).protect(corners(), ctx)


def test_noise_alone_says_the_class_and_is_taken_off_the_image(ctx: Context) -> None:
    data = corners(60)
    protector = PIL(**QUICK, eps="32/255")
    moved = torch.from_numpy(difference(protector.protect(data, ctx), data).transpose(0, 3, 1, 2).astype(np.float32))
    told = moved.flatten(1) @ protector.surrogate(data, ctx).T
    assert (told.argmin(1).numpy() == data.labels).mean() > 0.95


def test_images_stay_within_the_budget_and_in_order(ctx: Context) -> None:
    data = corners()
    protected = PIL(**QUICK).protect(data, ctx)
    assert np.array_equal(protected.labels, data.labels)
    assert (protected.images.shape, protected.images.dtype) == (data.images.shape, np.dtype(np.uint8))
    moved = difference(protected, data)
    assert (moved.min(), moved.max()) == (-8, 8)
    assert (np.abs(moved) == 8).mean() > 0.9
    again = PIL(**QUICK).protect(data, replace(ctx, artifacts=ctx.artifacts / "new"))
    assert np.array_equal(again.images, protected.images)
    other = PIL(**QUICK).protect(data, replace(ctx, seed=1))
    assert not np.array_equal(other.images, protected.images)
    assert not list((ctx.artifacts / "unfinished").iterdir())


def test_truncation_is_the_releases_and_declares_a_level_more(ctx: Context) -> None:
    data = corners()
    protector = PIL(**QUICK, rounding="truncate")
    moved = difference(protector.protect(data, ctx), data)
    rounded = difference(PIL(**QUICK).protect(data, ctx), data)
    assert moved.min() >= -9
    assert moved.max() <= 8
    assert moved.mean() < rounded.mean()
    assert set(np.unique(rounded - moved)) <= {0, 1}
    assert (protector.budget, PIL().budget) == ("linf 9/255", "linf 8/255")


def test_an_image_does_not_depend_on_its_batch(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    data = corners()
    whole = PIL(**QUICK).protect(data, ctx)
    monkeypatch.setattr(pil, "BATCH", 7)
    parts = PIL(**QUICK).protect(data, replace(ctx, artifacts=ctx.artifacts / "new"))
    assert (whole.images != parts.images).mean() < 0.002  # the sign of what is all but zero may turn


@pytest.mark.parametrize(("count", "size", "classes"), [(45, (20, 33), 4), (30, (9, 16), 17), (5, (8, 9), 2)])
def test_any_size_and_number_of_classes(count: int, size: tuple[int, int], classes: int, ctx: Context) -> None:
    data = random_set(count, size, classes)
    assert np.abs(difference(PIL(epochs=2).protect(data, ctx), data)).max() == 8


def test_test_images_are_protected_by_what_was_learnt_from_training_images(ctx: Context) -> None:
    train, test = corners(60), random_set(12, (12, 10), 3)
    matrix = PIL(**QUICK).surrogate(train, ctx)
    assert torch.equal(PIL(**QUICK).surrogate(test, replace(ctx, seed=7, learn_from=train)), matrix) is False
    assert torch.equal(PIL(**QUICK).surrogate(test, replace(ctx, learn_from=train)), matrix)


def test_presets_and_cost() -> None:
    assert (PIL().setting("epochs"), PIL(preset="micro").setting("epochs")) == (30, 147)
    assert PIL().cost(50_000).passes == pytest.approx(30 + 40)
    assert not PIL().uses_networks
    assert PIL().one_size
    [found] = registry().resolve("protector", "pil[preset=micro,eps=4/255]")
    assert found == PIL(preset="micro", eps=4 / 255)
