"""SDAAN: noise against a classifier of pixels, then strong augmentation."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ue_bench.api import Context, ImageSet, Ratio

from .presets import WithPreset

if TYPE_CHECKING:
    import torch
    from torch import Tensor

BATCH = 1000
LEAST_AREA = 0.1  # of a window, in parts of the image: 1 - 0.9 s, at s = 1


class Sdaan(WithPreset):
    """Noise that a classifier of pixels finds worst is added to the stored images; training sees random views of them.

    First a network with one hidden layer of ``width`` units and ReLU learns the images by adversarial training (PGD
    without a random start, ten steps of a quarter of ``eps``; SGD at 0.01, a tenth after three quarters and again after
    nine tenths of ``epochs``; no augmentation). Then ten steps of an eighth of ``eps`` raise its loss on every image
    once, in the Linf ball of radius ``eps``, rounded to gray levels: that is what is trained on. ``strong`` views are
    those of SimCLR at full strength: a window of a tenth of the image or more, mirrored, colours jittered, a fifth gray
    (s = 1 of the authors' code); without, the protocol's crops alone (s = 0). ``eps=0`` leaves the stored images.

    ``preset=paper`` is the authors' code, 1,100 passes of a network of 9.5 M weights an image; ``preset=micro`` has 256
    units and 10 epochs, for two CPU cores: a method of its own.

    Deviations: the protocol decides on crops, length and rate of the training; the authors have 200 epochs, and no crop
    beside the views. Windows do not start and end at whole pixels. The authors' code writes its noise anew every ten
    epochs, the last one counts here.

    No number to be expected is known to us. Images and labels are those of the adversary; test images stay.
    """

    name: ClassVar[str] = "sdaan"
    revision: ClassVar[int] = 1
    paper: ClassVar[str] = "Detection and Defense of Unlearnable Examples, AAAI 2024, arXiv 2312.08898"
    uses_labels: ClassVar[bool] = True
    cache_purified: ClassVar[bool] = True
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {"width": 3072, "epochs": 100},
        "micro": {"width": 256, "epochs": 10},
    }

    eps: Ratio = Field(8 / 255, ge=0, le=1, description="Linf radius of the noise on the [0, 1] scale; 0 for none")
    strong: bool = Field(True, description="train on strong random views")
    width: int | None = Field(None, ge=1, le=65_536, description="units of the hidden layer; null: 3072, micro 256")
    epochs: int | None = Field(None, ge=1, le=100_000, description="of the network of pixels; null: 100, micro 10")

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Self:
        if not self.eps:
            self.refuse_idle({"preset", "width", "epochs"}, "eps=0")
        return self

    def purify(self, data: ImageSet, ctx: Context) -> ImageSet:
        if not self.eps:
            return data
        import torch

        from .pixel_classifier import PixelRecipe, attack, context, fit, unit

        key = {"purify": self.identity(), "images": data.fingerprint, "seed": ctx.seed}
        kept = ctx.checkpoint_dir(key)
        recipe = PixelRecipe(self.setting("epochs"), self.setting("width"), eps=self.eps, seed=ctx.seed)
        model = fit(data, recipe, ctx.device, kept / "state.pt", ctx.report, f"{self.selector}: epochs on pixels")
        labels = torch.tensor(data.labels, device=ctx.device)

        def change(images: NDArray[np.uint8], where: slice) -> NDArray[np.uint8]:
            worst = attack(self.eps, 8).attack(model, unit(images, ctx.device), labels[where], context(ctx.device))
            levels: NDArray[np.uint8] = (255 * worst).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
            return levels

        noisy = ctx.map_images(data, change, self.selector, BATCH)
        shutil.rmtree(kept)
        return noisy

    def augment(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        import torch

        from ue_bench_victims.views import view

        if not self.strong:
            return x, y
        # channels-last as the batch was
        return torch.empty_like(x).copy_(view(x, LEAST_AREA, generator)), y
