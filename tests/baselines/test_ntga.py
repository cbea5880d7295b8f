"""NTGA: its kernel, training in closed form, the gradient through both, and the step along it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ue_bench.api import Context, ImageSet, UserError
from ue_bench.catalogue.registry import registry
from ue_bench_baselines import ntga, ntk_conv
from ue_bench_baselines.ntga import LAYERS, NTGA, loss_gradient
from ue_bench_baselines.ntk import ntk, trained

from .helpers import difference, image_set, random_set
from .kernels import flat, one_hot, pixels, trained_by_exponential

pytestmark = pytest.mark.usefixtures("one_thread")


def losses(x: Tensor, targets: Tensor, images: Tensor, labels: Tensor, time: float, readout: bool = False) -> Tensor:
    """The validation loss, in one piece."""
    predictions = ntk(images, x, LAYERS, readout) @ trained_by_exponential(ntk(x, x, LAYERS, readout), targets, time)
    return F.cross_entropy(predictions, labels, reduction="sum")


@pytest.mark.parametrize(("time", "readout"), [(1.0, False), (64.0, True), (4096.0, False)])
def test_gradient_of_the_validation_loss(time: float, readout: bool) -> None:
    """Gathered over batches of unequal size, against finite differences."""
    x, targets = pixels(5, 6), one_hot([0, 1, 2, 0, 1], 3)
    images, labels = pixels(8, 6, seed=1), torch.tensor([0, 1, 2, 2, 1, 0, 0, 1])
    batches = [(images[part], labels[part]) for part in (slice(3), slice(3, 6), slice(6, 8))]
    found = loss_gradient(x, targets, batches, time, NTGA(readout=readout).kernel())
    expected = torch.zeros_like(x)
    for index in np.ndindex(*x.shape):
        shift = torch.zeros_like(x)
        shift[index] = 1e-5
        above, below = (losses(x + s, targets, images, labels, time, readout) for s in (shift, -shift))
        expected[index] = (above - below) / 2e-5
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-6 * float(expected.abs().max()))
    assert not x.requires_grad


def stripes(count: int = 60, size: tuple[int, int] = (6, 9), classes: int = 3) -> ImageSet:
    """Noise whose colour is the class; black to the left, and some values that 8 levels take out of 0..255."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, count)
    images = rng.integers(0, 256, (count, *size, 3), dtype=np.uint8) // 2
    images[np.arange(count), :, :, labels % 3] += np.uint8(120)
    images[:, :, 0] = 0
    return image_set(images, labels, classes)


def test_every_value_moves_by_eps_but_where_it_cannot(ctx: Context) -> None:
    """Cut by the box, or black in all images: there the gradient is zero."""
    data = stripes()
    protected = NTGA(block=20).protect(data, ctx)

    moved = difference(protected, data)
    assert not moved[:, :, 0].any()
    up, down = 255 - data.images[:, :, 1:], data.images[:, :, 1:]
    found = moved[:, :, 1:]
    assert (np.isin(found, [-8, 8]) | (found == up) | (found == -1 * down.astype(np.int64))).all()
    assert (np.abs(found) == 8).mean() > 0.9
    assert (found > 0).any()
    assert (found < 0).any()
    assert protected.images.dtype == np.uint8
    assert np.array_equal(protected.labels, data.labels)
    assert not list((ctx.artifacts / "unfinished").iterdir())


@pytest.mark.parametrize("time", [1, 64, 4096])
def test_the_step_raises_the_loss_of_every_block(time: float, ctx: Context) -> None:
    """Against a step of random signs, which does next to nothing."""
    data = stripes()
    protector = NTGA(block=20, time=time, validation=30)
    protected = protector.protect(data, ctx)
    signs = np.random.default_rng(1).choice([-8, 8], data.images.shape)
    random = data.with_images(np.clip(data.images + signs, 0, 255).astype(np.uint8))
    for rows, others in protector.parts(len(data), ctx):
        targets = F.one_hot(torch.tensor(data.labels[rows]), 3).double()
        clean, ours, noise = (
            float(losses(flat(images, rows)[0], targets, *flat(data, others), time))
            for images in (data, protected, random)
        )
        assert ours - clean > 5 * abs(noise - clean)


def test_the_convolutional_step_raises_the_loss_of_every_block(ctx: Context) -> None:
    data = stripes()
    protector = NTGA(block=20, surrogate="cnn", validation=30)
    protected = protector.protect(data, ctx)
    assert np.abs(difference(protected, data)).max() == 8
    assert (np.abs(difference(protected, data)) == 8).mean() > 0.7
    signs = np.random.default_rng(1).choice([-8, 8], data.images.shape)
    random = data.with_images(np.clip(data.images + signs, 0, 255).astype(np.uint8))

    def loss(images: ImageSet, rows: Any, others: Any) -> float:
        def unit(chosen: ImageSet, where: Any) -> Tensor:
            return torch.tensor(chosen.images[where]).permute(0, 3, 1, 2).double() / 255

        x, targets = unit(images, rows), F.one_hot(torch.tensor(data.labels[rows]), 3).double()
        predicted = ntk_conv.ntk_conv(unit(data, others), x) @ trained(ntk_conv.ntk_conv(x, x), targets, 64.0)
        return float(F.cross_entropy(predicted, torch.tensor(data.labels[others]), reduction="sum"))

    for rows, others in protector.parts(len(data), ctx):
        clean, ours, noise = (loss(images, rows, others) for images in (data, protected, random))
        assert ours - clean > 5 * abs(noise - clean)


class TestParts:
    @pytest.mark.parametrize(
        ("count", "blocks", "validation"),
        [(600, 3, 100), (100, 2, 50), (513, 3, 342), (2, 2, 1), (3, 2, 1), (401, 3, 90)],
    )
    def test_every_image_is_in_one_block_and_validates_others(
        self, count: int, blocks: int, validation: int, ctx: Context
    ) -> None:
        protector = NTGA(block=200, validation=validation)
        parts = list(protector.parts(count, ctx))
        assert len(parts) == blocks == protector.blocks(count)
        assert sorted(np.concatenate([rows for rows, _ in parts])) == list(range(count))
        assert max(len(rows) for rows, _ in parts) - min(len(rows) for rows, _ in parts) <= 1
        for rows, others in parts:
            assert len(rows) <= 200
            assert not set(rows) & set(others)
            assert len(set(others)) == len(others) == min(validation, count - len(rows))

    def test_validation_goes_round(self, ctx: Context) -> None:
        """With as many validation images as a block has, each image validates once."""
        parts = list(NTGA(block=25, validation=25).parts(100, ctx))
        assert sorted(np.concatenate([others for _, others in parts])) == list(range(100))
        assert np.array_equal(parts[1][0], parts[0][1])
        assert np.array_equal(parts[0][0], parts[3][1])

    def test_are_of_the_seed(self, ctx: Context) -> None:
        first, again, other = (next(NTGA().parts(99, c))[0].tolist() for c in (ctx, ctx, replace(ctx, seed=1)))
        assert first == again != other
        assert first != list(range(50))

    def test_of_cifar10(self, ctx: Context) -> None:
        sizes = {(len(rows), len(others)) for rows, others in NTGA().parts(50_000, ctx)}
        assert sizes == {(510, 10_000), (511, 10_000)}


def test_each_block_is_the_step_from_its_own_clean_images(ctx: Context) -> None:
    """Blocks know nothing of each other's steps, and images come back where they were."""
    data = random_set(50, size=(4, 7))
    protector = NTGA(block=20, validation=15)
    protected = protector.protect(data, ctx)
    for rows, others in protector.parts(50, ctx):
        x, labels = flat(data, rows)
        gradient = loss_gradient(x, F.one_hot(labels, 4).double(), [flat(data, others)], 64.0, protector.kernel())
        expected = np.clip(data.images[rows] + 8 * gradient.sign().reshape(-1, 4, 7, 3).numpy(), 0, 255)
        assert np.array_equal(protected.images[rows], expected)


@pytest.mark.parametrize(("size", "classes"), [((20, 33), 4), ((5, 3), 17), ((1, 1), 2)])
def test_any_size_and_number_of_classes(size: tuple[int, int], classes: int, ctx: Context) -> None:
    data = random_set(45, size=size, classes=classes)
    protected = NTGA(block=16).protect(data, ctx)
    assert protected.images.shape == data.images.shape
    assert np.array_equal(protected.labels, data.labels)
    assert np.abs(difference(protected, data)).max() == 8
    assert NTGA(block=16).protect(data, ctx).fingerprint == protected.fingerprint
    assert NTGA(block=16).protect(data, replace(ctx, seed=1)).fingerprint != protected.fingerprint


def test_parameters_count(ctx: Context) -> None:
    data = stripes()
    given: list[dict[str, Any]] = [
        {}, {"eps": 4 / 255}, {"time": 4096}, {"block": 60}, {"validation": 5}, {"readout": True},
        {"surrogate": "cnn"},
    ]  # fmt: skip
    assert len({NTGA(**{"block": 20} | g).protect(data, ctx).fingerprint for g in given}) == len(given)


def test_a_bound_between_levels_is_kept(ctx: Context) -> None:
    data = stripes()
    for eps, most in [(2.6 / 255, 2), (2.4 / 255, 2), (0.4 / 255, 0)]:
        assert np.abs(difference(NTGA(block=20, eps=eps).protect(data, ctx), data)).max() == most


def test_batches_of_any_width(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    data = stripes()
    whole = NTGA(block=20).protect(data, ctx)
    monkeypatch.setattr(ntga, "BATCH", 7)
    narrow = NTGA(block=20).protect(data, ctx)
    monkeypatch.setattr(ntga, "BATCH_BYTES", 1)
    single = NTGA(block=20).protect(data, ctx)
    # Sums in another order can turn the sign of a gradient that is all but zero.
    assert (narrow.images != whole.images).mean() < 0.002
    assert (single.images != whole.images).mean() < 0.002


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_images(count: int, ctx: Context) -> None:
    with pytest.raises(UserError, match=f"ntga needs two images, not {count}"):
        NTGA().protect(random_set(count), ctx)


def test_two_images(ctx: Context) -> None:
    data = image_set(np.random.default_rng(0).integers(9, 240, (2, 4, 5, 3), dtype=np.uint8), [1, 0], 2)
    assert (np.abs(difference(NTGA().protect(data, ctx), data)) == 8).all()


def test_one_class_has_nothing_to_lose(ctx: Context) -> None:
    data = random_set(20, size=(4, 4), classes=1)
    assert np.array_equal(NTGA().protect(data, ctx).images, data.images)


def test_other_data_is_not_asked_for(ctx: Context) -> None:
    def refuse(selector: str, split: str) -> ImageSet:
        raise AssertionError(f"asked for {selector}, {split}")

    NTGA(block=20).protect(stripes(), replace(ctx, open_dataset=refuse))


def test_a_killed_generation_continues(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    data = stripes()
    protector = NTGA(block=12)
    whole = protector.protect(data, ctx)
    craft, calls = NTGA.craft, []

    def dying(self: NTGA, data: ImageSet, rows: Any, *others: Any) -> Any:
        calls.append(tuple(rows))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return craft(self, data, rows, *others)

    monkeypatch.setattr(NTGA, "craft", dying)
    with pytest.raises(KeyboardInterrupt):
        protector.protect(data, ctx)
    continued = protector.protect(data, ctx)
    assert len(calls) == 6
    assert len(set(calls)) == 5
    assert continued.fingerprint == whole.fingerprint
    assert not list((ctx.artifacts / "unfinished").iterdir())


def test_blocks_are_reported(ctx: Context) -> None:
    seen: list[tuple[float, float]] = []
    NTGA(block=20).protect(stripes(), replace(ctx, report=lambda done, total, text: seen.append((done, total))))
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_the_global_generator_is_left_alone(ctx: Context) -> None:
    before = torch.get_rng_state()
    NTGA(block=20).protect(stripes(), ctx)
    assert torch.equal(torch.get_rng_state(), before)


def test_selectors() -> None:
    [found] = registry().resolve("protector", "ntga[eps=4/255,time=1]")
    assert isinstance(found, NTGA)
    assert found == NTGA(eps=4 / 255, time=1)
    assert found.budget == "linf 4/255"
    assert not found.uses_networks
    for wrong in ("ntga[time=0]", "ntga[surrogate=rnn]", "ntga[surrogate=cnn,readout=true]", "ntga[block=0]"):
        with pytest.raises(UserError, match="parameters: "):
            registry().resolve("protector", wrong)
