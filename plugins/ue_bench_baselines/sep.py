"""SEP, self-ensemble protection."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ue_bench.api import Context, ImageSet, NetworkCost, Ratio

from .presets import MICRO_NETWORK, MICRO_RECIPE, WithSurrogate
from .quantise import budget, keep_linf, perturb

if TYPE_CHECKING:
    from torch import Tensor

    from .ensemble import Gradient

CPU_BATCH, GPU_BATCH = 250, 2048  # the gradients of all checkpoints are held at once

# 120 epochs whose rate falls after 75 and 90.
PAPER_RECIPE: dict[str, Any] = {
    "batch": 128, "epochs": 120, "learning_rate": 0.1, "schedule": "multistep", "milestones": (75 / 120, 90 / 120),
}  # fmt: skip


class SEP(WithSurrogate):
    """Chen et al., "Self-Ensemble Protection: Training Checkpoints Are Good Data Protectors", ICLR 2023.

    Adversarial examples of all states that one network passes through while it learns the clean images: the states
    after equal numbers of epochs (``checkpoints``) stand for networks that are told apart by a victim's training. An
    image is moved towards the class half way round: y + 5 of 10, y + 50 of 100. Signed steps from the image itself,
    without random start and augmentation, within ``eps`` in Linf and within [0, 1].

    ``variant=sep``: along the mean over states of the gradient of the cross-entropy of that class. ``fa``: of the mean
    squared distance between the input of the last linear layer and its mean over the clean images of that class, under
    the same state. ``fa-vr``: the same with variance reduction: every step first takes ``inner`` steps, each with the
    gradient at one state drawn at random, corrected by how far that state's gradient was from the mean at the start,
    and then moves by the sign of the sum of what it met.

    ``preset=paper`` are the release's settings: ResNet-18 on pixels in [0, 1], 120 epochs, 30 states for ``sep`` and
    ``fa``, 15 states and 15 inner steps for ``fa-vr``, 30 steps: 900 gradients an image each. ``preset=micro`` fits two
    CPU cores: the small net and the recipe of the board cifar10-micro, 4 states, 4 inner steps, 10 steps; a method of
    its own, not a measurement of the paper's.

    Deviations from the authors' release: its states are those at which the accuracy on the test set improved, here no
    test set is looked at, and epochs are equally far apart; its inner loop of ``fa-vr`` measures distances to the means
    of the last state, here to those of the state that was drawn; the rate does not warm up in the first epoch; the
    class half way round is counted among classes that have images; states are drawn once for all images, so that an
    image does not depend on its batch; values are rounded, where the release truncates: they are whole levels already
    when ``eps`` and ``step`` are.

    Raises UserError for images of one class only, for a surrogate without a linear layer, and for more checkpoints than
    epochs.

    Expect 14.68 % test accuracy for ResNet-18 on CIFAR-10 with ``eps=2/255`` (the paper's abstract) and 3.85 % with
    8/255 (Liu et al., "Image Shortcut Squeezing", ICML 2023).
    """

    name: ClassVar[str] = "sep"
    paper: ClassVar[str] = "Chen et al., Self-Ensemble Protection, ICLR 2023"
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {
            "surrogate": "resnet18", "recipe": PAPER_RECIPE, "checkpoints": {"sep": 30, "fa": 30, "fa-vr": 15},
            "inner": 15, "iterations": 30,
        },
        "micro": {
            "surrogate": MICRO_NETWORK, "recipe": MICRO_RECIPE, "checkpoints": {"sep": 4, "fa": 4, "fa-vr": 4},
            "inner": 4, "iterations": 10,
        },
    }  # fmt: skip

    variant: Literal["sep", "fa", "fa-vr"] = Field(
        "fa-vr", description="mean gradient of losses, of distances of features, or the latter with less variance"
    )
    eps: Ratio = Field(8 / 255, gt=0, le=1, description="Linf radius on the [0, 1] scale; the abstract's is 2/255")
    step: Ratio = Field(1 / 255, gt=0, le=1, description="length of a step")
    iterations: int | None = Field(None, ge=1, le=100_000, description="steps; null: 30, micro 10")
    checkpoints: int | None = Field(
        None, ge=1, le=10_000, description="states of the surrogate; null: 30 (fa-vr: 15), micro 4"
    )
    inner: int | None = Field(None, ge=1, le=10_000, description="fa-vr: steps within a step; null: 15, micro 4")
    surrogate: str | None = Field(None, description="its victim selector; null: resnet18, micro a small net")
    surrogate_epochs: int | None = Field(None, ge=1, description="of its training; null: 120, micro 8")

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Self:
        if self.variant != "fa-vr":
            self.refuse_idle({"inner"}, f"variant={self.variant}")
        return self

    @property
    def classes_needed(self) -> int:
        return 2

    @property
    def budget(self) -> str:
        return budget("linf", self.eps)

    @property
    def states(self) -> int:
        """How many states of the surrogate there are."""
        states: int = (
            self.PRESETS[self.preset]["checkpoints"][self.variant] if self.checkpoints is None else self.checkpoints
        )
        return states

    def cost(self, images: int) -> NetworkCost:
        gradients = self.states + (self.setting("inner") if self.variant == "fa-vr" else 0)
        means = 0 if self.variant == "sep" else self.states / 3
        attack = self.setting("iterations") * gradients * 2 / 3
        return NetworkCost(self.setting("surrogate"), self.recipe()["epochs"] + means + attack)

    @property
    def answers_queries(self) -> bool:
        return True

    def protect(self, data: ImageSet, ctx: Context) -> ImageSet:
        from .pgd import boxed, protect_in_batches, to_levels

        wanted = half_way_round(data.labels, ctx.learning(data)[0].labels)
        key = {"sep": self.identity(), "data": data.fingerprint, "seed": ctx.seed, "precision": ctx.precision}
        batch = GPU_BATCH if ctx.device.startswith("cuda") else CPU_BATCH
        gradient_for = self.gradients(data, ctx, wanted, batch)

        def craft(x: Tensor, where: slice) -> dict[str, NDArray[Any]]:
            perturbation = self.descend(x, gradient_for(where), ctx)
            images = perturb(data.images[where], to_levels(boxed(x, perturbation)))
            return {"images": keep_linf(images, data.images[where], self.eps)}

        return protect_in_batches(data, ctx, key, batch, "perturb", craft)

    def gradients(
        self, data: ImageSet, ctx: Context, wanted: NDArray[np.int64], batch: int
    ) -> Callable[[slice], Gradient]:
        """Return, for images ``where``, a function of state and images: each image's gradient to its wanted class."""
        import torch

        from .embedding import centroids, embedding
        from .ensemble import cross_entropy_gradient

        name = self.setting("surrogate")
        networks = ctx.checkpoints(data, name, self.states, **self.recipe())
        embeds, means = [], []
        if self.variant != "sep":
            embeds = [embedding(network, name, ctx) for network in networks]
            means = [centroids(embed, ctx.learning(data)[0], ctx, batch) for embed in embeds]

        def gradient_for(where: slice) -> Gradient:
            targets = torch.tensor(wanted[where], device=ctx.device)
            if self.variant == "sep":
                return cross_entropy_gradient(networks, targets, ctx)

            def gradient(state: int, p: Tensor) -> Tensor:
                p = p.detach().requires_grad_()
                # A sum over images: an image's step must not depend on how many others are in its batch.
                distance = (embeds[state](p) - means[state][targets]).square().mean(1).sum()
                [gradients] = torch.autograd.grad(distance, p)
                return gradients

            return gradient

        return gradient_for

    def descend(self, x: Tensor, gradient: Gradient, ctx: Context) -> Tensor:
        """Craft the perturbation of images ``x``, N x 3 x H x W in [0, 1]: within ``eps``, not yet cut to [0, 1].

        ``gradient(state, p)`` is that of each image's own loss at images ``p``, N x 3 x H x W.
        """
        import torch

        from .ensemble import descend_mean, moved, sum_of
        from .pgd import boxed

        if self.variant != "fa-vr":
            return descend_mean(x, gradient, self.states, self.eps, self.step, self.setting("iterations"))
        draws = ctx.rng("states").integers(self.states, size=(self.setting("iterations"), self.setting("inner")))
        perturbation = torch.zeros_like(x)
        for drawn in draws.tolist():
            start = x + boxed(x, perturbation)
            gradients = [gradient(state, start) for state in range(self.states)]
            mean = sum_of(iter(gradients)) / self.states
            met, inner = torch.zeros_like(x), perturbation
            for state in drawn:
                met = met + gradient(state, x + boxed(x, inner)) - (gradients[state] - mean)
                inner = moved(x, inner, met, self.eps, self.step)
            perturbation = moved(x, perturbation, met, self.eps, self.step)
        return perturbation


def half_way_round(labels: NDArray[np.int64], of: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """Return for N labels the class that is half the number of classes further on, of those that have images.

    ``of`` are the labels of the images that count: these by default. Raises UserError when they are of one class.
    """
    from .ensemble import further_on

    of = labels if of is None else of
    return further_on(labels, len(np.unique(of)) // 2, "sep", of)
