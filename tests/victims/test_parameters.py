"""Counts against the literature, and the docstrings that repeat them."""

from __future__ import annotations

import math
from typing import Any

import pytest

from ue_bench.catalogue.registry import registry
from ue_bench.errors import UserError
from ue_bench_victims.mobilenet_layers import scaled

from .helpers import PARAMETERS, here, offline, on_meta, parameters, victim

NAMES = here([e.name for e in registry().of_kind("victim") if e.distribution.startswith("ue-bench ")])

# Counted by hand, layer by layer, at 32 px and 10 classes.
OWN = {
    "linear": 3072 * 10 + 10,
    "mlp": (3072 * 512 + 512) + 3 * (512 * 512 + 512) + (512 * 10 + 10),
    "mlp[width=8,depth=1]": (3072 * 8 + 8) + (8 * 10 + 10),
    # Patches, class token, positions; nine layers of two norms, attention and two linear layers; norm and classifier.
    "vit": (48 * 192 + 192) + 192 + 65 * 192
    + 9 * (4 * 192 + (192 * 576 + 576) + (192 * 192 + 192) + (192 * 384 + 384) + (384 * 192 + 192))
    + 2 * 192 + (192 * 10 + 10),
}  # fmt: skip

# Of torchvision's documentation, at 224 px and 1,000 classes.
IMAGENET = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "vgg16": 138_365_992,
    "vgg19": 143_678_248,
    "densenet121": 7_978_856,
    "mobilenetv2": 3_504_872,
    "vit[width=768,depth=12,expansion=4]": 86_567_656,
}
FROM_TORCHVISION = {"vgg16", "vgg19", "densenet121", "mobilenetv2"}


@pytest.mark.parametrize(("selector", "count"), (PARAMETERS | OWN).items())
def test_parameters_at_32_px(selector: str, count: int) -> None:
    assert parameters(on_meta(selector, 32)) == count


@pytest.mark.parametrize(("selector", "count"), IMAGENET.items())
def test_parameters_at_224_px(selector: str, count: int, request: pytest.FixtureRequest) -> None:
    if selector in FROM_TORCHVISION:
        request.getfixturevalue("torchvision")
    assert parameters(on_meta(selector, 224, classes=1000)) == count


@pytest.mark.parametrize(("selector", "count"), IMAGENET.items())
def test_counts_at_224_px_are_torchvisions(selector: str, count: int, torchvision: Any) -> None:
    named = {"vgg16": "vgg16_bn", "vgg19": "vgg19_bn", "mobilenetv2": "mobilenet_v2"}
    name = "vit_b_16" if selector.startswith("vit") else named.get(selector, selector)
    assert torchvision.get_model_weights(name).DEFAULT.meta["num_params"] == count


@pytest.mark.parametrize("name", NAMES)
def test_docstrings_say_the_count(name: str) -> None:
    """In full, or in millions with two decimals."""
    text = " ".join((registry().entries["victim", name].plugin_class.__doc__ or "").split())
    count = parameters(on_meta(offline(name), 32))
    assert f"{count:,}" in text or f"{count / 1e6:.2f} M" in text or name == "resnet9"


NARROW = [
    ("resnet18", "width", 64, 16), ("resnet50", "width", 64, 16), ("vgg19", "width", 64, 16),
    ("senet18", "width", 64, 16), ("densenet121", "growth", 32, 8), ("mobilenetv2", "multiplier", 1.0, 0.25),
]  # fmt: skip


@pytest.mark.parametrize(("name", "parameter", "whole", "quarter"), NARROW)
def test_narrow_networks_have_all_layers_and_fewer_weights(
    name: str, parameter: str, whole: float, quarter: float
) -> None:
    def shapes(selector: str) -> list[tuple[int, ...]]:
        return [tuple(p.shape) for p in on_meta(selector, 32).parameters()]

    full = shapes(name)
    assert shapes(f"{name}[{parameter}={whole}]") == full
    narrow = shapes(f"{name}[{parameter}={quarter}]")
    times = 12  # two sides of a kernel are a quarter as long
    if name == "mobilenetv2":
        # Its last layer stays, no layer falls below 8 channels, and two shortcuts need no convolution any more.
        times = 2
        narrow += [(0,)] * 6
    assert len(narrow) == len(full)
    assert sum(map(math.prod, full)) > times * sum(map(math.prod, narrow))


@pytest.mark.parametrize(("name", "parameter", "quarter"), [(n, p, q) for n, p, _, q in NARROW if n != "senet18"])
def test_narrow_networks_have_no_weights_to_start_from(name: str, parameter: str, quarter: float) -> None:
    for start in ("pretrained=true", "weights=some.pth"):
        with pytest.raises(UserError, match=f"pretrained weights belong to {parameter}="):
            victim(f"{name}[{parameter}={quarter},{start}]")


def test_a_narrow_vgg_is_for_small_images(torchvision: Any) -> None:
    assert on_meta("vgg16[stem=cifar,width=8]", 64)
    with pytest.raises(UserError, match="is for images under 64 px") as caught:
        victim("vgg16[width=8]").build(10, (64, 64))
    assert caught.value.hint == "leave width out, or give vgg16[stem=cifar,width=8]"


@pytest.mark.parametrize(
    ("narrow", "name"), [("densenet121[growth=8]", "DenseNet"), ("mobilenetv2[multiplier=0.5]", "")]
)
def test_narrow_networks_for_large_images_are_torchvisions(narrow: str, name: str, torchvision: Any) -> None:
    theirs = (
        torchvision.DenseNet(8, (6, 12, 24, 16), 16, num_classes=10)
        if name
        else torchvision.mobilenet_v2(width_mult=0.5, num_classes=10)
    )
    assert parameters(on_meta(narrow, 64)) == parameters(theirs)


@pytest.mark.parametrize("multiplier", [0.1, 0.25, 0.35, 0.5, 0.75, 1.0, 1.4])
def test_channels_are_rounded_as_torchvision_rounds(multiplier: float, torchvision: Any) -> None:
    for channels in (16, 24, 32, 64, 96, 160, 320, 1280):
        assert scaled(channels, multiplier) == torchvision.mobilenetv2._make_divisible(channels * multiplier, 8)
