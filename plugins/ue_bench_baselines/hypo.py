"""HYPO, hypocritical perturbations."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ue_bench.api import Context, ImageSet, NetworkCost, Ratio, load_arrays, save_arrays

from .presets import MICRO_NETWORK, MICRO_RECIPE, WithSurrogate
from .quantise import budget, check_range, keep_linf, perturb

if TYPE_CHECKING:
    from torch import Tensor

CPU_BATCH, GPU_BATCH = 250, 4096
TINY = 1e-10  # added to a gradient's norm before it divides
UNIVERSAL = ("universal-hypocritical", "universal-adversarial")
UNIVERSAL_STEPS = 500  # of the release, for a class
RANDOM = "universal-random"
CLASSES = 10  # that a cost is estimated for, before the set is known

# 150 epochs whose rate falls after 100 and 125.
PAPER_RECIPE: dict[str, Any] = {
    "batch": 128, "epochs": 150, "learning_rate": 0.1, "schedule": "multistep",
    "milestones": (100 / 150, 125 / 150), "shift": 0.5,
}  # fmt: skip


class HYPO(WithSurrogate):
    """Tao et al., "Better Safe Than Sorry: Preventing Delusive Adversaries with Adversarial Training", NeurIPS 2021.

    Its five attacks, the first four on a network that was trained on the clean images. ``goal=hypocritical`` (its P2,
    known as HYPO) moves every image down the loss of its own label, so that a victim has little to learn from it;
    ``goal=adversarial`` (its P1) down the loss of the next class's label. From the image itself, without random start
    and augmentation. ``norm=l2``: steps of one length along the gradient, cut to an L2 ball of ``eps`` and then to
    [0, 1]; ``norm=linf``: signed steps.

    The universal ones have one perturbation a class, which is the same for all its images.
    ``goal=universal-hypocritical`` (P4) makes any image look like the class: 500 such steps, each on the next ``batch``
    images of all classes in shuffled order, from zero; the perturbation stays in the ball, and only images with it are
    cut to [0, 1]. ``goal=universal-adversarial`` (P3) gives every class the perturbation of the class after it.
    ``goal=universal-random`` (P5) needs no network: a normal direction of length ``eps``, or uniform noise for
    ``norm=linf``.

    ``rounding=round``: to the nearest gray level; that may carry an L2 norm over ``eps``, by half a level a value at
    most, and never an Linf norm. ``rounding=truncate`` cuts fractions off, as the release does: half a level darker on
    average; an Linf bound of whole levels is kept here, where the release may exceed it by one.

    ``preset=paper`` are the release's settings: 150 epochs, 100 steps, L2 0.5 in steps of a fifth of it. For
    ``norm=linf`` bound and step are those of Qin et al., "APBench", 2023: 8/255 in steps of a tenth. ``preset=micro``
    fits two CPU cores: the small net and the recipe of the board cifar10-micro, 30 steps (500 of the universal ones); a
    method of its own, not a measurement of the paper's.

    Deviations from the authors' release: its surrogate is a VGG16, here ResNet-18, as in APBench, unless ``surrogate``
    names another; the surrogate sees pixels less 0.5, is trained with the harness's crops, and starts as its networks
    do; any number of classes; images that do not fill a batch of a universal attack wait for the next pass; a random
    perturbation is drawn from the run's seed.

    Expect, with L2 0.5, a VGG16 victim and truncation on CIFAR-10 (the release), 74.24 % test accuracy for
    ``hypocritical``, 37.87 % for ``adversarial``, 23.69 % for ``universal-hypocritical``, 15.14 % for
    ``universal-adversarial`` and 11.76 % for ``universal-random``; under adversarial training 89.50, 86.59, 88.15,
    88.12 and 88.12 %. With Linf 8/255 70.38 % for ``hypocritical`` and ResNet-18 (APBench) or 71.54 % (Liu et al.,
    "Image Shortcut Squeezing", ICML 2023): it is a weak protector.
    """

    name: ClassVar[str] = "hypo"
    paper: ClassVar[str] = "Tao et al., Better Safe Than Sorry, NeurIPS 2021"
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {"surrogate": "resnet18", "iterations": 100, "recipe": PAPER_RECIPE},
        "micro": {"surrogate": MICRO_NETWORK, "iterations": 30, "recipe": MICRO_RECIPE},
    }

    goal: Literal[
        "hypocritical", "adversarial", "universal-hypocritical", "universal-adversarial", "universal-random"
    ] = Field("hypocritical", description="down the loss of the own label, or of the next class's; universal: by class")
    norm: Literal["l2", "linf"] = Field("l2", description="the norm that eps bounds")
    eps: Ratio | None = Field(None, gt=0, description="radius on the [0, 1] scale; null: 0.5, for linf 8/255")
    step: Ratio | None = Field(None, gt=0, description="length of a step; null: a fifth of eps, for linf a tenth")
    iterations: int | None = Field(
        None, ge=1, le=100_000, description="gradient steps; null: 100, micro 30, universal 500"
    )
    batch: int = Field(256, ge=1, le=100_000, description="images a step of a universal attack")
    rounding: Literal["round", "truncate"] = Field(
        "round", description="how values become whole gray levels; the release truncates"
    )
    surrogate: str | None = Field(None, description="its victim selector; null: resnet18, micro a small net")
    surrogate_epochs: int | None = Field(None, ge=1, description="of its training; null: 150, micro 8")

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> HYPO:
        idle = {"batch"} if self.goal not in UNIVERSAL else set()
        if self.goal == RANDOM:
            idle |= {"preset", "step", "iterations", "surrogate", "surrogate_epochs"}
        self.refuse_idle(idle, f"goal={self.goal}")
        if self.norm == "linf":
            check_range(self.bound)
        return self

    @property
    def classes_needed(self) -> int:
        return 1 if self.goal == RANDOM else 2

    @property
    def uses_networks(self) -> bool:
        return self.goal != RANDOM

    @property
    def one_size(self) -> bool:
        return True  # a surrogate learns from all images, and a class's perturbation is one for all of them

    @property
    def budget(self) -> str:
        return budget(self.norm, self.bound)

    @property
    def bound(self) -> float:
        """``eps`` as given, else the norm's."""
        if self.eps is not None:
            return self.eps
        return 0.5 if self.norm == "l2" else 8 / 255

    @property
    def length(self) -> float:
        """``step`` as given, else the norm's share of the bound."""
        if self.step is not None:
            return self.step
        return self.bound / (5 if self.norm == "l2" else 10)

    @property
    def steps(self) -> int:
        """``iterations`` as given, else those of this kind of attack."""
        if self.goal in UNIVERSAL:
            return self.iterations or UNIVERSAL_STEPS
        steps: int = self.setting("iterations")
        return steps

    def cost(self, images: int) -> NetworkCost | None:
        """Count the surrogate's training and the attack; a universal one for ten classes."""
        if self.goal == RANDOM:
            return None
        attack = self.steps * 2 / 3
        if self.goal in UNIVERSAL:
            attack *= CLASSES * min(self.batch, images) / max(1, images)
        return NetworkCost(self.setting("surrogate"), self.recipe()["epochs"] + attack)

    @property
    def answers_queries(self) -> bool:
        return True

    def protect(self, data: ImageSet, ctx: Context) -> ImageSet:
        if self.goal == RANDOM:
            return self.random(data, ctx)
        return self.by_class(data, ctx) if self.goal in UNIVERSAL else self.by_image(data, ctx)

    def random(self, data: ImageSet, ctx: Context) -> ImageSet:
        """Protect with one random perturbation a class."""
        from .hypo_classes import random

        drawn = [random(data.size, self.norm, self.bound, ctx.rng("class", k)) for k in range(data.num_classes)]
        return self.added(data, np.stack(drawn) * 255, ctx)

    def by_class(self, data: ImageSet, ctx: Context) -> ImageSet:
        """Protect with one optimised perturbation a class; each is kept when it is done."""
        from .hypo_classes import universal

        network = ctx.surrogate(data, self.setting("surrogate"), **self.recipe())
        key = {"hypo": self.identity(), "data": data.fingerprint, "seed": ctx.seed, "precision": ctx.precision}
        folder = ctx.checkpoint_dir(key)
        shift = 1 if self.goal == "universal-adversarial" else 0
        levels = np.zeros((data.num_classes, *data.size, 3), np.float32)
        learnt = ctx.learning(data)[0]
        for label in np.unique(learnt.labels).tolist():  # a class without images needs none
            wanted = (label + shift) % data.num_classes
            file = folder / f"{wanted}.npz"
            if (stored := load_arrays(file)) is None:
                found = universal(
                    network, learnt, wanted, ctx, self.norm, self.bound, self.length, self.steps, self.batch
                )
                stored = {"perturbation": found.permute(1, 2, 0).cpu().numpy()}
                save_arrays(file, stored)
            levels[label] = stored["perturbation"] * 255
        protected = self.added(data, levels, ctx)
        shutil.rmtree(folder)
        return protected

    def added(self, data: ImageSet, levels: NDArray[np.floating], ctx: Context) -> ImageSet:
        """Add each class's perturbation in gray levels, classes x H x W x 3."""

        def change(images: NDArray[np.uint8], where: slice) -> NDArray[np.uint8]:
            return self.rounded(images, levels[data.labels[where]])

        return ctx.map_images(data, change, "add perturbations")

    def rounded(self, images: NDArray[np.uint8], levels: NDArray[np.floating]) -> NDArray[np.uint8]:
        """Add ``levels`` to ``images`` by the rule of ``rounding``."""
        perturbed = perturb(images, levels, self.rounding)
        return keep_linf(perturbed, images, self.bound) if self.norm == "linf" else perturbed

    def by_image(self, data: ImageSet, ctx: Context) -> ImageSet:
        """Protect every image with a perturbation of its own."""
        import torch
        from torch.nn import functional as F

        from .pgd import boxed, descend, protect_in_batches, to_levels

        network = ctx.surrogate(data, self.setting("surrogate"), **self.recipe())
        key = {"hypo": self.identity(), "data": data.fingerprint, "seed": ctx.seed, "precision": ctx.precision}
        wanted = data.labels if self.goal == "hypocritical" else (data.labels + 1) % data.num_classes
        way = descend if self.norm == "linf" else descend_l2

        def craft(x: Tensor, where: slice) -> dict[str, NDArray[Any]]:
            labels = torch.tensor(wanted[where], device=ctx.device)

            def objective(p: Tensor, _: int) -> Tensor:
                with ctx.autocast():
                    logits = network(p)
                return F.cross_entropy(logits.float(), labels, reduction="none")

            perturbation, _ = way(x, torch.zeros_like(x), objective, self.bound, self.length, self.steps)
            return {"images": self.rounded(data.images[where], to_levels(boxed(x, perturbation)))}

        batch = GPU_BATCH if ctx.device.startswith("cuda") else CPU_BATCH

        return protect_in_batches(data, ctx, key, batch, "perturb", craft)


def descend_l2(
    x: Tensor, start: Tensor, objective: Callable[[Tensor, int], Tensor], eps: float, step: float, steps: int
) -> tuple[Tensor, Tensor]:
    """Take ``steps`` steps of length ``step`` down each image's normalised gradient, as ``descend`` but in an L2 ball.

    An image whose gradient is zero stays. Arguments and results are those of ``descend``: the perturbation is within
    ``eps`` in L2 but before its last cut to [0, 1], which can only shorten it.
    """
    import torch

    from .pgd import boxed

    def norm(v: Tensor) -> Tensor:
        lengths: Tensor = torch.linalg.vector_norm(v, dim=(1, 2, 3), keepdim=True)
        return lengths

    perturbation = start
    losses = x.new_zeros(len(x))
    for t in range(steps):
        p = (x + boxed(x, perturbation)).requires_grad_()
        losses = objective(p, t)
        [gradient] = torch.autograd.grad(losses.sum(), p)  # a sum: an image's gradient is its own
        perturbation = (p.detach() - x).sub_(gradient * (step / (norm(gradient) + TINY)))
        perturbation = perturbation * (eps / norm(perturbation).clamp_min(eps))
        losses = losses.detach()
    return perturbation, losses
