"""What the engine's tensor code buys over the loops it replaces: ratios within one run.

    pytest benchmarks --benchmark-only --benchmark-columns=min,median,rounds

Every group times two ways to do the same work; the ratio of the medians is the claim, not the seconds.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from pytest_benchmark.fixture import BenchmarkFixture

from ue_bench.engine.loop import padded_crop, to_unit
from ue_bench_deephiding.hinet import HidingNetwork

IMAGES = 512


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (IMAGES, 32, 32, 3), dtype=np.uint8)


def loader_loop(images: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
    """Crop and flip as data loaders do it: one PIL image after the other."""
    done = []
    for array in images:
        padded = Image.new("RGB", (40, 40))
        padded.paste(Image.fromarray(array), (4, 4))
        left, top = rng.integers(0, 9, 2)
        cut = padded.crop((left, top, left + 32, top + 32))
        if rng.random() < 0.5:
            cut = cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        done.append(torch.from_numpy(np.array(cut)).permute(2, 0, 1).float().div(255))
    return torch.stack(done)


@pytest.mark.benchmark(group="crop and flip, 512 images")
def test_crop_and_flip_batched(benchmark: BenchmarkFixture, images: np.ndarray) -> None:
    batch, generator = torch.from_numpy(images), torch.Generator().manual_seed(0)
    out = benchmark(lambda: to_unit(padded_crop(batch, 4, True, generator)))
    assert out.shape == (IMAGES, 3, 32, 32)


@pytest.mark.benchmark(group="crop and flip, 512 images")
def test_crop_and_flip_loop(benchmark: BenchmarkFixture, images: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    out = benchmark(lambda: loader_loop(images, rng))
    assert out.shape == (IMAGES, 3, 32, 32)


@pytest.mark.benchmark(group="hide, 32 images of 32 px")
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=["channels_last", "contiguous"])
def test_hide(benchmark: BenchmarkFixture, layout: torch.memory_format) -> None:
    network = HidingNetwork().eval().requires_grad_(False).to(memory_format=layout)
    cover = torch.rand(32, 3, 32, 32).contiguous(memory_format=layout)
    with torch.inference_mode():
        stego = benchmark.pedantic(lambda: network.hide(cover, cover), rounds=3, warmup_rounds=1)
    assert stego.shape == cover.shape
