"""DeepConfuse, noise from an auto-encoder that learns to mislead a classifier in training."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from ue_bench.api import Context, ImageSet, NetworkCost, Ratio

from .presets import MICRO_NETWORK, WithPreset
from .quantise import budget

if TYPE_CHECKING:
    from .deepconfuse_rounds import Confusion

CPU_BATCH, GPU_BATCH = 250, 4096


class DeepConfuse(WithPreset):
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

    ``preset=paper`` are the release's settings: up to 1,000 rounds of 20 epochs, and 20 for each judge, which its
    authors give as five to seven days on one GPU. ``preset=micro`` fits two CPU cores: the small net of the board
    cifar10-micro, a U-Net a quarter as wide, and 4 epochs of the game instead of 20,000; a method of its own, not a
    measurement of the paper's, and too short to protect: with its last generator that net came in 6 epochs to 54.5 %
    on held-out clean images, from clean ones to 58.3 % (n=1, 10,000 images of CIFAR-10, SGD at 0.1, bf16 on a CPU).

    Raises UserError when no class has two images, or there are fewer than three in all.

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
    paper: ClassVar[str] = (
        "Feng et al., Learning to Confuse: Generating Training Time Adversarial Data with Auto-Encoder, NeurIPS 2019"
    )
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {
            "surrogate": "resnet18", "width": 64, "rounds": 1000, "interval": 20, "judge_epochs": 20, "batch": 256,
            "rate": 1e-4, "classifier_rate": 0.01,
        },
        "micro": {
            "surrogate": MICRO_NETWORK, "width": 16, "rounds": 4, "interval": 1, "judge_epochs": 2, "batch": 64,
            "rate": 1e-3, "classifier_rate": 0.1,
        },
    }  # fmt: skip

    eps: Ratio = Field(0.032, gt=0, le=1, description="Linf radius on the [0, 1] scale")
    rounds: int | None = Field(None, ge=1, le=100_000, description="generators that are judged; null: 1000, micro 4")
    interval: int | None = Field(None, ge=1, description="epochs of a round; null: 20, micro 1")
    judge_epochs: int | None = Field(None, ge=1, description="epochs of a judge's training; null: 20, micro 2")
    rate: float | None = Field(None, gt=0, description="of the generator's Adam; null: 1e-4, micro 1e-3")
    classifier_rate: float | None = Field(None, gt=0, description="of the classifiers' SGD; null: 0.01, micro 0.1")
    batch: int | None = Field(None, ge=1, le=100_000, description="images a step; null: 256, micro 64")
    width: int | None = Field(
        None, ge=1, le=1024, description="channels of the U-Net's first block; null: 64, micro 16"
    )
    validation: float = Field(0.1, gt=0, lt=1, description="share of the images that only judges the generators")
    surrogate: str | None = Field(
        None, description="the classifiers' victim selector; null: resnet18, micro a small net"
    )

    @property
    def classes_needed(self) -> int:
        return 2

    @property
    def budget(self) -> str:
        return budget("linf", self.eps)

    def cost(self, images: int) -> NetworkCost:
        """Count the classifiers' passes alone; a step through a step counts as six.

        It is 5.4 for ResNet-18 and 7.5 for the small net (measured at 32 px on one CPU core, in training steps of as
        many images). The generator is no victim and not counted: it adds about a fifth for ``preset=paper`` by its
        multiplications, and as much again for ``preset=micro``.
        """
        epochs = self.setting("interval") * 7 + self.setting("judge_epochs")
        return NetworkCost(self.setting("surrogate"), self.setting("rounds") * epochs * (1 - self.validation))

    def protect(self, data: ImageSet, ctx: Context) -> ImageSet:
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
