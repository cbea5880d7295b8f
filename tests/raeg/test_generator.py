"""The invertible generator: exact both ways, the identity at first, and the trap of spectral norms."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ue_bench_raeg import generator as g
from ue_bench_raeg.encoder_decoder import EncoderDecoder, create
from ue_bench_raeg.generator import Coupling, Generator, SubNetwork, haar, inverse_haar, same_weights

from .helpers import generator, randomised, unit_images

ORDERS = ["band", "channel"]


def small(**settings: Any) -> Generator:
    return randomised(Generator(**({"width": 4, "seed": 3} | settings)).double())


def test_haar_of_a_cell() -> None:
    cell = torch.tensor([[1.0, 2.0], [4.0, 8.0]])[None, None]
    assert haar(cell).flatten().tolist() == [7.5, -2.5, -4.5, 1.5]


@pytest.mark.parametrize("order", ORDERS)
def test_haar_is_orthonormal_and_is_undone(order: str) -> None:
    x = unit_images(2, (6, 10))
    z = haar(x, order)
    assert z.shape == (2, 12, 3, 5)
    assert float(z.square().sum()) == pytest.approx(float(x.square().sum()), rel=1e-12)
    assert torch.allclose(inverse_haar(z, order), x, atol=1e-14)


def test_haar_orders_are_permutations_of_each_other() -> None:
    x = unit_images(1, (4, 4))
    bands, channels = haar(x, "band"), haar(x, "channel")
    assert torch.equal(bands.reshape(1, 4, 3, 2, 2).transpose(1, 2).flatten(1, 2), channels)


def test_haar_refuses_odd_sides() -> None:
    with pytest.raises(ValueError, match="even height and width"):
        haar(torch.zeros(1, 3, 4, 5))


@pytest.mark.parametrize(("width", "count"), [(64, 11_030_592), (32, 6_047_808), (16, 4_219_968)])
def test_parameters(width: int, count: int) -> None:
    with torch.device("meta"):
        network = Generator(width, spectral=False)
    assert sum(p.numel() for p in network.parameters()) == count
    assert round(count / 1e6, 2) == {64: 11.03, 32: 6.05, 16: 4.22}[width]  # the specification's


def test_couplings_of_the_modules() -> None:
    couplings = [m for m in Generator(4, spectral=False).steps if isinstance(m, Coupling)]
    assert [c.first for c in couplings] == [6] * 4 + [24] * 4 + [96] * 8 + [24] * 4 + [6] * 4
    last = [m for m in Generator(4, up_order="haar_first", spectral=False).steps if isinstance(m, Coupling)][-1]
    assert last.first == 1  # of three channels


@pytest.mark.parametrize("up_order", ["blocks_first", "haar_first"])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("std", [0.002, 0.01])
def test_inversion_is_exact_in_double_precision(order: str, up_order: str, std: float) -> None:
    network = randomised(Generator(8, order=order, up_order=up_order, spectral=False).double(), std).eval()
    x = unit_images(1, (16, 24))
    with torch.no_grad():
        y = network(x)
        assert float((y - x).abs().max()) > 0.05  # not the identity
        assert float((network.inverse(y) - x).abs().max()) < 1e-9
        assert float((network(network.inverse(x)) - x).abs().max()) < 1e-9


def test_inversion_in_single_precision() -> None:
    network, x = small().float().eval(), unit_images(1, (16, 16)).float()
    with torch.no_grad():
        assert float((network.inverse(network(x)) - x).abs().max()) < 1e-4


def test_it_starts_as_the_identity() -> None:
    x = torch.randint(0, 256, (2, 3, 16, 16), generator=generator()) / 256  # sums of these are exact
    assert torch.equal(Generator(8, spectral=False)(x), x)


def test_spectral_norms_change_in_training_unless_cached() -> None:
    network, x = small(), unit_images(2)
    network.train()
    with torch.no_grad():
        with same_weights():
            assert float((network.inverse(network(x)) - x).abs().max()) < 1e-9
        apart = float((network.inverse(network(x)) - x).abs().max())
    assert apart > 1e-6  # the trap: every call has taken another step of the power iteration


def test_hidden_convolutions_have_unit_norm_and_the_last_none() -> None:
    sub = SubNetwork(6, 6, 4, 2, spectral=True).train().requires_grad_(False)
    for _ in range(60):
        sub(torch.rand(1, 6, 4, 4, generator=generator()))
    for conv in sub.hidden:
        assert isinstance(conv, torch.nn.Conv2d)
        assert float(torch.linalg.matrix_norm(conv.weight.flatten(1), 2)) == pytest.approx(1, abs=0.01)
    assert not torch.nn.utils.parametrize.is_parametrized(sub.last)


def test_scale_is_bounded() -> None:
    block = Coupling(4, 4, 2, 1.0, spectral=False)
    for value, scale in [(1e4, math.e), (-1e4, 1 / math.e)]:
        with torch.no_grad():
            block.get_parameter("theta1.last.bias").fill_(value)
        out = block(torch.ones(1, 4, 2, 2))
        assert torch.allclose(out[:, :2], torch.full((1, 2, 2, 2), scale), rtol=1e-6)


def test_plain_weights_are_those_of_eval_mode(one_block: None) -> None:
    network, x = small(), unit_images(2)
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    plain = Generator(**network.settings, spectral=False).double()
    plain.load_state_dict(network.plain_weights())
    assert network.training
    assert all(torch.equal(network.state_dict()[name], value) for name, value in before.items())
    with torch.no_grad():
        assert torch.equal(plain(x), network.eval()(x))


def test_weights_are_those_of_the_seed(one_block: None) -> None:
    torch.manual_seed(5)
    drawn = torch.rand(3)
    torch.manual_seed(5)
    one, same, other = Generator(4, seed=1), Generator(4, seed=1), Generator(4, seed=2)
    assert torch.equal(torch.rand(3), drawn)  # the global generator was left alone
    a, b, c = (n.plain_weights()["steps.1.phi1.hidden.0.weight"] for n in (one, same, other))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


@given(height=st.integers(1, 20), width=st.integers(1, 20))
@settings(max_examples=25)
def test_padding_mirrors(height: int, width: int) -> None:
    x = torch.arange(float(height * width)).reshape(1, 1, height, width)
    edge = ((0, 0), (0, 0), (0, -height % 8), (0, -width % 8))
    assert np.array_equal(g.pad(x).numpy(), np.pad(x.numpy(), edge, mode="reflect"))


class TestEncoderDecoder:
    def test_both_are_the_identity_at_first(self) -> None:
        network, x = EncoderDecoder(4), unit_images(2, (16, 24)).float()
        assert torch.equal(network(x), x)
        assert torch.equal(network.inverse(x), x)

    def test_each_is_a_network_of_its_own(self) -> None:
        network, x = EncoderDecoder(4), unit_images(2, (16, 24)).float()
        with torch.no_grad():
            network.encoder.last.weight.add_(0.1)
        assert not torch.equal(network(x), x)
        assert torch.equal(network.inverse(x), x)
        weights = [{n: v.clone() for n, v in net.state_dict().items()} for net in (network.encoder, network.decoder)]
        assert weights[0].keys() == weights[1].keys()
        assert not torch.equal(weights[0]["down.0.0.weight"], weights[1]["down.0.0.weight"])

    def test_its_weights_make_it_again(self) -> None:
        network = EncoderDecoder(4, seed=3)
        with torch.no_grad():
            network.decoder.last.weight.add_(0.1)
        again = create(network.settings, spectral=False)
        again.load_state_dict(network.plain_weights())
        x = unit_images(1, (8, 16)).float()
        assert isinstance(again, EncoderDecoder)
        assert torch.equal(again.inverse(x), network.inverse(x))
        assert isinstance(create(Generator(2).settings), Generator)

    def test_levels_have_half_the_side_and_twice_the_channels(self) -> None:
        network = EncoderDecoder(4)
        shapes: list[tuple[int, ...]] = []
        for convolutions in (*network.encoder.down, *network.encoder.up):
            convolutions.register_forward_hook(lambda module, given, out: shapes.append(tuple(out.shape[1:])))
        network(unit_images(1, (16, 24)).float())
        assert shapes == [
            (4, 16, 24), (8, 8, 12), (16, 4, 6), (32, 2, 3), (16, 4, 6), (8, 8, 12), (4, 16, 24),
        ]  # fmt: skip
