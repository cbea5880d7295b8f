"""Networks of timm: fresh ones, and tiny random ones in folders, without a network connection."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from ue_bench.api import UserError
from ue_bench_victims import hub_networks
from ue_bench_victims.hub import locate
from ue_bench_victims.hub_probe import HubProbe
from ue_bench_victims.timm_victim import Timm

from .hub_folders import pixels, stored


class TestTimm:
    @pytest.fixture(autouse=True)
    def timm(self) -> Any:
        return pytest.importorskip("timm", reason="pip install 'ue-bench[pretrained]'", exc_type=ImportError)

    def folder(self, timm: Any, path: Path, name: str = "test_vit") -> Any:
        torch.manual_seed(2)
        network = timm.create_model(name).eval()
        timm.models.save_for_hf(network, path, safe_serialization=True)
        return network

    def test_fresh_networks_see_images_as_they_are(self, timm: Any) -> None:
        torch.manual_seed(0)
        ours = Timm(model="test_resnet").build(7, (32, 32)).eval()
        torch.manual_seed(0)
        theirs = timm.create_model("test_resnet", num_classes=7).eval()
        with torch.no_grad():
            torch.testing.assert_close(ours(pixels(2, 32)), theirs(pixels(2, 32)))

    def test_transformers_are_told_the_size(self) -> None:
        assert Timm(model="test_vit").build(7, (32, 32))(pixels(2, 32)).shape == (2, 7)
        assert Timm(model="test_vit", size=48).build(7, (32, 32))(pixels(2, 32)).shape == (2, 7)

    def test_weights_of_a_folder(self, timm: Any, tmp_path: Path) -> None:
        theirs = self.folder(timm, tmp_path / "m")
        ours: Any = Timm(model=tmp_path / "m", pretrained=True, size=160).build(7, (32, 32)).eval()
        mean, std = (torch.tensor(theirs.pretrained_cfg[k]).view(3, 1, 1) for k in ("mean", "std"))
        large = F.interpolate(pixels(2, 32), (160, 160), mode="bicubic", antialias=True).clamp(0, 1)
        with torch.no_grad():
            expected = theirs.forward_features((large - mean) / std)
            found = ours.network.forward_features((large - mean) / std)
            torch.testing.assert_close(found, expected)
            assert ours(pixels(2, 32)).shape == (2, 7)

    def test_a_probe_on_its_features(self, timm: Any, tmp_path: Path) -> None:
        theirs = self.folder(timm, tmp_path / "m", "test_resnet")
        ours: Any = HubProbe(model=tmp_path / "m", size=64).build(3, (16, 16)).eval()
        mean, std = (torch.tensor(theirs.pretrained_cfg[k]).view(3, 1, 1) for k in ("mean", "std"))
        large = F.interpolate(pixels(), (64, 64), mode="bicubic", antialias=True).clamp(0, 1)
        with torch.no_grad():
            expected = theirs.forward_head(theirs.forward_features((large - mean) / std), pre_logits=True)
            torch.testing.assert_close(ours.features(pixels()), expected, atol=1e-5, rtol=1e-5)

    def test_weights_that_were_forgotten_are_found(self, timm: Any, tmp_path: Path) -> None:
        self.folder(timm, tmp_path / "m")
        files = locate(tmp_path / "m")
        hub_networks.check_loaded(hub_networks.create(f"local-dir:{files.folder}", 160, pretrained=True), files)
        with pytest.raises(UserError, match="the weights of m are not those of its network"):
            hub_networks.check_loaded(hub_networks.create(f"local-dir:{files.folder}", 160, pretrained=False), files)

    def test_its_weights_are_in_the_key(self, timm: Any, tmp_path: Path) -> None:
        self.folder(timm, tmp_path / "m")
        assert set(Timm(model=tmp_path / "m", pretrained=True).identity()["parameters"]["weights"]) == {
            "checksum", "source",
        }  # fmt: skip
        assert Timm(model=tmp_path / "m").identity()["parameters"]["weights"] == "test_vit"
        assert "weights" not in Timm().identity()["parameters"]

    @pytest.mark.parametrize(
        ("model", "pretrained", "asked"),
        [
            ("test_resnet", False, {}),
            ("test_vit", False, {"optimizer": "adamw", "learning_rate": 1e-3, "weight_decay": 0.05}),
            ("vit_small_patch16_224", False, {"optimizer": "adamw", "learning_rate": 1e-3, "weight_decay": 0.05}),
        ],
    )
    def test_optimizers(self, model: str, pretrained: bool, asked: dict[str, Any]) -> None:
        assert Timm(model=model, pretrained=pretrained).optimizer() == asked

    def test_unknown_networks_are_refused_with_their_neighbours(self) -> None:
        with pytest.raises(UserError, match="timm has no network resnet81") as caught:
            Timm(model="resnet81").build(3, (32, 32))
        assert "resnet18" in caught.value.hint

    def test_folders_of_transformers_go_elsewhere(self, tmp_path: Path) -> None:
        stored("resnet", tmp_path / "m")
        with pytest.raises(UserError, match="m is no network of timm"):
            Timm(model=tmp_path / "m").build(3, (32, 32))
