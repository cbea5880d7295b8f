"""The feature network of the concentration loss: a ResNet-18 up to its last convolution."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ue_bench.api import DivergenceCheck, EnvironmentProblem, first_line

from .training import Covers

BATCH = 128
CHECK_EVERY = 100  # steps


def last_convolution(network: nn.Module) -> nn.Sequential:
    """Return a torchvision ResNet without pooling and classifier: N x 3 x H x W to N x 512 x H/32 x W/32."""
    return nn.Sequential(*list(network.children())[:-2])


def _models() -> Any:
    """Import torchvision's models. Raises EnvironmentProblem when torchvision does not work."""
    try:
        from torchvision import models
    except Exception as error:  # one built for another torch fails with RuntimeError, AttributeError or OSError
        reason = first_line(error)
        raise EnvironmentProblem(
            f"training a hiding network needs torchvision, which cannot be imported: {reason}",
            "install the torchvision that belongs to this torch; 'ue-bench doctor' shows both",
        ) from error
    return models


def resnet18(num_classes: int) -> nn.Module:
    """Build torchvision's ResNet-18, freshly initialised. Raises EnvironmentProblem when torchvision does not work."""
    network: nn.Module = _models().resnet18(num_classes=num_classes)
    return network


def imagenet_file() -> Path:
    """Return where torchvision keeps, or will keep, its ImageNet weights of a ResNet-18."""
    url: str = _models().ResNet18_Weights.IMAGENET1K_V1.url
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]


def imagenet_extractor() -> nn.Module:
    """Return a frozen, eval-mode extractor with torchvision's ImageNet weights, fetched when they are not there.

    Raises EnvironmentProblem when they cannot be fetched or read.
    """
    models = _models()
    try:
        network = models.resnet18(weights=models.ResNet18_Weights.IMAGENET1K_V1)
    except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
        raise EnvironmentProblem(
            f"ImageNet weights of ResNet-18 cannot be had: {first_line(error)}",
            f"put them at {imagenet_file()}, or use --extractor own",
        ) from error
    return last_convolution(network).eval().requires_grad_(False)


def train_extractor(
    covers: Covers,
    num_classes: int,
    epochs: int,
    seed: int = 0,
    amp: bool = False,
    device: str = "cpu",
    on_step: Callable[[int, int, float], None] | None = None,
) -> nn.Module:
    """Train a ResNet-18 on ``covers`` (no pretrained weights at hand); return the frozen, eval-mode extractor.

    Adam at 1e-3 with a cosine to zero, batch 128, cross-entropy; ``amp`` is bfloat16 autocast. ``on_step`` receives
    the number of steps done, their total and the loss. Deviation: the paper uses a pre-trained ResNet-18 and does not
    say which.

    Raises EnvironmentProblem when torchvision does not work, Diverged when a loss or a weight is not finite.
    """
    with torch.random.fork_rng(devices=[]):  # torchvision initialises from the global generator
        torch.manual_seed(seed)
        network = resnet18(num_classes)
    network.to(device)
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    steps = epochs * max(1, len(covers.images) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    rng = np.random.default_rng([seed, 2])
    network.train()
    divergence = DivergenceCheck(steps, "the feature extractor")
    for step in range(steps):
        x, y, _ = covers.draw(BATCH, rng)
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=amp):
            loss = F.cross_entropy(network(x.to(device)).float(), y.to(device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        divergence.add(loss)
        if (step + 1) % CHECK_EVERY == 0 or step + 1 == steps:
            divergence.check(step + 1, network)
        if on_step:
            on_step(step + 1, steps, float(loss.detach()))
    return last_convolution(network).eval().requires_grad_(False)


def untrained_extractor() -> nn.Module:
    """Return the extractor's architecture, frozen and in eval mode, to load trained weights into."""
    with torch.random.fork_rng(devices=[]):
        return last_convolution(resnet18(1)).eval().requires_grad_(False)


def checksum(network: nn.Module) -> str:
    """Return the SHA-256 (first 16 digits) of the weights, so that a hider can say which extractor shaped it."""
    digest = hashlib.sha256()
    for value in network.state_dict().values():
        digest.update(value.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
