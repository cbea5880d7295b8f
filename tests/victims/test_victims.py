"""Victims as plugins: parameters, errors, what they ask of the protocol, and that they learn."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sets import colours

from ue_bench.api import EnvironmentProblem, UserError
from ue_bench.catalogue.describe import describe
from ue_bench.catalogue.protocols import protocol
from ue_bench.catalogue.registry import registry
from ue_bench.contract.plugin import Countermeasure
from ue_bench.contract.protocol import Protocol
from ue_bench.contract.registration import PluginRecord
from ue_bench.engine.loop import train

from .helpers import here, offline, on_meta, parameters, victim

OWN = {e.name: e for e in registry().of_kind("victim") if e.distribution.startswith("ue-bench ")}
ENTRIES = [OWN[name] for name in here([*OWN])]
WITHOUT_TORCHVISION = [e for e in ENTRIES if e.name != "timm"]
WITH_STEM = [
    "resnet10",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "vgg16",
    "vgg19",
    "densenet121",
    "mobilenetv2",
    "senet18",
]
OWN_SOURCE = {"resnet9", "linear"}


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: e.name)
class TestEveryVictim:
    def test_is_documented_and_has_its_source(self, entry: PluginRecord) -> None:
        assert entry.plugin_class.__doc__
        assert bool(entry.plugin_class.paper) == (entry.name not in OWN_SOURCE)

    def test_parameters_are_described(self, entry: PluginRecord) -> None:
        assert len(describe(entry.plugin_class)) == len(entry.plugin_class.model_fields)

    def test_asks_of_every_protocol_what_a_protocol_can_give(self, entry: PluginRecord) -> None:
        asked = victim(entry.name).optimizer()
        for name in ("paper", "fast", "em21"):
            recipe = protocol(name).under(["at"], asked)
            assert {field: getattr(recipe, field) for field in asked} == asked

    on_meta.cache_clear()


@pytest.mark.usefixtures("broken_torchvision")
class TestWithoutTorchvision:
    @pytest.mark.parametrize("entry", WITHOUT_TORCHVISION, ids=lambda e: e.name)
    def test_small_images_do_not_need_it(self, entry: PluginRecord) -> None:
        assert parameters(on_meta(offline(entry.name), 32)) > 0

    @pytest.mark.parametrize("name", ["vgg16", "vgg19", "densenet121", "mobilenetv2"])
    def test_large_images_say_in_one_line_that_they_do(self, name: str) -> None:
        on_meta.cache_clear()  # another test may have built it while torchvision worked
        with pytest.raises(
            EnvironmentProblem, match=f"{name} for large images needs torchvision, .*: operator"
        ) as caught:
            on_meta(name, 224)
        assert "\n" not in str(caught.value)
        assert "ue-bench doctor" in caught.value.hint
        assert parameters(on_meta(f"{name}[stem=cifar]", 224)) > 0

    @pytest.mark.parametrize("name", ["resnet18", "resnet101", "senet18", "vit", "linear", "mlp"])
    def test_others_do_not_need_it_at_all(self, name: str) -> None:
        assert parameters(on_meta(name, 224)) > 0


@pytest.mark.parametrize("name", WITH_STEM)
def test_the_stem_goes_by_the_shorter_side_unless_it_is_given(name: str, torchvision: Any) -> None:
    def count(selector: str, size: tuple[int, int]) -> int:
        with torch.device("meta"):
            return parameters(victim(selector).build(10, size))

    small, large = count(f"{name}[stem=cifar]", (224, 224)), count(f"{name}[stem=imagenet]", (32, 32))
    assert small != large
    assert count(name, (63, 200)) == count(name, (32, 32)) == small
    assert count(name, (64, 64)) == large


class TestViT:
    def test_patches_go_by_the_size_unless_they_are_given(self) -> None:
        assert [_tokens("vit", size) for size in (32, 60, 64, 224)] == [64, 225, 16, 196]
        assert _tokens("vit[patch=8]", 32) == 16

    def test_parameters_are_honoured(self) -> None:
        net: Any = on_meta("vit[width=24,depth=3,heads=4,expansion=5]", 32)
        assert len(net.layers) == 3
        assert net.layers[0].self_attn.num_heads == 4
        assert net.layers[0].linear1.weight.shape == (120, 24)
        assert net.patches.out_channels == 24

    def test_patches_that_do_not_fit_are_one_line(self) -> None:
        with pytest.raises(UserError, match=r"images of 30 x 32 px cannot be cut into patches of 4 x 4 px"):
            victim("vit").build(10, (32, 30))

    def test_heads_divide_the_width(self) -> None:
        with pytest.raises(UserError, match="width 20 is not a multiple of 12 heads"):
            victim("vit[width=20]")

    def test_adamw_replaces_the_optimizer_and_nothing_else(self) -> None:
        recipe = protocol("fast").under([], victim("vit[learning_rate=3e-4]").optimizer())
        changed = {k for k, v in recipe if v != getattr(protocol("fast"), k)}
        assert changed == {"optimizer", "learning_rate", "weight_decay", "nesterov"}
        assert (recipe.optimizer, recipe.learning_rate, recipe.weight_decay) == ("adamw", 3e-4, 0.05)


def _tokens(selector: str, size: int) -> int:
    net: Any = on_meta(selector, size)
    return int(net.positions.shape[1]) - 1


def test_hidden_layers_of_the_mlp_are_as_asked() -> None:
    net: Any = on_meta("mlp[width=20,depth=3]", 32)
    assert [layer.out_features for layer in net if hasattr(layer, "out_features")] == [20, 20, 20, 10]


def learns(selector: str, size: int, epochs: int) -> float:
    """Test accuracy after training by the recipe as the victim changes it."""
    found = victim(selector)
    recipe = Protocol(
        name="tiny", version=1, summary="", source="", batch=16, epochs=epochs, learning_rate=0.05, nesterov=True,
        schedule="onecycle", pad=0, shift=0.5,
    ).under([], found.optimizer())  # fmt: skip
    _, outcome = train(
        lambda: found.build(3, (size, size)), colours(96, 0, size), colours(60, 1, size), recipe, Countermeasure(),
        "cpu", "fp32", 0, lambda done, total, text: None,
    )  # fmt: skip
    return outcome.accuracy_test[-1]


@pytest.mark.parametrize(
    "selector", ["vit[width=24,depth=2,heads=2]", "mlp[width=64,depth=1]", "linear", "resnet9[width=4]"]
)
def test_small_victims_learn_colours(selector: str) -> None:
    assert learns(selector, 8, 10) > 90


@pytest.mark.slow
@pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: e.name)
def test_every_victim_learns_colours(entry: PluginRecord) -> None:
    assert learns(offline(entry.name), 16, 6) > 80
