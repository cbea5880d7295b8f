"""Generators in files and as arrays: the key that recovers images."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ue_bench.api import UserError, json_ready, load_weights, save_weights, write_atomically

from .encoder_decoder import KIND, create
from .generator import TwoWay

ENTRY = "generator"  # in a file's metadata
SETTINGS = "settings"  # the array that says how the network is built
CHOICES: dict[str, Any] = {"order": ("band", "channel"), "up_order": ("blocks_first", "haar_first")}


def build(settings: dict[str, Any], weights: Mapping[str, Tensor]) -> TwoWay:
    """Build a frozen generator in eval mode, float32. Raises one of Python's errors when these do not fit together."""
    if settings.get("kind") != KIND:
        for name, known in CHOICES.items():
            if settings[name] not in known:
                raise ValueError(f"no {name} {settings[name]!r}")
        if min(settings["depth"], settings["clamp"]) <= 0:
            raise ValueError("no such network")
        if settings["depth"] > len(weights):
            raise ValueError("it has fewer weights than its network")  # which is not built, then, whatever its depth
    if settings["width"] <= 0:
        raise ValueError("no such network")
    with torch.device("meta"):  # no weights are drawn that would be overwritten
        network = create(settings, spectral=False)
    network.load_state_dict({name: value.float() for name, value in weights.items()}, assign=True)
    return network.eval().requires_grad_(False)


def write_generator(path: Path, weights: dict[str, Tensor], settings: dict[str, Any], record: dict[str, Any]) -> None:
    """Write half-precision weights with ``settings`` to ``path``, 8.4 MB at width 16, and ``record`` beside it as JSON.

    The record is written first: weights never lie without one. Weights are rounded before any image is protected, so
    that recovery has the same.
    """
    write_atomically(path.with_suffix(".json"), json.dumps(json_ready(record), indent=1, allow_nan=False) + "\n")
    save_weights(path, {name: value.half() for name, value in weights.items()}, ENTRY, settings)


def load_generator(path: Path) -> TwoWay:
    """Load the generator in a file of ``write_generator``. Raises UserError when it is not one."""
    return load_weights(path, ENTRY, build, "a generator", "'ue-bench raeg train' writes them")


def to_arrays(network: TwoWay) -> dict[str, NDArray[Any]]:
    """Return weights in half precision, which they are stored in, and how the network is built."""
    arrays: dict[str, NDArray[Any]] = {name: v.cpu().half().numpy() for name, v in network.state_dict().items()}
    return arrays | {SETTINGS: np.frombuffer(json.dumps(network.settings, allow_nan=False).encode(), np.uint8)}


def from_arrays(arrays: Mapping[str, NDArray[Any]]) -> TwoWay:
    """Build the generator of ``to_arrays`` again. Raises UserError when the arrays are of something else."""
    try:
        settings = json.loads(arrays[SETTINGS].tobytes())
        return build(settings, {n: torch.from_numpy(np.array(v)) for n, v in arrays.items() if n != SETTINGS})
    except Exception as error:  # whatever the bytes of a key make of settings and network
        raise UserError("this key holds no generator", "recover with the key that 'ue-bench protect' wrote") from error
