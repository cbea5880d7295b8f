"""Counts against the literature, and the docstrings that repeat them."""

from __future__ import annotations

from typing import Any

import pytest

from ue_bench.catalogue.registry import registry

from .helpers import PARAMETERS, here, offline, on_meta, parameters

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
