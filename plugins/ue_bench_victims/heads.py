"""Networks cut before their classifier, and what is put in its place or before their first layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as torchvision's weights expect them


class Normalised(nn.Module):
    """A network for pixels in [0, 1] that sees them with mean and deviation of ImageNet taken out."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        # Not of the weights: they are the same for all.
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.network((x - self.mean) / self.std)
        return out


def classifier_of(network: nn.Module) -> tuple[str, nn.Linear]:
    """Return the name and module of the last linear layer."""
    return [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Linear)][-1]


def without_classifier(network: nn.Module) -> tuple[nn.Module, int]:
    """Take the last linear layer out of ``network``; return it with the width of the features it then gives."""
    name, linear = classifier_of(network)
    parent, _, attribute = name.rpartition(".")
    setattr(network.get_submodule(parent), attribute, nn.Identity())
    return network, linear.in_features


class Probe(nn.Module):
    """A linear layer on frozen features, which stay in evaluation mode whatever the mode of the whole.

    The features are normalised without learnt scales, so that one rate suits features of any size. Gradients pass
    through to the images, for procedures that attack the network.
    """

    def __init__(self, features: nn.Module, width: int, num_classes: int) -> None:
        super().__init__()
        self.features = features.requires_grad_(False).eval()
        self.normalise = nn.BatchNorm1d(width, affine=False)
        self.linear = nn.Linear(width, num_classes)

    def train(self, mode: bool = True) -> Probe:
        super().train(mode)
        self.features.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(self.normalise(self.features(x)))
        return out
