"""The Haar transform and the invertible network."""

from __future__ import annotations

import math

import numpy as np
import pytest
import pywt
import torch

from ue_bench_deephiding.hinet import DenseBlock, HidingNetwork, bounded_exp, haar, inverse_haar

from .helpers import randomised, unit_images


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
def test_haar_is_undone_by_its_inverse(dtype: torch.dtype, bound: float) -> None:
    x = unit_images(2, (48, 64), dtype=dtype)
    back = inverse_haar(haar(x))
    assert back.dtype == dtype
    assert (back - x).abs().max() < bound


def test_haar_keeps_energy() -> None:
    x = unit_images(2, (48, 64))
    assert float(haar(x).square().sum() / x.square().sum()) == pytest.approx(1, abs=1e-6)


def test_haar_bands_are_those_of_pywavelets_up_to_two_signs() -> None:
    x = unit_images(1, (16, 24), dtype=torch.float64)
    ll, hl, lh, hh = (band.numpy() for band in haar(x)[0].chunk(4))
    low, (horizontal, vertical, diagonal) = pywt.dwt2(x[0].numpy(), "haar")
    for ours, theirs in [(ll, low), (hl, -vertical), (lh, -horizontal), (hh, diagonal)]:
        np.testing.assert_allclose(ours, theirs, atol=1e-14)


def test_haar_channels_are_in_order_of_bands_then_colours() -> None:
    x = torch.zeros(1, 3, 2, 2)
    x[0, 1] = torch.tensor([[1.0, 2.0], [4.0, 8.0]])  # green only
    expected = torch.zeros(12)
    expected[1], expected[4], expected[7], expected[10] = 7.5, 2.5, 4.5, 1.5  # LL, HL, LH, HH of that cell
    assert torch.equal(haar(x)[0, :, 0, 0], expected)


@pytest.mark.parametrize("size", [(7, 8), (8, 7)])
def test_haar_refuses_odd_sizes(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="even height and width"):
        haar(torch.zeros(1, 3, *size))


def test_gradient_through_both_transforms_is_the_identity() -> None:
    x = unit_images(1, (8, 8), dtype=torch.float64).requires_grad_()
    weights = unit_images(1, (8, 8), seed=1, dtype=torch.float64)
    (inverse_haar(haar(x)) * weights).sum().backward()
    assert x.grad is not None
    assert (x.grad - weights).abs().max() < 1e-14


def test_bounded_exponential_is_one_at_zero_monotone_and_within_exp_2() -> None:
    s = torch.linspace(-10, 10, 401, dtype=torch.float64)
    scale = bounded_exp(s)
    assert bounded_exp(torch.zeros(1)).item() == 1
    assert (scale.diff() > 0).all()
    assert math.exp(-2) < scale.min() < 0.1355
    assert 7.38 < scale.max() < math.exp(2)


def test_network_is_the_identity_at_the_start() -> None:
    cover, hidden = unit_images(2), unit_images(2, seed=1)
    network = HidingNetwork()
    with torch.no_grad():
        _, residual = network(haar(cover), haar(hidden))
        assert (network.hide(cover, hidden) - cover).abs().max() < 1e-6
    assert torch.equal(residual, haar(hidden))


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
def test_network_inverts_with_the_true_residual_in_both_orders(dtype: torch.dtype, bound: float) -> None:
    network = randomised(HidingNetwork()).to(dtype)
    c, h = haar(unit_images(1, dtype=dtype)), haar(unit_images(1, seed=1, dtype=dtype))
    with torch.no_grad():
        there = network(c, h)
        assert (there[0] - c).abs().max() > 1e-3  # not the identity, for which anything inverts
        for one, other in [(network.inverse(*there), (c, h)), (network(*network.inverse(c, h)), (c, h))]:
            assert max((a - b).abs().max() for a, b in zip(one, other, strict=True)) < bound


def test_reveal_returns_the_hidden_image_for_the_true_residual() -> None:
    network = randomised(HidingNetwork(blocks=2)).double()
    cover, hidden = unit_images(1, dtype=torch.float64), unit_images(1, seed=1, dtype=torch.float64)
    with torch.no_grad():
        _, residual = network(haar(cover), haar(hidden))
        revealed = network.reveal(network.hide(cover, hidden), residual)
    assert (revealed - hidden).abs().max() < 1e-9


def test_network_has_the_parameters_of_the_hinet_paper() -> None:
    # 4.05 M in HiNet, ICCV 2021; exact number from its layer table.
    assert sum(p.numel() for p in HidingNetwork().parameters()) == 4_050_240


def test_weights_depend_on_the_seed_only() -> None:
    before = torch.get_rng_state()
    one, same, other = HidingNetwork(1, 4, 0), HidingNetwork(1, 4, 0), HidingNetwork(1, 4, 1)
    first = "blocks.0.phi.convs.0.weight"
    assert torch.equal(one.state_dict()[first], same.state_dict()[first])
    assert not torch.equal(one.state_dict()[first], other.state_dict()[first])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_hiding_and_revealing_are_halves_of_the_network_to_the_bit(layout: torch.memory_format) -> None:
    network = randomised(HidingNetwork(blocks=3)).to(memory_format=layout)
    cover, hidden = (unit_images(3, (16, 24), seed).contiguous(memory_format=layout) for seed in (0, 1))
    with torch.no_grad():
        z, _ = network(haar(cover), haar(hidden))
        assert torch.equal(network.hide(cover, hidden), inverse_haar(z))
        c = haar(cover)
        assert torch.equal(network.reveal(cover), inverse_haar(network.inverse(c, torch.zeros_like(c))[1]))
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(network.hide(cover, hidden), inverse_haar(network(haar(cover), haar(hidden))[0]))


def test_halves_that_nothing_reads_are_not_computed() -> None:
    network, computed = HidingNetwork(blocks=2), set[str]()
    for name, block in network.named_modules():
        if isinstance(block, DenseBlock):
            block.register_forward_hook(lambda *_, name=name: computed.add(name))
    everything = {f"blocks.{i}.{part}" for i in (0, 1) for part in ("phi", "rho", "eta")}
    network.hide(unit_images(1), unit_images(1, seed=1))
    assert everything - computed == {"blocks.1.rho", "blocks.1.eta"}
    computed.clear()
    network.reveal(unit_images(1))
    assert everything - computed == {"blocks.0.phi"}
