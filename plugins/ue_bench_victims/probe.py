"""A linear layer on features that the protected images had no part in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from ue_bench.api import InputPath, Victim

from .pretrained import Pretrained, checksum

if TYPE_CHECKING:
    from torch import nn

# Of the linear layer. Its inputs are normalised; decay would only pull at a layer that has too few weights already.
PROBE = {"learning_rate": 0.1, "weight_decay": 0.0, "shift": 0.0}

Network = Literal["resnet18", "resnet34", "resnet50", "resnet101", "vgg16", "vgg19", "densenet121", "mobilenetv2"]


def backbone(name: str) -> type[Victim]:
    """Return the class of a victim of this distribution that has a linear layer at its end."""
    from . import densenet, mobilenet, resnet, vgg

    classes: list[type[Victim]] = [
        *(resnet.ResNet9, resnet.ResNet18, resnet.ResNet34, resnet.ResNet50, resnet.ResNet101),
        *(vgg.VGG16, vgg.VGG19, densenet.DenseNet121, mobilenet.MobileNetV2),
    ]
    return {victim.name: victim for victim in classes}[name]


class LinearProbe(Victim):
    """A linear layer on the features of a frozen network that was trained on ImageNet.

    The adversary who trusts nothing but one layer to the protected images. Features are those before the classifier of
    ``network``, in evaluation mode, normalised over the batch without learnt scales; of the 11,181,642 parameters of
    the default at 10 classes 5,130 are trained, at a peak rate of 0.1 without decay (own choice) whatever the protocol
    has. Weights as for ``resnet18[pretrained=true]``: torchvision's, or ``weights`` from a file; images are not
    enlarged. ``features=random`` is the control: the network as it is initialised, with the stem for the size of the
    images (11,173,962 parameters at 32 px).

    Raises EnvironmentProblem when weights cannot be downloaded, UserError when a file does not fit.
    """

    name: ClassVar[str] = "linear-probe"
    paper: ClassVar[str] = "Alain and Bengio, Understanding intermediate layers using linear classifier probes, 2017"

    network: Network = Field("resnet18", description="victim whose classifier is taken away")
    features: Literal["imagenet", "random"] = Field("imagenet", description="weights of the frozen network")
    weights: InputPath | None = Field(None, description="a state dict of torchvision's network in place of its weights")

    @model_validator(mode="after")
    def _random_features_need_no_file(self) -> LinearProbe:
        if self.weights and self.features == "random":
            raise ValueError("random features take no weights")
        return self

    def identity(self) -> dict[str, Any]:
        identity = super().identity()
        if self.features == "imagenet" and self.weights is None:
            identity["parameters"]["weights"] = checksum(self.network)
        return identity

    def build(self, num_classes: int, image_size: tuple[int, int]) -> nn.Module:
        from .heads import Probe, without_classifier

        kind = backbone(self.network)
        assert issubclass(kind, Pretrained)
        victim = kind(pretrained=self.features == "imagenet" and self.weights is None, weights=self.weights)
        return Probe(*without_classifier(victim.build(num_classes, image_size)), num_classes)

    def optimizer(self) -> dict[str, Any]:
        return dict(PROBE)
