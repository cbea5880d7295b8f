"""DeepConfuse, noise from an auto-encoder that learns to mislead a classifier in training."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ue_bench.api import Context, ImageSet, InputPath, NetworkCost, Ratio

from .presets import MICRO_NETWORK, Presets
from .quantise import budget

if TYPE_CHECKING:
    from pathlib import Path

    from .deepconfuse_rounds import Confusion

CPU_BATCH, GPU_BATCH = 250, 4096
PIXELS = 2**18  # of the images in a batch of a given generator; how many does not matter to the result


class DeepConfuse(Presets):
    """Feng, Cai and Zhou, "Learning to Confuse: Generating Training Time Adversarial Data with Auto-Encoder", 2019.

    NeurIPS. A U-Net g gives every image x the noise ``eps`` g(x), and learns to make classifiers fail on clean images
    that were trained on noisy ones. For each batch it goes up (Adam, ``rate``) the loss that the classifier at play
    would have on the clean images after one step of gradient descent on those with its noise, through that step; then
    the classifier learns (SGD, ``classifier_rate``, no momentum) from the same images with the noise of a frozen copy
    of the generator. After ``interval`` epochs the copy becomes what the generator is, and a fresh classifier is
    trained on its images for ``judge_epochs``. Of all generators, one in each of ``rounds``, that one is kept whose
    judge has the lowest accuracy on clean images; the next round begins with a fresh classifier. Noise is added in
    eval mode, so that an image's is its own, within [0, 1], and rounded to the nearest gray level.

    Accuracy is told by a share ``validation`` of each class of the training set, clean. Nothing learns from these
    images, and they are protected in the end.

    ``weights`` is a generator that somebody has trained: the file ``atk.0.032.best.pth`` of the authors' release, or
    another of the same network, such as ``gue_cifar10.pth`` of GUE. Nothing is trained then, labels and other images do
    not matter, and a new image is protected as any other, in 19 ms of a CPU core at 32 px. The files are not shipped:
    their authors allow academic use, or nothing.

    ``preset=paper`` are the release's settings: up to 1,000 rounds of 20 epochs, and 20 for each judge, which its
    authors give as five to seven days on one GPU. ``preset=trial`` goes through all of it in minutes on two CPU cores,
    with the small net of the board cifar10-micro, a U-Net a quarter as wide, and 4 epochs of the game instead of
    20,000. That is far too short to protect: with its last generator that net came in 6 epochs to 54.5 % on held-out
    clean images, from clean ones to 58.3 % (n=1, 10,000 images of CIFAR-10, SGD at 0.1, bf16 on a CPU).

    Raises UserError when no class has two images, or there are fewer than three in all; and when ``weights`` are not
    those of such a generator.

    Deviations from the authors' release: it chooses the generator by accuracy on the test set, and judges with a
    network in training mode; here images are held out, and judges are in eval mode. Its classifiers are VGG11 with two
    features before the last layer, here ResNet-18 unless ``surrogate`` names another. Batches are of one size: what is
    left of a pass is left out of it. Classifiers learn from images as they are stored, in whole gray levels. Sides
    that are no multiples of 8 are halved upwards, where the release's U-Net fails. The step that is differentiated runs
    in single precision whatever the context's, since one at 0.01 is lost when weights are rounded to bf16.

    Expect 15.19 % test accuracy for ResNet-18 on CIFAR-10 (Qin et al., "APBench", 2023, with the generator that the
    authors released, at 8/255), 76.85 % after adversarial training (the same); 16.30 % (Liu et al., "Image Shortcut
    Squeezing", ICML 2023); 41.10 % (the release of Yuan and Wu, "Neural Tangent Generalization Attacks", ICML 2021).
    """

    name: ClassVar[str] = "deepconfuse"
    revision: ClassVar[int] = 2
    paper: ClassVar[str] = (
        "Feng et al., Learning to Confuse: Generating Training Time Adversarial Data with Auto-Encoder, NeurIPS 2019"
    )
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {
            "surrogate": "resnet18", "width": 64, "rounds": 1000, "interval": 20, "judge_epochs": 20, "batch": 256,
            "rate": 1e-4, "classifier_rate": 0.01,
        },
        "trial": {
            "surrogate": MICRO_NETWORK, "width": 16, "rounds": 4, "interval": 1, "judge_epochs": 2, "batch": 64,
            "rate": 1e-3, "classifier_rate": 0.1,
        },
    }  # fmt: skip

    preset: Literal["paper", "trial"] = Field(
        "paper", description="what parameters are unless given: the paper's, or a walk through, too short to protect"
    )
    weights: InputPath | None = Field(None, description="a released generator, which is used as it is")
    eps: Ratio = Field(0.032, gt=0, le=1, description="Linf radius on the [0, 1] scale")
    rounds: int | None = Field(None, ge=1, le=100_000, description="generators that are judged; null: 1000, trial 4")
    interval: int | None = Field(None, ge=1, description="epochs of a round; null: 20, trial 1")
    judge_epochs: int | None = Field(None, ge=1, description="epochs of a judge's training; null: 20, trial 2")
    rate: float | None = Field(None, gt=0, description="of the generator's Adam; null: 1e-4, trial 1e-3")
    classifier_rate: float | None = Field(None, gt=0, description="of the classifiers' SGD; null: 0.01, trial 0.1")
    batch: int | None = Field(None, ge=1, le=100_000, description="images a step; null: 256, trial 64")
    width: int | None = Field(
        None, ge=1, le=1024, description="channels of the U-Net's first block; null: 64, trial 16"
    )
    validation: float = Field(0.1, gt=0, lt=1, description="share of the images that only judges the generators")
    surrogate: str | None = Field(
        None, description="the classifiers' victim selector; null: resnet18, trial a small net"
    )

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> DeepConfuse:
        ignored = sorted(set(self.changed()) - {"weights", "eps"})
        if self.weights is not None and ignored:
            raise ValueError(f"weights are of a trained generator: {', '.join(ignored)} would do nothing")
        return self

    @property
    def classes_needed(self) -> int:
        return 2 if self.weights is None else 1

    @property
    def uses_networks(self) -> bool:
        return self.weights is None  # a given generator runs in float32, always

    @property
    def largest_image(self) -> int:
        return super().largest_image if self.weights is None else 2**20

    @property
    def budget(self) -> str:
        return budget("linf", self.eps)

    def cost(self, images: int) -> NetworkCost | None:
        """Count the classifiers' passes alone; a step through a step counts as six. None with a given generator.

        It is 5.4 for ResNet-18 and 7.5 for the small net (measured at 32 px on one CPU core, in training steps of as
        many images). The generator is no victim and not counted: it adds about a fifth for ``preset=paper`` by its
        multiplications, and as much again for ``preset=trial``.
        """
        if self.weights is not None:
            return None
        epochs = self.setting("interval") * 7 + self.setting("judge_epochs")
        return NetworkCost(self.setting("surrogate"), self.setting("rounds") * epochs * (1 - self.validation))

    @property
    def answers_queries(self) -> bool:
        return self.weights is not None

    def protect(self, data: ImageSet, ctx: Context) -> ImageSet:
        if self.weights is not None:
            return self.generated(self.weights, data, ctx)
        key = {"deepconfuse": self.identity(), "data": data.fingerprint, "seed": ctx.seed, "precision": ctx.precision}
        checkpoint = ctx.checkpoint_dir(key)
        game = self.game(data, ctx)
        game.play(checkpoint / "state.pt", self.setting("rounds"))
        protected = game.finish()
        shutil.rmtree(checkpoint)
        return protected

    def game(self, data: ImageSet, ctx: Context) -> Confusion:
        """Return the game before its first step, all networks untrained."""
        from .deepconfuse_rounds import Confusion

        return Confusion(
            data,
            ctx,
            victim=self.setting("surrogate"),
            width=self.setting("width"),
            eps=self.eps,
            rate=self.setting("rate"),
            classifier_rate=self.setting("classifier_rate"),
            batch=self.setting("batch"),
            interval=self.setting("interval"),
            judge_epochs=self.setting("judge_epochs"),
            validation=self.validation,
            wide=GPU_BATCH if ctx.device.startswith("cuda") else CPU_BATCH,
        )

    def generated(self, weights: Path, data: ImageSet, ctx: Context) -> ImageSet:
        """Return the set with the noise of a given generator, image by image."""
        import torch

        from .deepconfuse_rounds import with_noise
        from .released_unet import load_released

        network = load_released(weights).to(ctx.device)

        @torch.no_grad()
        def change(images: NDArray[np.uint8], where: slice) -> NDArray[np.uint8]:
            return with_noise(images, lambda x: (x + self.eps * network(x)).clamp(0, 1), self.eps, ctx.device)

        height, width = data.size
        return ctx.map_images(data, change, "add noise", max(1, PIXELS // (height * width)))
