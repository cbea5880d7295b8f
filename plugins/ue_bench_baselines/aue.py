"""AUE, augmented error-minimising noise."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ue_bench.api import Context, ImageSet, NetworkCost, Ratio

from .presets import MICRO_NETWORK, WithPreset
from .quantise import budget, keep_linf, perturb

if TYPE_CHECKING:
    from .aue_rounds import AugmentedMinMin

CPU_BATCH, GPU_BATCH = 250, 4096


class AUE(WithPreset):
    """Wang, Zhu and Gao, "Efficient Availability Attacks against Supervised and Contrastive Learning Simultaneously".

    NeurIPS 2024. EM whose both players meet the random views of contrastive learning, so that its noise holds against
    contrastive victims too. In turn the network is trained for an epoch on views of the noisy images, and the noise of
    every image takes ``steps`` signed gradient steps down the same loss, at a fresh view each, within ``eps`` in Linf
    and then within [0, 1], from where it was. Views are windows, mirrored, with changed colours or none, at a
    ``strength`` where 1 is SimCLR's (see ``views.viewed``); 0 is EM's step without views. SGD at 0.1 by a cosine to
    1e-6, momentum 0.9, weight decay 1e-4, batches shuffled, pixels in [0, 1] as they are. Rounded to the nearest gray
    level.

    ``preset=paper`` are the release's settings for CIFAR-10: ResNet-18, 60 epochs, batches of 128, strength 0.6; it has
    1.0 for CIFAR-100. ``preset=micro`` fits two CPU cores: the small net of the board cifar10-micro, 15 epochs of 64
    images; a method of its own, not a measurement of the paper's.

    Deviations from the authors' release: noise is made in the order of the set, whose images do not depend on each
    other there; windows do not start and end at whole pixels, and aspects are those that fit; values are rounded, where
    the release's victims see truncated ones; its class-wise noise is not here.

    No published accuracy is quoted: none was checked. Evaluate contrastive victims as well.
    """

    name: ClassVar[str] = "aue"
    paper: ClassVar[str] = (
        "Wang et al., Efficient Availability Attacks against Supervised and Contrastive Learning Simultaneously, "
        "NeurIPS 2024"
    )
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {"surrogate": "resnet18", "epochs": 60, "batch": 128},
        "micro": {"surrogate": MICRO_NETWORK, "epochs": 15, "batch": 64},
    }

    eps: Ratio = Field(8 / 255, gt=0, le=1, description="Linf radius on the [0, 1] scale")
    step: Ratio | None = Field(None, gt=0, le=1, description="length of a step; null: a tenth of eps")
    steps: int = Field(5, ge=1, le=10_000, description="gradient steps of the noise an epoch, each at another view")
    strength: float = Field(0.6, ge=0, le=1, description="of the random views; 1: SimCLR's, 0: images as they are")
    epochs: int | None = Field(None, ge=1, description="of network and noise; null: 60, micro 15")
    batch: int | None = Field(None, ge=1, le=100_000, description="images a training step; null: 128, micro 64")
    rate: float = Field(0.1, gt=0, description="learning rate of the network at its start")
    surrogate: str | None = Field(None, description="the network's victim selector; null: resnet18, micro a small net")

    @property
    def classes_needed(self) -> int:
        return 2

    @property
    def budget(self) -> str:
        return budget("linf", self.eps)

    def cost(self, images: int) -> NetworkCost:
        """Count the passes of the network alone; views cost as much as those of a small one."""
        return NetworkCost(self.setting("surrogate"), self.setting("epochs") * (1 + self.steps * 2 / 3))

    def protect(self, data: ImageSet, ctx: Context) -> ImageSet:
        key = {"aue": self.identity(), "data": data.fingerprint, "seed": ctx.seed, "precision": ctx.precision}
        checkpoint = ctx.checkpoint_dir(key)
        game = self.game(data, ctx)
        game.play(checkpoint / "state.pt")

        def change(images: NDArray[np.uint8], where: slice) -> NDArray[np.uint8]:
            return keep_linf(perturb(images, game.noise_of(where)), images, self.eps)

        protected = ctx.map_images(data, change, "add noise")
        shutil.rmtree(checkpoint)
        return protected

    def game(self, data: ImageSet, ctx: Context) -> AugmentedMinMin:
        """Return network and noise at their start."""
        from .aue_rounds import AugmentedMinMin
        from .view_training import ViewTraining

        network = ctx.network(data, self.setting("surrogate"))
        epochs, batch = self.setting("epochs"), self.setting("batch")
        return AugmentedMinMin(
            ViewTraining(data, ctx, network, self.strength, epochs, 0, batch, self.rate),
            eps=self.eps,
            step=self.eps / 10 if self.step is None else self.step,
            steps=self.steps,
            wide=GPU_BATCH if ctx.device.startswith("cuda") else CPU_BATCH,
        )
