"""Residual networks.

Torch is imported inside ``build``: listing victims must not load it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from ue_bench.api import Victim

from .pretrained import Pretrained
from .stem import Stemmed, check_side

if TYPE_CHECKING:
    from torch import nn

PAPER = "He et al., Deep Residual Learning for Image Recognition, CVPR 2016"


class _ResNet(Pretrained):
    """A residual network of the ImageNet family: four stages of ``width``, 2x, 4x and 8x as many channels."""

    paper: ClassVar[str] = PAPER
    breadth: ClassVar[str] = "width"
    depth: ClassVar[int]

    width: int = Field(64, ge=4, le=512, description="channels of the first stage; 2x, 4x and 8x further on")

    def network(self, num_classes: int, small: bool) -> nn.Module:
        from .layers import resnet

        return resnet(self.depth, num_classes, small_stem=small, width=self.width)


class ResNet18(_ResNet):
    """ResNet-18 (He et al., 2016), the victim of nearly every table of the field.

    ``stem=cifar`` is the 3x3 stride-1 first convolution without pooling that 32-px work uses (11.17 M parameters at
    10 classes); ``stem=imagenet`` the 7x7 stride-2 convolution with max-pooling. ``auto`` takes the CIFAR stem for
    images under 64 px on their shorter side. Weights start as PyTorch starts its layers, like the released codes of
    the field, not as torchvision does. ``width`` is 64 in the paper; ``width=16`` is for CPUs.

    ``pretrained`` fine-tunes torchvision's ImageNet weights, and ``weights`` those of a file: all layers are trained,
    at a peak rate of 0.01 (own choice, a tenth of the field's), on pixels normalised as torchvision's are; the
    classifier starts fresh. Images are not enlarged: at 32 px the ImageNet stem leaves one place of the last feature
    map. The checksum of the weights is in the key. Raises EnvironmentProblem when they cannot be downloaded, UserError
    when a file does not fit.
    """

    name: ClassVar[str] = "resnet18"
    depth: ClassVar[int] = 18


class ResNet34(_ResNet):
    """ResNet-34 (He et al., 2016): stages of 3, 4, 6 and 3 blocks of two 3x3 convolutions.

    21,282,122 parameters at 10 classes with the CIFAR stem, as in the common CIFAR re-implementations (pytorch-cifar);
    21,797,672 at 1,000 classes with the ImageNet stem, as in torchvision. Stems, initial weights and fine-tuning as in
    ``resnet18``.
    """

    name: ClassVar[str] = "resnet34"
    depth: ClassVar[int] = 34


class ResNet50(_ResNet):
    """ResNet-50 (He et al., 2016): stages of 3, 4, 6 and 3 bottlenecks.

    23,520,842 parameters at 10 classes with the CIFAR stem, as in the common CIFAR re-implementations (pytorch-cifar);
    25,557,032 at 1,000 classes with the ImageNet stem, as in torchvision. Deviation from the paper, shared with both:
    a bottleneck halves the resolution in its 3x3 convolution, not in its first. Stems, initial weights and
    fine-tuning as in ``resnet18``.
    """

    name: ClassVar[str] = "resnet50"
    depth: ClassVar[int] = 50


class ResNet101(_ResNet):
    """ResNet-101 (He et al., 2016): stages of 3, 4, 23 and 3 bottlenecks.

    42,512,970 parameters at 10 classes with the CIFAR stem, as in the common CIFAR re-implementations (pytorch-cifar);
    44,549,160 at 1,000 classes with the ImageNet stem, as in torchvision. Otherwise as ``resnet50``.
    """

    name: ClassVar[str] = "resnet101"
    depth: ClassVar[int] = 101


class ResNet10(Stemmed):
    """A narrow ResNet of one basic block a stage, at full resolution like ``resnet18``, for CPUs.

    The family of He et al. (2016), who print no depth of 10: four stages of one block each, of ``width`` channels in
    the first and twice as many in every further one; 308,826 parameters at 10 classes and width 16 with the CIFAR stem.
    Stems and initial weights as in ``resnet18``. A training step costs 1.7 times that of ``resnet9[blocks=1]``.
    """

    name: ClassVar[str] = "resnet10"
    paper: ClassVar[str] = PAPER

    width: int = Field(16, ge=4, le=512, description="channels of the first stage")

    def build(self, num_classes: int, image_size: tuple[int, int]) -> nn.Module:
        from .layers import resnet

        return resnet(10, num_classes, small_stem=self.small(image_size), width=self.width)


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

        check_side(self, image_size, 8)
        return resnet9(num_classes, self.width, self.blocks)
