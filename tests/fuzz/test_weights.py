"""Files of weights that come from elsewhere: damaged, or with settings of another network."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from safetensors.torch import save_file

from ue_bench.api import UserError
from ue_bench_baselines.released_unet import load_released
from ue_bench_baselines.unet import UNet
from ue_bench_countermeasures import comdefend_training
from ue_bench_countermeasures.comdefend_import import read_arrays
from ue_bench_countermeasures.comdefend_network import ComDefendNetwork
from ue_bench_countermeasures.diffusion.importing import READERS, convert
from ue_bench_countermeasures.diffusion.importing import read as read_checkpoint
from ue_bench_deephiding.hinet import HidingNetwork
from ue_bench_deephiding.networks import load_network
from ue_bench_raeg.generator import Generator
from ue_bench_raeg.keys import load_generator, write_generator
from ue_bench_victims.pretrained import load

from .helpers import damaged, fuzz, many, plain, users

Write = Callable[[Path], None]
Read = Callable[[Path], object]


def write_hider(path: Path) -> None:
    network = HidingNetwork(1, 1)
    save_file(network.state_dict(), path, {"network": json.dumps({"blocks": 1, "growth": 1})})


def write_raeg(path: Path) -> None:
    network = Generator(1)
    write_generator(path, network.plain_weights(), network.settings, {})


def write_comdefend(path: Path) -> None:
    comdefend_training.write(path, ComDefendNetwork(256), {})


def write_released_comdefend(path: Path) -> None:
    arrays = [np.zeros((3, 3, a, b), np.float32) for a, b in pairwise((1, 2, 1))]
    whole = np.empty(len(arrays), dtype=object)
    whole[:] = arrays
    with path.open("wb") as file:
        np.savez(file, w=whole)


def write_state(path: Path) -> None:
    weights = {"a.weight": torch.zeros(2, 3), "a.bias": torch.zeros(2)}
    save_file(weights, path) if path.suffix == ".safetensors" else torch.save(weights, path)


def write_unet(path: Path) -> None:
    torch.save(UNet(1).state_dict(), path)


def read_victim(path: Path) -> None:
    load(torch.nn.Sequential(torch.nn.Linear(3, 2)), path, "resnet18")


def read_diffusion(path: Path) -> None:
    content = read_checkpoint(path)
    for form in READERS:
        users(partial(convert, content, form))


FILES: dict[str, tuple[Write, Read]] = {
    "hider.safetensors": (write_hider, load_network),
    "generator.safetensors": (write_raeg, load_generator),
    "comdefend.safetensors": (write_comdefend, lambda path: comdefend_training.load(path, "cpu")),
    "enc20.npy": (write_released_comdefend, read_arrays),
    "unet.pth": (write_unet, load_released),
    "victim.pth": (write_state, read_victim),
    "victim.safetensors": (write_state, read_victim),
    "diffusion.pth": (write_state, read_diffusion),
}


@many
@pytest.mark.parametrize("name", FILES)
def test_damaged_weights(name: str, examples: int, tmp_path: Path) -> None:
    write, read = FILES[name]
    file = tmp_path / name
    write(file)
    whole = file.read_bytes()

    def check(content: bytes) -> None:
        file.write_bytes(content)
        users(lambda: read(file))

    fuzz(check, damaged(whole), examples)


def with_metadata(whole: bytes, metadata: dict[str, str]) -> bytes:
    """Return a file of safetensors with other metadata."""
    [length] = struct.unpack("<Q", whole[:8])
    header = json.dumps(json.loads(whole[8 : 8 + length]) | {"__metadata__": metadata}).encode()
    return struct.pack("<Q", len(header)) + header + whole[8 + length :]


SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "hider.safetensors": ("network", {"blocks": 1, "growth": 1}),
    "generator.safetensors": ("generator", Generator(1).settings),
    "comdefend.safetensors": (comdefend_training.RECORD, {"divisor": 256}),
}


@many
@pytest.mark.parametrize("name", SETTINGS)
def test_settings_of_no_network(name: str, examples: int, tmp_path: Path) -> None:
    write, read = FILES[name]
    file, (key, settings) = tmp_path / name, SETTINGS[name]
    write(file)
    whole = file.read_bytes()
    values = st.one_of(plain(), st.integers(2**20, 2**40))
    changed = st.tuples(st.sampled_from([*settings, "kind", "other"]), values).map(lambda pair: settings | dict([pair]))

    def check(given: Any) -> None:
        file.write_bytes(with_metadata(whole, {key: json.dumps(given)}))
        users(lambda: read(file))

    fuzz(check, st.one_of(changed, plain()), examples)


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_of_a_network_beyond_all_memory(name: str, tmp_path: Path) -> None:
    write, read = FILES[name]
    file, (key, settings) = tmp_path / name, SETTINGS[name]
    write(file)
    for field in settings:
        if isinstance(settings[field], int) and field != "divisor":
            content = with_metadata(file.read_bytes(), {key: json.dumps(settings | {field: 2**31})})
            (tmp_path / "large.safetensors").write_bytes(content)
            with pytest.raises(UserError):
                read(tmp_path / "large.safetensors")
