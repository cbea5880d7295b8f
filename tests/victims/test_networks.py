"""What the networks compute: shapes, gradients, features, and the same as torchvision's with the same weights."""

from __future__ import annotations

import contextlib
import re
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ue_bench.catalogue.registry import registry
from ue_bench.engine.features import last_convolution
from ue_bench.errors import UserError
from ue_bench_victims.densenet_layers import densenet
from ue_bench_victims.mobilenet_layers import InvertedResidual
from ue_bench_victims.senet_layers import PreActivationBlock, SqueezeExcite
from ue_bench_victims.vit_layers import VisionTransformer

from .helpers import PARAMETERS, here, offline, on_meta, victim

OWN = [e.name for e in registry().of_kind("victim") if e.distribution.startswith("ue-bench ")]
NAMES = [offline(name) for name in here(OWN)]
BUILT = ["resnet34", "resnet50", "vgg16", "densenet121", "mobilenetv2", "senet18"]
ONE_A_FAMILY = [*BUILT, "vit", "mlp", "linear"]
SMALL = ["vit[width=12,depth=2]", "mlp[width=8]", "linear"]


@cache
def network(selector: str) -> nn.Module:
    torch.manual_seed(0)
    return victim(selector).build(10, (32, 32))


def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """By position: both list the same tensors in the same order."""
    theirs, ours = list(source.state_dict().values()), target.state_dict()
    assert [v.shape for v in theirs] == [v.shape for v in ours.values()]
    target.load_state_dict(dict(zip(ours, theirs, strict=True)))


@pytest.mark.parametrize(
    ("name", "size"), [*((name, 32) for name in NAMES), *((name, size) for name in ONE_A_FAMILY for size in (20, 224))]
)
def test_logits_have_a_column_a_class(name: str, size: int, request: pytest.FixtureRequest) -> None:
    if size == 224:
        request.getfixturevalue("torchvision")
    logits = on_meta(name, size)(torch.empty(2, 3, size, size, device="meta"))
    assert logits.shape == (2, 10)


@pytest.mark.parametrize("selector", BUILT + SMALL)
def test_every_weight_has_a_gradient(selector: str) -> None:
    net = network(selector).train()
    net.zero_grad()
    loss = nn.functional.cross_entropy(net(torch.rand(2, 3, 32, 32)), torch.tensor([1, 7]))
    loss.backward()
    still = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    # Behind normalisation of two images nothing is left of a bias, nor of one channel before it.
    assert [name for name in still if not name.endswith("bias")] == []


@pytest.mark.parametrize("name", BUILT)
def test_features_are_those_before_pooling(name: str) -> None:
    net: Any = network(name).eval()
    with torch.no_grad():
        x = torch.rand(2, 3, 32, 32)
        features = last_convolution(net, x)
        assert features.shape[1] == net[-1].in_features
        assert torch.allclose(net[-1](features.mean((2, 3))), net(x), atol=1e-4)


@pytest.mark.parametrize("selector", SMALL)
def test_victims_without_convolutional_features_say_so(selector: str) -> None:
    with pytest.raises(ValueError, match="no convolutional features"):
        last_convolution(network(selector).eval(), torch.rand(1, 3, 32, 32))


@pytest.mark.parametrize("selector", SMALL)
def test_weights_belong_to_the_seed(selector: str) -> None:
    def drawn(seed: int) -> list[Tensor]:
        torch.manual_seed(seed)
        return list(victim(selector).build(10, (32, 32)).state_dict().values())

    assert all(torch.equal(a, b) for a, b in zip(drawn(0), drawn(0), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(drawn(0), drawn(1), strict=True))


@torch.no_grad()
def assert_same_function(ours: nn.Module, theirs: nn.Module, size: int) -> None:
    copy_weights(theirs, ours)
    x = torch.rand(2, 3, size, size)
    expected = theirs.eval()(x)
    assert expected.std() > 1e-3  # not a constant
    assert torch.allclose(ours.eval()(x), expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())


class TestTorchvisionComputesTheSame:
    @pytest.mark.parametrize("name", ["resnet34", "resnet50"])
    def test_resnet(self, name: str, torchvision: Any) -> None:
        ours = victim(f"{name}[stem=imagenet]").build(10, (64, 64))
        assert_same_function(ours, getattr(torchvision, name)(num_classes=10), 64)

    def test_convolutions_of_vgg(self, torchvision: Any) -> None:
        convolutions = nn.Sequential(*list(network("vgg16").children())[:-3])
        theirs = torchvision.vgg.make_layers(torchvision.vgg.cfgs["D"], batch_norm=True)
        assert_same_function(convolutions, theirs, 32)

    def test_dense_blocks(self, torchvision: Any) -> None:
        theirs = torchvision.DenseNet(8, (2, 3, 2), 16, num_classes=10)
        del theirs.features.norm0, theirs.features.relu0, theirs.features.pool0
        theirs.features.conv0 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        assert_same_function(densenet(10, 8, (2, 3, 2)), theirs, 32)

    def test_vision_transformer(self, torchvision: Any) -> None:
        theirs = torchvision.VisionTransformer(32, 8, 2, 3, 12, 24, num_classes=10)
        nn.init.normal_(theirs.heads.head.weight)  # zero at the start
        ours = VisionTransformer(10, (32, 32), 8, 12, 2, 3, 2)
        names = {
            r"conv_proj": "patches", r"encoder.pos_embedding": "positions", r"encoder.layers.encoder_layer_": "layers.",
            r"self_attention": "self_attn", r"ln_(\d)": r"norm\1", r"mlp.0": "linear1", r"mlp.3": "linear2",
            r"encoder.ln": "norm", r"heads.head": "linear",
        }  # fmt: skip
        renamed = theirs.state_dict()
        for old, new in names.items():
            renamed = {re.sub(old, new, name): value for name, value in renamed.items()}
        ours.load_state_dict(renamed)
        x = torch.rand(2, 3, 32, 32)
        with torch.no_grad():
            assert torch.allclose(ours.eval()(x), theirs.eval()(x), atol=1e-5)


def test_squeeze_and_excitation_weighs_channels_by_their_means() -> None:
    module = SqueezeExcite(16)
    x = torch.rand(2, 16, 3, 3)
    with torch.no_grad():
        weights = module(x) / x
        assert torch.allclose(weights, weights[:, :, :1, :1].expand_as(weights), atol=1e-5)
        assert ((weights > 0) & (weights < 1)).all()
        shuffled = x.flatten(2).flip(2).view_as(x)  # the same means
        assert torch.allclose(module(shuffled) / shuffled, weights, atol=1e-5)
        module.excite.weight.zero_()
        module.get_parameter("excite.bias").zero_()
        assert torch.equal(module(x), x / 2)


@pytest.mark.parametrize(
    ("inputs", "outputs", "stride", "shortcut"),
    [(8, 8, 1, nn.Identity), (8, 12, 1, nn.Sequential), (8, 8, 2, type(None)), (8, 12, 2, type(None))],
)
def test_an_inverted_residual_has_a_shortcut_where_the_resolution_stays(
    inputs: int, outputs: int, stride: int, shortcut: type
) -> None:
    block = InvertedResidual(inputs, outputs, 6, stride)
    assert isinstance(block.shortcut, shortcut)
    assert block(torch.rand(2, inputs, 8, 8)).shape == (2, outputs, 8 // stride, 8 // stride)


def test_a_pre_activation_block_passes_its_input_on() -> None:
    block = PreActivationBlock(16, 16, 1)
    for p in block.body[3].parameters():
        nn.init.zeros_(p)
    x = torch.randn(2, 16, 4, 4)
    assert torch.equal(block(x), x)  # also what is negative


def test_layers_of_the_transformer_start_apart() -> None:
    transformer = network("vit[width=12,depth=2]")
    first, second = (transformer.get_parameter(f"layers.{i}.linear1.weight") for i in range(2))
    assert not torch.equal(first, second)


STEMS = [f"{name}[stem={stem}]" for name in sorted(PARAMETERS) for stem in ("cifar", "imagenet")]


@pytest.mark.parametrize("selector", [*STEMS, "resnet9", "resnet9[blocks=1]"])
def test_images_of_any_size_are_taken_or_refused_in_one_line(selector: str) -> None:
    """What torch says of a map of no pixels is for nobody's eyes."""
    plugin = victim(selector)
    taken = []
    for side in (1, 2, 7, 8, 16, 28, 29, 31, 32):
        with contextlib.suppress(UserError), torch.device("meta"):
            plugin.build(10, (side, 64)).eval()(torch.empty(2, 3, side, 64))
            taken.append(side)
    assert taken[-1] == 32
    if taken[0] > 1:
        with pytest.raises(UserError, match=r"px or more a side, not 64x1$"):
            plugin.build(10, (1, 64))
    assert taken == [side for side in (1, 2, 7, 8, 16, 28, 29, 31, 32) if side >= taken[0]]
