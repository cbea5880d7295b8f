"""EntF, entangled features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ue_bench.api import Context, ImageSet, NetworkCost, Ratio, UserError, training_passes

from .presets import MICRO_NETWORK, MICRO_RECIPE, WithSurrogate
from .quantise import budget, keep_linf, perturb

if TYPE_CHECKING:
    from torch import Tensor

CPU_BATCH, GPU_BATCH = 250, 4096

# 100 epochs whose rate falls after 75 and 90.
PAPER_RECIPE: dict[str, Any] = {
    "batch": 128, "epochs": 100, "learning_rate": 0.1, "schedule": "multistep", "milestones": (0.75, 0.9),
}  # fmt: skip


class EntF(WithSurrogate):
    """Wen et al., "Is Adversarial Training Really a Silver Bullet for Mitigating Data Poisoning?", ICLR 2023.

    The paper's EntF-push and EntF-pull, against victims that train adversarially. A reference model is itself trained
    adversarially, in a ball half as wide as the perturbation, and images are moved in its embedding: the input of its
    last linear layer, D numbers an image. ``push``: away from the mean embedding of their own class. ``pull``: to the
    nearest mean of another class, chosen anew at every step. Means are over the clean training images. Signed gradient
    steps on the squared distance, at images that are shifted by up to an eighth of their side and mirrored at random
    (``augment``; bilinear, zeros outside), from a normal start with deviation ``eps``, within ``eps`` in Linf and
    within [0, 1]. Rounded to the nearest gray level.

    ``preset=paper`` are the release's settings: ResNet-18 on pixels in [0, 1], 100 epochs of training against 10 steps
    of 2/255 in a ball of 4/255, and 300 steps. ``preset=micro`` fits two CPU cores: the small net of the board
    cifar10-micro, 4 epochs against 5 steps, and 100 steps; a method of its own, not a measurement of the paper's.

    Raises UserError when the surrogate has no linear layer, or when ``pull`` finds images of one class only.

    Deviations from the authors' release: an image's own class is never its target, where the release gives it the
    distance 1, so that it is one once all others are farther; there are as many classes as the set has, where the
    release has ten, and one without images is no target; the reference model starts as the harness's networks do.

    Expect adversarial training at 8/255 to lose 13.31 points of test accuracy for ResNet-18 on CIFAR-10 (the paper's
    abstract); compare with adversarial training on clean images. Plain training is not what it is made against.
    """

    name: ClassVar[str] = "entf"
    paper: ClassVar[str] = (
        "Wen et al., Is Adversarial Training Really a Silver Bullet for Mitigating Data Poisoning?, ICLR 2023"
    )
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {"surrogate": "resnet18", "surrogate_steps": 10, "iterations": 300, "recipe": PAPER_RECIPE},
        "micro": {
            "surrogate": MICRO_NETWORK, "surrogate_steps": 5, "iterations": 100, "recipe": MICRO_RECIPE | {"epochs": 4},
        },
    }  # fmt: skip

    variant: Literal["push", "pull"] = Field("push", description="off the own class, or to the nearest other one")
    eps: Ratio = Field(8 / 255, gt=0, le=1, description="Linf radius on the [0, 1] scale")
    step: Ratio | None = Field(None, gt=0, le=1, description="length of a step; null: a twentieth of eps")
    iterations: int | None = Field(None, ge=1, le=100_000, description="gradient steps; null: 300, micro 100")
    augment: bool = Field(True, description="take gradients at shifted and mirrored images")
    surrogate: str | None = Field(None, description="its victim selector; null: resnet18, micro a small net")
    surrogate_epochs: int | None = Field(None, ge=1, description="of its training; null: 100, micro 4")
    surrogate_eps: Ratio = Field(4 / 255, gt=0, le=1, description="Linf radius it is trained against, in steps of half")
    surrogate_steps: int | None = Field(
        None, ge=0, le=1000, description="steps of that attack; null: 10, micro 5; 0: plain training"
    )

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Self:
        if self.surrogate_steps == 0:
            self.refuse_idle({"surrogate_eps"}, "surrogate_steps=0")
        return self

    @property
    def classes_needed(self) -> int:
        return 2 if self.variant == "pull" else 1

    @property
    def budget(self) -> str:
        return budget("linf", self.eps)

    def training(self) -> str:
        """Return the surrogate's training procedure, a selector."""
        eps = self.surrogate_eps
        return f"at[eps={eps},step_size={eps / 2},steps={self.setting('surrogate_steps')}]"

    def cost(self, images: int) -> NetworkCost:
        training = self.recipe()["epochs"] * training_passes(self.training())
        return NetworkCost(self.setting("surrogate"), training + 1 / 3 + self.setting("iterations") * 2 / 3)

    @property
    def answers_queries(self) -> bool:
        return True

    def protect(self, data: ImageSet, ctx: Context) -> ImageSet:
        import torch

        from .embedding import centroids, embedding
        from .pgd import boxed, descend, protect_in_batches, to_levels
        from .shift import Draws

        learnt = ctx.learning(data)[0]
        if self.variant == "pull" and len(np.unique(learnt.labels)) < 2:
            raise UserError("entf[variant=pull] needs images of two classes", "use variant=push")
        network = ctx.surrogate(data, self.setting("surrogate"), self.training(), **self.recipe())
        embed = embedding(network, self.setting("surrogate"), ctx)
        step = self.eps / 20 if self.step is None else self.step
        iterations = self.setting("iterations")
        batch = GPU_BATCH if ctx.device.startswith("cuda") else CPU_BATCH
        means = centroids(embed, learnt, ctx, batch)

        def craft(x: Tensor, where: slice) -> dict[str, NDArray[Any]]:
            draws = Draws(ctx, where, iterations, data.size)
            labels = torch.tensor(data.labels[where], device=ctx.device)

            def objective(p: Tensor, t: int) -> Tensor:
                return self.losses(embed(draws.transformed(p, t) if self.augment else p), means, labels)

            perturbation, _ = descend(x, draws.start(self.eps), objective, self.eps, step, iterations)
            images = perturb(data.images[where], to_levels(boxed(x, perturbation)))
            return {"images": keep_linf(images, data.images[where], self.eps)}

        key = {"entf": self.identity(), "data": data.fingerprint, "seed": ctx.seed, "precision": ctx.precision}

        return protect_in_batches(data, ctx, key, batch, "perturb", craft)

    def losses(self, embedded: Tensor, means: Tensor, labels: Tensor) -> Tensor:
        """Return one loss for each of N embeddings, N x D: what is lowered to push them or to pull them.

        ``means`` is classes x D, infinite for a class without images.
        """
        import torch

        if self.variant == "push":
            return -(embedded - means[labels]).square().mean(1)
        # Not by matrix products, whose rounding depends on how many images there are.
        distances = torch.cdist(embedded.detach(), means, compute_mode="donot_use_mm_for_euclid_dist")
        nearest = distances.scatter_(1, labels[:, None], torch.inf).argmin(1)
        return (embedded - means[nearest]).square().mean(1)
