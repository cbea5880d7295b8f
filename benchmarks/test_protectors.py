"""Protectors without networks against the same perturbations made image by image, as their releases do.

    pytest benchmarks/test_protectors.py --benchmark-only --benchmark-json=out.json

The releases' ways are written anew from their descriptions. EM and TAP are in ``test_generation.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pairs import in_pairs, sized
from pytest_benchmark.fixture import BenchmarkFixture
from torch.nn import functional as F

from ue_bench.api import Context, ImageSet, Protector
from ue_bench.catalogue.registry import registry
from ue_bench_baselines.ar import shipped
from ue_bench_baselines.lsp_points import sampled

IMAGES = sized(100, 500)
Images = NDArray[np.uint8]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def data() -> ImageSet:
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, 32, 32, 3), dtype=np.uint8)
    return ImageSet(images, np.arange(IMAGES) % 10, tuple("abcdefghij"))


def lsp_as_released(data: ImageSet) -> list[Images]:
    """Blow each point up with interpolation, scale it to its norm and add it, one image after the other."""
    points, owners = sampled(10, 4 * 4 * 3, len(data), 10.0, 1)
    free = {label: iter(np.flatnonzero(owners == label)) for label in range(10)}
    protected = []
    for image, label in zip(data.images, data.labels.tolist(), strict=True):
        point = torch.from_numpy(points[next(free[label])].reshape(1, 4, 4, 3)).permute(0, 3, 1, 2)
        patches = F.interpolate(point, scale_factor=8, mode="nearest")[0]
        noise = patches * (6 / 255 * (3 * 32 * 32) ** 0.5 / patches.norm()) * 255
        whole = torch.clamp(torch.from_numpy(image.astype(np.float32)) + noise.permute(1, 2, 0), 0, 255)
        protected.append(whole.numpy().astype(np.uint8))
    return protected


def ar_as_released(data: ImageSet) -> list[Images]:
    """Run each process by a window that moves over the signal, value by value."""
    processes = torch.tensor(shipped(10)["coefficients"], dtype=torch.float32)
    generator, protected = torch.Generator().manual_seed(0), []
    for image, label in zip(data.images, data.labels.tolist(), strict=True):
        signal = torch.randn(3, 36, 36, generator=generator)
        for row in range(2, 36):
            for column in range(2, 36):
                window = signal[:, row - 2 : row + 1, column - 2 : column + 1] * processes[label]
                signal[:, row, column] = window.flatten(1)[:, :-1].sum(1)
        noise = signal[:, 4:, 4:]
        noise = (noise / noise.norm() * 255).permute(1, 2, 0).numpy()
        protected.append(np.clip(np.rint(image + noise), 0, 255).astype(np.uint8))
    return protected


def ops_as_released(data: ImageSet) -> list[Images]:
    """Try each position and colour of each class by the distances of all its images, and set the best one."""
    corners = np.array([[r, g, b] for r in (0, 1) for g in (0, 1) for b in (0, 1)], dtype=np.float64)
    protected = list(data.images.copy())
    for label in range(10):
        members = np.flatnonzero(data.labels == label)
        images, scores = data.images[members] / 255, {}
        for row in range(32):
            for column in range(32):
                for number, colour in enumerate(corners):
                    distances = np.abs(colour - images[:, row, column])
                    scores[row, column, number] = distances.mean() / max(distances.std(), 1e-12)
        row, column, number = max(scores, key=lambda place: scores[place])
        for member in members:
            protected[member][row, column] = (corners[number] * 255).astype(np.uint8)
    return protected


@pytest.mark.benchmark(group="protectors")
@pytest.mark.parametrize(
    ("name", "released"), [("lsp", lsp_as_released), ("ar", ar_as_released), ("ops", ops_as_released)]
)
def test_protector(
    benchmark: BenchmarkFixture,
    data: ImageSet,
    name: str,
    released: Callable[[ImageSet], list[Images]],
    tmp_path: Path,
) -> None:
    [protector] = registry().resolve("protector", name)
    assert isinstance(protector, Protector)
    ctx = Context("cpu", 0, tmp_path, tmp_path, tmp_path)
    changed = np.stack(released(data)).astype(int) - data.images
    assert changed.any(axis=(1, 2, 3)).mean() > 0.9  # an image may have the colour of its pixel already
    in_pairs(
        benchmark, f"{name}, {IMAGES} images", lambda: protector.protect(data, ctx), "one image after the other",
        lambda: released(data), rounds=3, warm=False,
    )  # fmt: skip
