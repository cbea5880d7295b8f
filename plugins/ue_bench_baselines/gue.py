"""GUE, game-theoretic unlearnable examples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ue_bench.api import Context, ImageSet, InputPath, NetworkCost, Protector, Ratio, derive

from .quantise import budget

if TYPE_CHECKING:
    from .gue_rounds import Stackelberg
    from .unet import UNet

PIXELS = 2**18  # of the images in a batch; how many does not matter to the result
FILE = "generator.pt"


class GUE(Protector):
    """Liu, Wang and Gao, "Game-Theoretic Unlearnable Example Generator", AAAI 2024.

    A U-Net g, that of ``deepconfuse``, gives every image x the noise ``eps`` g(x), so that images that it never saw are
    protected by one pass. It learns as the leader of a Stackelberg game. In a step a copy of the classifier answers the
    generator's images by ``answers`` steps of Adam; the *gap* is how much higher the classifier's own loss on those
    images is. Generator (SGD, ``rate``) and classifier (SGD, ``classifier_rate``) go down the gap times a multiplier
    that keeps its descent at ``eta`` of its squared gradient, and the classifier also down the loss of the least likely
    wrong class on *clean* images, which is least where all wrong classes are alike. All networks are in training mode;
    no momentum, no weight decay, no augmentation. Noise is added in eval mode, so that an image's is its own, within
    [0, 1], and rounded to the nearest gray level.

    ``weights`` is a trained generator, such as ``gue_cifar10.pth`` of the release: a state dict of torch, of any width.
    It is used in single precision as it is, and the parameters of training, which would do nothing, are refused.

    Deviations from the authors' release: it trains a fresh network on the images every 5 epochs and keeps the generator
    with the lowest accuracy on the test set, here the last one is kept; its answers go through the generator for
    nothing; batches are of one size, what is left of a pass is left out of it; values are rounded, not truncated; sides
    that are no multiples of 8 are halved upwards, where its U-Net fails.

    Raises UserError when ``weights`` hold no such U-Net, Diverged when training does.

    No published accuracy is quoted: none was checked. 50 epochs of the release's recipe are 13 passes of a classifier
    an image each; there is no preset for two CPU cores, where so short a game protects nothing.
    """

    name: ClassVar[str] = "gue"
    paper: ClassVar[str] = "Liu et al., Game-Theoretic Unlearnable Example Generator, AAAI 2024"

    eps: Ratio = Field(8 / 255, gt=0, le=1, description="Linf radius on the [0, 1] scale")
    weights: InputPath | None = Field(None, description="a released generator, which is used as it is")
    epochs: int = Field(50, ge=1, le=100_000, description="of the game")
    batch: int = Field(256, ge=2, le=100_000, description="images a step")
    width: int = Field(64, ge=1, le=1024, description="channels of the U-Net's first block")
    answers: int = Field(10, ge=1, le=10_000, description="steps of the copy that answers")
    answer_rate: float = Field(1e-4, gt=0, description="of its Adam")
    rate: float = Field(0.1, gt=0, description="of the generator's SGD")
    classifier_rate: float = Field(0.01, gt=0, description="of the classifier's SGD")
    eta: float = Field(1.5, ge=0, description="share of its squared gradient by which the gap has to fall")
    surrogate: str = Field("resnet18", description="the classifier's victim selector")

    @model_validator(mode="after")
    def _weights_are_trained(self) -> GUE:
        others = self.model_fields_set - {"weights", "eps"}
        if self.weights is not None and others:
            raise ValueError(f"weights are of a trained generator: {', '.join(sorted(others))} would do nothing")
        return self

    @property
    def classes_needed(self) -> int:
        return 1 if self.weights else 2

    @property
    def uses_networks(self) -> bool:
        return self.weights is None  # a given generator runs in float32, always

    @property
    def largest_image(self) -> int:
        return super().largest_image if self.weights is None else 2**20

    @property
    def one_size(self) -> bool:
        return self.weights is None  # a generator takes any size, and learns from one

    @property
    def budget(self) -> str:
        return budget("linf", self.eps)

    def cost(self, images: int) -> NetworkCost | None:
        """Count the classifier's passes alone; the U-Net is no victim."""
        if self.weights:
            return None
        # Answers, then one pass by the clean images and two by the noisy ones, of which one is to the images alone.
        return NetworkCost(self.surrogate, self.epochs * (self.answers + 1 + 1 + 2 / 3))

    @property
    def answers_queries(self) -> bool:
        return True

    def protect(self, data: ImageSet, ctx: Context) -> ImageSet:
        import torch

        from .deepconfuse_rounds import with_noise
        from .gue_rounds import protected

        generator = self.generator(data, ctx)
        if self.weights is not None:
            ctx = replace(ctx, precision="fp32")
        height, width = data.size

        @torch.no_grad()
        def change(images: NDArray[np.uint8], where: slice) -> NDArray[np.uint8]:
            return with_noise(images, lambda x: protected(generator, x, self.eps, ctx), self.eps, ctx.device)

        return ctx.map_images(data, change, "add noise", max(1, min(500, PIXELS // (height * width))))

    def generator(self, data: ImageSet, ctx: Context) -> UNet:
        """Return the generator, in eval mode and frozen: that of ``weights``, or one trained for what ``data`` is of.

        Trained once for a set, the parameters, a seed and a precision, and kept; a training that was killed continues.
        """
        import shutil

        import torch

        from .released_unet import load_released
        from .unet import UNet

        if self.weights is not None:
            return load_released(self.weights).to(ctx.device).to(memory_format=torch.channels_last)
        data, ctx = ctx.learning(data)
        key = {"gue": self.identity(), "data": data.fingerprint, "seed": ctx.seed, "precision": ctx.precision}

        def make(folder: Path) -> None:
            checkpoint = ctx.checkpoint_dir(key)
            game = self.game(data, ctx)
            game.play(checkpoint / "state.pt")
            torch.save(game.generator.state_dict(), folder / FILE)
            shutil.rmtree(checkpoint)

        weights = torch.load(ctx.cached(key, make) / FILE, map_location="cpu", weights_only=True)
        with torch.device("meta"):  # no weights are drawn that would be overwritten
            generator = UNet(self.width)
        generator.load_state_dict(weights, assign=True)
        return generator.to(ctx.device).to(memory_format=torch.channels_last).eval().requires_grad_(False)

    def game(self, data: ImageSet, ctx: Context) -> Stackelberg:
        """Return the game before its first step, both networks untrained."""
        import torch

        from .gue_rounds import Stackelberg
        from .unet import UNet

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(ctx.seed, "generator"))
            generator = UNet(self.width)
        return Stackelberg(
            data,
            ctx,
            generator=generator.to(ctx.device).to(memory_format=torch.channels_last),
            classifier=ctx.network(data, self.surrogate),
            answering=ctx.network(data, self.surrogate),
            eps=self.eps,
            epochs=self.epochs,
            batch=self.batch,
            answers=self.answers,
            answer_rate=self.answer_rate,
            rate=self.rate,
            classifier_rate=self.classifier_rate,
            eta=self.eta,
        )
