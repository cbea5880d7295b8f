"""The generator of DeepConfuse's release: its names and layers, and protection by its weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError as BadParameters
from torch import Tensor, nn

from ue_bench.api import Context, UserError
from ue_bench_baselines.deepconfuse import DeepConfuse
from ue_bench_baselines.pgd import to_unit
from ue_bench_baselines.released_unet import load_released

from .helpers import difference, image_set, random_set

pytestmark = pytest.mark.usefixtures("one_thread")


def released(width: int = 4, seed: int = 0, prefix: str = "") -> dict[str, Tensor]:
    """A state dict with random weights under the names of the release, statistics of an earlier life included."""
    generator = torch.Generator().manual_seed(seed)
    chain = [3, width, 2 * width, 4 * width, 8 * width]
    blocks = {f"dconv_down{k}": (chain[k - 1], chain[k]) for k in (1, 2, 3, 4)}
    blocks |= {f"dconv_up{k}": (chain[k] + chain[k + 1], chain[k]) for k in (3, 2, 1)}
    weights: dict[str, Tensor] = {}

    def convolution(name: str, inputs: int, outputs: int, kernel: int) -> None:
        weights[f"{name}.weight"] = torch.randn(outputs, inputs, kernel, kernel, generator=generator) / inputs**0.5
        weights[f"{name}.bias"] = torch.randn(outputs, generator=generator)

    def normalisation(name: str, channels: int) -> None:
        for part in ("weight", "bias", "running_mean"):
            weights[f"{name}.{part}"] = torch.randn(channels, generator=generator)
        weights[f"{name}.running_var"] = torch.rand(channels, generator=generator) + 0.5
        weights[f"{name}.num_batches_tracked"] = torch.tensor(7)

    for name, (inputs, outputs) in blocks.items():
        for place, before in ((0, inputs), (3, outputs)):
            convolution(f"{name}.{place}", before, outputs, 3)
            normalisation(f"{name}.{place + 1}", outputs)
    convolution("conv_last.0", width, 3, 1)
    normalisation("conv_last.1", 3)
    return {prefix + name: value for name, value in weights.items()}


class ReleasedNet(nn.Module):
    """The network as the release names and joins it."""

    def __init__(self, width: int) -> None:
        super().__init__()

        def double(inputs: int, outputs: int) -> nn.Sequential:
            layers: list[nn.Module] = []
            for before in (inputs, outputs):
                layers += [nn.Conv2d(before, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
            return nn.Sequential(*layers)

        self.dconv_down1, self.dconv_down2 = double(3, width), double(width, 2 * width)
        self.dconv_down3, self.dconv_down4 = double(2 * width, 4 * width), double(4 * width, 8 * width)
        self.dconv_up3, self.dconv_up2 = double(12 * width, 4 * width), double(6 * width, 2 * width)
        self.dconv_up1 = double(3 * width, width)
        self.conv_last = nn.Sequential(nn.Conv2d(width, 3, 1), nn.BatchNorm2d(3))
        self.pool = nn.AvgPool2d(2)
        self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)

    def forward(self, x: Tensor) -> Tensor:
        one = self.dconv_down1(x)
        two = self.dconv_down2(self.pool(one))
        three = self.dconv_down3(self.pool(two))
        x = self.dconv_down4(self.pool(three))
        x = self.dconv_up3(torch.cat([self.up(x), three], 1))
        x = self.dconv_up2(torch.cat([self.up(x), two], 1))
        x = self.dconv_up1(torch.cat([self.up(x), one], 1))
        noise: Tensor = self.conv_last(x).tanh()
        return noise


class TestReleasedGenerator:
    def file(self, tmp_path: Path, weights: Any, old: bool = False) -> Path:
        path = tmp_path / "atk.pth"
        torch.save(weights, path, _use_new_zipfile_serialization=not old)
        return path

    def test_names_and_shapes_are_those_of_the_release(self) -> None:
        """105 entries and 7,794,334 numbers, as the released file is described."""
        weights = released(64)
        assert len(weights) == 105
        assert sum(value.numel() for value in weights.values()) == 7_794_334
        assert set(weights) == set(ReleasedNet(64).state_dict())

    def test_it_gives_what_the_released_network_gives(self, tmp_path: Path) -> None:
        theirs = ReleasedNet(4)
        theirs.load_state_dict(released())
        ours = load_released(self.file(tmp_path, released()))
        x = torch.rand(3, 3, 16, 24, generator=torch.Generator().manual_seed(5))
        with torch.no_grad():
            found = ours(x)
            assert torch.equal(found, theirs.eval()(x))
        assert 0.1 < float(found.abs().max()) <= 1

    @pytest.mark.parametrize("old", [False, True], ids=["zip", "old format"])
    def test_other_ways_to_store_it_are_taken(self, old: bool, tmp_path: Path) -> None:
        plain = load_released(self.file(tmp_path, released()))
        bare = {name: v for name, v in released(prefix="module.").items() if "num_batches" not in name}
        found = load_released(self.file(tmp_path, bare, old))
        x = torch.rand(2, 3, 8, 8)
        assert torch.equal(found(x), plain(x))

    def test_images_get_its_noise_and_no_more(self, tmp_path: Path, ctx: Context) -> None:
        path = self.file(tmp_path, released())
        data = random_set(9, size=(16, 8))
        protector = DeepConfuse(weights=path, eps="8/255")
        protected = protector.protect(data, replace(ctx, networks=None))
        x = to_unit(data.images, "cpu")
        with torch.no_grad():
            wanted = (x + 8 / 255 * load_released(path)(x)).clamp(0, 1).permute(0, 2, 3, 1).numpy() * 255
        assert np.abs(protected.images - wanted).max() < 0.51
        assert 4 < np.abs(difference(protected, data)).max() <= 8
        alone = protector.protect(image_set(data.images[3:5], data.labels[3:5], 4), ctx)
        assert np.array_equal(alone.images, protected.images[3:5])
        assert np.array_equal(protector.protect(data, replace(ctx, seed=1)).images, protected.images)
        other = DeepConfuse(weights=self.file(tmp_path, released(seed=1)))
        assert not np.array_equal(other.protect(data, ctx).images, protected.images)

    def test_any_size_is_protected(self, tmp_path: Path, ctx: Context) -> None:
        data = random_set(3, size=(13, 22))
        protector = DeepConfuse(weights=self.file(tmp_path, released()))
        assert np.abs(difference(protector.protect(data, ctx), data)).max() <= 8
        assert not protector.uses_networks
        assert not protector.one_size
        assert protector.classes_needed == 1
        assert protector.cost(10) is None

    def test_what_would_be_ignored_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(BadParameters, match="rounds, width would do nothing"):
            DeepConfuse(weights=self.file(tmp_path, released()), width=3, rounds=4)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda w: {"state_dict": w}, "is no state dict"),
            (lambda w: {"encoder.weight": torch.zeros(2)}, "it has no dconv_down1.0.weight"),
            (lambda w: {n: v for n, v in w.items() if n != "conv_last.0.bias"}, "it has no head.0.bias"),
            (lambda w: w | {"extra.weight": torch.zeros(1)}, "extra.weight is none of its weights"),
            (lambda w: w | {"dconv_up2.3.bias": torch.zeros(5)}, r"up.1.3.bias has the shape \(5,\), not \(8,\)"),
            (lambda w: w | {"dconv_up2.3.bias": torch.full((8,), torch.nan)}, "up.1.3.bias is not finite"),
        ],
    )  # fmt: skip
    def test_other_files_are_refused(self, change: Any, message: str, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=message):
            load_released(self.file(tmp_path, change(released())))

    @pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04"])
    def test_what_is_no_file_of_weights_is_one_line(self, content: bytes, tmp_path: Path) -> None:
        path = tmp_path / "odd.pth"
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"odd\.pth cannot be read as weights"):
            load_released(path)
