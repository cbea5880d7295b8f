"""Networks in files of weights and settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ue_bench.api import UserError, load_weights, save_weights


def build(settings: dict[str, Any], weights: dict[str, Tensor]) -> nn.Linear:
    network = nn.Linear(settings["inputs"], 2)
    network.load_state_dict(weights)
    return network


def load(path: Path, name: str = "linear") -> nn.Linear:
    return load_weights(path, name, build, "a linear layer", "write one")


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "größe 1.safetensors"
    torch.manual_seed(0)
    save_weights(path, nn.Linear(3, 2).state_dict(), "linear", {"inputs": 3})
    return path


def test_a_network_comes_back_frozen(written: Path) -> None:
    torch.manual_seed(0)
    expected = nn.Linear(3, 2)
    found = load(written)
    assert torch.equal(found.weight, expected.weight)
    assert not found.training
    assert not any(p.requires_grad for p in found.parameters())


def test_precision_and_order_in_memory_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    weights = {"weight": torch.ones(3, 2, dtype=torch.float16).T, "bias": torch.zeros(2, dtype=torch.float16)}
    save_weights(path, weights, "linear", {"inputs": 3})
    assert load(path).weight.tolist() == [[1.0] * 3] * 2


@pytest.mark.parametrize(
    ("name", "settings"),
    [("other", {"inputs": 3}), ("linear", {"inputs": 4}), ("linear", {}), ("linear", {"inputs": "3"})],
)
def test_what_does_not_fit_is_one_line(name: str, settings: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_weights(path, nn.Linear(3, 2).state_dict(), name, settings)
    with pytest.raises(UserError, match="is not a linear layer") as caught:
        load(path)
    assert caught.value.hint == "write one"


def test_what_is_no_such_file_is_one_line(written: Path, tmp_path: Path) -> None:
    written.write_bytes(written.read_bytes()[:-1])
    for path in (written, tmp_path / "missing.safetensors", tmp_path):
        with pytest.raises(UserError, match="is not a linear layer"):
            load(path)
