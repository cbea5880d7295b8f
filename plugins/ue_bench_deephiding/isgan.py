"""ISGAN, the other hiding network of Deep Hiding (Table H): a gray image in the luminance of a colour image.

Source: Zhang, Dong and Liu, Invisible steganography via generative adversarial networks, Multimedia Tools and
Applications, 2018. Written from the published description; no code of others is used. Layers and loss constants are
those commonly quoted for it.

Choices of ours, where the description is silent or we leave it:

* Images enter as ``2 x - 1`` and the final tanh leaves as ``(1 + tanh) / 2``, so luminance stays within [0, 1]. The
  convolutions before tanh and sigmoid start at zero: both outputs begin as an even mid-gray, where nothing saturates.
* Inside a module the branches have ReLU between their two convolutions and none before the sum with the shortcut.
* Kaiming's normal initialisation, biases at zero; convolutions before batch normalisation have no bias.
* The critic sees luminance, the only channel that changes, through the fixed high-pass filter of XuNet, mirrored at
  the borders. It halves its maps only while 4 pixels are left, which the finest level of its pyramid needs.

Luminance is N x 1 x H x W, colour N x 3 x H x W, both in [0, 1].
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

RED, BLUE = 0.299, 0.114  # BT.601
GREEN = 1 - RED - BLUE
SLOPE = 0.2  # of LeakyReLU

# The KV filter of Kodovsky and Fridrich, fixed in front of XuNet (Xu, Wu and Shi, 2016). Its sum is zero.
HIGH_PASS = torch.tensor(
    [[-1, 2, -2, 2, -1],
     [2, -6, 8, -6, 2],
     [-2, 8, -12, 8, -2],
     [2, -6, 8, -6, 2],
     [-1, 2, -2, 2, -1]]
) / 12  # fmt: skip

WINDOW, SIGMA = 11, 1.5  # pixels, Wang et al. (2004)
C1, C2 = 0.01**2, 0.03**2  # Wang et al. (2004), for values in [0, 1]
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang, Simoncelli and Bovik (2003), finest first
FLOOR = 1e-3  # of the means that MS-SSIM multiplies: a power of less has no usable gradient, of less than 0 no value


def luminance(rgb: Tensor) -> Tensor:
    """Return the luminance of N x 3 x H x W, N x 1 x H x W."""
    red, green, blue = rgb.chunk(3, dim=1)
    return RED * red + GREEN * green + BLUE * blue


def to_ycbcr(rgb: Tensor) -> Tensor:
    """Convert to full-range BT.601 as in JPEG, N x 3 x H x W both ways; Cb and Cr are 0.5 for gray."""
    red, _, blue = rgb.chunk(3, dim=1)
    y = luminance(rgb)
    return torch.cat([y, 0.5 + (blue - y) / (2 - 2 * BLUE), 0.5 + (red - y) / (2 - 2 * RED)], dim=1)


def to_rgb(ycbcr: Tensor) -> Tensor:
    """Undo :func:`to_ycbcr`, exact but for rounding: no published decimals in between. Not clamped."""
    y, cb, cr = ycbcr.chunk(3, dim=1)
    red, blue = y + (2 - 2 * RED) * (cr - 0.5), y + (2 - 2 * BLUE) * (cb - 0.5)
    return torch.cat([red, (y - RED * red - BLUE * blue) / GREEN, blue], dim=1)


def block(channels: int, out: int, kernel: int = 3) -> nn.Sequential:
    """Build convolution, batch normalisation and LeakyReLU; the size stays."""
    convolution = nn.Conv2d(channels, out, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out), nn.LeakyReLU(SLOPE))


class Inception(nn.Module):
    """Four branches of ``out / 4`` channels side by side, plus a 1x1 shortcut, then ReLU; the size stays."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        part = out // 4
        self.branches = nn.ModuleList(
            [
                nn.Conv2d(channels, part, 1),
                nn.Sequential(nn.Conv2d(channels, part, 1), nn.ReLU(), nn.Conv2d(part, part, 3, padding=1)),
                nn.Sequential(nn.Conv2d(channels, part, 1), nn.ReLU(), nn.Conv2d(part, part, 5, padding=2)),
                nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), nn.Conv2d(channels, part, 1)),
            ]
        )
        self.shortcut = nn.Conv2d(channels, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(torch.cat([branch(x) for branch in self.branches], dim=1) + self.shortcut(x))


class Encoder(nn.Module):
    """Luminance of the cover and the secret to luminance of the stego image, in the dtype of the cover."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        widths = [width // 2, *(width * factor for factor in (1, 2, 4, 8, 4, 2, 1))]
        modules = [Inception(*pair) for pair in pairwise(widths)]
        self.layers = nn.Sequential(
            block(2, width // 2), *modules, block(width, width // 2), nn.Conv2d(width // 2, 1, 1)
        )

    def forward(self, cover: Tensor, secret: Tensor) -> Tensor:
        x = self.layers(2 * torch.cat([cover, secret], dim=1) - 1)
        return (1 + torch.tanh(x.to(cover.dtype))) / 2


class Decoder(nn.Module):
    """Luminance of the stego image to the secret, in the same dtype."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        widths = [1, *(width * factor for factor in (1, 2, 4, 2, 1))]
        blocks = [block(*pair) for pair in pairwise(widths)]
        self.layers = nn.Sequential(*blocks, nn.Conv2d(width, 1, 1))

    def forward(self, stego: Tensor) -> Tensor:
        return torch.sigmoid(self.layers(2 * stego - 1).to(stego.dtype))


class Isgan(nn.Module):
    """Encoder and decoder of ISGAN: 595 730 parameters at width 32, the authors'.

    ``width``, a multiple of 4, scales all layers. Any height and width. While training, batch normalisation makes an
    image depend on its batch; in eval mode it does not.

    Raises ValueError for another width.
    """

    def __init__(self, width: int = 32, seed: int = 0) -> None:
        super().__init__()
        if width < 4 or width % 4:
            raise ValueError(f"the width of ISGAN is a multiple of 4, not {width}")
        with torch.random.fork_rng(devices=[]):  # constructors of layers draw from the global generator
            self.encoder = Encoder(width)
            self.decoder = Decoder(width)
        _reset(self, seed)
        for coder in (self.encoder, self.decoder):
            last = coder.layers[-1]
            assert isinstance(last, nn.Conv2d)
            nn.init.zeros_(last.weight)

    def hide(self, cover: Tensor, hidden: Tensor) -> Tensor:
        """Return stego images for covers and hidden images, both N x 3 x H x W in [0, 1]. Not clamped, not rounded.

        The hidden image is reduced to its luminance. Cb and Cr are those of the cover, so a colour can leave [0, 1].
        """
        y, cb, cr = to_ycbcr(cover).chunk(3, dim=1)
        return to_rgb(torch.cat([self.encoder(y, luminance(hidden)), cb, cr], dim=1))

    def reveal(self, stego: Tensor) -> Tensor:
        """Return hidden images seen in ``stego``, both N x 3 x H x W in [0, 1]; gray, three equal channels."""
        secret: Tensor = self.decoder(luminance(stego))
        return secret.expand(-1, 3, -1, -1)


class Critic(nn.Module):
    """XuNet-like steganalyser: luminance, N x 1 x H x W, to N logits of being a stego image.

    Five convolutions with batch normalisation and average pooling, a spatial pyramid of 1, 4 and 16 cells, two linear
    layers: 422 329 parameters. Made for 16 pixels and more.
    """

    high_pass: Tensor

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        shapes = [(1, 8, 3), (8, 16, 3), (16, 32, 1), (32, 64, 1), (64, 128, 3)]
        with torch.random.fork_rng(devices=[]):
            self.blocks = nn.ModuleList(block(*shape) for shape in shapes)
            self.head = nn.Sequential(nn.Linear(128 * 21, 128), nn.LeakyReLU(SLOPE), nn.Linear(128, 1))
        _reset(self, seed)
        self.register_buffer("high_pass", HIGH_PASS[None, None], persistent=False)

    def forward(self, y: Tensor) -> Tensor:
        # In bfloat16 what the filter removes would drown what it leaves.
        with torch.autocast(y.device.type, enabled=False):
            x = F.conv2d(F.pad(y, (2, 2, 2, 2), mode="reflect"), self.high_pass)
        for one in self.blocks:
            x = one(x)
            if min(x.shape[-2:]) >= 8:  # 4 after halving
                x = F.avg_pool2d(x, 5, stride=2, padding=2, count_include_pad=False)
        pyramid = torch.cat([F.adaptive_avg_pool2d(x, cells).flatten(1) for cells in (1, 2, 4)], dim=1)
        logits: Tensor = self.head(pyramid)
        return logits[:, 0]


def _reset(network: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            # Gain 1, not ReLU's: with two summands before each ReLU of a module, activations keep their mean square.
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear", generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Return the structural similarity of every pair, N values in [-1, 1]; differentiable.

    N x 1 x H x W in [0, 1], float32 or float64 and no autocast. Wang et al. (2004): Gaussian window of 11 pixels with
    sigma 1.5, borders where it does not fit left out. Smaller images use the largest odd window that fits.
    """
    light, structure = _terms(a, b)
    return (light * structure).mean((1, 2, 3))


def scales(height: int, width: int) -> int:
    """Return the number of scales of MS-SSIM that hold a whole window, at least 1; all 5 from 176 pixels, 2 at 32."""
    return max(1, sum(min(height, width) >> scale >= WINDOW for scale in range(len(SCALE_WEIGHTS))))


def ms_ssim(a: Tensor, b: Tensor) -> Tensor:
    """Return the multi-scale structural similarity of every pair, N values in (0, 1]; takes what :func:`ssim` takes.

    Wang, Simoncelli and Bovik (2003) over as many of the five scales as :func:`scales` says, the finest ones, with
    their weights brought to sum 1. With one scale it is SSIM. A factor under ``FLOOR`` counts as ``FLOOR``.
    """
    weights = SCALE_WEIGHTS[: scales(a.shape[-2], a.shape[-1])]
    similarity = torch.ones_like(a[:, 0, 0, 0])
    for scale, weight in enumerate(weights):
        if scale:
            a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
        light, structure = _terms(a, b)
        factor = structure if scale + 1 < len(weights) else light * structure
        similarity = similarity * factor.mean((1, 2, 3)).clamp(min=FLOOR) ** (weight / sum(weights))
    return similarity


def _terms(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return the luminance term, and contrast times structure, for every place of the window: N x 1 x h x w each."""
    size = min(WINDOW, (min(a.shape[-2:]) - 1) // 2 * 2 + 1)
    places = torch.arange(size, dtype=a.dtype, device=a.device) - size // 2
    window = torch.softmax(-places.square() / (2 * SIGMA**2), dim=0)
    moments = torch.cat([a, b, a * a, b * b, a * b])
    moments = F.conv2d(F.conv2d(moments, window.view(1, 1, -1, 1)), window.view(1, 1, 1, -1))
    ma, mb, maa, mbb, mab = moments.chunk(5)
    light = (2 * ma * mb + C1) / (ma * ma + mb * mb + C1)
    structure = (2 * (mab - ma * mb) + C2) / (maa - ma * ma + mbb - mb * mb + C2)
    return light, structure
