"""Released diffusion models computed before and after their conversion, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from ue_bench.api import Context, ImageSet, UserError
from ue_bench_countermeasures.diffusion import conversion, denoiser, importing
from ue_bench_countermeasures.diffusion.conversion import ECLIPSE, IMAGENET, GuidedLayout, ddpm, guided
from ue_bench_countermeasures.diffusion.recipe import Recipe
from ue_bench_countermeasures.diffusion.weights import locate
from ue_bench_countermeasures.import_commands import import_weights
from ue_bench_countermeasures.relearning import Eclipse

from .released import Ddpm, Guided, Weights

pytest.importorskip("diffusers", exc_type=ImportError)
CLOSE = 2e-5
STEP = 17


def wave(size: int) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def of_ddpm(weights: Weights | None = None) -> tuple[Weights, Tensor]:
    """A checkpoint of two levels, the lower with attention, and what it says of a wave."""
    network = Ddpm(weights)
    return network.weights, network(wave(32), STEP, [32, 64], 2, [False, True])


TINY = GuidedLayout(16, (1, 2), 2, (8,), head=16)
TINY_BLOCKS = GuidedLayout(16, (1, 2, 2), 1, (8, 4), head=32, blocks_resize=True)


@torch.no_grad()
def of_guided(layout: GuidedLayout, first: int = 32, said: float = STEP) -> tuple[Weights, Tensor]:
    network = Guided()
    attended = [layout.size >> level in layout.attention for level in range(len(layout.multipliers))]
    channels = [first * multiplier for multiplier in layout.multipliers]
    output = network(wave(layout.size), said, channels, layout.layers, attended, layout.head, layout.blocks_resize)
    return network.weights, output


@torch.no_grad()
def predicted(folder: Path, size: int, step: int = STEP) -> Tensor:
    return denoiser.load(locate(folder), "cpu", "large").predict(wave(size), step)


@pytest.mark.usefixtures("one_thread")
class TestSameNumbers:
    def test_of_ddpm(self, tmp_path: Path) -> None:
        weights, expected = of_ddpm()
        importing.write(ddpm(weights), tmp_path / "model", {"format": "le-jcdp"})
        torch.testing.assert_close(predicted(tmp_path / "model", 32), expected, atol=CLOSE, rtol=0)

    @pytest.mark.parametrize("layout", [TINY, TINY_BLOCKS], ids=["convolutions", "blocks"])
    def test_of_guided_diffusion(self, layout: GuidedLayout, tmp_path: Path) -> None:
        weights, expected = of_guided(layout)
        importing.write(guided(weights, layout), tmp_path / "model", {"format": "eclipse"})
        torch.testing.assert_close(predicted(tmp_path / "model", 16), expected, atol=CLOSE, rtol=0)

    def test_a_plain_split_of_queries_keys_and_values_is_seen(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It loads, and is wrong: what the conversion for other models does."""
        weights, expected = of_guided(TINY)
        monkeypatch.setattr(conversion, "_by_head", plain_split)
        importing.write(guided(weights, TINY), tmp_path / "model", {"format": "eclipse"})
        assert (predicted(tmp_path / "model", 16) - expected).abs().mean() > 100 * CLOSE

    def test_of_a_step_that_the_network_is_told_otherwise(self, tmp_path: Path) -> None:
        layout = GuidedLayout(16, (1, 2), 1, (8,), head=16, timesteps=4000, timestep_scale=0.25)
        weights, expected = of_guided(layout, said=STEP / 4)
        importing.write(guided(weights, layout), tmp_path / "model", {"format": "eclipse"})
        torch.testing.assert_close(predicted(tmp_path / "model", 16), expected, atol=CLOSE, rtol=0)


def plain_split(value: Tensor, head: int) -> Tensor:
    return value.reshape(3, len(value) // 3, *value.shape[1:2])


def parameters(arguments: dict[str, Any]) -> tuple[int, int]:
    """Weights and tensors of a network that is never filled."""
    from diffusers import UNet2DModel

    with torch.device("meta"):
        network: Any = UNet2DModel(**arguments)
    state = network.state_dict()
    return sum(value.numel() for value in state.values()), len(state)


class TestPublishedShapes:
    """Counts of the released files, which are not here: on names and shapes alone."""

    @pytest.mark.parametrize(
        ("layout", "first", "count", "tensors"),
        [(ECLIPSE, 128, 52_546_438, 446), (IMAGENET, 256, 552_814_086, 566)],
        ids=["ECLIPSE", "ImageNet"],
    )
    def test_of_guided_diffusion(self, layout: GuidedLayout, first: int, count: int, tensors: int) -> None:
        """Each attention has one tensor of queries, keys and values for weight and bias where diffusers has three."""
        arguments = conversion._guided_network(layout, first, {"out.2.bias": torch.empty(6, device="meta")})
        attentions = sum(".attentions." in place for _, place in conversion._guided_places(layout))
        assert parameters(arguments) == (count, tensors + 4 * attentions)

    def test_of_ddpm(self) -> None:
        assert parameters(Recipe().network) == (35_746_307, 328)


def saved(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path


def imported(form: str, source: Path, out: Path) -> Any:
    return CliRunner().invoke(import_weights, [form, str(source), "--out", str(out)])


class TestFiles:
    def test_the_averaged_weights_of_le_jcdp_are_taken(self, tmp_path: Path) -> None:
        weights, expected = of_ddpm()
        other = {f"module.{name}": value + 1 for name, value in weights.items()}
        source = saved([other, {"step": 3}, weights], tmp_path / "ckpt_1.pth")
        result = imported("le-jcdp", source, tmp_path / "model")
        assert result.exit_code == 0, result.output
        torch.testing.assert_close(predicted(tmp_path / "model", 32), expected, atol=CLOSE, rtol=0)
        record = json.loads((tmp_path / "model" / "purifier.json").read_text())
        assert record["format"] == "le-jcdp"
        assert len(record["sources"]["ckpt_1.pth"]) == 64
        assert record["parameters"] == sum(value.numel() for value in weights.values())
        assert set(record["probe"]) == {"mean", "deviation"}
        assert locate(tmp_path / "model").identity["source"] == "released for le-jcdp"

    def test_a_prefix_of_parallel_training_is_taken_off(self, tmp_path: Path) -> None:
        weights, expected = of_ddpm()
        source = saved([{}, {f"module.{name}": value for name, value in weights.items()}], tmp_path / "c.pth")
        assert imported("le-jcdp", source, tmp_path / "model").exit_code == 0
        torch.testing.assert_close(predicted(tmp_path / "model", 32), expected, atol=CLOSE, rtol=0)

    def test_eclipse_with_fewer_channels(self, tmp_path: Path) -> None:
        weights, expected = of_guided(ECLIPSE, first=32, said=STEP / 4)
        source = saved(weights, tmp_path / "ema_0.9999_250000.pt")
        result = imported("eclipse", source, tmp_path / "model")
        assert result.exit_code == 0, result.output
        torch.testing.assert_close(predicted(tmp_path / "model", 32), expected, atol=1e-4, rtol=0)

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"mid.block_1.conv1.bias": None}, "it lacks mid_block.resnets.0.conv1.bias"),
            ({"extra.weight": torch.zeros(1)}, "it has an unknown extra.weight"),
            ({"conv_out.bias": torch.zeros(5)}, "it has another shape of conv_out.bias"),
        ],
    )
    def test_names_and_shapes_are_strict(self, change: dict[str, Any], reason: str, tmp_path: Path) -> None:
        weights = {k: v for k, v in (of_ddpm()[0] | change).items() if v is not None}
        result = imported("le-jcdp", saved([{}, weights], tmp_path / "c.pth"), tmp_path / "model")
        assert isinstance(result.exception, UserError)
        assert reason in str(result.exception)
        assert [p.name for p in tmp_path.iterdir()] == ["c.pth"]

    def test_a_guided_weight_without_a_place_is_refused(self) -> None:
        weights = of_guided(TINY)[0] | {"label_emb.weight": torch.zeros(3, 3)}
        with pytest.raises(UserError, match=r"label_emb\.weight has no place"):
            guided(weights, TINY)

    @pytest.mark.parametrize(
        ("form", "content"),
        [
            ("le-jcdp", {"a": torch.zeros(1)}),
            ("le-jcdp", [{}, 3]),
            ("le-jcdp", [{}, {"a": torch.zeros(1)}]),
            ("eclipse", [torch.zeros(1)]),
            ("eclipse", {"a": torch.zeros(1)}),
        ],
    )
    def test_other_checkpoints_are_refused_in_one_line(self, form: str, content: Any, tmp_path: Path) -> None:
        result = imported(form, saved(content, tmp_path / "c.pt"), tmp_path / "model")
        assert isinstance(result.exception, UserError)
        assert "\n" not in str(result.exception)

    def test_nothing_in_a_file_is_run(self, tmp_path: Path) -> None:
        class Evil:
            def __reduce__(self) -> Any:
                return Path.touch, (tmp_path / "run",)

        source = tmp_path / "c.pt"
        torch.save([{}, Evil()], source)
        result = imported("le-jcdp", source, tmp_path / "model")
        assert isinstance(result.exception, UserError)
        assert not (tmp_path / "run").exists()

    def test_one_file_for_one_network(self, tmp_path: Path) -> None:
        source = saved({}, tmp_path / "c.pt")
        result = CliRunner().invoke(import_weights, ["eclipse", str(source), str(source), "--out", "model"])
        assert isinstance(result.exception, UserError)


class TestUse:
    """An imported model in the countermeasure it belongs to."""

    def images(self) -> ImageSet:
        images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
        return ImageSet(images, np.zeros(4, dtype=np.int64), ("only",))

    def test_the_scale_of_steps_is_in_the_checksum(self, tmp_path: Path) -> None:
        weights, _ = of_guided(TINY)
        for name, scale in (("one", 1.0), ("quarter", 0.25)):
            layout = GuidedLayout(16, (1, 2), 2, (8,), head=16, timestep_scale=scale)
            importing.write(guided(weights, layout), tmp_path / name, {"format": "eclipse"})
        assert locate(tmp_path / "one").checksum != locate(tmp_path / "quarter").checksum

    def test_eclipse_takes_the_variance_that_a_released_network_has_learned(
        self, tmp_path: Path, ctx: Context, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        weights, _ = of_guided(TINY)
        importing.write(guided(weights, TINY), tmp_path / "model", {"format": "eclipse"})
        asked: list[str] = []
        load = denoiser.load

        def watched(weights: Any, device: str, variance: Any) -> Any:
            loaded = load(weights, device, variance)
            asked.append(loaded.scheduler.config.variance_type)
            return loaded

        monkeypatch.setattr(denoiser, "load", watched)
        purified = Eclipse(model=tmp_path / "model", t=3).purify(self.images(), ctx)
        assert asked == ["learned_range"]
        assert not np.array_equal(purified.images, self.images().images)
