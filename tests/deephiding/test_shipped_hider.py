"""The weights in the distribution."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ue_bench_deephiding import banks
from ue_bench_deephiding.hinet import HidingNetwork
from ue_bench_deephiding.networks import load_network
from ue_bench_deephiding.protector import SHIPPED
from ue_bench_deephiding.writing import write_network

from .helpers import smooth_set


def pairs(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Covers and procedural hidden images in [0, 1]."""
    covers, hidden = smooth_set(count).images, banks.procedural(count, 1, (32, 32), 5)[:, 0]
    to_unit = [torch.from_numpy(np.array(x)).permute(0, 3, 1, 2) / 255 for x in (covers, hidden)]
    return to_unit[0], to_unit[1]


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(-10 * torch.log10((a - b).square().mean()))


def test_shipped_weights_are_small_enough_to_ship() -> None:
    assert SHIPPED.stat().st_size <= 9_000_000


def test_shipped_network_hides_and_reveals() -> None:
    cover, hidden = pairs(8)
    network = load_network(SHIPPED)
    with torch.no_grad():
        stego = network.hide(cover, hidden)
        revealed = network.reveal(stego)
    # Trained to 30 dB stego images; covers here are smoother than photographs.
    assert psnr(stego, cover) > 25
    assert psnr(revealed, hidden) > 15
    assert psnr(revealed, hidden) > psnr(revealed, hidden.roll(1, 0)) + 5  # this image, not any


def test_shipped_network_is_frozen_and_has_the_papers_size() -> None:
    network = load_network(SHIPPED)
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
    assert sum(p.numel() for p in network.parameters()) == 4_050_240


def test_half_precision_moves_stego_images_by_less_than_a_level(tmp_path: Path) -> None:
    cover, hidden = pairs(4)
    network = load_network(SHIPPED)
    source = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():  # off the float16 grid, by up to half of its spacing
            parameter.mul_(1 + torch.rand(parameter.shape, generator=source) * 2**-10)
    write_network(tmp_path / "half.safetensors", network.state_dict(), {"blocks": 16, "growth": 32})
    half = load_network(tmp_path / "half.safetensors")
    with torch.no_grad():
        moved = (half.hide(cover, hidden) - network.hide(cover, hidden)).abs().max() * 255
    assert 0 < moved < 1


def test_network_of_another_shape_is_written_and_read(tmp_path: Path) -> None:
    network = HidingNetwork(blocks=2, growth=4, seed=1)
    write_network(tmp_path / "small.safetensors", network.state_dict(), {"blocks": 2, "growth": 4})
    weights = load_network(tmp_path / "small.safetensors").state_dict()
    assert weights.keys() == network.state_dict().keys()
    assert all(torch.equal(weights[k], v.half().float()) for k, v in network.state_dict().items())
