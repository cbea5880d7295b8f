"""What the engine's tensor code buys over the loops it replaces: ratios within one run.

    pytest benchmarks --benchmark-only --benchmark-columns=min,median,rounds

Every group times ways to do the same work; the ratio of the medians is the claim, not the seconds. On a busy machine
``--benchmark-timer=time.process_time`` leaves out the time that others had the processor.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pairs import in_pairs
from PIL import Image
from pytest_benchmark.fixture import BenchmarkFixture

from ue_bench.api import Context, Countermeasure, ImageSet, Victim
from ue_bench.catalogue.protocols import protocol
from ue_bench.catalogue.registry import registry
from ue_bench.engine.crops import padded_crop, to_unit
from ue_bench.engine.loop import train
from ue_bench_deephiding.hinet import HidingNetwork, haar, inverse_haar

IMAGES = 512


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (IMAGES, 32, 32, 3), dtype=np.uint8)


@pytest.fixture
def loader() -> Callable[[np.ndarray], torch.Tensor]:
    """Crop and flip as releases have their data loaders do it: torchvision on one PIL image after the other."""
    from torchvision import transforms

    change = transforms.Compose(
        [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    )
    return lambda images: torch.stack([change(Image.fromarray(image)) for image in images])


@pytest.mark.benchmark(group="crop and flip, 512 images")
def test_crop_and_flip_batched(benchmark: BenchmarkFixture, images: np.ndarray) -> None:
    batch, generator = torch.from_numpy(images), torch.Generator().manual_seed(0)
    out = benchmark(lambda: to_unit(padded_crop(batch, 4, True, generator)))
    assert out.shape == (IMAGES, 3, 32, 32)


@pytest.mark.benchmark(group="crop and flip, 512 images")
def test_crop_and_flip_loop(
    benchmark: BenchmarkFixture, images: np.ndarray, loader: Callable[[np.ndarray], torch.Tensor]
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        out = benchmark(lambda: loader(images))
    assert out.shape == (IMAGES, 3, 32, 32)


@pytest.mark.benchmark(group="a step of training under a column, 256 images in batches of 64")
@pytest.mark.parametrize("column", ["vanilla", "gray", "median", "jpeg[quality=10]"])
def test_step(benchmark: BenchmarkFixture, images: np.ndarray, column: str, tmp_path: Path) -> None:
    """What is done to stored images is done before: a step costs the same under all of these."""
    [countermeasure] = registry().resolve("countermeasure", column)
    [victim] = registry().resolve("victim", "resnet9[blocks=1]")
    assert isinstance(countermeasure, Countermeasure)
    assert isinstance(victim, Victim)
    data = ImageSet(images[:256], np.arange(256) % 10, tuple("abcdefghij"))
    if countermeasure.overrides("purify"):
        data = countermeasure.purify(data, Context("cpu", 0, tmp_path, tmp_path, tmp_path))
    recipe = protocol("smoke").model_copy(update={"epochs": 1, "pad": 4, "flip": True})

    def work() -> None:
        train(
            lambda: victim.build(10, (32, 32)), data, None, recipe, countermeasure, "cpu", "fp32", 0, lambda *done: None
        )

    benchmark.pedantic(work, rounds=25, warmup_rounds=2)


@pytest.mark.benchmark(group="hide, 32 images of 32 px")
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=["channels_last", "contiguous"])
def test_hide(benchmark: BenchmarkFixture, layout: torch.memory_format) -> None:
    network = HidingNetwork().eval().requires_grad_(False).to(memory_format=layout)
    cover = torch.rand(32, 3, 32, 32).contiguous(memory_format=layout)
    with torch.inference_mode():
        stego = benchmark.pedantic(lambda: network.hide(cover, cover), rounds=3, warmup_rounds=1)
    assert stego.shape == cover.shape


@pytest.mark.benchmark(group="hiding")
def test_hide_against_the_whole_network(benchmark: BenchmarkFixture) -> None:
    """Hide 128 images at once, against both halves of all blocks for 64 at once."""
    network = HidingNetwork().eval().requires_grad_(False).to(memory_format=torch.channels_last)
    cover = torch.rand(128, 3, 32, 32).contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def whole() -> None:
        for part in cover.split(64):
            inverse_haar(network(haar(part), haar(part))[0])

    hide = torch.inference_mode()(lambda: network.hide(cover, cover))
    in_pairs(benchmark, "deephiding, 128 images", hide, "the whole network, 64 at once", whole, rounds=3)
