"""Victims without convolutions, which see pixels and nothing of where they lie."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from ue_bench.api import Victim

if TYPE_CHECKING:
    from torch import nn


class Linear(Victim):
    """One linear layer on all pixels: multinomial logistic regression, 30,730 parameters at 32 px and 10 classes.

    Trained at a peak rate of 0.003 whatever the protocol has: at the 0.1 of networks with batch normalisation it leaps
    about, because no layer scales the inputs. On 10,000 images of CIFAR-10 without shift, at constant rates for 8
    epochs (n=1): 22.2 % at 0.1, 28.7 % at 0.01, 33.9 % at 0.003.
    """

    name: ClassVar[str] = "linear"

    def build(self, num_classes: int, image_size: tuple[int, int]) -> nn.Module:
        from torch import nn

        height, width = image_size
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * height * width, num_classes))

    def optimizer(self) -> dict[str, Any]:
        return {"learning_rate": 0.003}


class MLP(Victim):
    """Fully connected layers with ReLU, without normalisation.

    As it stands, the FNN-ReLU of NTGA (Yuan and Wu, 2021): four hidden layers of 512, 2,366,474 parameters at 32 px and
    10 classes. Trained by Adam at a peak rate of 0.001 without weight decay (its released code), whatever the protocol
    has: SGD at 0.1 serves it only where pixels are shifted around zero. On 10,000 images of CIFAR-10, at constant rates
    for 8 epochs (n=1): 23.4 % by SGD and 36.1 % by Adam without the shift.
    """

    name: ClassVar[str] = "mlp"
    paper: ClassVar[str] = "Yuan and Wu, Neural Tangent Generalization Attacks, ICML 2021"

    width: int = Field(512, ge=1, le=16_384, description="units of a hidden layer")
    depth: int = Field(4, ge=1, le=64, description="hidden layers")

    def build(self, num_classes: int, image_size: tuple[int, int]) -> nn.Module:
        from torch import nn

        height, width = image_size
        layers: list[nn.Module] = [nn.Flatten()]
        inputs = 3 * height * width
        for _ in range(self.depth):
            layers += [nn.Linear(inputs, self.width), nn.ReLU(inplace=True)]
            inputs = self.width
        return nn.Sequential(*layers, nn.Linear(inputs, num_classes))

    def optimizer(self) -> dict[str, Any]:
        return {"optimizer": "adam", "learning_rate": 1e-3, "weight_decay": 0.0}
