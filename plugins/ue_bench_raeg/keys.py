"""Generators in files and as arrays: the key that recovers images."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from ue_bench.api import UserError, json_ready, write_atomically

from .encoder_decoder import KIND, create
from .generator import TwoWay

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
    half = {name: value.to("cpu", torch.float16).contiguous() for name, value in weights.items()}
    write_atomically(path, save(half, {"generator": json.dumps(settings, allow_nan=False)}))


def load_generator(path: Path) -> TwoWay:
    """Load the generator in a file of ``write_generator``. Raises UserError when it is not one."""
    try:
        with safe_open(path, framework="pt") as file:
            settings = json.loads(file.metadata()["generator"])
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
        return build(settings, weights)
    except Exception as error:  # whatever the bytes of the file make of header, settings and network
        raise UserError(f"{path} is not a generator", "'ue-bench raeg train' writes them") from error


def to_arrays(network: TwoWay) -> dict[str, NDArray[Any]]:
    """Return weights in half precision, which they are stored in, and how the network is built."""
    arrays: dict[str, NDArray[Any]] = {name: v.cpu().half().numpy() for name, v in network.state_dict().items()}
    return arrays | {SETTINGS: np.frombuffer(json.dumps(network.settings, allow_nan=False).encode(), np.uint8)}


def from_arrays(arrays: Mapping[str, NDArray[Any]]) -> TwoWay:
    """Build the generator of ``to_arrays`` again. Raises UserError when the arrays are of something else."""
    try:
        settings = json.loads(arrays[SETTINGS].tobytes())
        return build(settings, {n: torch.from_numpy(np.array(v)) for n, v in arrays.items() if n != SETTINGS})
    except Exception as error:  # as above
        raise UserError("this key holds no generator", "recover with the key that 'ue-bench protect' wrote") from error
