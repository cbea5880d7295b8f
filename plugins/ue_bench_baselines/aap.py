"""AAP, augmented adversarial poisoning."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from numpy.typing import NDArray
from pydantic import Field

from ue_bench.api import Context, ImageSet, NetworkCost, Ratio, load_checkpoint, save_checkpoint

from .presets import MICRO_NETWORK, WithPreset
from .quantise import budget, keep_linf, perturb

if TYPE_CHECKING:
    from torch import Tensor, nn

CPU_BATCH, GPU_BATCH = 250, 4096
FILE = "network.pt"


class AAP(WithPreset):
    """Wang, Zhu and Gao, "Efficient Availability Attacks against Supervised and Contrastive Learning Simultaneously".

    NeurIPS 2024. TAP under the random views of contrastive learning: adversarial examples of a network that was trained
    on such views of the clean images. ``goal=targeted``: every image is moved until the network takes views of it for
    the class after its own; ``untargeted``: away from its own. ``iterations`` signed steps from the image itself, at a
    fresh view each, within ``eps`` in Linf and then within [0, 1]. Views are those of ``aue``, of one ``strength`` for
    training and steps. Training: SGD, momentum 0.9, weight decay 1e-4, a linear rise of the rate and a cosine to 1e-6,
    pixels in [0, 1] as they are. Rounded to the nearest gray level.

    ``preset=paper`` are the release's settings for CIFAR-10: ResNet-18, 40 epochs of 128 images at a rate of 0.5 that
    rises for 10, 250 steps, strength 0.4; it has 0.8 for CIFAR-100. ``preset=micro`` fits two CPU cores: the small net
    of the board cifar10-micro, 8 epochs of 64 images at a rate of 0.1 that rises for one, 70 steps; a method of its
    own, not a measurement of the paper's.

    Deviations from the authors' release: views of training images are those of crafting, where it has torchvision's;
    windows do not start and end at whole pixels, and aspects are those that fit; values are rounded, where victims of
    the release see truncated ones.

    No published accuracy is quoted: none was checked. Evaluate contrastive victims as well.
    """

    name: ClassVar[str] = "aap"
    paper: ClassVar[str] = (
        "Wang et al., Efficient Availability Attacks against Supervised and Contrastive Learning Simultaneously, "
        "NeurIPS 2024"
    )
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {
            "surrogate": "resnet18", "surrogate_epochs": 40, "warm_up": 10, "batch": 128, "rate": 0.5,
            "iterations": 250,
        },
        "micro": {
            "surrogate": MICRO_NETWORK, "surrogate_epochs": 8, "warm_up": 1, "batch": 64, "rate": 0.1,
            "iterations": 70,
        },
    }  # fmt: skip

    goal: Literal["targeted", "untargeted"] = Field("targeted", description="towards the next class, or off the own")
    eps: Ratio = Field(8 / 255, gt=0, le=1, description="Linf radius on the [0, 1] scale")
    step: Ratio | None = Field(None, gt=0, le=1, description="length of a step; null: 2.5 eps over all iterations")
    iterations: int | None = Field(None, ge=1, le=100_000, description="gradient steps; null: 250, micro 70")
    strength: float = Field(0.4, ge=0, le=1, description="of the random views; 1: SimCLR's, 0: images as they are")
    surrogate: str | None = Field(None, description="its victim selector; null: resnet18, micro a small net")
    surrogate_epochs: int | None = Field(None, ge=1, description="of its training; null: 40, micro 8")
    warm_up: int | None = Field(None, ge=0, description="epochs in which the rate rises; null: 10, micro 1")
    rate: float | None = Field(None, gt=0, description="largest learning rate of the surrogate; null: 0.5, micro 0.1")
    batch: int | None = Field(None, ge=1, le=100_000, description="images a training step; null: 128, micro 64")

    @property
    def classes_needed(self) -> int:
        return 2

    @property
    def budget(self) -> str:
        return budget("linf", self.eps)

    def cost(self, images: int) -> NetworkCost:
        """Count the passes of the network alone; views cost as much as those of a small one."""
        attack: float = self.setting("iterations") * 2 / 3
        return NetworkCost(self.setting("surrogate"), self.setting("surrogate_epochs") + attack)

    @property
    def answers_queries(self) -> bool:
        return True

    def protect(self, data: ImageSet, ctx: Context) -> ImageSet:
        import torch
        from torch.nn import functional as F

        from .pgd import boxed, descend, protect_in_batches, to_levels
        from .views import ViewDraws

        key = {"aap": self.identity(), "data": data.fingerprint, "seed": ctx.seed, "precision": ctx.precision}
        network = self.trained(data, ctx)
        iterations: int = self.setting("iterations")
        step = 2.5 * self.eps / iterations if self.step is None else self.step
        targeted = self.goal == "targeted"
        wanted = (data.labels + 1) % data.num_classes if targeted else data.labels

        def craft(x: Tensor, where: slice) -> dict[str, NDArray[Any]]:
            views = ViewDraws(ctx, where, iterations, self.strength)
            labels = torch.tensor(wanted[where], device=ctx.device)

            def objective(p: Tensor, t: int) -> Tensor:
                with ctx.autocast():
                    logits = network(views.viewed(p, t))
                losses = F.cross_entropy(logits.float(), labels, reduction="none")
                return losses if targeted else -losses

            noise, _ = descend(x, torch.zeros_like(x), objective, self.eps, step, iterations)
            images = perturb(data.images[where], to_levels(boxed(x, noise)))
            return {"images": keep_linf(images, data.images[where], self.eps)}

        batch = GPU_BATCH if ctx.device.startswith("cuda") else CPU_BATCH
        return protect_in_batches(data, ctx, key, batch, "perturb", craft)

    def trained(self, data: ImageSet, ctx: Context) -> nn.Module:
        """Return the network trained on views of the images that ``data`` is learnt from, in eval mode and frozen.

        Trained once for a set, a recipe, a seed and a precision, and kept; a training that was killed continues.
        """
        import shutil

        import torch

        from .view_training import ViewTraining

        data, ctx = ctx.learning(data)
        names = ("surrogate", "surrogate_epochs", "warm_up", "batch", "rate")
        recipe = {name: self.setting(name) for name in names} | {"strength": self.strength}
        key = {"trained on views": recipe, "data": data.fingerprint, "seed": ctx.seed, "precision": ctx.precision}
        network = ctx.network(data, recipe["surrogate"])
        epochs: int = recipe["surrogate_epochs"]
        warm_up = min(recipe["warm_up"], epochs - 1)

        def make(folder: Path) -> None:
            state = ctx.checkpoint_dir(key) / "state.pt"
            training = ViewTraining(
                data, ctx, network, self.strength, epochs, warm_up, recipe["batch"], recipe["rate"]
            )  # fmt: skip
            if (stored := load_checkpoint(state, ctx.device)) is not None:
                training.resume(stored)
            while training.epoch < epochs:
                ctx.report(training.epoch, epochs, "surrogate on random views")
                training.learn()
                save_checkpoint(state, training.state())
            torch.save(network.state_dict(), folder / FILE)
            shutil.rmtree(state.parent)

        kept = ctx.cached(key, make) / FILE
        network.load_state_dict(torch.load(kept, map_location=ctx.device, weights_only=True))
        return network.eval().requires_grad_(False)
