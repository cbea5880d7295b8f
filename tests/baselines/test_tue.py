"""TUE: its discriminant, and noise that lowers it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ue_bench.api import Context, ImageSet
from ue_bench.catalogue.registry import registry
from ue_bench_baselines.tue import TUE, csd, membership

from .helpers import difference, image_set, random_set

pytestmark = pytest.mark.usefixtures("one_thread")
EPS = 8 / 255


def uniform(count: int, values: int) -> Tensor:
    return (torch.rand(count, values, generator=torch.Generator().manual_seed(0)) * 2 - 1) * EPS


def discriminant(noise: Tensor, labels: Any, classes: int) -> float:
    return float(csd(noise, membership(torch.tensor(labels), classes)))


def by_hand(noise: Tensor, labels: list[int]) -> float:
    """The definition, pair by pair, in double precision."""
    points = noise.double().numpy()
    own = {k: points[np.array(labels) == k] for k in set(labels)}
    centre = {k: v.mean(axis=0) for k, v in own.items()}
    spread = {k: np.linalg.norm(v - centre[k], axis=1).mean() for k, v in own.items()}
    ratios = [
        (spread[k] + spread[other] + 1e-5) / (np.linalg.norm(centre[k] - centre[other]) + 1e-5)
        for k in own
        for other in own
        if k != other
    ]
    return float(np.mean(ratios))


def middle(count: int = 60, size: tuple[int, int] = (8, 12), classes: int = 3) -> ImageSet:
    """Random images that noise cannot take out of [0, 255], with classes of unequal size."""
    rng = np.random.default_rng(1)
    labels = np.minimum(rng.integers(0, classes + 1, count), classes - 1)
    return image_set(rng.integers(8, 248, (count, *size, 3), dtype=np.uint8), labels, classes)


class TestCSD:
    def test_of_uniform_noise(self) -> None:
        """10.0 was measured with the release: a batch of 512, ten classes, 32 x 32 x 3 values."""
        labels = np.random.default_rng(0).integers(0, 10, 512)
        assert discriminant(uniform(512, 3072), labels, 10) == pytest.approx(10.0, abs=0.2)
        assert discriminant(uniform(512, 3072), np.arange(512) % 10, 10) == pytest.approx(10.0, abs=0.1)

    @pytest.mark.parametrize(
        ("labels", "classes"),
        [([0, 0, 1, 1, 1, 2, 2], 3), ([0, 3, 3, 3, 1], 5), ([0, 1], 2), ([4, 4, 2, 2, 2, 4, 4], 100)],
    )
    def test_is_its_definition(self, labels: list[int], classes: int) -> None:
        """With classes of unequal size, of one image, and of none."""
        noise = uniform(len(labels), 48) + 0.5  # something in common changes nothing
        noise[0] *= 1.5
        assert discriminant(noise, labels, classes) == pytest.approx(by_hand(noise, labels), rel=1e-4)

    @pytest.mark.parametrize("labels", [[0], [2, 2, 2, 2]])
    def test_of_one_class_is_nothing(self, labels: list[int]) -> None:
        noise = uniform(len(labels), 12).requires_grad_()
        found = csd(noise, membership(torch.tensor(labels), 3))
        [gradient] = torch.autograd.grad(found, noise)
        assert found == 0
        assert not gradient.any()

    @pytest.mark.parametrize("detach", [True, False])
    def test_gradients_are_finite_where_noises_coincide(self, detach: bool) -> None:
        noise = torch.full((5, 12), EPS).requires_grad_()
        [gradient] = torch.autograd.grad(csd(noise, membership(torch.tensor([0, 0, 1, 2, 2]), 4), detach), noise)
        assert gradient.isfinite().all()

    def test_gradient_is_that_of_the_definition(self) -> None:
        labels = torch.tensor([0, 0, 1, 1, 1, 3])
        noise = uniform(6, 9).double().requires_grad_()
        member = membership(labels, 4).double()
        assert torch.autograd.gradcheck(lambda n: csd(n, member), noise, eps=1e-7, atol=1e-3)

    def test_detached_spreads_leave_one_gradient_a_class(self) -> None:
        labels = torch.tensor([0, 0, 1, 1, 1, 2])
        noise = uniform(6, 30).requires_grad_()
        own, whole = (
            torch.autograd.grad(csd(noise, membership(labels, 3), detach), noise)[0] for detach in (True, False)
        )
        assert torch.allclose(own[0], own[1], rtol=1e-4)
        assert torch.allclose(own[2], own[4], rtol=1e-4)
        assert not torch.allclose(own[0], own[2], rtol=0.1)
        assert not torch.allclose(whole[0], whole[1], rtol=0.1)


def centroid_accuracy(noise: np.ndarray, labels: np.ndarray) -> float:
    """Of the odd images, by the centroids of the even ones: each image's own noise has no say."""
    flat = noise.reshape(len(noise), -1).astype(float)
    present = np.unique(labels)
    centroids = np.stack([flat[::2][labels[::2] == k].mean(axis=0) for k in present])
    guessed = present[np.linalg.norm(flat[1::2, None] - centroids, axis=2).argmin(axis=1)]
    return float((guessed == labels[1::2]).mean())


@pytest.mark.parametrize("detach", [True, False])
def test_noise_becomes_separable_and_the_discriminant_falls(detach: bool, ctx: Context) -> None:
    data = middle(150, classes=5)
    tue = TUE(batch=40, passes=8, step="2/255", steps=8, detach=detach)
    start = tue.start(data, ctx)
    assert centroid_accuracy(start.numpy(), data.labels) < 0.5

    moved = difference(tue.protect(data, ctx), data)

    assert centroid_accuracy(moved, data.labels) == 1
    after = discriminant(torch.from_numpy(moved.reshape(150, -1) / 255).float(), data.labels, 5)
    assert after < 0.1 * discriminant(start, data.labels, 5)
    assert np.abs(moved).max() == 8


def test_the_discriminant_falls_with_every_step(ctx: Context) -> None:
    data = middle()
    tue = TUE(steps=1)
    noise, labels = tue.start(data, ctx), torch.tensor(data.labels)
    seen = [discriminant(noise, data.labels, 3)]
    for number in range(20):  # after which all that can is at the bound
        tue.run_pass(data, ctx, noise, labels, number)
        seen.append(discriminant(noise, data.labels, 3))
    assert (np.diff(seen) < 0).all()
    assert seen[-1] < 0.01 * seen[0]


def test_work_ends_when_nothing_moves(ctx: Context) -> None:
    reports: list[float] = []
    watched = replace(ctx, report=lambda done, total, text: reports.append(done) if "moves" in text else None)
    data = middle()

    early = TUE().protect(data, watched)

    assert 2 <= reports[-1] < 20
    for passes in (int(reports[-1]), 30):
        noise = TUE().start(data, ctx)
        labels = torch.tensor(data.labels)
        for number in range(passes):
            TUE().run_pass(data, ctx, noise, labels, number)
        levels = np.rint(noise.numpy().reshape(data.images.shape) * 255)
        assert np.array_equal(levels, difference(early, data))


@pytest.mark.parametrize("detach", [True, False])
def test_a_detached_step_is_one_for_all_images_of_a_class(detach: bool, ctx: Context) -> None:
    data = middle(20)
    tue = TUE(steps=1, detach=detach)
    noise = tue.start(data, ctx)
    before = noise.clone()
    tue.run_pass(data, ctx, noise, torch.tensor(data.labels), 0)
    inside = noise.abs() < EPS - 1e-6  # not cut by the bound
    steps = torch.where(inside, noise - before, torch.nan)
    spread = [np.nanmax(np.ptp(own[:, ~own.isnan().any(0)].numpy(), axis=0))
              for own in (steps[torch.tensor(data.labels == k)] for k in range(3))]  # fmt: skip
    assert (max(spread) < 1e-6) == detach
    assert steps.nan_to_num(0).abs().max().item() == pytest.approx(0.8 / 255, rel=1e-3)


def test_batches_are_shuffled_anew_and_all_images_are_taken(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    data = middle(50)
    seen: list[list[int]] = []

    def record(labels: Tensor, classes: int) -> Tensor:
        seen.append(labels.tolist())
        return membership(labels, classes)

    monkeypatch.setattr("ue_bench_baselines.tue.membership", record)
    tue = TUE(batch=20, steps=1)
    noise = tue.start(data, ctx)
    before = noise.clone()
    for number in range(2):
        tue.run_pass(data, ctx, noise, torch.tensor(data.labels), number)
    assert [len(labels) for labels in seen] == [20, 20, 10] * 2
    assert seen[:3] != seen[3:]
    assert sorted(seen[0] + seen[1] + seen[2]) == sorted(data.labels.tolist())
    assert (noise != before).any(dim=1).all()


def test_starts_are_uniform_and_of_the_seed(ctx: Context) -> None:
    data = middle(100)
    start = TUE().start(data, ctx)
    assert start.abs().max() <= EPS
    counts = torch.histc(start, 16, -EPS, EPS) / start.numel()
    assert counts.numpy() == pytest.approx(1 / 16, abs=0.01)
    assert torch.equal(start, TUE().start(data, ctx))
    assert not torch.equal(start, TUE().start(data, replace(ctx, seed=1)))


@pytest.mark.parametrize(("size", "classes"), [((20, 33), 4), ((5, 3), 17), ((1, 1), 2), ((6, 6), 1)])
def test_any_size_and_number_of_classes_in_order(size: tuple[int, int], classes: int, ctx: Context) -> None:
    data = random_set(45, size=size, classes=classes)

    protected = TUE(batch=16, passes=3).protect(data, ctx)

    assert protected.images.dtype == np.uint8
    assert protected.images.shape == data.images.shape
    assert np.array_equal(protected.labels, data.labels)
    assert np.abs(difference(protected, data)).max() <= 8
    again = TUE(batch=16, passes=3).protect(data, ctx)
    assert again.fingerprint == protected.fingerprint
    assert TUE(batch=16, passes=3).protect(data, replace(ctx, seed=1)).fingerprint != protected.fingerprint
    assert not list((ctx.artifacts / "unfinished").iterdir())


def test_few_images(ctx: Context) -> None:
    """A last batch of one image moves nothing and breaks nothing."""
    data = image_set(np.full((5, 4, 4, 3), 100, np.uint8), [2, 0, 0, 0, 1], 4)
    protected = TUE(batch=2, passes=4).protect(data, ctx)
    assert np.abs(difference(protected, data)).max() <= 8


def test_a_killed_generation_continues(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    data = middle(60)
    tue = TUE(batch=20, passes=8, steps=3, detach=False)
    whole = tue.protect(data, replace(ctx, artifacts=ctx.artifacts / "whole"))
    run_pass, numbers = TUE.run_pass, []

    def dying(self: TUE, data: ImageSet, ctx: Context, noise: Tensor, labels: Tensor, number: int) -> float:
        numbers.append(number)
        if numbers == [0, 1, 2, 3, 4, 5, 6]:
            raise KeyboardInterrupt
        return run_pass(self, data, ctx, noise, labels, number)

    monkeypatch.setattr(TUE, "run_pass", dying)
    with pytest.raises(KeyboardInterrupt):
        tue.protect(data, ctx)
    continued = tue.protect(data, ctx)
    assert numbers == [0, 1, 2, 3, 4, 5, 6, 5, 6, 7]
    assert np.array_equal(continued.images, whole.images)
    assert not list(Path(ctx.artifacts / "unfinished").iterdir())


def test_parameters() -> None:
    [found] = registry().resolve("protector", "tue[eps=4/255,detach=false]")
    assert found == TUE(eps=4 / 255, detach=False)
    assert found.budget == "linf 4/255"
    run = TUE()
    assert (run.passes * run.steps, run.batch, run.step) == (40 * 5 * 20, 512, 0.8 / 255)
