"""TensorClog: its closed form against double backpropagation, and its descent on a net that trains in a second."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sets import corners
from torch import Tensor, nn
from torch.nn import functional as F

from ue_bench.api import Context, ImageSet, NetworkCost, UserError
from ue_bench.catalogue.registry import registry
from ue_bench.contract.protocol import Protocol
from ue_bench_baselines import tensorclog
from ue_bench_baselines.embedding import embedding, last_linear
from ue_bench_baselines.pgd import to_unit
from ue_bench_baselines.presets import MICRO_NETWORK
from ue_bench_baselines.tensorclog import TensorClog, clog, renew

from .helpers import difference, random_set

pytestmark = pytest.mark.usefixtures("one_thread")
NET = "resnet9[width=4,blocks=1]"
QUICK: dict[str, Any] = {"preset": "micro", "surrogate": NET, "surrogate_epochs": 10, "iterations": 12}


@pytest.fixture
def ctx(ctx: Context, artifacts: Path) -> Context:
    """All tests share one surrogate."""
    return replace(ctx, artifacts=artifacts)


class Smooth(nn.Module):
    """A convolution, tanh, mean and a linear layer."""

    def __init__(self, classes: int = 4, bias: bool = True) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.features = nn.Conv2d(3, 6, 3)
            self.head = nn.Linear(6, classes, bias)

    def embed(self, x: Tensor) -> Tensor:
        return torch.tanh(self.features(x)).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.embed(x))
        return out


def twice(network: nn.Module, layer: nn.Linear, x: Tensor, label: Tensor) -> Tensor:
    """What is lowered for one image, by differentiating the loss in the layer's tensors; differentiable itself."""
    loss = F.cross_entropy(network(x[None]), label[None])
    gradients = torch.autograd.grad(loss, list(layer.parameters()), create_graph=True)
    return sum((g.norm(2) for g in gradients), torch.zeros(()))


class TestClosedForm:
    @pytest.mark.parametrize("bias", [True, False])
    def test_it_is_double_backpropagation(self, bias: bool) -> None:
        net = Smooth(bias=bias).double()
        x = torch.rand(5, 3, 7, 9, generator=torch.Generator().manual_seed(1)).double().requires_grad_()
        labels = torch.tensor([0, 3, 2, 1, 1])
        found = clog(net.embed(x), net.head, labels)
        expected = torch.stack([twice(net, net.head, image, label) for image, label in zip(x, labels, strict=True)])
        assert torch.allclose(found, expected, atol=1e-12)
        [gradient], [slow] = (torch.autograd.grad(value.sum(), x) for value in (found, expected))
        assert torch.allclose(gradient, slow, atol=1e-12)
        assert gradient.abs().max() > 1e-3

    def test_for_a_victim(self, ctx: Context) -> None:
        data = corners(6)
        net = ctx.network(data, NET).eval()
        layer = last_linear(net, NET)
        x, labels = to_unit(data.images, "cpu").requires_grad_(), torch.tensor(data.labels)
        found = clog(embedding(net, NET, ctx)(x), layer, labels)
        expected = torch.stack([twice(net, layer, image, label) for image, label in zip(x, labels, strict=True)])
        assert torch.allclose(found, expected, rtol=1e-4)
        [gradient], [slow] = (torch.autograd.grad(value.sum(), x) for value in (found, expected))
        assert torch.allclose(gradient, slow, rtol=1e-3, atol=1e-6)

    def test_norms_that_are_zero_have_no_gradient(self) -> None:
        layer = nn.Linear(2, 2)
        with torch.no_grad():
            layer.weight.copy_(torch.tensor([[400.0, 0.0], [-400.0, 0.0]]))
            layer.bias.zero_()
        h = torch.tensor([[1.0, 0.0], [0.0, 0.0]], requires_grad=True)  # certain, and nothing at all
        found = clog(h, layer, torch.tensor([0, 0]))
        [gradient] = torch.autograd.grad(found.sum(), h)
        assert found[0].item() == 0
        assert not gradient[0].any()
        assert found[1].item() == pytest.approx(np.sqrt(0.5))
        assert gradient.isfinite().all()


def released(
    network: nn.Module, layer: nn.Linear, x: Tensor, label: Tensor, mean: float, spread: float, iterations: int
) -> Tensor:
    """The release's algorithm for one image of pixels in [0, 1]: standardised, differentiated twice."""
    begin = (x - mean) / spread
    z = begin
    rate = 1.0
    for t in range(iterations):
        if t and t % 600 == 0:
            rate /= 2
        z = z.detach().requires_grad_()
        objective = twice(network, layer, z * spread + mean, label) + 0.01 * (begin - z).norm(2)
        [gradient] = torch.autograd.grad(objective, z)
        z = torch.clamp(z.detach() - rate * gradient, begin - 0.1, begin + 0.1)
    return z * spread + mean


class TestDescent:
    @pytest.mark.parametrize("gain", [1.0, 30.0])
    def test_it_is_the_release_on_another_scale(self, gain: float) -> None:
        """Short steps that end inside the bound, and long ones that are clipped."""
        net = Smooth().double()
        with torch.no_grad():
            net.features.weight.mul_(gain)
        net.requires_grad_(False)
        net.head.requires_grad_(True)
        x = 0.2 + 0.6 * torch.rand(4, 3, 6, 5, generator=torch.Generator().manual_seed(1)).double()
        labels = torch.tensor([0, 3, 2, 1])
        one = TensorClog(iterations=9)

        def objective(p: Tensor) -> Tensor:
            moved: Tensor = torch.linalg.vector_norm((p - x).flatten(1), dim=1)
            return clog(net.embed(p), net.head, labels) + one.weight * moved

        found = one.descend(x, objective)
        for row in range(4):
            assert torch.allclose(found[row], released(net, net.head, x[row], labels[row], 0.47, 0.2, 9), atol=1e-9)
        moved = (found - x).abs().max().item()
        assert moved == pytest.approx(0.02) if gain > 1 else 1e-4 < moved < 0.019

    def test_the_rate_is_halved_after_600_iterations(self) -> None:
        one = TensorClog(rate=2, iterations=1300)
        assert [one.rate_at(t) for t in (0, 599, 600, 1199, 1200)] == [2, 2, 1, 1, 0.5]

    def test_an_image_stays_where_nothing_pulls(self) -> None:
        """Not even the distance does, whose slope is undefined at the start."""
        x = torch.rand(3, 3, 4, 4, generator=torch.Generator().manual_seed(2))
        found = TensorClog(iterations=5).descend(x, lambda p: torch.linalg.vector_norm(p - x, dim=(1, 2, 3)))
        assert torch.equal(found, x)

    def test_distance_holds_an_image_back(self) -> None:
        x = torch.full((1, 3, 4, 4), 0.5)

        def pull(weight: float) -> Callable[[Tensor], Tensor]:
            return lambda p: -0.1 * p.sum((1, 2, 3)) + weight * torch.linalg.vector_norm(p - x, dim=(1, 2, 3))

        one = TensorClog(eps=0.1, rate=0.01, iterations=20)
        free, held = (one.descend(x, pull(weight)) for weight in (0.0, 0.3))
        assert torch.allclose(free, x + 0.02, atol=1e-6)
        assert 0.005 < (held - x).min() < 0.015

    def test_the_box_is_kept(self) -> None:
        x = torch.rand(3, 3, 4, 4, generator=torch.Generator().manual_seed(2)).round()
        up = TensorClog(rate=1, iterations=3).descend(x, lambda p: -p.sum((1, 2, 3)))
        assert torch.equal(up, torch.where(x == 1, 1.0, 0.02))


class TestFreshClassifier:
    def test_it_is_drawn_by_xaviers_rule(self) -> None:
        layer = nn.Linear(30, 20)
        renew(layer, np.random.default_rng(0))
        expected = nn.init.xavier_uniform_(torch.empty(20, 30))
        assert layer.weight.std().item() == pytest.approx(expected.std().item(), rel=0.1)
        assert 0.9 < layer.weight.abs().max() / np.sqrt(6 / 50) <= 1
        assert 0.5 < layer.bias.abs().max() * np.sqrt(30) <= 1

    def test_a_layer_without_biases(self) -> None:
        layer = nn.Linear(3, 2, bias=False)
        before = layer.weight.clone()
        renew(layer, np.random.default_rng(0))
        assert not torch.equal(layer.weight, before)

    def test_the_kept_surrogate_is_left_alone(self, ctx: Context) -> None:
        data = corners()
        TensorClog(**QUICK).protect(data, ctx)
        net = ctx.surrogate(data, NET, **TensorClog(**QUICK).recipe())
        before = last_linear(net, NET).weight.clone()
        TensorClog(**QUICK).protect(data, ctx)
        again = ctx.surrogate(data, NET, **TensorClog(**QUICK).recipe())
        assert torch.equal(last_linear(again, NET).weight, before)
        assert len(list((ctx.artifacts / "plugin").iterdir())) == 1

    def test_images_differ_with_it(self, ctx: Context) -> None:
        data = corners()
        fresh, trained = (TensorClog(**QUICK, classifier=which).protect(data, ctx) for which in ("fresh", "trained"))
        assert not np.array_equal(fresh.images, trained.images)


def clogs(data: ImageSet, images: np.ndarray, ctx: Context) -> Tensor:
    """What a fresh classifier's first gradients measure, image by image."""
    net = ctx.surrogate(data, NET, **TensorClog(**QUICK).recipe())
    layer = last_linear(net, NET)
    renew(layer, ctx.rng("classifier"))
    with torch.no_grad():
        return clog(embedding(net, NET, ctx)(to_unit(images, "cpu")), layer, torch.tensor(data.labels))


def test_gradients_of_images_become_smaller(ctx: Context) -> None:
    data = corners()
    clean, clogged, strongly = (
        clogs(data, images.images, ctx)
        for images in (
            data,
            TensorClog(**QUICK).protect(data, ctx),
            TensorClog(**QUICK | {"eps": "32/255", "rate": 2, "iterations": 60}).protect(data, ctx),
        )
    )
    assert (clogged < clean).float().mean() > 0.9
    assert strongly.mean() < 0.9 * clean.mean()


@pytest.mark.parametrize("settings", [{}, {"classifier": "trained"}, {"eps": "8/255", "rate": 10}], ids=str)
def test_images_stay_within_the_budget_and_in_order(settings: dict[str, Any], ctx: Context) -> None:
    data = corners()
    one = TensorClog(**QUICK | settings)
    protected = one.protect(data, ctx)
    assert np.array_equal(protected.labels, data.labels)
    assert protected.images.shape == data.images.shape
    assert protected.images.dtype == np.uint8
    moved = np.abs(difference(protected, data)).max()
    assert moved == 8 if "rate" in settings else moved <= 5
    again = one.protect(data, ctx)
    assert np.array_equal(again.images, protected.images)
    assert not list((ctx.artifacts / "unfinished").iterdir())


def test_another_seed_gives_other_images(ctx: Context) -> None:
    data = corners()
    first, other = (TensorClog(**QUICK).protect(data, replace(ctx, seed=seed)) for seed in (0, 1))
    assert not np.array_equal(first.images, other.images)


def test_layers_may_run_in_half_precision(ctx: Context) -> None:
    data = corners()
    full, half = (TensorClog(**QUICK).protect(data, replace(ctx, precision=p)) for p in ("fp32", "bf16"))
    assert np.abs(difference(half, data)).max() <= 5
    changed = [difference(one, data).ravel() for one in (full, half)]
    assert np.corrcoef(changed[0], changed[1])[0, 1] > 0.3  # each has a surrogate of its own precision


def test_a_killed_generation_continues_in_batches_of_any_width(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    data = corners()
    whole = TensorClog(**QUICK).protect(data, ctx)
    calls: list[int] = []
    descend = TensorClog.descend

    def dying(self: TensorClog, x: Tensor, objective: Any) -> Tensor:
        calls.append(len(x))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return descend(self, x, objective)

    monkeypatch.setattr(TensorClog, "descend", dying)
    monkeypatch.setattr(tensorclog, "CPU_BATCH", 9)
    with pytest.raises(KeyboardInterrupt):
        TensorClog(**QUICK).protect(data, ctx)
    continued = TensorClog(**QUICK).protect(data, ctx)
    assert calls == [9, 9, 9, 9, 9, 4]
    # Sums in another order can carry a value over the middle between two levels.
    assert (continued.images != whole.images).mean() < 0.002


@pytest.mark.parametrize(("count", "classes"), [(1, 1), (5, 17), (45, 4)])
def test_any_number_of_images_and_classes(count: int, classes: int, ctx: Context) -> None:
    data = random_set(count, (20, 33), classes)
    protected = TensorClog(**QUICK | {"surrogate_epochs": 1, "iterations": 2}).protect(data, ctx)
    assert protected.images.shape == data.images.shape
    assert np.abs(difference(protected, data)).max() <= 5


def test_a_surrogate_without_a_linear_layer_is_refused(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    net = nn.Sequential(nn.Conv2d(3, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    monkeypatch.setattr(Context, "surrogate", lambda *given, **recipe: net)
    with pytest.raises(UserError, match="nets has no linear layer"):
        TensorClog(surrogate="nets").protect(corners(), ctx)


def test_presets(ctx: Context) -> None:
    open_fields = {f for f, info in TensorClog.model_fields.items() if info.default is None}
    for preset in ("paper", "micro"):
        assert open_fields - {"surrogate_epochs"} | {"recipe"} == set(TensorClog.PRESETS[preset])
    assert TensorClog().uses_networks
    cost = TensorClog().cost(50_000)
    assert cost.victim == "resnet18"
    assert cost.passes == pytest.approx(100 + 100 * 2 / 3)
    assert TensorClog(preset="micro", iterations=30).cost(10) == NetworkCost(MICRO_NETWORK, 8 + 30 * 2 / 3)
    recipe = Protocol(name="surrogate", version=1, summary="", source="", **TensorClog().recipe())
    rates = [recipe.rate(epoch * 500, 100 * 500) for epoch in (0, 19, 20, 40, 60, 99)]
    assert rates == pytest.approx([0.01, 0.01, 0.005, 0.0025, 0.00125, 0.000625])


def test_parameters() -> None:
    [found] = registry().resolve("protector", "tensorclog[eps=8/255,rate=1,weight=0.01,classifier=trained]")
    assert found == TensorClog(eps=8 / 255, rate=1, weight=0.01, classifier="trained")
    assert TensorClog(eps="8/255").budget == "linf 8/255"
    assert TensorClog().budget == "linf 0.02"
