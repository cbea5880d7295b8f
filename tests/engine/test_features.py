from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ue_bench.catalogue.registry import registry
from ue_bench.contract.imageset import ImageSet
from ue_bench.contract.plugin import Victim
from ue_bench.engine.features import cosines, grad_cam, last_convolution, penultimate


class Means(nn.Module):
    """Features are the image itself, so that cosines are known."""

    def __init__(self) -> None:
        super().__init__()
        convolution = nn.Conv2d(3, 3, 1, bias=False)
        self.network = nn.Sequential(convolution, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        with torch.no_grad():
            convolution.weight.copy_(torch.eye(3)[..., None, None])

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.network(x)
        return out


def images(colours: list[tuple[int, int, int]], labels: list[int]) -> ImageSet:
    pixels = np.broadcast_to(np.array(colours, np.uint8)[:, None, None], (len(colours), 2, 2, 3))
    return ImageSet(np.ascontiguousarray(pixels), np.array(labels), ("a", "b", "empty"))


def test_cosines_of_known_features() -> None:
    data = images([(255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 255)], [0, 0, 1, 1])
    within, between = cosines(Means(), data, "cpu", "fp32")
    # Class a: two orthogonal features, each at 45 degrees to their mean. Class b: two equal ones.
    assert within == pytest.approx((2 * np.sqrt(0.5) + 2) / 4)
    # Sums (1, 1, 0), (0, 0, 2) against (1, 1, 2); the empty class has no part in it.
    assert between == pytest.approx((2 / np.sqrt(12) + 4 / np.sqrt(24)) / 2)


def test_more_images_than_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    data = ImageSet(rng.integers(0, 256, (37, 2, 2, 3), dtype=np.uint8), np.arange(37) % 3, ("a", "b", "c"))
    whole = cosines(Means(), data, "cpu", "fp32")
    monkeypatch.setattr("ue_bench.engine.features.EVAL_BATCH", 10)
    assert cosines(Means(), data, "cpu", "fp32") == pytest.approx(whole)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("resnet9[width=4]", (16, 4, 4)), ("resnet9[width=4,blocks=1]", (16, 4, 4)), ("resnet18", (512, 4, 4))],
)
def test_features_of_victims_are_those_before_pooling(name: str, shape: tuple[int, ...]) -> None:
    [victim] = registry().resolve("victim", name)
    assert isinstance(victim, Victim)
    network: Any = victim.build(10, (32, 32)).eval()
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        features = last_convolution(network, x)
        logits = network(x)
        assert features.shape[1:] == shape
        assert features.min() >= 0  # after the last ReLU
        assert torch.allclose(network[-1](features.mean((2, 3))), logits, atol=1e-5)
    assert not any(module._forward_hooks for module in network.modules())


def test_a_network_without_convolutions_is_refused() -> None:
    with pytest.raises(ValueError, match="no convolutional features"):
        last_convolution(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), torch.rand(1, 3, 2, 2))


class Places(nn.Module):
    """Two features, the red and the blue channel; the logits are sums of red, and of blue less twice red."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 2, 1, bias=False)
        self.head = nn.Linear(2, 2, bias=False)
        with torch.no_grad():
            self.convolution.weight.copy_(torch.tensor([[1.0, 0, 0], [0, 0, 1.0]])[..., None, None])
            self.head.weight.copy_(torch.tensor([[1.0, 0], [-2.0, 1.0]]))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.convolution(x).sum((2, 3)))
        return out


def test_grad_cam_of_known_weights() -> None:
    x = torch.zeros(3, 3, 2, 2)
    x[0, 0] = torch.tensor([[0.0, 0.25], [0.5, 1.0]])  # red counts for class 0
    x[1, 2] = torch.tensor([[0.2, 0.2], [0.2, 1.0]])  # blue counts for class 1
    x[1, 0, 0, 0] = 1.0  # and red against it: -2 + 0.2, cut at zero
    found = grad_cam(Places(), x, torch.tensor([0, 1, 0]))

    assert found[0].tolist() == [[0.0, 0.25], [0.5, 1.0]]
    assert found[1].flatten().tolist() == pytest.approx([0.0, 0.2, 0.2, 1.0])
    assert found[2].tolist() == [[0.0, 0.0], [0.0, 0.0]]  # the same everywhere


def test_grad_cam_has_the_size_of_the_images_and_leaves_no_gradient() -> None:
    [victim] = registry().resolve("victim", "resnet9[width=4]")
    assert isinstance(victim, Victim)
    network: Any = victim.build(10, (32, 32)).requires_grad_(False)
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    found = grad_cam(network, x, torch.tensor([1, 2]))

    assert found.shape == (2, 32, 32)
    assert (found.amin((1, 2)) == 0).all()
    assert not found.requires_grad
    assert all(parameter.grad is None for parameter in network.parameters())


def test_penultimate_features_are_what_the_last_linear_layer_is_given() -> None:
    network = Places()
    x = torch.rand(5, 3, 2, 2, generator=torch.Generator().manual_seed(0))

    assert torch.equal(penultimate(network, x), network.convolution(x).sum((2, 3)).detach())
    with pytest.raises(ValueError, match="no linear layer"):
        penultimate(Means(), x)
