"""EM and TAP as here against the same steps written as their releases write them: ratios within one run.

    pytest benchmarks/test_generation.py --benchmark-only --benchmark-columns=min,median,rounds

The releases' way: float32, channels first, and where they loop over images in Python, a loop over images.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
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


def timed(benchmark: BenchmarkFixture, work: Callable[[], Tensor]) -> None:
    found = benchmark.pedantic(work, rounds=3, warmup_rounds=1)
    assert found.shape == (IMAGES, 3, 32, 32)
    assert 0 < found.abs().max() <= EPS + 1e-6


@pytest.mark.benchmark(group="EM, 2 noise steps on 64 images")
def test_em_here(benchmark: BenchmarkFixture, ctx: Context, images: np.ndarray) -> None:
    network, labels = resnet18().to(memory_format=torch.channels_last), torch.arange(IMAGES) % 10

    def objective(p: Tensor, _: int) -> Tensor:
        with ctx.autocast():
            logits = network(p)
        return F.cross_entropy(logits.float(), labels, reduction="none")

    def work() -> Tensor:
        x = to_unit(images, "cpu")
        return descend(x, torch.zeros_like(x), objective, EPS, 0.8 / 255, STEPS)[0]

    timed(benchmark, work)


@pytest.mark.benchmark(group="EM, 2 noise steps on 64 images")
def test_em_as_released(benchmark: BenchmarkFixture, images: np.ndarray) -> None:
    network, labels = resnet18(), torch.arange(IMAGES) % 10
    kept = torch.zeros(IMAGES, 3, 32, 32)

    def work() -> Tensor:
        x = torch.stack([torch.from_numpy(image).permute(2, 0, 1).float() / 255 for image in images]).contiguous()
        p = torch.clamp(x + torch.stack([kept[i] for i in range(IMAGES)]), 0, 1)
        noise = p - x
        for _ in range(STEPS):
            p = p.detach().requires_grad_()
            F.cross_entropy(network(p), labels).backward()
            assert p.grad is not None
            noise = torch.clamp(p.detach() - 0.8 / 255 * p.grad.sign() - x, -EPS, EPS)
            p = torch.clamp(x + noise, 0, 1)
        return torch.stack([noise[i] for i in range(IMAGES)])

    timed(benchmark, work)


@pytest.mark.benchmark(group="TAP, 2 steps on 64 images")
def test_tap_here(benchmark: BenchmarkFixture, ctx: Context, images: np.ndarray) -> None:
    network, labels = resnet18().to(memory_format=torch.channels_last), torch.arange(1, IMAGES + 1) % 10

    def work() -> Tensor:
        x, draws = to_unit(images, "cpu"), Draws(ctx, slice(0, IMAGES), STEPS, (32, 32))

        def objective(p: Tensor, t: int) -> Tensor:
            with ctx.autocast():
                logits = network(draws.transformed(p, t))
            return F.cross_entropy(logits.float(), labels, reduction="none")

        return boxed(x, descend(x, draws.start(EPS), objective, EPS, EPS / 20, STEPS)[0])

    timed(benchmark, work)


@pytest.mark.benchmark(group="TAP, 2 steps on 64 images")
def test_tap_as_released(benchmark: BenchmarkFixture, images: np.ndarray) -> None:
    network, labels = resnet18(), torch.arange(1, IMAGES + 1) % 10
    generator = torch.Generator().manual_seed(0)
    base = torch.stack(torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 32), indexing="xy"), dim=2)

    def work() -> Tensor:
        x = torch.stack([torch.from_numpy(image).permute(2, 0, 1).float() / 255 for image in images]).contiguous()
        noise = (torch.randn(x.shape, generator=generator) * EPS).clamp_(-EPS, EPS)
        for _ in range(STEPS):
            noise = noise.detach().requires_grad_()
            grid = base.expand(IMAGES, -1, -1, -1).clone()
            grid += (2 * torch.rand(IMAGES, 1, 1, 2, generator=generator) - 1) * (8 / 31)
            flipped = torch.rand(IMAGES, generator=generator) < 0.5
            grid[flipped, :, :, 0] *= -1
            moved = F.grid_sample(x + noise, grid, align_corners=True)
            F.cross_entropy(network(moved), labels).backward()
            assert noise.grad is not None
            noise = (noise.detach() - EPS / 20 * noise.grad.sign()).clamp_(-EPS, EPS)
            noise = torch.max(torch.min(noise, 1 - x), -x)
        return noise

    timed(benchmark, work)
