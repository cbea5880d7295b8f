"""MobileNetV2."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from .pretrained import Pretrained
from .stem import torchvision_models

if TYPE_CHECKING:
    from torch import nn


class MobileNetV2(Pretrained):
    """MobileNetV2 (Sandler et al., 2018): inverted residuals with depthwise convolutions.

    ``stem=cifar`` is the common variant for 32 px (pytorch-cifar), 2,296,922 parameters at 10 classes. It differs from
    the paper in more than its strides, which are 1 in the first layer and the second stage: ReLU in place of ReLU6, a
    1x1 convolution also in the block that expands by 1, projected shortcuts where stride 1 changes the channels, and no
    dropout. With the paper's blocks the count would be 2,236,682. ``stem=imagenet`` is torchvision's ``mobilenet_v2``
    with its initial weights (3,504,872 at 1,000 classes). ``auto`` takes the former for images under 64 px on their
    shorter side. ``multiplier`` is the paper's width multiplier; the last 1,280 channels grow with it and never shrink.
    ``pretrained`` and ``weights`` as in ``resnet18``.
    """

    name: ClassVar[str] = "mobilenetv2"
    paper: ClassVar[str] = "Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, CVPR 2018"
    breadth: ClassVar[str] = "multiplier"

    multiplier: float = Field(1.0, ge=0.1, le=4, description="of all channels, which are rounded to multiples of 8")

    def network(self, num_classes: int, small: bool) -> nn.Module:
        if not small:
            models = torchvision_models(self.name)
            large: nn.Module = models.mobilenet_v2(weights=None, num_classes=num_classes, width_mult=self.multiplier)
            return large
        from .mobilenet_layers import mobilenetv2

        return mobilenetv2(num_classes, self.multiplier)
