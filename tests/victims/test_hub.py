"""Pretrained adversaries: tiny random networks of transformers and timm in folders, and no network connection."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from sets import colours
from torch import Tensor
from toys import toy_cell

from ue_bench.api import Context, EnvironmentProblem, ImageSet, UserError
from ue_bench.catalogue.registry import registry
from ue_bench.engine.measure import measure
from ue_bench.grid.cell import cells
from ue_bench.grid.stages.train import training_cost
from ue_bench_victims import hub, hub_networks, hub_probe, pretrained
from ue_bench_victims.hub import locate
from ue_bench_victims.hub_probe import HubProbe

from .helpers import victim

pytest.importorskip("transformers", reason="pip install 'ue-bench[pretrained]'", exc_type=ImportError)

from .hub_folders import SIZE, pixels, seen, stored

# What of a network's own output the features are, and how many.
EXPECTED: dict[str, tuple[Callable[[Any, Tensor], Tensor], int]] = {
    "vit": (lambda n, x: n(x, interpolate_pos_encoding=True).last_hidden_state[:, 0], 16),
    "vit classifier": (lambda n, x: n.vit(x).last_hidden_state[:, 0], 16),
    "dinov2": (lambda n, x: n(x).last_hidden_state[:, 0], 16),
    "resnet": (lambda n, x: n(x).pooler_output.flatten(1), 12),
    "clip": (lambda n, x: n.visual_projection(n.vision_model(x).pooler_output), 6),
    "clip projected": (lambda n, x: n(x).image_embeds, 6),
    "clip tower": (lambda n, x: n(x).pooler_output, 16),
}


@pytest.mark.filterwarnings("ignore")
class TestFeatures:
    @pytest.mark.parametrize("kind", EXPECTED)
    def test_are_those_of_the_library(self, kind: str, tmp_path: Path) -> None:
        """Of enlarged, normalised images; of CLIP behind its projection, where it has one."""
        network = stored(kind, tmp_path / "m")
        take, width = EXPECTED[kind]
        ours: Any = HubProbe(model=tmp_path / "m", size=SIZE).build(3, (16, 16)).eval()
        with torch.no_grad():
            found, expected = ours.features(pixels()), take(network, seen(pixels()))
        assert found.shape == (3, width)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        assert ours.linear.in_features == width

    def test_images_are_enlarged_by_and_by_to_the_same_numbers(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stored("resnet", tmp_path / "m")
        ours: Any = HubProbe(model=tmp_path / "m", size=SIZE).build(3, (16, 16)).eval()
        with torch.no_grad():
            whole = ours(pixels(5))
            monkeypatch.setattr(hub_networks, "CHUNK", 2)
            torch.testing.assert_close(ours(pixels(5)), whole, atol=1e-5, rtol=1e-5)

    def test_without_normalisation_and_enlargement(self, tmp_path: Path) -> None:
        network = stored("resnet", tmp_path / "m")
        ours: Any = HubProbe(model=tmp_path / "m", size=None, normalise=False).build(3, (16, 16)).eval()
        with torch.no_grad():
            torch.testing.assert_close(ours.features(pixels()), network(pixels()).pooler_output.flatten(1))

    def test_random_ones_are_no_others(self, tmp_path: Path) -> None:
        network = stored("vit", tmp_path / "m")
        ours: Any = HubProbe(model=tmp_path / "m", size=SIZE, features="random").build(3, (16, 16))
        weight = ours.features.network.network.embeddings.patch_embeddings.projection.weight
        assert not torch.equal(weight, network.embeddings.patch_embeddings.projection.weight)
        assert weight.shape == network.embeddings.patch_embeddings.projection.weight.shape


@pytest.mark.filterwarnings("ignore")
class TestFiles:
    def change(self, folder: Path, change: dict[str, Tensor | None]) -> None:
        from safetensors.torch import load_file, save_file

        weights = load_file(folder / "model.safetensors") | change
        kept = {k: v for k, v in weights.items() if v is not None}
        save_file(kept, folder / "model.safetensors", {"format": "pt"})

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"embeddings.cls_token": None}, "lacks embeddings.cls_token"),
            ({"visual.weight": torch.zeros(1)}, "has an unknown visual.weight"),
        ],
    )
    def test_weights_must_fit_both_ways(self, change: dict[str, Tensor | None], reason: str, tmp_path: Path) -> None:
        stored("vit", tmp_path / "m")
        self.change(tmp_path / "m", change)
        with pytest.raises(UserError, match=f"m does not fit ViTModel: it {reason}") as caught:
            HubProbe(model=tmp_path / "m", size=SIZE).build(3, (16, 16))
        assert "\n" not in str(caught.value)

    def test_what_is_not_known_is_refused(self, tmp_path: Path) -> None:
        stored("vit", tmp_path / "m")
        config = json.loads((tmp_path / "m" / "config.json").read_text())
        (tmp_path / "m" / "config.json").write_text(json.dumps(config | {"model_type": "bert"}))
        with pytest.raises(UserError, match="is a bert, whose features are not known"):
            locate(tmp_path / "m")

    def test_half_a_folder_is_refused(self, tmp_path: Path) -> None:
        stored("vit", tmp_path / "m")
        (tmp_path / "m" / "preprocessor_config.json").unlink()
        with pytest.raises(UserError, match="does not say by what images are normalised"):
            HubProbe(model=tmp_path / "m", size=SIZE).build(3, (16, 16))
        (tmp_path / "m" / "model.safetensors").unlink()
        with pytest.raises(EnvironmentProblem, match=r"config\.json or weights are missing"):
            locate(tmp_path / "m")

    def test_the_key_is_of_the_content(self, tmp_path: Path) -> None:
        stored("vit", tmp_path / "m")
        first = HubProbe(model=tmp_path / "m").identity()
        assert first["parameters"]["weights"]["source"] == "folder"
        stored("vit", tmp_path / "n")
        assert HubProbe(model=tmp_path / "n").identity()["parameters"]["weights"] == first["parameters"]["weights"]
        self.change(tmp_path / "n", {"embeddings.cls_token": torch.zeros(1, 1, 16)})
        hub.digest_path.cache_clear()  # type: ignore[attr-defined]  # files do not change within a process
        assert HubProbe(model=tmp_path / "n").identity()["parameters"]["weights"] != first["parameters"]["weights"]

    def test_the_hub_is_asked_last_and_its_failure_is_one_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import huggingface_hub

        asked: list[bool] = []

        def nothing(model: str, allow_patterns: list[str], local_files_only: bool) -> str:
            asked.append(local_files_only)
            raise OSError("no route to host\nand more")

        monkeypatch.setattr(huggingface_hub, "snapshot_download", nothing)
        with pytest.raises(EnvironmentProblem, match="no network facebook/dinov2-small on this machine") as caught:
            victim("probe[model=dinov2-small]").identity()
        assert asked == [True, False]
        assert "\n" not in str(caught.value)

    def test_what_the_client_has_is_used(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import huggingface_hub

        stored("vit", tmp_path / "m")
        monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *given, **named: str(tmp_path / "m"))
        assert victim("probe[model=vit]").identity()["parameters"]["weights"]["source"] == f"hub {hub_probe.HUB['vit']}"
        assert victim("probe[model=a/b]").build(3, (16, 16))


def context(ctx: Context, seed: int = 0) -> Context:
    return replace(ctx, seed=seed)


@pytest.mark.filterwarnings("ignore")
class TestLinear:
    @pytest.fixture
    def probe(self, tmp_path: Path) -> HubProbe:
        stored("resnet", tmp_path / "m")
        return HubProbe(model=tmp_path / "m", size=SIZE)

    def measured(self, probe: HubProbe, data: ImageSet, test: ImageSet, ctx: Context) -> Any:
        learnt = probe.pretrain(data, ctx)

        def build() -> Any:
            network = probe.build(data.num_classes, data.size)
            assert not network.load_state_dict(learnt, strict=False).unexpected_keys
            return network

        return measure(build, data, test, 0.0, "cpu", "fp32", 3)

    def test_learns_from_stored_images_alone(self, probe: HubProbe, ctx: Context) -> None:
        model, outcome = self.measured(probe, colours(60, 0, 16), colours(30, 1, 16), ctx)
        assert outcome.accuracy_last > 90
        assert outcome.epochs == [0.0]
        assert outcome.accuracy_test == [outcome.accuracy_last]
        assert outcome.learned
        assert outcome.loss_train[0] < 0.5
        assert not model.training

    def test_the_layer_is_the_minimum_for_the_features_of_all_images(self, probe: HubProbe, ctx: Context) -> None:
        from ue_bench_victims.logistic import solve

        data = colours(40, 0, 16)
        ours: Any = probe.build(3, (16, 16)).eval()
        with torch.no_grad():
            features = ours.features(torch.tensor(data.images).permute(0, 3, 1, 2) / 255)
        weight, _ = solve(features, torch.tensor(data.labels), 3, 1e-3).folded()
        torch.testing.assert_close(probe.pretrain(data, ctx)["linear.weight"], weight.float(), atol=1e-3, rtol=1e-3)

    def test_features_are_computed_once_and_survive_a_kill(
        self, probe: HubProbe, ctx: Context, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(hub_probe, "PART", 10)
        seen_images: list[int] = []
        kept = hub_networks.Enlarged.forward

        def forward(self: Any, x: Tensor) -> Tensor:
            if sum(seen_images) == 20 and not killed:
                killed.append(True)
                raise KeyboardInterrupt
            seen_images.append(len(x))
            return kept(self, x)

        killed: list[bool] = []
        monkeypatch.setattr(hub_networks.Enlarged, "forward", forward)
        data = colours(50, 0, 16)
        with pytest.raises(KeyboardInterrupt):
            probe.pretrain(data, ctx)
        first = probe.pretrain(data, ctx)
        assert sum(seen_images) == 50
        again = probe.pretrain(data, ctx)
        assert sum(seen_images) == 50
        assert all(torch.equal(first[name], again[name]) for name in first)

    def test_the_control_is_measured_with_the_features_it_learned_on(self, probe: HubProbe, ctx: Context) -> None:
        random = probe.model_copy(update={"features": "random"})
        data = colours(40, 0, 16)
        first, other = random.pretrain(data, context(ctx)), random.pretrain(data, context(ctx, 1))
        names = [name for name in first if name.startswith("features.")]
        assert names
        assert any(not torch.equal(first[name], other[name]) for name in names)
        model, outcome = self.measured(random, data, colours(30, 1, 16), context(ctx))
        built = model.state_dict()
        assert all(torch.equal(built[f"network.{name}"], first[name]) for name in names)
        assert outcome.accuracy_train[0] > 80

    @pytest.mark.parametrize("selector", ["cutout", "at", "early-stopping[clean=5]", "gray+mixup"])
    def test_what_acts_in_training_is_refused(self, selector: str, probe: HubProbe) -> None:
        cell = toy_cell()
        chosen: Any = registry().resolve("countermeasure", [selector])
        with pytest.raises(UserError, match="acts in training, and no protocol trains probe") as caught:
            cells(cell.data, [cell.protector], chosen, [probe], cell.protocol, [0], 1.0, "fp32")
        assert "\n" not in str(caught.value)
        tuned = probe.model_copy(update={"mode": "fine-tune"})
        assert len(cells(cell.data, [cell.protector], chosen,
                         [tuned], cell.protocol, [0], 1.0, "fp32")) == 1  # fmt: skip

    def test_stored_images_may_be_changed(self, probe: HubProbe) -> None:
        cell = toy_cell()
        chosen: Any = registry().resolve("countermeasure", ["vanilla", "jpeg", "gray+median"])
        assert len(cells(cell.data, [cell.protector], chosen, [probe], cell.protocol, [0], 1.0, "fp32")) == 3

    def test_no_protocol_trains_it_and_plans_say_so(self, probe: HubProbe) -> None:
        cell = replace(toy_cell(), victim=probe)
        assert sum(network.passes for network in training_cost(cell).networks) == 0
        assert probe.optimizer() == {"shift": 0.0}

    def test_a_penalty_without_a_solver_is_refused(self) -> None:
        with pytest.raises(UserError, match="penalty would do nothing"):
            victim("probe[mode=fine-tune,penalty=0.1]")


@pytest.mark.filterwarnings("ignore")
class TestFineTuning:
    def test_all_weights_learn(self, tmp_path: Path) -> None:
        stored("vit", tmp_path / "m")
        ours: Any = HubProbe(model=tmp_path / "m", size=SIZE, mode="fine-tune").build(3, (16, 16)).train()
        assert ours.features.training
        ours(pixels()).square().sum().backward()
        learnt = [p.grad is not None for p in ours.parameters()]
        assert all(learnt)
        frozen: Any = HubProbe(model=tmp_path / "m", size=SIZE).build(3, (16, 16)).train()
        assert [n for n, p in frozen.named_parameters() if p.requires_grad] == ["linear.weight", "linear.bias"]
        assert not frozen.features.training

    @pytest.mark.parametrize(("kind", "optimizer", "rate"), [("vit", "adamw", 2e-5), ("resnet", None, 1e-3)])
    def test_transformers_have_another_optimizer(
        self, kind: str, optimizer: str | None, rate: float, tmp_path: Path
    ) -> None:
        stored(kind, tmp_path / "m")
        asked = HubProbe(model=tmp_path / "m", mode="fine-tune").optimizer()
        assert asked.get("optimizer") == optimizer
        assert (asked["learning_rate"], asked["shift"]) == (rate, 0.0)

    def test_baits_adversary(self, torchvision: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """torchvision's network on images as they are, its weights, no normalisation, and a fresh classifier."""
        torch.manual_seed(0)
        theirs = torchvision.resnet18().eval()
        torch.save(theirs.state_dict(), tmp_path / "w.pth")
        monkeypatch.setattr(pretrained, "imagenet_file", lambda name: tmp_path / "w.pth")
        ours: Any = victim("probe[mode=fine-tune,size=null,normalise=false]").build(10, (32, 32)).eval()
        theirs.fc = torch.nn.Identity()
        x = pixels(2, 32)
        with torch.no_grad():
            torch.testing.assert_close(ours.features(x), theirs(x), atol=1e-4, rtol=1e-4)
        from ue_bench.catalogue.protocols import protocol

        recipe = protocol("bait26").under([], victim("probe[mode=fine-tune,size=null,normalise=false]").optimizer())
        assert (recipe.optimizer, recipe.learning_rate, recipe.momentum, recipe.shift) == ("sgd", 0.001, 0.9, 0)
        assert (recipe.batch, recipe.epochs, recipe.clip, recipe.weight_decay) == (128, 60, 5, 5e-4)
        assert (recipe.schedule, recipe.rate_changes) == ("cosine", "epoch")


def test_without_the_libraries_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in ("timm", "transformers"):
        monkeypatch.setitem(sys.modules, name, None)
    for missing in (hub.timm_library, hub.transformers_library):
        with pytest.raises(EnvironmentProblem) as caught:
            missing()
        assert caught.value.hint == "pip install 'ue-bench[pretrained]'"


def test_features_are_a_vector() -> None:
    with pytest.raises(UserError, match="not a vector"):
        hub_networks.width_of(torch.nn.Identity(), (8, 8))
    assert hub_networks.width_of(torch.nn.Flatten(), (8, 8)) == 192
