"""The discriminator: which patches of an image were generated. RAEG does not give its architecture; this is ours."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

SMALLEST = 16  # sides below have no output left


def build(width: int = 64, seed: int = 0) -> nn.Sequential:
    """Build a PatchGAN of four halvings with spectral norm, 8 ``width`` channels at last: N x 3 x H x W to logits.

    One logit for each field of 16 x 16 pixels. Positive says generated, which is the only reading under which both
    adversarial losses of the paper, equations 6 and 7, go down where they should.
    """
    layers: list[nn.Module] = []
    with torch.random.fork_rng(devices=[]):  # constructors of layers draw from the global generator
        torch.manual_seed(seed)
        inputs = 3
        for level in range(4):
            outputs = width * 2**level
            convolution = nn.Conv2d(inputs, outputs, 4, stride=2, padding=1)
            layers += [parametrizations.spectral_norm(convolution), nn.LeakyReLU(0.2)]
            inputs = outputs
        layers.append(parametrizations.spectral_norm(nn.Conv2d(inputs, 1, 3, padding=1)))
    return nn.Sequential(*layers)


def judgement(logits: Tensor, generated: bool, form: Literal["bce", "lsgan"]) -> Tensor:
    """Return the loss of images with these logits being ``generated`` or real; a mean.

    The discriminator minimises it for what images are, the generator for the opposite of its own.
    """
    wanted = torch.full_like(logits, float(generated))
    if form == "lsgan":
        return F.mse_loss(logits, wanted)
    return F.binary_cross_entropy_with_logits(logits, wanted)
