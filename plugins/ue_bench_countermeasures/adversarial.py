"""Adversarial training: the victim learns from the worst image in a ball around each image."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from ue_bench.api import Countermeasure, Ratio, TrainContext

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


class AdversarialTraining(Countermeasure):
    """One update on adversarial images in place of the clean ones (Madry et al., equation 2.1).

    Projected gradient descent on the cross-entropy, in the Linf ball of radius ``eps`` cut with [0, 1]:
    ``x <- clip(x + step_size * sign(gradient))``, ``steps`` times. The network attacks itself in evaluation mode with
    its parameters frozen; the update is in training mode and has no clean term. The score is natural accuracy.

    Ten steps of 2/255 in a ball of 8/255 are the setting of Deep Hiding, EM and APBench. The start is uniform in the
    ball, or, as in the code of EM and APBench, ``gauss``: Gaussian with standard deviation ``step_size``, not
    projected until after the first step. Deep Hiding does not say. ``steps=0`` is plain training. A step costs 2/3 of
    a plain pass: forward and backward to the image, no gradient of the weights.

    Published for clean CIFAR-10 with ResNet-18: 84.19 % (Deep Hiding, Table 1; 100 epochs).
    """

    name: ClassVar[str] = "at"
    revision: ClassVar[int] = 1
    replayable: ClassVar[bool] = True
    paper: ClassVar[str] = "Towards Deep Learning Models Resistant to Adversarial Attacks, ICLR 2018, arXiv 1706.06083"
    uses_labels: ClassVar[bool] = True

    eps: Ratio = Field(8 / 255, gt=0, le=1, description="Linf radius on the [0, 1] scale")
    step_size: Ratio = Field(2 / 255, gt=0, le=1, description="length of a step on the [0, 1] scale")
    steps: int = Field(10, ge=0, le=1000, description="gradient steps an image")
    start: Literal["uniform", "gauss"] = Field("uniform", description="law of the first perturbation")

    @property
    def passes(self) -> float:
        return 1 + self.steps * 2 / 3

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, ctx: TrainContext) -> Tensor:
        import torch.nn.functional as F

        adversarial = self.attack(model, x, y, ctx) if self.steps else x
        with ctx.autocast():
            logits = model(adversarial)
        return F.cross_entropy(logits.float(), y)

    def attack(self, model: nn.Module, x: Tensor, y: Tensor, ctx: TrainContext) -> Tensor:
        """Return adversarial images for the batch. ``model`` is left as it was."""
        import torch
        import torch.nn.functional as F

        lower, upper = (x - self.eps).clamp_(min=0), (x + self.eps).clamp_(max=1)
        adversarial = self.starting_point(x, ctx.generator)
        with frozen_in_evaluation_mode(model):
            for _ in range(self.steps):
                adversarial.requires_grad_()
                with ctx.autocast():
                    logits = model(adversarial)
                # a sum, so that a large batch in half precision does not push gradients below the smallest number
                loss = F.cross_entropy(logits.float(), y, reduction="sum")
                [gradient] = torch.autograd.grad(loss, adversarial)
                stepped = adversarial.detach().add(gradient.sign_(), alpha=self.step_size)
                adversarial = stepped.clamp_(lower, upper)
        return adversarial

    def starting_point(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return a perturbed copy of ``x``."""
        import torch

        noise = torch.empty_like(x)
        if self.start == "gauss":
            return noise.normal_(0.0, self.step_size, generator=generator).add_(x)
        return noise.uniform_(-self.eps, self.eps, generator=generator).add_(x).clamp_(0.0, 1.0)


class FastAdversarialTraining(Countermeasure):
    """One update on images attacked with a single gradient step from a random start (Wong et al., algorithm 3).

    The start is uniform in the Linf ball of radius ``eps`` cut with [0, 1], the step ``step_size`` times the sign of
    the gradient, then back into the ball: ``at`` with one step, to the bit, at a fraction of its cost. Defaults are
    those of the paper's code for CIFAR-10, a step of 1.25 radii. Much longer steps are known to break down in the
    course of training ("catastrophic overfitting").

    Deviation: the authors' code attacks the network in training mode, which lets the attack move the running means of
    batch normalisation; here, as in ``at``, it attacks in evaluation mode.
    """

    name: ClassVar[str] = "fgsm-rs"
    revision: ClassVar[int] = 1
    replayable: ClassVar[bool] = True
    paper: ClassVar[str] = "Fast is better than free: Revisiting adversarial training, ICLR 2020, arXiv 2001.03994"
    uses_labels: ClassVar[bool] = True

    eps: Ratio = Field(8 / 255, gt=0, le=1, description="Linf radius on the [0, 1] scale")
    step_size: Ratio = Field(10 / 255, gt=0, le=1, description="length of the step on the [0, 1] scale")

    @property
    def passes(self) -> float:
        return self.procedure().passes

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, ctx: TrainContext) -> Tensor:
        return self.procedure().loss(model, x, y, ctx)

    def procedure(self) -> AdversarialTraining:
        """Return adversarial training with one step."""
        return AdversarialTraining(eps=self.eps, step_size=self.step_size, steps=1)


@contextmanager
def frozen_in_evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Keep ``model`` in evaluation mode without parameter gradients; afterwards all is as before."""
    modes = [(module, module.training) for module in model.modules()]
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.eval()
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
        for module, mode in modes:
            module.training = mode
