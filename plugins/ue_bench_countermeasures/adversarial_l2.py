"""Adversarial training in the L2 ball."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, field_validator

from ue_bench.api import Countermeasure, TrainContext

from .adversarial import ATTACK_MODE, AttackMode, cross_entropy, frozen, image_gradient

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

LEAST = 0.1  # below it an adversary of 3,072 pixels moves each by less than half a gray level
SMALLEST = 1e-20  # below any gradient that counts; its square is still a number in float32


class L2AdversarialTraining(Countermeasure):
    """One update on adversarial images from the L2 ball around each image (Tao et al., section 5).

    Projected gradient descent on the cross-entropy: ``x + step_size * gradient / |gradient|``, brought back into the
    ball of radius ``eps`` and cut to [0, 1], ``steps`` times. ``eps`` is the length of the change of the whole image,
    on the [0, 1] scale: a number that is usual for Linf, such as 8/255, is no adversary here, and is refused; half is
    what the authors take for CIFAR-10. The start is ``eps`` long in a random direction, or as long as a step
    (``start=step``), as in the code of APBench and BridgePure, which has ten steps of 2/255. The network is attacked in
    evaluation mode; the score is natural accuracy. ``steps=7`` and a fifth of ``eps`` are the authors'.

    Deviation: the protocol decides on length and rate; the authors have 150 epochs, from 0.1 down at 100 and 125.

    Published for other poisons than those of the boards; no number is to be expected here.
    """

    name: ClassVar[str] = "at-l2"
    revision: ClassVar[int] = 1
    replayable: ClassVar[bool] = True
    paper: ClassVar[str] = (
        "Better Safe Than Sorry: Preventing Delusive Adversaries with Adversarial Training, NeurIPS 2021, "
        "arXiv 2102.04716"
    )
    uses_labels: ClassVar[bool] = True

    eps: float = Field(0.5, gt=0, le=100, description="L2 radius of the whole image on the [0, 1] scale, from 0.1")
    step_size: float | None = Field(None, gt=0, le=100, description="length of a step; by default a fifth of eps")
    steps: int = Field(7, ge=1, le=1000, description="gradient steps an image")
    start: Literal["sphere", "step"] = Field(
        "sphere", description="length of the first perturbation: the radius or a step"
    )
    attack_mode: AttackMode = ATTACK_MODE

    @field_validator("eps")
    @classmethod
    def _is_of_the_whole_image(cls, value: float) -> float:
        if value < LEAST:
            raise ValueError(
                f"{value:g} is no L2 radius of a whole image, which hardly moves; give {LEAST} or more, such as 0.5"
            )
        return value

    @property
    def step(self) -> float:
        """Length of a gradient step."""
        return self.eps / 5 if self.step_size is None else self.step_size

    @property
    def passes(self) -> float:
        return 1 + self.steps * 2 / 3

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, ctx: TrainContext) -> Tensor:
        return cross_entropy(model, self.attack(model, x, y, ctx), y, ctx)

    def attack(self, model: nn.Module, x: Tensor, y: Tensor, ctx: TrainContext) -> Tensor:
        """Return adversarial images for the batch. ``model`` is left as it was, save for running means."""
        length = self.eps if self.start == "sphere" else self.step
        adversarial = self.inside(x, x + length * direction(normal(x, ctx.generator)))
        with frozen(model, self.attack_mode):
            for _ in range(self.steps):
                along = direction(image_gradient(model, adversarial, y, ctx))
                adversarial = self.inside(x, adversarial.detach() + self.step * along)
        return adversarial

    def inside(self, x: Tensor, adversarial: Tensor) -> Tensor:
        """Return ``adversarial`` brought into the ball around ``x``, then cut to [0, 1], which takes nobody out."""
        change = adversarial - x
        return (x + change * (self.eps / lengths(change).clamp(min=self.eps))).clamp_(0.0, 1.0)


def lengths(change: Tensor) -> Tensor:
    """Return the L2 length of every image of a batch, N x 1 x 1 x 1."""
    flat: Tensor = change.flatten(1).norm(dim=1)
    return flat[:, None, None, None]


def direction(change: Tensor) -> Tensor:
    """Return every image of a batch at length one; one that is zero stays so."""
    return change / lengths(change).clamp(min=SMALLEST)


def normal(x: Tensor, generator: torch.Generator) -> Tensor:
    """Return standard normal numbers of the shape of ``x``."""
    import torch

    return torch.empty_like(x).normal_(generator=generator)
