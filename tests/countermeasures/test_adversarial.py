from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ue_bench_countermeasures.adversarial import AdversarialTraining, FastAdversarialTraining

from .helpers import Classifier, train_context

EPS = 8 / 255
ROUNDING = 1e-7  # of x + eps in float32


def clean_loss(model: nn.Module, x: Tensor, y: Tensor) -> float:
    model.eval()
    with torch.no_grad():
        return F.cross_entropy(model(x), y).item()


@pytest.mark.parametrize("start", ["uniform", "gauss"])
class TestAttack:
    def test_stays_in_the_ball_and_in_range(self, start: Any, model: Classifier, xy: tuple[Tensor, Tensor]) -> None:
        x, y = xy
        x[:4], x[4:8] = 0.0, 1.0
        adversarial = AdversarialTraining(start=start).attack(model, x, y, train_context())
        assert (adversarial - x).abs().max() <= EPS + ROUNDING
        assert (adversarial - x).abs().max() > 0.99 * EPS
        assert adversarial.min() == 0
        assert adversarial.max() == 1
        assert not adversarial.requires_grad

    def test_every_iterate_stays_in_the_ball(self, start: Any, model: Classifier, xy: tuple[Tensor, Tensor]) -> None:
        x, y = xy
        AdversarialTraining(start=start, steps=5).attack(model, x, y, train_context())
        iterates = [batch for _, batch in model.calls]
        assert len(iterates) == 5
        first = 1 if start == "gauss" else 0  # a Gaussian start is projected with the first step
        for iterate in iterates[first:]:
            assert (iterate - x).abs().max() <= EPS + ROUNDING
            assert 0 <= iterate.min() <= iterate.max() <= 1

    def test_raises_the_loss(self, start: Any, model: Classifier, xy: tuple[Tensor, Tensor]) -> None:
        x, y = xy
        adversarial = AdversarialTraining(start=start).attack(model, x, y, train_context())
        start_only = AdversarialTraining(start=start).starting_point(x, train_context().generator)
        assert clean_loss(model, adversarial, y) > clean_loss(model, x, y) + 0.01
        assert clean_loss(model, adversarial, y) > clean_loss(model, start_only, y) + 0.01

    def test_leaves_the_model_as_it_was(self, start: Any, model: Classifier, xy: tuple[Tensor, Tensor]) -> None:
        x, y = xy
        model.layers[0].weight.requires_grad_(False)
        model.layers[1].eval()
        state = {name: value.clone() for name, value in model.state_dict().items()}
        flags = [parameter.requires_grad for parameter in model.parameters()]
        modes = [module.training for module in model.modules()]

        AdversarialTraining(start=start).attack(model, x, y, train_context())

        assert all(parameter.grad is None for parameter in model.parameters())
        assert [parameter.requires_grad for parameter in model.parameters()] == flags
        assert [module.training for module in model.modules()] == modes
        for name, value in model.state_dict().items():
            assert torch.equal(value, state[name]), name

    def test_input_stays(self, start: Any, model: Classifier, xy: tuple[Tensor, Tensor]) -> None:
        x, y = xy
        before = x.clone()
        AdversarialTraining(start=start).attack(model, x, y, train_context())
        assert torch.equal(x, before)
        assert not x.requires_grad

    def test_same_generator_same_result(self, start: Any, model: Classifier, xy: tuple[Tensor, Tensor]) -> None:
        procedure = AdversarialTraining(start=start, steps=2)
        first = procedure.attack(model, *xy, train_context(3))
        assert torch.equal(first, procedure.attack(model, *xy, train_context(3)))
        assert not torch.equal(first, procedure.attack(model, *xy, train_context(4)))

    def test_memory_format_stays(self, start: Any, model: Classifier, xy: tuple[Tensor, Tensor]) -> None:
        x, y = xy
        x = x.to(memory_format=torch.channels_last)
        adversarial = AdversarialTraining(start=start, steps=1).attack(model, x, y, train_context())
        assert adversarial.is_contiguous(memory_format=torch.channels_last)


def test_uniform_start_fills_the_ball() -> None:
    x = torch.full((200, 3, 8, 8), 0.5)
    noise = AdversarialTraining().starting_point(x, train_context().generator) - x
    assert noise.abs().max() <= EPS + ROUNDING
    assert noise.std().item() == pytest.approx(EPS / 3**0.5, rel=0.02)


def test_gauss_start_has_the_deviation_of_a_step() -> None:
    x = torch.full((200, 3, 8, 8), 0.5)
    noise = AdversarialTraining(start="gauss").starting_point(x, train_context().generator) - x
    assert noise.std().item() == pytest.approx(2 / 255, rel=0.02)
    assert noise.abs().max() > 3 * 2 / 255


def test_one_step_follows_the_sign_of_the_gradient() -> None:
    layer = nn.Linear(12, 2, bias=False)
    model = nn.Sequential(nn.Flatten(), layer).train()
    x, y = torch.full((1, 3, 2, 2), 0.5), torch.tensor([0])
    procedure = AdversarialTraining(eps=0.1, step_size=0.02, steps=1)
    started = procedure.starting_point(x, train_context().generator)
    # away from the true class 0: along the weights of class 1 minus those of class 0
    direction = (layer.weight[1] - layer.weight[0]).detach().sign().view_as(x)
    expected = (started + 0.02 * direction).clamp(0.4, 0.6)
    torch.testing.assert_close(procedure.attack(model, x, y, train_context()), expected)


def test_large_batches_in_half_precision_do_not_lose_the_gradient() -> None:
    class Half(nn.Module):
        """Gradients of 5e-5 an image, which the mean over the batch would bring below the smallest half."""

        def forward(self, x: Tensor) -> Tensor:
            return x.half().flatten(1) @ torch.tensor([[1e-4, -1e-4]]).half().expand(12, 2)

    x, y = torch.full((4096, 3, 2, 2), 0.5), torch.zeros(4096, dtype=torch.int64)
    procedure = AdversarialTraining(eps=0.1, step_size=0.05, steps=1)
    adversarial = procedure.attack(Half(), x, y, train_context())
    assert (adversarial < procedure.starting_point(x, train_context().generator)).float().mean() > 0.9


class TestUpdate:
    def test_attacks_in_evaluation_mode_and_updates_in_training_mode(
        self, model: Classifier, xy: tuple[Tensor, Tensor]
    ) -> None:
        AdversarialTraining(steps=3).loss(model, *xy, train_context())
        assert [training for training, _ in model.calls] == [False, False, False, True]
        assert model.learning == [False, False, False, True]
        assert model.training

    def test_loss_is_that_of_the_adversarial_images_alone(self, model: Classifier, xy: tuple[Tensor, Tensor]) -> None:
        x, y = xy
        model.keep_all()
        adversarial = AdversarialTraining().attack(model, x, y, train_context())
        loss = AdversarialTraining().loss(model, x, y, train_context())
        assert torch.equal(model.calls[-1][1], adversarial)
        torch.testing.assert_close(loss, F.cross_entropy(model(adversarial), y))

    def test_every_parameter_gets_a_gradient(self, model: Classifier, xy: tuple[Tensor, Tensor]) -> None:
        AdversarialTraining(steps=2).loss(model, *xy, train_context()).backward()
        assert all(parameter.grad is not None for parameter in model.parameters())

    def test_no_steps_is_plain_training(self, model: Classifier, xy: tuple[Tensor, Tensor]) -> None:
        x, y = xy
        model.keep_all()
        loss = AdversarialTraining(steps=0).loss(model, x, y, train_context())
        torch.testing.assert_close(loss, F.cross_entropy(model(x), y), atol=0, rtol=0)
        assert torch.equal(model.calls[0][1], x)

    def test_works_under_autocast(self, model: Classifier, xy: tuple[Tensor, Tensor]) -> None:
        ctx = replace(train_context(), autocast=lambda: torch.autocast("cpu", dtype=torch.bfloat16))
        loss = AdversarialTraining(steps=2).loss(model, *xy, ctx)
        assert loss.dtype == torch.float32
        loss.backward()
        assert all(parameter.grad is not None for parameter in model.parameters())

    def test_model_is_restored_when_the_attack_fails(self, model: Classifier, xy: tuple[Tensor, Tensor]) -> None:
        x, y = xy
        with pytest.raises(RuntimeError):
            AdversarialTraining().loss(model, x[:, :2], y, train_context())
        assert model.training
        assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(("steps", "passes"), [(0, 1), (3, 3), (10, 1 + 20 / 3)])
def test_passes(steps: int, passes: float) -> None:
    assert AdversarialTraining(steps=steps).passes == pytest.approx(passes)


def test_budgets_are_written_as_fractions() -> None:
    assert AdversarialTraining(eps="4/255").eps == 4 / 255
    assert AdversarialTraining(eps="8/255", step_size="2/255").selector == "at"


class TestFastAdversarialTraining:
    def test_is_one_step_of_adversarial_training(self, model: Classifier, xy: tuple[Tensor, Tensor]) -> None:
        x, y = xy
        model.keep_all()
        procedure = AdversarialTraining(eps="8/255", step_size="10/255", steps=1)
        adversarial = procedure.attack(model, x, y, train_context())
        loss = FastAdversarialTraining().loss(model, x, y, train_context())
        assert [training for training, _ in model.calls[1:]] == [False, True]
        assert torch.equal(model.calls[2][1], adversarial)
        torch.testing.assert_close(loss, F.cross_entropy(model(adversarial), y))

    def test_most_pixels_are_on_the_border_of_the_ball(self, model: Classifier, xy: tuple[Tensor, Tensor]) -> None:
        x, y = xy
        x.clamp_(0.1, 0.9)
        FastAdversarialTraining(eps="4/255", step_size="5/255").loss(model, x, y, train_context())
        change = (model.calls[1][1] - x).abs()
        assert change.max() <= 4 / 255 + ROUNDING
        # from u in the ball a step of 1.25 radii ends inside if u is more than 0.25 radii on the other side
        assert (change > 4 / 255 - ROUNDING).float().mean().item() == pytest.approx(1 - 0.75 / 2, abs=0.02)

    def test_every_parameter_gets_a_gradient_and_the_model_trains(
        self, model: Classifier, xy: tuple[Tensor, Tensor]
    ) -> None:
        FastAdversarialTraining().loss(model, *xy, train_context()).backward()
        assert model.training
        assert all(parameter.grad is not None for parameter in model.parameters())

    def test_passes(self) -> None:
        assert FastAdversarialTraining().passes == pytest.approx(1 + 2 / 3)

    def test_budgets_are_written_as_fractions(self) -> None:
        assert FastAdversarialTraining(eps="8/255", step_size="10/255").selector == "fgsm-rs"
        assert FastAdversarialTraining(step_size="7/255").selector == "fgsm-rs[step_size=7/255]"
