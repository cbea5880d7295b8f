"""DeepConfuse's look-ahead against oracles: the gradient through a step of training."""

from __future__ import annotations

import copy

import pytest
import torch
from sets import corners
from torch import Tensor, nn
from torch.nn import functional as F

from ue_bench.api import Context
from ue_bench_baselines.deepconfuse_rounds import lookahead
from ue_bench_baselines.unet import UNet

from .helpers import same, weights_of

pytestmark = pytest.mark.usefixtures("one_thread")

NET = "resnet9[width=4,blocks=1]"


class Smooth(nn.Module):
    """A small classifier without kinks, with batch normalisation."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layers = nn.Sequential(
                nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Conv2d(4, 5, 3), nn.Tanh(),
                nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3),
            )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out


class TestLookahead:
    x = torch.rand(6, 3, 7, 6, generator=torch.Generator().manual_seed(1)).double()
    seen = (x + 0.03 * torch.randn(x.shape, generator=torch.Generator().manual_seed(2))).detach()
    y = torch.tensor([0, 1, 2, 0, 1, 1])

    def stepped(self, network: nn.Module, seen: Tensor, x: Tensor, rate: float) -> float:
        """By an optimizer, on a copy."""
        moved = copy.deepcopy(network)
        optimizer = torch.optim.SGD(moved.parameters(), rate)
        F.cross_entropy(moved(seen), self.y).backward()
        optimizer.step()
        return F.cross_entropy(moved(x), self.y).item()

    @pytest.mark.parametrize("rate", [0.01, 0.5])
    def test_it_is_the_loss_after_a_step(self, rate: float, ctx: Context) -> None:
        net = Smooth().double()
        found = lookahead(net, self.seen, self.x, self.y, rate).item()
        assert found == pytest.approx(self.stepped(net, self.seen, self.x, rate), abs=1e-12)
        assert found != pytest.approx(F.cross_entropy(net(self.x), self.y).item(), abs=1e-6)

    def test_it_is_that_of_a_victim_too(self, ctx: Context) -> None:
        victim = ctx.network(corners(), NET)
        seen, x = (F.interpolate(images.float(), (16, 12)) for images in (self.seen, self.x))
        found = lookahead(victim, seen, x, self.y, 0.1).item()
        assert found == pytest.approx(self.stepped(victim, seen, x, 0.1), abs=1e-5)

    def test_its_gradient_is_that_of_finite_differences(self) -> None:
        net = Smooth().double()
        seen = self.seen.clone().requires_grad_()
        [gradient] = torch.autograd.grad(lookahead(net, seen, self.x, self.y, 0.5), seen)
        for number in range(4):
            way = torch.randn(seen.shape, generator=torch.Generator().manual_seed(number)).double()
            up, down = (self.stepped(net, self.seen + h * way, self.x, 0.5) for h in (1e-5, -1e-5))
            assert (gradient * way).sum().item() == pytest.approx((up - down) / 2e-5, rel=1e-5, abs=1e-9)

    def test_the_generators_gradient_is_that_of_finite_differences(self, ctx: Context) -> None:
        """From the loss after the step back to the weights that made the noise."""
        net, generator = Smooth().double(), UNet(2).double()
        for module in generator.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = False
        last = generator.head[0]
        assert isinstance(last, nn.Conv2d)
        weight = last.weight  # the last one: no kink lies behind it

        def objective() -> Tensor:
            return lookahead(net, (self.x + 0.05 * generator(self.x)).clamp(-9, 9), self.x, self.y, 0.5)

        [gradient] = torch.autograd.grad(objective(), weight)
        way = torch.randn(weight.shape, generator=torch.Generator().manual_seed(3)).double()
        values = []
        for h in (1e-5, -2e-5):  # on from where the first one went
            with torch.no_grad():
                weight += h * way
            values.append(objective().item())
        assert (gradient * way).sum().item() == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-4)

    def test_the_network_is_left_alone(self) -> None:
        net = Smooth().double()
        before = weights_of(net)
        lookahead(net, self.seen.clone().requires_grad_(), self.x, self.y, 0.5).backward()
        assert same(net.state_dict(), before)

    def test_without_a_step_there_is_no_gradient(self) -> None:
        seen = self.seen.clone().requires_grad_()
        [gradient] = torch.autograd.grad(lookahead(Smooth().double(), seen, self.x, self.y, 0.0), seen)
        assert not gradient.any()
