"""The feature network of the concentration loss: a ResNet-18 up to its last convolution."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from .training import Covers


def last_convolution(network: nn.Module) -> nn.Sequential:
    """A torchvision ResNet without average pooling and classifier: N x 3 x H x W to N x 512 x H/32 x W/32."""
    return nn.Sequential(*list(network.children())[:-2])


def train_extractor(covers: Covers, num_classes: int, epochs: int, seed: int = 0, amp: bool = False) -> nn.Module:
    """A frozen, eval-mode extractor from a ResNet-18 trained on ``covers`` (no pretrained weights at hand).

    Adam at 1e-3 with a cosine to zero, batch 128, cross-entropy. Deviation: the paper uses a pre-trained ResNet-18
    and does not say which.
    """
    from torchvision.models import resnet18

    with torch.random.fork_rng(devices=[]):  # torchvision initialises from the global generator
        torch.manual_seed(seed)
        network = resnet18(num_classes=num_classes)
    optimiser = torch.optim.Adam(network.parameters(), 1e-3)
    steps = epochs * max(1, len(covers.images) // 128)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    rng = np.random.default_rng([seed, 2])
    network.train()
    for _ in range(steps):
        x, y, _ = covers.draw(128, rng)
        with torch.autocast("cpu", torch.bfloat16, enabled=amp):
            loss = F.cross_entropy(network(x).float(), y)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
    return last_convolution(network).eval().requires_grad_(False)


def checksum(network: nn.Module) -> str:
    """SHA-256 (first 16 digits) of the weights, so that a hider can say which extractor shaped it."""
    digest = hashlib.sha256()
    for value in network.state_dict().values():
        digest.update(value.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
