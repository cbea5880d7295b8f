"""Adversarial training: the victim learns from the worst image in a ball around each image."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from ue_bench.api import Countermeasure, Ratio, TrainContext

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

AttackMode = Literal["eval", "train"]
ATTACK_MODE: Any = Field("eval", description="mode of the network while it is attacked; train moves running means")


class AdversarialTraining(Countermeasure):
    """One update on adversarial images in place of the clean ones (Madry et al., equation 2.1).

    Projected gradient descent on the cross-entropy, in the Linf ball of radius ``eps`` cut with [0, 1]:
    ``x <- clip(x + step_size * sign(gradient))``, ``steps`` times. The network attacks itself in evaluation mode with
    its parameters frozen; the update is in training mode and has no clean term. The score is natural accuracy.

    Ten steps of 2/255 in a ball of 8/255 are the setting of Deep Hiding, EM and APBench. The start is uniform in the
    ball, or, as in the code of EM and APBench, ``gauss``: Gaussian with standard deviation ``step_size``, not
    projected until after the first step. Deep Hiding does not say. ``steps=0`` is plain training. A step costs 2/3 of
    a plain pass: forward and backward to the image, no gradient of the weights. ``start=none`` begins at the image
    itself. ``attack_mode=train`` leaves the network in training mode while it is attacked, as some releases do, so that
    every attack step moves the running means of batch normalisation, too.

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
    start: Literal["uniform", "gauss", "none"] = Field("uniform", description="law of the first perturbation")
    attack_mode: AttackMode = ATTACK_MODE

    @property
    def passes(self) -> float:
        return 1 + self.steps * 2 / 3

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, ctx: TrainContext) -> Tensor:
        return cross_entropy(model, self.attack(model, x, y, ctx) if self.steps else x, y, ctx)

    def attack(self, model: nn.Module, x: Tensor, y: Tensor, ctx: TrainContext) -> Tensor:
        """Return adversarial images for the batch. ``model`` is left as it was."""
        lower, upper = (x - self.eps).clamp_(min=0), (x + self.eps).clamp_(max=1)
        adversarial = self.starting_point(x, ctx.generator)
        with frozen(model, self.attack_mode):
            for _ in range(self.steps):
                gradient = image_gradient(model, adversarial, y, ctx)
                adversarial = adversarial.detach().add(gradient.sign_(), alpha=self.step_size).clamp_(lower, upper)
        return adversarial

    def starting_point(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return a perturbed copy of ``x``."""
        import torch

        if self.start == "none":
            return x.clone()
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
    batch normalisation; here, as in ``at``, it attacks in evaluation mode unless ``attack_mode=train``.
    """

    name: ClassVar[str] = "fgsm-rs"
    revision: ClassVar[int] = 1
    replayable: ClassVar[bool] = True
    paper: ClassVar[str] = "Fast is better than free: Revisiting adversarial training, ICLR 2020, arXiv 2001.03994"
    uses_labels: ClassVar[bool] = True

    eps: Ratio = Field(8 / 255, gt=0, le=1, description="Linf radius on the [0, 1] scale")
    step_size: Ratio = Field(10 / 255, gt=0, le=1, description="length of the step on the [0, 1] scale")
    attack_mode: AttackMode = ATTACK_MODE

    @property
    def passes(self) -> float:
        return self.procedure().passes

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, ctx: TrainContext) -> Tensor:
        return self.procedure().loss(model, x, y, ctx)

    def procedure(self) -> AdversarialTraining:
        """Return adversarial training with one step."""
        return AdversarialTraining(eps=self.eps, step_size=self.step_size, steps=1, attack_mode=self.attack_mode)


class NoisyFastAdversarialTraining(Countermeasure):
    """One update on noisy images attacked with a single gradient step, and not projected (de Jorge et al., N-FGSM).

    The noise is uniform in ``noise`` times the radius ``eps`` and cut so that the image stays in [0, 1]; the gradient
    is taken there, and a step of ``eps`` times its sign is added and cut alike. There is no projection on a ball: the
    change is up to three radii (root mean square 1.528 radii away from black and white), which is what keeps a single
    step from breaking down where ``fgsm-rs`` does. ``noise=2`` is the authors' choice.

    Deviation: the authors' code attacks the network in training mode, here in evaluation mode unless
    ``attack_mode=train``. The protocol decides on length and rate; theirs are 30 epochs and a triangle up to 0.2.

    No accuracy on unlearnable images is published.
    """

    name: ClassVar[str] = "n-fgsm"
    revision: ClassVar[int] = 1
    replayable: ClassVar[bool] = True
    paper: ClassVar[str] = (
        "Make Some Noise: Reliable and Efficient Single-Step Adversarial Training, NeurIPS 2022, arXiv 2202.01181"
    )
    uses_labels: ClassVar[bool] = True

    eps: Ratio = Field(8 / 255, gt=0, le=1, description="radius, which is the length of the step, on the [0, 1] scale")
    noise: float = Field(2.0, ge=0, le=10, description="largest noise before the step, in radii")
    attack_mode: AttackMode = ATTACK_MODE

    @property
    def passes(self) -> float:
        return 1 + 2 / 3

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, ctx: TrainContext) -> Tensor:
        return cross_entropy(model, self.attack(model, x, y, ctx), y, ctx)

    def attack(self, model: nn.Module, x: Tensor, y: Tensor, ctx: TrainContext) -> Tensor:
        """Return adversarial images for the batch. ``model`` is left as it was, save for running means."""
        noisy = self.draw(x, ctx.generator).add_(x).clamp_(0.0, 1.0)
        with frozen(model, self.attack_mode):
            gradient = image_gradient(model, noisy, y, ctx)
        return noisy.detach().add(gradient.sign_(), alpha=self.eps).clamp_(0.0, 1.0)

    def draw(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return noise of the shape of ``x``."""
        import torch

        radius = self.noise * self.eps
        return torch.empty_like(x).uniform_(-radius, radius, generator=generator)


def cross_entropy(model: nn.Module, x: Tensor, y: Tensor, ctx: TrainContext, reduction: str = "mean") -> Tensor:
    """Return the cross-entropy of ``model`` on a batch, in float32."""
    import torch.nn.functional as F

    with ctx.autocast():
        logits = model(x)
    return F.cross_entropy(logits.float(), y, reduction=reduction)


def image_gradient(model: nn.Module, x: Tensor, y: Tensor, ctx: TrainContext) -> Tensor:
    """Return the gradient of every image's cross-entropy with respect to the image. ``x`` then requires gradients."""
    import torch

    # a sum, so that a large batch in half precision does not push gradients below the smallest number
    loss = cross_entropy(model, x.requires_grad_(), y, ctx, reduction="sum")
    [gradient] = torch.autograd.grad(loss, x)
    return gradient


@contextmanager
def frozen(model: nn.Module, mode: AttackMode) -> Iterator[None]:
    """Keep ``model`` without parameter gradients, and in evaluation mode unless ``mode`` is ``train``.

    Afterwards modes and gradients are as before; in training mode, running means have moved.
    """
    modes = [(module, module.training) for module in model.modules()]
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if mode == "eval":
        model.eval()
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
        for module, training in modes:
            module.training = training
