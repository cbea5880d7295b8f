"""Squeeze-and-excitation networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from .stem import Stemmed

if TYPE_CHECKING:
    from torch import nn


class SENet18(Stemmed):
    """SENet-18: ResNet-18 whose blocks weigh their channels (Hu et al., 2018), reduction 16.

    The variant of the common CIFAR re-implementations (pytorch-cifar), which APBench trains: pre-activation blocks (He
    et al., 2016b) and no normalisation after the last of them, 11,260,354 parameters at 10 classes with the CIFAR stem.
    Hu et al. give no SENet-18; their blocks put the weighing into ordinary residual blocks. torchvision has no SENet:
    for large images this is the same net behind the ImageNet stem of ``resnet18``. Weights start as PyTorch starts its
    layers.
    """

    name: ClassVar[str] = "senet18"
    paper: ClassVar[str] = "Hu et al., Squeeze-and-Excitation Networks, CVPR 2018"

    width: int = Field(64, ge=16, le=512, description="channels of the first stage; 2x, 4x and 8x further on")

    def build(self, num_classes: int, image_size: tuple[int, int]) -> nn.Module:
        from .senet_layers import senet18

        return senet18(num_classes, small_stem=self.small(image_size), width=self.width)
