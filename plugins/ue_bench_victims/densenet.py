"""DenseNet."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from .pretrained import Pretrained
from .stem import torchvision_models

if TYPE_CHECKING:
    from torch import nn


class DenseNet121(Pretrained):
    """DenseNet-121 (Huang et al., 2017): dense blocks of 6, 12, 24 and 16 layers, ``growth`` 32, compression 0.5.

    ``stem=cifar`` is the common variant for 32 px (pytorch-cifar), the paper's ImageNet net behind a 3x3 stride-1
    convolution: 6,956,298 parameters at 10 classes. The paper's own nets for CIFAR have three blocks and other growths.
    ``stem=imagenet`` is torchvision's ``densenet121`` with its initial weights (7,978,856 at 1,000 classes). ``auto``
    takes the former for images under 64 px on their shorter side. ``pretrained`` and ``weights`` as in ``resnet18``.
    """

    name: ClassVar[str] = "densenet121"
    least: ClassVar[tuple[int, int]] = (8, 29)
    paper: ClassVar[str] = "Huang et al., Densely Connected Convolutional Networks, CVPR 2017"
    breadth: ClassVar[str] = "growth"
    counts: ClassVar[tuple[int, ...]] = (6, 12, 24, 16)

    growth: int = Field(32, ge=2, le=256, description="channels that a layer adds; twice as many in the first")

    def network(self, num_classes: int, small: bool) -> nn.Module:
        if not small:
            models = torchvision_models(self.name)
            large: nn.Module = models.DenseNet(self.growth, self.counts, 2 * self.growth, num_classes=num_classes)
            return large
        from .densenet_layers import densenet

        return densenet(num_classes, self.growth, self.counts)
