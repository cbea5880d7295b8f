"""Optimisations that have a problem for every image: many images at once against one after the other, within one run.

    pytest benchmarks/test_batches.py --benchmark-only --benchmark-json=out.json
    python benchmarks/summary.py out.json --clock cpu

DIPDefend trains a network for every square, RAE-CW searches for the nearest adversarial example of every image. What
comes out is the same either way, but for rounding errors: tests hold DIPDefend to one gray level, RAE-CW too.
"""

from __future__ import annotations

import pytest
import torch
from pairs import in_pairs, sized
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from ue_bench.api import Victim
from ue_bench.catalogue.registry import registry
from ue_bench_countermeasures.dip_network import drawn_anew
from ue_bench_countermeasures.dipdefend import RECIPES
from ue_bench_raeg.rae_attacks import cw

IMAGES, ITERATIONS = sized(16, 128), sized(4, 20)
ROUNDS = 3


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def images() -> Tensor:
    """N x 3 x 32 x 32 in [0, 1]."""
    return torch.rand(IMAGES, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.benchmark(group="batches")
@pytest.mark.parametrize("recipe", RECIPES)
def test_deep_image_priors(benchmark: BenchmarkFixture, images: Tensor, recipe: str) -> None:
    channels, _ = RECIPES[recipe]

    def draw(first: int, count: int) -> None:
        random = [torch.Generator().manual_seed(row) for row in range(first, first + count)]
        drawn_anew(images[first : first + count], random, channels, ITERATIONS, 0.01, 0.002, lambda done: None)

    def one_by_one() -> None:
        for row in range(IMAGES):
            draw(row, 1)

    here = f"dipdefend[recipe={recipe}], {IMAGES} squares at once"
    in_pairs(benchmark, here, lambda: draw(0, IMAGES), "one after the other", one_by_one, ROUNDS)


@pytest.mark.benchmark(group="batches")
def test_nearest_adversarial_examples(benchmark: BenchmarkFixture, images: Tensor) -> None:
    [victim] = registry().resolve("victim", "resnet9[blocks=1]")
    assert isinstance(victim, Victim)
    network = victim.build(10, (32, 32)).eval().requires_grad_(False)
    labels = torch.arange(IMAGES) % 10

    def search(rows: slice) -> None:
        cw(network, images[rows], labels[rows], 0.0, 0.01, ITERATIONS, 1, 0.01)

    def one_by_one() -> None:
        for row in range(IMAGES):
            search(slice(row, row + 1))

    here = f"rae-cw[preset=micro], {IMAGES} images at once"
    in_pairs(benchmark, here, lambda: search(slice(None)), "one after the other", one_by_one, ROUNDS)
