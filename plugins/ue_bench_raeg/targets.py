"""The classifiers that protected images must mislead, and the features of the perceptual loss."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ue_bench.api import EnvironmentProblem, UserError, first_line

IMAGENET = "https://download.pytorch.org/models/vgg16-397923af.pth"  # torchvision's VGG-16
POOLINGS = 2  # RAEG takes features after the second


class Ensemble:
    """Frozen classifiers of pixels in [0, 1], and their joint prediction.

    ``joint=losses`` averages cross-entropies, ``joint=logits`` takes that of the mean logits; the paper does not say.
    """

    def __init__(self, networks: Sequence[nn.Module], joint: Literal["losses", "logits"] = "losses") -> None:
        self.networks, self.joint = networks, joint

    def logits(self, x: Tensor) -> Tensor:
        """Return K x N x classes logits: of K networks under ``losses``, one under ``logits``."""
        logits = torch.stack([network(x).float() for network in self.networks])
        return logits.mean(0, keepdim=True) if self.joint == "logits" else logits

    def accuracies(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the share of right answers of each network by itself."""
        shares: Tensor = torch.stack([(network(x).argmax(1) == y).float().mean() for network in self.networks])
        return shares


def success(logits: Tensor, y: Tensor) -> Tensor:
    """Return the cross-entropy of K x N x classes logits, K x N."""
    return F.cross_entropy(logits.flatten(0, 1), y.repeat(len(logits)), reduction="none").reshape(logits.shape[:2])


def failure(logits: Tensor, y: Tensor, form: Literal["cap", "log"], cap: float) -> Tensor:
    """Return how wrong classifiers are on each image, K x N, bounded above so that one image cannot pay for all.

    ``cap`` is the cross-entropy up to ``cap``, without gradient beyond; ``log`` is log(1 - p) of the true class.
    """
    if form == "cap":
        return success(logits, y).clamp(max=cap)
    right = F.one_hot(y, logits.shape[-1]).bool()
    return logits.masked_fill(right, -torch.inf).logsumexp(-1) - logits.logsumexp(-1)


class Pooled:
    """Features of a network after its second max-pooling."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        pools = [m for m in network.modules() if isinstance(m, nn.MaxPool2d)]
        if len(pools) < POOLINGS:
            raise UserError(f"a network with {len(pools)} max-poolings has no perceptual features", "use vgg16")
        self.pool = pools[POOLINGS - 1]

    def __call__(self, x: Tensor) -> Tensor:
        pooled: list[Tensor] = []
        handle = self.pool.register_forward_hook(lambda module, args, out: pooled.append(out))
        try:
            self.network(x)
        finally:
            handle.remove()
        return pooled[0]


class ImageNetFeatures(nn.Module):
    """torchvision's VGG-16 up to its second max-pooling, for pixels in [0, 1]: N x 128 x H/4 x W/4."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        with torch.random.fork_rng(devices=[]):
            for inputs, outputs in ((3, 64), (64, 128)):
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
                layers += [nn.Conv2d(outputs, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*layers)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406])[:, None, None], persistent=False)
        self.register_buffer("deviation", torch.tensor([0.229, 0.224, 0.225])[:, None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        mean, deviation = self.get_buffer("mean"), self.get_buffer("deviation")
        features: Tensor = self.features((x - mean) / deviation)
        return features


def imagenet_features() -> ImageNetFeatures:
    """Load features with ImageNet weights, frozen; fetched if need be. Raises EnvironmentProblem when that fails."""
    network = ImageNetFeatures()
    try:
        weights = torch.hub.load_state_dict_from_url(IMAGENET, map_location="cpu", progress=False)
        network.load_state_dict({name: weights[name] for name in network.state_dict()})
    except (OSError, RuntimeError, EOFError, LookupError, UnpicklingError) as error:
        place = Path(torch.hub.get_dir()) / "checkpoints" / IMAGENET.rpartition("/")[2]
        raise EnvironmentProblem(
            f"ImageNet weights of VGG-16 cannot be had: {first_line(error)}",
            f"put them at {place}, or use perceptual=own or perceptual=off",
        ) from error
    return network.eval().requires_grad_(False)


def checksum(network: nn.Module) -> str:
    """Return the SHA-256 (first 16 digits) of the weights."""
    digest = hashlib.sha256()
    for value in network.state_dict().values():
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
