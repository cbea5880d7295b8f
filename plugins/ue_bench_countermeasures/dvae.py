"""D-VAE, an auto-encoder that learns from the labels which part of an image is a perturbation."""

from __future__ import annotations

import shutil
from typing import Any, ClassVar

from pydantic import Field

from ue_bench.api import Context, ImageSet

from .presets import WithPreset

CPU_BATCH, GPU_BATCH = 250, 1000


class DVAE(WithPreset):
    """Yu et al., "Purify Unlearnable Examples via Rate-Constrained Variational Autoencoders", ICML 2024.

    A variational auto-encoder is told by a limit on its rate how much its latents may say of an image, so that its
    reconstruction r has what natural images share; a second decoder, which is given the label, makes p of what is left.
    Training lowers ``MSE(r, x) + MSE(r + p, x) + w max(KL, rate)``, the divergence KL of latents in nats a position,
    w = 0.5 for a ``rate`` up to 0.99 and 0.01 above, and after 11 / 60 of the epochs also ``max(mean p^2, 0.002)``.
    Twice, with a fresh network each time: the first one, at ``first_rate``, gives x - p; the second, trained on these
    images at ``rate``, gives x - p too, and the purified image is its reconstruction of that. Adam at
    ``learning_rate``, down to zero along a half cosine; gradient
    norm at most 5; whole batches, shuffled, no crops or mirroring. In the end the networks are in eval mode, and the
    sample of an image's latents is drawn for that image alone.

    ``preset=paper`` are the settings of the authors' code for CIFAR-10, two days on one CPU core. ``preset=micro`` fits
    two cores: an eighth of the channels, a sixteenth of the latents, batches of 16, 7 epochs, six minutes for 10,000
    images of 32 px on one core; a method of its own. ``labels=false`` gives all images one embedding instead of one a
    class: purification without labels. There is no ``apply_to_test``, as test images come without labels.

    Deviations from the authors' code: images between the stages and in the end are rounded to the nearest gray level,
    not truncated; images larger than 32 px get the same network, where the authors' goes deeper, so that the
    embeddings, one number for each of 128 channels and a quarter of the pixels, become large.

    Expect on CIFAR-10 with ResNet-18 accuracies near those on clean images; no published number was checked. With
    ``preset=micro``, on the board cifar10-micro-wide: clean images 64.3 instead of 72.2, class-wise Deep Hiding 66.0
    instead of 14.6, EM 64.8 instead of 15.1, OPS 53.8 instead of 19.1, LSP 51.5 instead of 19.0; with
    ``first_rate=0.1`` 64.0, 65.3, 61.5, 46.6 and 60.8. Another seed had 62.4 and 60.1 for LSP.
    """

    name: ClassVar[str] = "d-vae"
    revision: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "Purify Unlearnable Examples via Rate-Constrained Variational Autoencoders, ICML 2024, arXiv 2405.01460"
    )
    uses_labels: ClassVar[bool] = True
    cache_purified: ClassVar[bool] = True
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {"epochs": 60, "batch": 128, "width": 64, "latent": 256, "learning_rate": 0.005},
        "micro": {"epochs": 7, "batch": 16, "width": 8, "latent": 16, "learning_rate": 0.01},
    }

    epochs: int | None = Field(None, ge=1, le=100_000, description="of each of the two trainings; null: 60, micro 7")
    batch: int | None = Field(None, ge=1, le=100_000, description="images a training step; null: 128, micro 16")
    width: int | None = Field(None, ge=2, le=1024, description="channels of the first layer; null: 64, micro 8")
    latent: int | None = Field(None, ge=1, le=4096, description="latents a position; null: 256, micro 16")
    learning_rate: float | None = Field(None, gt=0, le=1, description="of Adam, at first; null: 0.005, micro 0.01")
    first_rate: float = Field(1.0, ge=0, description="nats a position that are free in the first training")
    rate: float = Field(3.0, ge=0, description="the same in the second training")
    labels: bool = Field(True, description="perturbations depend on the label")

    def purify(self, data: ImageSet, ctx: Context) -> ImageSet:
        from .dvae_training import Purifier

        checkpoint = ctx.checkpoint_dir({self.name: self.identity(), "data": data.fingerprint, "seed": ctx.seed})
        purifier = Purifier(
            ctx,
            folder=checkpoint,
            epochs=self.setting("epochs"),
            batch=self.setting("batch"),
            width=self.setting("width"),
            latent=self.setting("latent"),
            learning_rate=self.setting("learning_rate"),
            labels=self.labels,
            wide=GPU_BATCH if ctx.device.startswith("cuda") else CPU_BATCH,
        )
        purified = purifier.run(data, self.first_rate, self.rate)
        shutil.rmtree(checkpoint)
        return purified
