"""VGG with batch normalisation."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from ue_bench.api import UserError

from .pretrained import Pretrained
from .stem import torchvision_models

if TYPE_CHECKING:
    from torch import nn


class _VGG(Pretrained):
    """Five groups of 3x3 convolutions, each halved by max-pooling."""

    paper: ClassVar[str] = "Simonyan and Zisserman, Very Deep Convolutional Networks, ICLR 2015"
    least: ClassVar[tuple[int, int]] = (1, 32)
    breadth: ClassVar[str] = "width"
    depth: ClassVar[int]
    counts: ClassVar[tuple[int, ...]]  # convolutions a group: columns D and E of the paper's table 1

    width: int = Field(64, ge=4, le=512, description="channels of the first group; 2x, 4x, 8x and 8x further on")

    def network(self, num_classes: int, small: bool) -> nn.Module:
        if not small:
            if self.width != 64:
                raise UserError(
                    f"{self.selector} is for images under 64 px: torchvision's for larger ones has one width",
                    f"leave width out, or give {self.name}[stem=cifar,width={self.width}]",
                )
            models = torchvision_models(self.name)
            large: nn.Module = getattr(models, f"vgg{self.depth}_bn")(weights=None, num_classes=num_classes)
            return large
        from torch import nn

        layers: list[nn.Module] = []
        inputs = 3
        for count, times in zip(self.counts, (1, 2, 4, 8, 8), strict=True):
            width = times * self.width
            for _ in range(count):
                layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
                inputs = width
            layers.append(nn.MaxPool2d(2, ceil_mode=True))  # rounded up: images under 32 px survive five halvings
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, num_classes))


class VGG16(_VGG):
    """VGG-16 (Simonyan and Zisserman, 2015, column D) with batch normalisation.

    ``stem=cifar`` is the common variant for 32 px (pytorch-cifar): 13 convolutions with bias and one linear layer in
    place of three, 14,728,266 parameters at 10 classes. ``stem=imagenet`` is torchvision's ``vgg16_bn``, with three
    linear layers, dropout and torchvision's initial weights (138,365,992 at 1,000 classes). ``auto`` takes the former
    for images under 64 px on their shorter side. ``width`` other than 64 is for these: UserError with larger ones.
    ``pretrained`` and ``weights`` as in ``resnet18``.
    """

    name: ClassVar[str] = "vgg16"
    depth: ClassVar[int] = 16
    counts: ClassVar[tuple[int, ...]] = (2, 2, 3, 3, 3)


class VGG19(_VGG):
    """VGG-19 (Simonyan and Zisserman, 2015, column E) with batch normalisation.

    ``stem=cifar``: 16 convolutions and one linear layer, 20,040,522 parameters at 10 classes. ``stem=imagenet``:
    torchvision's ``vgg19_bn``, 143,678,248 at 1,000 classes. Otherwise as ``vgg16``.
    """

    name: ClassVar[str] = "vgg19"
    depth: ClassVar[int] = 19
    counts: ClassVar[tuple[int, ...]] = (2, 2, 4, 4, 4)
