"""Residual networks for small images.

Torch is imported inside ``build``: listing victims must not load it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from ue_bench.api import Victim

if TYPE_CHECKING:
    from torch import nn


class ResNet18(Victim):
    """ResNet-18 (He et al., 2016), the victim of nearly every table of the field.

    ``stem=cifar`` is the 3x3 stride-1 first convolution without pooling that 32-px work uses (11.17 M parameters at
    10 classes); ``stem=imagenet`` the 7x7 stride-2 convolution with max-pooling. ``auto`` takes the CIFAR stem for
    images under 64 px on their shorter side. Weights start as PyTorch starts its layers, like the released codes of
    the field, not as torchvision does.
    """

    name: ClassVar[str] = "resnet18"
    paper: ClassVar[str] = "He et al., Deep Residual Learning for Image Recognition, CVPR 2016"

    stem: Literal["auto", "cifar", "imagenet"] = Field("auto", description="first layers")

    def build(self, num_classes: int, image_size: tuple[int, int]) -> nn.Module:
        from .layers import resnet18

        small = min(image_size) < 64 if self.stem == "auto" else self.stem == "cifar"
        return resnet18(num_classes, small_stem=small)


class ResNet9(Victim):
    """A small residual net for CPUs: residual blocks behind a 4x4 stride-2 first convolution.

    Working at half resolution from the first layer on is what makes a training run on one CPU core a matter of half a
    minute: 20 million multiply-adds a 32-px image (15 million with one block) against ResNet-18's 560 million. The
    price: patterns of pixel frequency that shift under wide random crops are learned late or not at all, where a first
    layer at full resolution learns them; see the log of negative results. ``blocks=1`` leaves out the second residual
    block, a quarter of the time for one point of clean accuracy.
    """

    name: ClassVar[str] = "resnet9"

    width: int = Field(32, ge=4, le=512, description="channels of the first layer; 2x and 4x further on")
    blocks: Literal[1, 2] = Field(2, description="residual blocks")

    def build(self, num_classes: int, image_size: tuple[int, int]) -> nn.Module:
        from .layers import resnet9

        return resnet9(num_classes, self.width, self.blocks)
