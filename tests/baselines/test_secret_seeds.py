"""A data owner's noise is drawn from a seed of their own: whoever knows the method cannot draw it again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ue_bench.api import Context, ImageSet, Protector
from ue_bench.catalogue.registry import registry
from ue_bench_baselines.ar import AR
from ue_bench_baselines.cuda import CUDA
from ue_bench_baselines.lsp import LSP
from ue_bench_baselines.noise import Noise
from ue_bench_baselines.ops import OPS, class_sums, score
from ue_bench_baselines.spots import Spots

from .helpers import difference, image_set, random_set
from .test_odd_sets import QUICK, odd

pytestmark = pytest.mark.usefixtures("one_thread")

DEEP_HIDING = {"deephiding": {}, "deephiding sample": {"mode": "sample", "bank_size": 4}}
# The others have a generator that all know (raeg), or are made of protectors that are here (recovered, precomputed).
SETTINGS = QUICK | DEEP_HIDING | {"noise": {}, "rit-igsm": {"preset": "micro", "surrogate_epochs": 1}}


def owners(ctx: Context, seed: int) -> Context:
    return replace(ctx, seed=seed, secret=True)


@pytest.mark.parametrize("name", SETTINGS)
def test_two_secret_seeds_make_different_images_and_one_the_same(name: str, ctx: Context) -> None:
    found = registry().create("protector", name.partition(" ")[0], SETTINGS[name])
    assert isinstance(found, Protector)

    first, again, other = (found.protect(odd(), owners(ctx, seed)).images for seed in (1, 1, 2))

    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("method", [LSP, CUDA, OPS, AR])
def test_a_board_s_are_those_of_the_published_seed(method: type[Protector], ctx: Context) -> None:
    """Of these, only ar's start noise depends on the run."""
    board = method().protect(random_set(), ctx)

    assert not np.array_equal(board.images, method().protect(random_set(), owners(ctx, ctx.seed)).images)
    if method is not AR:
        assert np.array_equal(board.images, method().protect(random_set(), replace(ctx, seed=9)).images)


@pytest.mark.parametrize("method", [LSP, CUDA])
def test_a_seed_that_the_owner_chose_is_taken(method: type[LSP] | type[CUDA], ctx: Context) -> None:
    first, second = (method(seed=77).protect(random_set(), owners(ctx, seed)).images for seed in (1, 2))

    assert np.array_equal(first, second)


def test_method_seeds(ctx: Context) -> None:
    assert ctx.method_seed(5) == 5
    assert ctx.method_seed(5, 6) == owners(ctx, 1).method_seed(5, 6) == 6
    assert owners(ctx, 1).method_seed(5) == owners(ctx, 1).method_seed(5, 5) != owners(ctx, 2).method_seed(5)


def subtracted(protected: ImageSet, clean: ImageSet, attacker: Context) -> float:
    """Root-mean-square in gray levels of what is left when the noise drawn with ``attacker`` is taken off again."""
    gray = clean.with_images(np.full_like(clean.images, 128))
    noise = difference(LSP().protect(gray, attacker), gray)
    return float(np.sqrt(np.square(protected.images - noise - clean.images).mean()))


def test_whoever_knows_the_method_subtracts_published_points_but_not_secret_ones(ctx: Context) -> None:
    data = random_set(size=(32, 32), low=40, high=216)
    published, secret = LSP().protect(data, ctx), LSP().protect(data, owners(ctx, 1))

    assert subtracted(published, data, ctx) < 1
    assert subtracted(secret, data, ctx) > 6
    assert subtracted(secret, data, owners(ctx, 2)) > 6


def test_secret_pixels_score_nearly_as_the_best(ctx: Context) -> None:
    rng = np.random.default_rng(0)
    smooth = rng.normal(128, 30, (200, 4, 4, 3)).repeat(8, axis=1).repeat(8, axis=2)
    rough = smooth + rng.normal(0, 10, (200, 32, 32, 3))
    data = image_set(np.clip(rough, 0, 255).astype(np.uint8), np.arange(200) % 4, 4)

    chosen = OPS().choose(data, owners(ctx, 3))

    for label, [pixel] in enumerate(chosen):
        members = np.flatnonzero(data.labels == label)
        assert pixel.score >= 0.8 * score(*class_sums(data, members), len(members)).max()
    assert len({pixels[0][:3] for pixels in chosen}) == 4


def test_secret_pixels_are_a_class_s_own_where_pairs_are_few(ctx: Context) -> None:
    data = image_set(np.random.default_rng(0).integers(0, 256, (32, 2, 2, 3), dtype=np.uint8), np.arange(32) % 16, 16)

    chosen = OPS(sparsity=2).choose(data, owners(ctx, 3))

    assert len({pixel[:3] for pixels in chosen for pixel in pixels}) == 32


def test_images_that_come_one_by_one_are_not_all_mixed_alike(ctx: Context) -> None:
    """An owner's images of many sizes do."""
    moved = []
    for side in range(20, 60):
        data = image_set(np.full((1, side, side, 3), 200, np.uint8) - np.arange(side, dtype=np.uint8)[:, None], [0], 1)
        moved.append(difference(CUDA(mix=0.5).protect(data, owners(ctx, 1)), data).any())

    assert 8 < sum(moved) < 32


def test_what_chooses_by_the_whole_set_takes_one_size() -> None:
    assert OPS().one_size
    assert Noise(mode="class").one_size
    assert not Noise().one_size
    for name in ("tue", "ntga"):
        found = registry().create("protector", name, {})
        assert isinstance(found, Protector)
        assert found.one_size
    for hidden, one_size in (("procedural", False), ("next_class", True)):
        found = registry().create("protector", "deephiding", {"hidden": hidden})
        assert isinstance(found, Protector)
        assert found.one_size == one_size
    for method in (LSP, CUDA, AR, Spots):
        assert not method().one_size
