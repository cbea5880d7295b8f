"""The network of D-VAE: a variational auto-encoder, and a second decoder for what the labels tell of an image."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F


class Parts(NamedTuple):
    """What the network makes of N images: reconstructions in (0, 1), perturbations, and the latent Gaussians."""

    reconstruction: Tensor  # N x 3 x H x W
    perturbation: Tensor  # N x 3 x H x W
    mean: Tensor  # N x latent x H/2 x W/2
    log_variance: Tensor

    def rate(self) -> Tensor:
        """Return the divergence of the latent Gaussians from the standard one, in nats a position."""
        nats: Tensor = 0.5 * (self.mean**2 + self.log_variance.exp() - 1 - self.log_variance).sum(1).mean()
        return nats


class Residual(nn.Module):
    """Two 3x3 convolutions with batch normalisation, the first with ``stride``, and a way round them."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.around: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.around = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.around(x))


def decoder(width: int) -> nn.Sequential:
    """Build a network from N x 2 ``width`` x H/2 x W/2 to N x 3 x H x W."""
    half = max(1, width // 2)
    return nn.Sequential(
        nn.ConvTranspose2d(2 * width, width, 4, 2, 1),
        nn.ConvTranspose2d(width, width, 3, 1, 1),
        nn.InstanceNorm2d(width),
        nn.ReLU(inplace=True),
        nn.ConvTranspose2d(width, half, 3, 1, 1),
        nn.InstanceNorm2d(half),
        nn.ReLU(inplace=True),
        nn.ConvTranspose2d(half, 3, 3, 1, 1),
    )


class Disentangler(nn.Module):
    """Images N x 3 x H x W in [0, 1] with labels to ``Parts``.

    The encoder is a ResNet-18 up to the first block of its second stage, ``width`` channels and then twice as many at
    half the resolution; odd sides are halved upwards. One decoder makes the reconstruction from a sample of the latent
    Gaussians, another the perturbation from the same sample plus the spatial embedding of the image's class.
    """

    def __init__(self, classes: int, size: tuple[int, int], width: int, latent: int) -> None:
        super().__init__()
        self.small = -(-size[0] // 2), -(-size[1] // 2)
        self.latent = latent
        self.encoder = nn.Sequential(
            nn.Conv2d(3, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            Residual(width, width),
            Residual(width, width),
            Residual(width, 2 * width, 2),
        )
        self.mean = nn.Conv2d(2 * width, latent, 1)
        self.log_variance = nn.Conv2d(2 * width, latent, 1)
        self.widen = nn.Conv2d(latent, 2 * width, 1)
        self.reconstruct = decoder(width)
        self.perturb = decoder(width)
        self.embedding = nn.Embedding(classes, 2 * width * self.small[0] * self.small[1])

    def forward(self, x: Tensor, labels: Tensor, noise: Tensor) -> Parts:
        """Return the parts of images; ``noise`` is standard Gaussian, N x latent x H/2 x W/2."""
        seen = self.encoder(x)
        mean, log_variance = self.mean(seen), self.log_variance(seen)
        sample = self.widen(mean + (log_variance / 2).exp() * noise)
        embedded = self.embedding(labels).view(-1, sample.shape[1], *self.small)
        height, width = x.shape[2:]
        reconstruction = self.reconstruct(sample)[:, :, :height, :width].sigmoid()
        perturbation = self.perturb(sample + embedded)[:, :, :height, :width]
        return Parts(reconstruction, perturbation, mean, log_variance)


def loss(parts: Parts, x: Tensor, weight: float, rate: float, largest: float | None) -> Tensor:
    """Return what training lowers, a scalar, for images ``x`` N x 3 x H x W in [0, 1].

    Mean squared errors of the reconstruction without and with the perturbation, and ``weight`` times what the latents
    tell of an image, of which ``rate`` nats a position are free. The mean square of the perturbation counts too above
    ``largest``, unless that is None.
    """
    both = (parts.reconstruction + parts.perturbation).clamp(0, 1)
    total = F.mse_loss(parts.reconstruction, x) + F.mse_loss(both, x) + weight * parts.rate().clamp(min=rate)
    if largest is not None:
        total = total + parts.perturbation.square().mean().clamp(min=largest)
    return total
