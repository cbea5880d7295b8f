"""Vision transformer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, model_validator

from ue_bench.api import UserError, Victim

if TYPE_CHECKING:
    from torch import nn


class ViT(Victim):
    """Vision transformer (Dosovitskiy et al., 2021), of a size that can be trained from nothing on small sets.

    Nine layers of width 192 with 12 heads and a hidden layer of twice the width, patches of 4 px: the ViT of Lee et al.
    (2021) for 32-px images, 2,697,610 parameters at 10 classes. Images of 64 px and more are cut into patches of 16 px.
    ``vit[width=768,depth=12,expansion=4]`` at 224 px is ViT-B/16, as in torchvision (86,567,656 parameters at 1,000
    classes); take a lower ``learning_rate`` for it, such as 1e-4.

    Trained by AdamW with decay 0.05 and a peak rate of 1e-3 (Lee et al., released code), whatever the protocol has;
    its length, batch, schedule and augmentation stay those of the protocol. Deviations from Lee et al.: no stochastic
    depth, and biases on queries, keys and values; nor does any protocol here have their 10 epochs of warm-up, label
    smoothing, CutMix, Mixup, AutoAugment, random erasing and repeated augmentation, so expect less than their numbers.
    """

    name: ClassVar[str] = "vit"
    paper: ClassVar[str] = "Dosovitskiy et al., ICLR 2021; size and rate of Lee et al., arXiv 2112.13492"

    patch: int | None = Field(None, ge=1, description="side of a patch in pixels; 4 for images under 64 px, else 16")
    width: int = Field(192, ge=1, le=4096, description="length of a token")
    depth: int = Field(9, ge=1, le=64, description="encoder layers")
    heads: int = Field(12, ge=1, description="attention heads; a divisor of width")
    expansion: int = Field(2, ge=1, le=16, description="hidden layer of an encoder layer, in widths")
    learning_rate: float = Field(1e-3, gt=0, description="peak rate of AdamW")

    @model_validator(mode="after")
    def _heads_divide_width(self) -> ViT:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of {self.heads} heads")
        return self

    def build(self, num_classes: int, image_size: tuple[int, int]) -> nn.Module:
        from .vit_layers import VisionTransformer

        patch = self.patch or (4 if min(image_size) < 64 else 16)
        if any(side % patch for side in image_size):
            height, width = image_size
            raise UserError(
                f"images of {width} x {height} px cannot be cut into patches of {patch} x {patch} px",
                "give vit[patch=...] a divisor of both sides",
            )
        return VisionTransformer(num_classes, image_size, patch, self.width, self.depth, self.heads, self.expansion)

    def optimizer(self) -> dict[str, Any]:
        return {"optimizer": "adamw", "learning_rate": self.learning_rate, "weight_decay": 0.05}
