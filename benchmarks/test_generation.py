"""EM and TAP as here against the same steps written as their releases write them: ratios within one run.

    pytest benchmarks/test_generation.py --benchmark-only --benchmark-json=out.json

The releases' way: float32, channels first, and where they loop over images in Python, a loop over images.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from pairs import in_pairs
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn
from torch.nn import functional as F

from ue_bench.api import Context, Victim
from ue_bench.catalogue.registry import registry
from ue_bench.engine.precision import default_precision
from ue_bench.grid.surrogates import Surrogates
from ue_bench_baselines.pgd import boxed, descend, to_unit
from ue_bench_baselines.shift import Draws

IMAGES, STEPS, EPS = 64, 2, 8 / 255


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    return Context("cpu", 0, tmp_path, tmp_path, tmp_path, precision=default_precision("cpu"), networks=Surrogates())


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (IMAGES, 32, 32, 3), dtype=np.uint8)


def resnet18() -> nn.Module:
    [victim] = registry().resolve("victim", "resnet18")
    torch.manual_seed(0)
    return cast(Victim, victim).build(10, (32, 32)).eval().requires_grad_(False)


def in_turn(benchmark: BenchmarkFixture, what: str, here: Callable[[], Tensor], released: Callable[[], Tensor]) -> None:
    for noise in (here(), released()):
        assert noise.shape == (IMAGES, 3, 32, 32)
        assert 0 < noise.abs().max() <= EPS + 1e-6
    in_pairs(
        benchmark, f"{what}, ResNet-18, {STEPS} noise steps on {IMAGES} images", here, "steps as released", released,
        rounds=3, warm=False,
    )  # fmt: skip


@pytest.mark.benchmark(group="protectors with networks")
def test_em(benchmark: BenchmarkFixture, ctx: Context, images: np.ndarray) -> None:
    labels, kept = torch.arange(IMAGES) % 10, torch.zeros(IMAGES, 3, 32, 32)
    network, theirs = resnet18().to(memory_format=torch.channels_last), resnet18()

    def objective(p: Tensor, _: int) -> Tensor:
        with ctx.autocast():
            logits = network(p)
        return F.cross_entropy(logits.float(), labels, reduction="none")

    def here() -> Tensor:
        x = to_unit(images, "cpu")
        return descend(x, torch.zeros_like(x), objective, EPS, 0.8 / 255, STEPS)[0]

    def released() -> Tensor:
        x = torch.stack([torch.from_numpy(image).permute(2, 0, 1).float() / 255 for image in images]).contiguous()
        p = torch.clamp(x + torch.stack([kept[i] for i in range(IMAGES)]), 0, 1)
        noise = p - x
        for _ in range(STEPS):
            p = p.detach().requires_grad_()
            F.cross_entropy(theirs(p), labels).backward()
            assert p.grad is not None
            noise = torch.clamp(p.detach() - 0.8 / 255 * p.grad.sign() - x, -EPS, EPS)
            p = torch.clamp(x + noise, 0, 1)
        return torch.stack([noise[i] for i in range(IMAGES)])

    in_turn(benchmark, "em", here, released)


@pytest.mark.benchmark(group="protectors with networks")
def test_tap(benchmark: BenchmarkFixture, ctx: Context, images: np.ndarray) -> None:
    labels, generator = torch.arange(1, IMAGES + 1) % 10, torch.Generator().manual_seed(0)
    network, theirs = resnet18().to(memory_format=torch.channels_last), resnet18()
    base = torch.stack(torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 32), indexing="xy"), dim=2)

    def here() -> Tensor:
        x, draws = to_unit(images, "cpu"), Draws(ctx, slice(0, IMAGES), STEPS, (32, 32))

        def objective(p: Tensor, t: int) -> Tensor:
            with ctx.autocast():
                logits = network(draws.transformed(p, t))
            return F.cross_entropy(logits.float(), labels, reduction="none")

        return boxed(x, descend(x, draws.start(EPS), objective, EPS, EPS / 20, STEPS)[0])

    def released() -> Tensor:
        x = torch.stack([torch.from_numpy(image).permute(2, 0, 1).float() / 255 for image in images]).contiguous()
        noise = (torch.randn(x.shape, generator=generator) * EPS).clamp_(-EPS, EPS)
        for _ in range(STEPS):
            noise = noise.detach().requires_grad_()
            grid = base.expand(IMAGES, -1, -1, -1).clone()
            grid += (2 * torch.rand(IMAGES, 1, 1, 2, generator=generator) - 1) * (8 / 31)
            flipped = torch.rand(IMAGES, generator=generator) < 0.5
            grid[flipped, :, :, 0] *= -1
            moved = F.grid_sample(x + noise, grid, align_corners=True)
            F.cross_entropy(theirs(moved), labels).backward()
            assert noise.grad is not None
            noise = (noise.detach() - EPS / 20 * noise.grad.sign()).clamp_(-EPS, EPS)
            noise = torch.max(torch.min(noise, 1 - x), -x)
        return noise

    in_turn(benchmark, "tap", here, released)
