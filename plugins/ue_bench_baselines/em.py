"""EM, error-minimising noise."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ue_bench.api import Context, ImageSet, NetworkCost, Ratio

from .presets import MICRO_NETWORK, WithPreset
from .quantise import budget, keep_linf, perturb

if TYPE_CHECKING:
    from .em_rounds import MinMin

CPU_BATCH, GPU_BATCH = 250, 4096


class EM(WithPreset):
    """Huang et al., "Unlearnable Examples: Making Personal Data Unexploitable", ICLR 2021, equation 2.

    A network and the noise are fitted in turn to make the loss on the noisy images small: ``train_steps`` steps of
    training, then ``steps`` signed gradient steps of the noise down the same loss, until the network errs on no more
    than ``stop_error`` of the noisy images. ``mode=sample`` gives every image a noise of its own, with the training
    images in their order and the whole set perturbed in each round; ``mode=class`` one noise a class, which moves by
    the mean of its images' steps after each batch of a stratified fifth of the set. The noise is within ``eps`` in
    Linf; images with it may leave [0, 1] by a step before they are stored. Training: SGD at 0.1, momentum 0.9, weight
    decay 5e-4, gradient norm at most 5, no crops or mirroring.

    ``apply=signed`` adds the noise and rounds to the nearest gray level. ``apply=release`` does what the authors'
    release does before its images are stored: negative noise becomes zero, sums are truncated.

    ``preset=paper`` is the release's setting for CIFAR-10: ResNet-18, batches of 512, 20 steps a round for samples and
    1 for classes. ``preset=micro`` fits two CPU cores: the small net of the board cifar10-micro, and 10 steps of twice
    the length.

    Deviations from the authors' release: rounds end after ``max_rounds`` whatever the error, the release goes on; noise
    is made for the images as they are stored, while the release's ImageNet loader crops at random before it adds it.

    Expect 20.78 % test accuracy for ResNet-18 on CIFAR-10 (Qin et al., "APBench", 2023), 21.05 % (Liu et al., "Image
    Shortcut Squeezing", ICML 2023), 23.60 % (the release, with ``apply=release``).
    """

    name: ClassVar[str] = "em"
    paper: ClassVar[str] = "Huang et al., Unlearnable Examples: Making Personal Data Unexploitable, ICLR 2021"
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {"surrogate": "resnet18", "step": 0.8 / 255, "steps": {"sample": 20, "class": 1}, "batch": 512},
        "micro": {"surrogate": MICRO_NETWORK, "step": 1.6 / 255, "steps": {"sample": 10, "class": 1}, "batch": 128},
    }

    mode: Literal["sample", "class"] = Field("sample", description="a noise for each image, or for each class")
    eps: Ratio = Field(8 / 255, gt=0, le=1, description="Linf radius on the [0, 1] scale")
    step: Ratio | None = Field(None, gt=0, le=1, description="length of a step; null: 0.8/255, micro 1.6/255")
    steps: int | None = Field(
        None, ge=1, le=10_000, description="gradient steps a round; null: 20 (class: 1), micro 10"
    )
    train_steps: int = Field(10, ge=1, le=100_000, description="training steps of the network a round")
    batch: int | None = Field(None, ge=1, le=100_000, description="images a training step; null: 512, micro 128")
    stop_error: float = Field(0.01, ge=0, le=1, description="share of noisy images on which the network may err")
    max_rounds: int = Field(100, ge=1, le=10_000, description="rounds at most")
    surrogate: str | None = Field(None, description="the network's victim selector; null: resnet18, micro a small net")
    apply: Literal["signed", "release"] = Field("signed", description="add the noise, or only what of it is positive")

    @property
    def classes_needed(self) -> int:
        return 2

    @property
    def budget(self) -> str:
        return budget("linf", self.eps)

    def cost(self, images: int) -> NetworkCost:
        """Estimate the cost of ten rounds, as many as the release's log has for CIFAR-10."""
        training = self.train_steps * min(self.setting("batch"), images) / images
        share = 1.0 if self.mode == "sample" else 0.2
        return NetworkCost(self.setting("surrogate"), 10 * (training + share * (self.round_steps * 2 / 3 + 1 / 3)))

    @property
    def round_steps(self) -> int:
        """Gradient steps of the noise in a round."""
        steps: int = self.PRESETS[self.preset]["steps"][self.mode] if self.steps is None else self.steps
        return steps

    def protect(self, data: ImageSet, ctx: Context) -> ImageSet:
        key = {self.name: self.identity(), "data": data.fingerprint, "seed": ctx.seed, "precision": ctx.precision}
        checkpoint = ctx.checkpoint_dir(key)
        game = self.game(data, ctx)
        game.play(checkpoint / "state.pt", self.stop_error, self.max_rounds)

        def change(images: NDArray[np.uint8], where: slice) -> NDArray[np.uint8]:
            return self.applied(images, game.noise_of(where))

        protected = ctx.map_images(data, change, "add noise")
        shutil.rmtree(checkpoint)
        return protected

    def game(self, data: ImageSet, ctx: Context) -> MinMin:
        """Return the two players at their start."""
        from .em_rounds import MinMin

        return MinMin(data, ctx, **self.rules(data, ctx))

    def rules(self, data: ImageSet, ctx: Context) -> dict[str, Any]:
        """Return what the game is told."""
        return {
            "network": ctx.network(data, self.setting("surrogate")),
            "by_class": self.mode == "class",
            "eps": self.eps,
            "step": self.setting("step"),
            "steps": self.round_steps,
            "train_steps": self.train_steps,
            "batch": self.setting("batch"),
            "wide": GPU_BATCH if ctx.device.startswith("cuda") else CPU_BATCH,
        }

    def applied(self, images: NDArray[np.uint8], noise: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Add ``noise`` in gray levels, N x H x W x 3, to ``images``."""
        if self.apply == "release":
            return perturb(images, np.maximum(noise, 0), "truncate")
        return keep_linf(perturb(images, noise), images, self.eps)
