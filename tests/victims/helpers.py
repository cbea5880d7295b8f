"""Victims by selector, and networks without memory behind them."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

import torch
from torch import nn

from ue_bench.catalogue.registry import registry
from ue_bench.contract.plugin import Victim

# Of the common CIFAR re-implementations (pytorch-cifar), which the field's released codes share, at 10 classes.
PARAMETERS = {
    "resnet10": 308_826,
    "resnet18": 11_173_962,
    "resnet34": 21_282_122,
    "resnet50": 23_520_842,
    "resnet101": 42_512_970,
    "vgg16": 14_728_266,
    "vgg19": 20_040_522,
    "densenet121": 6_956_298,
    "mobilenetv2": 2_296_922,
    "senet18": 11_260_354,
}


def here(names: list[str]) -> list[str]:
    """Return ``names`` without the victim that needs a library which is not installed; its own tests say so."""
    return [name for name in names if name != "timm" or find_spec("timm")]


def offline(name: str) -> str:
    """A selector for the victim ``name`` that needs no weights from elsewhere."""
    return f"{name}[features=random]" if name in ("linear-probe", "probe") else name


def victim(selector: str) -> Victim:
    [found] = registry().resolve("victim", selector)
    assert isinstance(found, Victim)
    return found


@cache
def on_meta(selector: str, size: int, classes: int = 10) -> nn.Module:
    """The network with shapes but no numbers, which is built in no time; not to be changed."""
    with torch.device("meta"):
        return victim(selector).build(classes, (size, size))


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())
