"""No protection."""

from __future__ import annotations

from typing import ClassVar

from ue_bench.api import Context, ImageSet, Protector


class NoProtection(Protector):
    """Clean images, unchanged: what an adversary gains when nobody protects. Every board has this row.

    Expect about 94.7 % test accuracy for ResNet-18 on CIFAR-10 (94.68, Liu et al., "Image Shortcut Squeezing",
    ICML 2023, 60 epochs).
    """

    name: ClassVar[str] = "none"
    changes_images: ClassVar[bool] = False

    @property
    def answers_queries(self) -> bool:
        return True

    def protect(self, data: ImageSet, ctx: Context) -> ImageSet:
        return data
