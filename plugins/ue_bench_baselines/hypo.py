"""HYPO, hypocritical perturbations."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from numpy.typing import NDArray
from pydantic import Field

from ue_bench.api import Context, ImageSet, NetworkCost, Ratio

from .presets import MICRO_NETWORK, MICRO_RECIPE, WithSurrogate
from .quantise import budget, keep_linf, perturb

if TYPE_CHECKING:
    from torch import Tensor

CPU_BATCH, GPU_BATCH = 250, 4096
TINY = 1e-10  # added to a gradient's norm before it divides

# 150 epochs whose rate falls after 100 and 125.
PAPER_RECIPE: dict[str, Any] = {
    "batch": 128, "epochs": 150, "learning_rate": 0.1, "schedule": "multistep",
    "milestones": (100 / 150, 125 / 150), "shift": 0.5,
}  # fmt: skip


class HYPO(WithSurrogate):
    """Tao et al., "Better Safe Than Sorry: Preventing Delusive Adversaries with Adversarial Training", NeurIPS 2021.

    Two of its five attacks, both on a network that was trained on the clean images. ``goal=hypocritical`` (its P2,
    known as HYPO) moves every image down the loss of its own label, so that a victim has little to learn from it;
    ``goal=adversarial`` (its P1) down the loss of the next class's label. From the image itself, without random start
    and augmentation. ``norm=l2``: steps of one length along the gradient, cut to an L2 ball of ``eps`` and then to
    [0, 1]; ``norm=linf``: signed steps. Rounded to the nearest gray level; that may carry an L2 norm over ``eps``, by
    half a level a value at most, and never an Linf norm.

    ``preset=paper`` are the release's settings: 150 epochs, 100 steps, L2 0.5 in steps of a fifth of it. For
    ``norm=linf`` bound and step are those of Qin et al., "APBench", 2023: 8/255 in steps of a tenth. ``preset=micro``
    fits two CPU cores: the small net and the recipe of the board cifar10-micro, 30 steps; a method of its own, not a
    measurement of the paper's.

    Deviations from the authors' release: its surrogate is a VGG16, here ResNet-18, as in APBench, unless ``surrogate``
    names another; the surrogate sees pixels less 0.5, is trained with the harness's crops, and starts as its networks
    do; any number of classes. The universal and the random class-wise attacks (P3 to P5) are not here.

    Expect 74.24 % test accuracy for ``hypocritical`` and 37.87 % for ``adversarial``, L2 0.5, VGG16 victim on CIFAR-10
    (the release); with Linf 8/255 70.38 % for ``hypocritical`` and ResNet-18 (APBench) or 71.54 % (Liu et al., "Image
    Shortcut Squeezing", ICML 2023). It is a weak protector.
    """

    name: ClassVar[str] = "hypo"
    paper: ClassVar[str] = "Tao et al., Better Safe Than Sorry, NeurIPS 2021"
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {"surrogate": "resnet18", "iterations": 100, "recipe": PAPER_RECIPE},
        "micro": {"surrogate": MICRO_NETWORK, "iterations": 30, "recipe": MICRO_RECIPE},
    }

    goal: Literal["hypocritical", "adversarial"] = Field(
        "hypocritical", description="down the loss of the own label, or of the next class's"
    )
    norm: Literal["l2", "linf"] = Field("l2", description="the norm that eps bounds")
    eps: Ratio | None = Field(None, gt=0, description="radius on the [0, 1] scale; null: 0.5, for linf 8/255")
    step: Ratio | None = Field(None, gt=0, description="length of a step; null: a fifth of eps, for linf a tenth")
    iterations: int | None = Field(None, ge=1, le=100_000, description="gradient steps; null: 100, micro 30")
    surrogate: str | None = Field(None, description="its victim selector; null: resnet18, micro a small net")
    surrogate_epochs: int | None = Field(None, ge=1, description="of its training; null: 150, micro 8")

    @property
    def classes_needed(self) -> int:
        return 2

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

    def cost(self, images: int) -> NetworkCost:
        attack: float = self.setting("iterations") * 2 / 3
        return NetworkCost(self.setting("surrogate"), self.recipe()["epochs"] + attack)

    def protect(self, data: ImageSet, ctx: Context) -> ImageSet:
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

            perturbation, _ = way(
                x, torch.zeros_like(x), objective, self.bound, self.length, self.setting("iterations")
            )
            images = perturb(data.images[where], to_levels(boxed(x, perturbation)))
            if self.norm == "linf":
                images = keep_linf(images, data.images[where], self.bound)
            return {"images": images}

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
