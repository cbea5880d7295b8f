"""Hiding networks of either kind from their files."""

from __future__ import annotations

import json
import math
from pathlib import Path

from safetensors import safe_open

from ue_bench.api import UserError

from .hinet import HidingNetwork
from .isgan import Isgan

Hider = HidingNetwork | Isgan


def load_network(path: Path) -> Hider:
    """Load a hiding network from its safetensors file, which holds its shape. Raises UserError if it is not one."""
    try:
        with safe_open(path, framework="pt") as file:
            shape = json.loads(file.metadata()["network"])
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
        kind = shape.pop("kind", "hinet")
        if kind not in ("hinet", "isgan") or min(shape.values()) < 1:
            raise ValueError("no such network")
        if 9 * math.prod(shape.values()) > sum(value.numel() for value in weights.values()):
            raise ValueError("it has fewer weights than its network")  # which is not built, then, whatever its size
        network = HidingNetwork(**shape) if kind == "hinet" else Isgan(**shape)
        network.load_state_dict({name: w.float() if w.is_floating_point() else w for name, w in weights.items()})
    except Exception as error:  # whatever the bytes of the file make of header, settings and network
        raise UserError(f"{path} is not a hiding network", "'ue-bench deephiding train' writes them") from error
    return network.eval().requires_grad_(False)
