"""N-FGSM, adversarial training in the L2 ball, and the mode in which the network is attacked."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ue_bench.api import UserError
from ue_bench.catalogue.registry import registry
from ue_bench_countermeasures.adversarial import (
    AdversarialTraining,
    FastAdversarialTraining,
    NoisyFastAdversarialTraining,
)
from ue_bench_countermeasures.adversarial_l2 import L2AdversarialTraining, direction, lengths

from .helpers import Classifier, train_context

EPS = 8 / 255
SIGNS = torch.tensor([1.0, -1.0, 1.0]).view(1, 3, 1, 1)


class Signs(nn.Module):
    """Its loss for class 0 grows along ``SIGNS`` everywhere."""

    def forward(self, x: Tensor) -> Tensor:
        along = (x * SIGNS).flatten(1).sum(1)
        return torch.stack([-along, along], dim=1)


def column(*values: float) -> Tensor:
    return torch.tensor(values).view(1, 3, 1, 1)


class TestNoisyFastAdversarialTraining:
    def test_golden(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """From the specification of this countermeasure, where the authors' operations were run on these numbers."""
        x = column(0.5, 0.02, 0.99)
        monkeypatch.setattr(NoisyFastAdversarialTraining, "draw", lambda *given: column(0.05, -0.05, 0.06))
        seen: list[Tensor] = []
        model = Signs()
        model.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].detach() - x))
        attacked = NoisyFastAdversarialTraining().attack(model, x, torch.tensor([0]), train_context())
        torch.testing.assert_close(seen[0], column(0.05, -0.02, 0.01), atol=1e-6, rtol=0)
        torch.testing.assert_close(attacked - x, column(0.0813725, -0.02, 0.01), atol=1e-6, rtol=0)

    def test_golden_of_the_step_before_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """From the same place: FGSM-RS from a given start, projected to the ball before it is cut to [0, 1]."""
        x = column(0.5, 0.02, 0.99)
        start = (x + column(0.02, -0.02, 0.03)).clamp(0, 1)
        monkeypatch.setattr(AdversarialTraining, "starting_point", lambda *given: start)
        attacked = FastAdversarialTraining().procedure().attack(Signs(), x, torch.tensor([0]), train_context())
        torch.testing.assert_close(attacked - x, column(0.0313725, -0.02, 0.01), atol=1e-6, rtol=0)

    def test_leaves_the_ball_and_stays_in_range(self) -> None:
        x = torch.rand(64, 3, 16, 16, generator=torch.Generator().manual_seed(2)) * 0.5 + 0.25
        attacked = NoisyFastAdversarialTraining().attack(Signs(), x, torch.zeros(64).long(), train_context())
        change = attacked - x
        assert 2.9 * EPS < change.abs().max() <= 3 * EPS + 1e-6
        # noise of variance (2 eps)^2 / 3 and a step of eps
        assert float(change.square().mean().sqrt()) == pytest.approx(math.sqrt(7 / 3) * EPS, rel=0.01)
        x[:4], x[4:8] = 0.0, 1.0
        attacked = NoisyFastAdversarialTraining().attack(Signs(), x, torch.zeros(64).long(), train_context())
        assert (float(attacked.min()), float(attacked.max())) == (0, 1)

    def test_without_noise_it_is_one_unprojected_step(self) -> None:
        x = torch.full((1, 3, 2, 2), 0.5)
        attacked = NoisyFastAdversarialTraining(noise=0).attack(Signs(), x, torch.tensor([0]), train_context())
        torch.testing.assert_close(attacked, x + EPS * SIGNS)

    def test_updates_on_the_attacked_images_alone(self, model: Classifier, xy: tuple[Tensor, Tensor]) -> None:
        x, y = xy
        model.keep_all()
        procedure = NoisyFastAdversarialTraining()
        attacked = procedure.attack(model, x, y, train_context())
        loss = procedure.loss(model, x, y, train_context())
        assert [training for training, _ in model.calls[1:]] == [False, True]
        assert torch.equal(model.calls[2][1], attacked)
        torch.testing.assert_close(loss, F.cross_entropy(model(attacked), y))
        loss.backward()
        assert all(parameter.grad is not None for parameter in model.parameters())

    def test_passes_and_selector(self) -> None:
        assert NoisyFastAdversarialTraining().passes == pytest.approx(1 + 2 / 3)
        assert NoisyFastAdversarialTraining(eps="4/255", noise=1.5).selector == "n-fgsm[eps=4/255,noise=1.5]"


class TestL2AdversarialTraining:
    @pytest.mark.parametrize("start", ["sphere", "step"])
    def test_every_iterate_stays_in_the_ball_and_in_range(
        self, start: Any, model: Classifier, xy: tuple[Tensor, Tensor]
    ) -> None:
        x, y = xy
        x[:4], x[4:8] = 0.0, 1.0
        procedure = L2AdversarialTraining(start=start)
        last = procedure.attack(model, x, y, train_context())
        iterates = [batch for _, batch in model.calls] + [last]
        assert len(iterates) == 8
        for iterate in iterates:
            assert float(lengths(iterate - x).max()) <= 0.5 * (1 + 1e-6)
            assert 0 <= iterate.min() <= iterate.max() <= 1
        assert float(lengths(last - x).max()) > 0.49

    def test_raises_the_loss(self, model: Classifier, xy: tuple[Tensor, Tensor]) -> None:
        x, y = xy
        attacked = L2AdversarialTraining().attack(model, x, y, train_context())
        model.eval()
        with torch.no_grad():
            assert F.cross_entropy(model(attacked), y) > F.cross_entropy(model(x), y) + 0.01

    def test_steps_follow_the_gradient_at_the_length_that_is_asked_for(self) -> None:
        """Far from the border of the ball, a step is as long whatever the size of the gradient."""
        x = torch.full((2, 3, 2, 2), 0.5)
        gradient = SIGNS.expand_as(x) / 12**0.5
        for strength in (1.0, 1e-6):
            procedure = L2AdversarialTraining(eps=1.0, step_size=0.02, steps=1, start="step")
            started = procedure.inside(x, x + 0.02 * direction(torch.empty_like(x).normal_(generator=seeded())))
            attacked = procedure.attack(scaled(strength), x, torch.zeros(2).long(), train_context())
            torch.testing.assert_close(attacked, started + 0.02 * gradient)

    @pytest.mark.parametrize(("start", "length"), [("sphere", 0.5), ("step", 0.1)])
    def test_start_is_on_a_sphere(self, start: Any, length: float) -> None:
        x, seen = torch.full((8, 3, 8, 8), 0.5), []
        model = Signs()
        model.register_forward_pre_hook(lambda _module, inputs: seen.append(lengths(inputs[0].detach() - x)))
        L2AdversarialTraining(start=start).attack(model, x, torch.zeros(8).long(), train_context())
        torch.testing.assert_close(seen[0], torch.full_like(seen[0], length))

    def test_a_gradient_of_zero_leaves_numbers(self) -> None:
        x = torch.rand(4, 3, 8, 8, generator=seeded())
        attacked = L2AdversarialTraining().attack(scaled(0.0), x, torch.zeros(4).long(), train_context())
        assert torch.isfinite(attacked).all()
        assert direction(torch.zeros(2, 3, 4, 4)).abs().max() == 0

    @pytest.mark.parametrize("eps", ["0.031", "0.0314"])
    def test_a_radius_for_linf_is_refused(self, eps: str) -> None:
        with pytest.raises(UserError, match="no L2 radius of a whole image") as caught:
            registry().resolve("countermeasure", f"at-l2[eps={eps}]")
        assert "\n" not in str(caught.value)

    def test_passes_and_defaults(self) -> None:
        assert L2AdversarialTraining().passes == pytest.approx(1 + 14 / 3)
        assert L2AdversarialTraining().step == 0.1
        assert L2AdversarialTraining(eps=1, step_size=0.05).step == 0.05


class Scale(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


def scaled(factor: float) -> nn.Module:
    return nn.Sequential(Scale(factor), Signs())


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


PROCEDURES = [AdversarialTraining, FastAdversarialTraining, NoisyFastAdversarialTraining, L2AdversarialTraining]


@pytest.mark.parametrize("procedure", PROCEDURES, ids=lambda p: p.name)
class TestAttackMode:
    def test_running_means_move_in_training_mode_alone(
        self, procedure: Any, model: Classifier, xy: tuple[Tensor, Tensor]
    ) -> None:
        """Two batches a step for single-step procedures where one is trained on: those of the attack count, too."""
        steps = int((procedure().passes - 1) * 1.5 + 0.5)
        for mode, batches in (("eval", 1), ("train", 1 + steps)):
            before = counted(model)
            procedure(attack_mode=mode).loss(model, *xy, train_context())
            assert counted(model) - before == batches
            assert model.training
            assert all(parameter.requires_grad for parameter in model.parameters())

    def test_evaluation_is_the_default_and_not_in_names(self, procedure: Any) -> None:
        assert procedure().attack_mode == "eval"
        assert procedure().selector == procedure.name
        assert procedure(attack_mode="train").selector == f"{procedure.name}[attack_mode=train]"


def counted(model: Classifier) -> int:
    """Batches that the running means have seen."""
    [norm] = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norm.num_batches_tracked is not None
    return int(norm.num_batches_tracked)


def test_a_start_at_the_image_itself() -> None:
    x = torch.rand(2, 3, 4, 4, generator=seeded())
    started = AdversarialTraining(start="none").starting_point(x, seeded())
    assert torch.equal(started, x)
    assert started is not x
