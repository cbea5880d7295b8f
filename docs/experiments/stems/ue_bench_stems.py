"""A victim for docs/agreement.md: resnet9 that begins at full resolution."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from ue_bench.api import Register, Victim, hookimpl

if TYPE_CHECKING:
    from torch import nn


@hookimpl
def ue_bench_register(register: Register) -> None:
    register("victim", "fullnet", "ue_bench_stems:FullNet", "resnet9 that begins at full resolution")


class FullNet(Victim):
    """A 3x3 convolution at full resolution and 2x2 average pooling in the place of the first layer of ``resnet9``."""

    name: ClassVar[str] = "fullnet"
    width: int = Field(32, ge=4, le=512, description="channels of the first layer")

    def build(self, num_classes: int, image_size: tuple[int, int]) -> nn.Module:
        from torch import nn

        from ue_bench_victims.layers import conv_bn, resnet9

        rest = list(resnet9(num_classes, self.width, 1))[1:]
        return nn.Sequential(conv_bn(3, self.width), nn.AvgPool2d(2), *rest)
