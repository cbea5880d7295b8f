"""Hiding networks of either kind from their files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from torch import Tensor

from ue_bench.api import load_weights

from .hinet import HidingNetwork
from .isgan import Isgan

Hider = HidingNetwork | Isgan
ENTRY = "network"  # in the file's metadata


def load_network(path: Path) -> Hider:
    """Load a hiding network from its safetensors file, which holds its shape. Raises UserError if it is not one."""
    return load_weights(path, ENTRY, _build, "a hiding network", "'ue-bench deephiding train' writes them")


def _build(shape: dict[str, Any], weights: dict[str, Tensor]) -> Hider:
    kind = shape.pop("kind", "hinet")
    if kind not in ("hinet", "isgan") or min(shape.values()) < 1:
        raise ValueError("no such network")
    if 9 * math.prod(shape.values()) > sum(value.numel() for value in weights.values()):
        raise ValueError("it has fewer weights than its network")  # which is not built, then, whatever its size
    network = HidingNetwork(**shape) if kind == "hinet" else Isgan(**shape)
    network.load_state_dict({name: w.float() if w.is_floating_point() else w for name, w in weights.items()})
    return network
