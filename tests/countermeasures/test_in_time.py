"""AVATAR as released: the network in continuous time, its import, and the SDE that it is the score of."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from ue_bench.api import Context, UserError
from ue_bench.catalogue.protocols import protocol
from ue_bench.catalogue.registry import registry
from ue_bench_countermeasures.diffusion import denoiser, process
from ue_bench_countermeasures.diffusion.conversion import IN_TIME
from ue_bench_countermeasures.diffusion.ddpmpp import DdpmPlusPlus
from ue_bench_countermeasures.diffusion.weights import locate
from ue_bench_countermeasures.import_commands import import_weights
from ue_bench_countermeasures.purifiers import Avatar, DiffPure
from ue_bench_countermeasures.relearning import LeJcdp

from .helpers import image_set, tiny_model
from .released import InTime

diffusers = pytest.importorskip("diffusers", exc_type=ImportError)
pytestmark = pytest.mark.usefixtures("one_thread")
FIRST = 8  # channels, in place of 128


def wave() -> Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def released(shape: tuple[tuple[int, ...], int], step: int = 17) -> tuple[list[Tensor], Tensor]:
    """Weights as a checkpoint has them, and the noise that their network sees in ``wave`` at a step."""
    network = InTime()
    output = network(wave(), (step + 1) / 1000, FIRST, *shape)
    return network.given, output


def checkpoint(path: Path, weights: Any) -> Path:
    other = {"all_modules.0.weight": torch.zeros(2)}
    torch.save({"optimizer": {}, "model": other, "ema": {"decay": 0.9, "shadow_params": weights}, "step": 5}, path)
    return path


def imported(source: Path, out: Path) -> Any:
    return CliRunner().invoke(import_weights, ["avatar", str(source), "--out", str(out)])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("avatar")
    result = imported(checkpoint(folder / "checkpoint_8.pth", released(IN_TIME[1])[0]), folder / "model")
    assert result.exit_code == 0, result.output
    return folder / "model"


class TestNetwork:
    def test_size_of_the_published_one(self) -> None:
        """956 averaged tensors and 106,632,579 numbers: what the released checkpoint holds."""
        with torch.device("meta"):
            network = DdpmPlusPlus(32, 128, (128, 256, 256, 256), 8, (16,))
        assert [len(list(network.parameters())), sum(p.numel() for p in network.parameters())] == [956, 106_632_579]
        assert not list(network.buffers())

    @pytest.mark.parametrize("shape", IN_TIME, ids=["CIFAR-10", "CIFAR-100"])
    def test_it_computes_what_its_authors_do(self, shape: Any, tmp_path: Path) -> None:
        weights, expected = released(shape)
        result = imported(checkpoint(tmp_path / "c.pth", weights), tmp_path / "model")
        assert result.exit_code == 0, result.output
        with torch.no_grad():
            noise = denoiser.load(locate(tmp_path / "model"), "cpu", "large").predict(wave(), 17)
        assert expected.std() > 0.1
        torch.testing.assert_close(noise, expected, atol=2e-5, rtol=1e-5)

    def test_it_is_told_999_times_the_time(self, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        told: list[float] = []

        def forward(self: DdpmPlusPlus, x: Tensor, time: Tensor) -> Tensor:
            told.append(float(time))
            return x

        monkeypatch.setattr(DdpmPlusPlus, "forward", forward)
        loaded = denoiser.load(locate(model), "cpu", "large")
        for step in (99, 0, 999):
            loaded.predict(wave(), step)
        assert told == pytest.approx([99.9, 0.999, 999.0])


class TestImport:
    def test_record_and_checksum(self, model: Path) -> None:
        record = json.loads((model / "purifier.json").read_text())
        weights = locate(model)
        assert record["format"] == "avatar"
        assert record["checksum"] == weights.checksum
        assert record["parameters"] == sum(value.numel() for value in released(IN_TIME[1])[0])
        assert weights.identity["source"] == "released for avatar"
        assert (weights.size, weights.multiple, weights.levels) == ((32, 32), 4, 1000)

    @pytest.mark.parametrize("content", [[], {}, {"ema": {}}, {"ema": {"shadow_params": [3]}}])
    def test_other_files_are_refused(self, content: Any, tmp_path: Path) -> None:
        torch.save(content, tmp_path / "c.pth")
        result = imported(tmp_path / "c.pth", tmp_path / "model")
        assert isinstance(result.exception, UserError)
        assert not (tmp_path / "model").exists()

    def test_a_list_of_another_length_or_order_is_refused(self, tmp_path: Path) -> None:
        weights = released(IN_TIME[1])[0]
        short = imported(checkpoint(tmp_path / "a.pth", weights[:-1]), tmp_path / "model")
        assert f"{len(weights) - 1} averaged weights are of no DDPM++" in str(short.exception)
        weights[4], weights[5] = weights[5], weights[4]
        swapped = imported(checkpoint(tmp_path / "b.pth", weights), tmp_path / "model")
        assert "another shape of conv_in.weight" in str(swapped.exception)


class TestSde:
    """beta from 0.1 to 20 over time, a thousandth of it a step."""

    @pytest.fixture
    def scheduler(self) -> Any:
        return diffusers.DDPMScheduler()

    def test_each_step(self, scheduler: Any) -> None:
        """Against the formula in double precision, with the constants of the releases."""
        x, noise = wave().double(), 0.3 * wave().double().flip(0)
        asked: list[int] = []

        def predict(x: Tensor, step: int) -> Tensor:
            asked.append(step)
            return noise

        random = process.streams(5, slice(0, 2))
        result = process.euler_maruyama_in_time(predict, scheduler, x, process.steps_down(4), random)
        random, expected = process.streams(5, slice(0, 2)), x
        for time, length in [(0.004, 0.001), (0.003, 0.001), (0.002, 0.001), (0.001, 0.00099)]:
            beta, drawn = 0.1 + 19.9 * time, process.normal(x, random)
            score = -noise / math.sqrt(1 - math.exp(-9.95 * time**2 - 0.1 * time))
            expected = expected + beta * (expected / 2 + score) * length + math.sqrt(beta * length) * drawn
        torch.testing.assert_close(result, expected, atol=1e-9, rtol=0)
        assert asked == [3, 2, 1, 0]

    def test_golden(self, scheduler: Any) -> None:
        """At t = 100 beta is 2.09 and the deviation 0.322053, where that of a hundred discrete steps is 0.320908."""
        x = torch.ones(1, 3, 1, 1, dtype=torch.float64)
        drawn = process.normal(x, process.streams(0, slice(0, 1)))
        random = process.streams(0, slice(0, 1))
        moved = process.euler_maruyama_in_time(lambda x, step: x, scheduler, x, [99], random)
        taken = 2.09 * (0.1 - 0.00001)
        expected = 1 + (0.5 - 1 / 0.322053) * taken + math.sqrt(taken) * drawn
        torch.testing.assert_close(moved, expected, atol=1e-5, rtol=0)
        assert float((1 - scheduler.alphas_cumprod[99]).sqrt()) == pytest.approx(0.320908, abs=1e-6)

    def test_who_knows_the_image_finds_it(self, scheduler: Any) -> None:
        clean = wave().clamp(-1, 1).double()

        def oracle(x: Tensor, step: int) -> Tensor:
            time = (step + 1) / 1000
            level = math.exp(-9.95 * time**2 - 0.1 * time)
            return (x - math.sqrt(level) * clean) / math.sqrt(1 - level)

        random = process.streams(0, slice(0, 2))
        noisy = process.noised(scheduler, clean, 99, random)
        result = process.euler_maruyama_in_time(oracle, scheduler, noisy, process.steps_down(100), random)
        assert (noisy - clean).std() > 0.3
        assert (result - clean).std() < 0.02

    def test_of_other_noise_is_refused(self, tmp_path: Path, ctx: Context) -> None:
        folder = tiny_model(tmp_path / "cosine", beta_schedule="squaredcos_cap_v2")
        data = image_set(np.zeros((1, 8, 8, 3), np.uint8))
        with pytest.raises(UserError, match="noise that grows linearly, not squaredcos_cap_v2"):
            Avatar(model=folder, t=3, reverse="vp-sde").purify(data, ctx)


class TestUse:
    @pytest.mark.parametrize(
        "plugin",
        [
            Avatar(t=2, reverse="vp-sde", legacy_wrap=True),
            DiffPure(t=2, reverse="vp-sde"),
            Avatar(t=2),
            LeJcdp(t=2, distance="pixels", repeats=1, model="later/on"),
        ],
        ids=lambda plugin: plugin.selector,
    )
    def test_every_purifier_takes_the_network(self, plugin: Any, model: Path, ctx: Context) -> None:
        images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
        given = type(plugin)(**{**plugin.changed(), "model": model})
        purified = given.purify(image_set(images), ctx)
        difference = np.abs(purified.images.astype(int) - images)
        assert 0.5 < np.median(difference) < 30

    def test_the_release_s_protocol_sets_its_solver_and_its_cast(self) -> None:
        [plugin] = registry().resolve("countermeasure", "avatar")
        replaced = {"reverse": "vp-sde", "legacy_wrap": True}
        assert protocol("avatar24").overrides["avatar"]["parameters"] == replaced
        assert type(plugin)(**replaced).selector == "avatar[reverse=vp-sde,legacy_wrap=true]"

    def test_apbench_solves_the_same_and_rounds(self) -> None:
        members = [plugin.selector for plugin in registry().resolve("countermeasure", "@apbench")]
        assert "avatar[t=60,reverse=vp-sde]" in members
