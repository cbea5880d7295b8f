"""The hiding network run backward: what an image hides, and which of some logos that is.

Images are uint8, N x H x W x 3, unless told otherwise. The paper shows extraction in one figure and measures nothing;
the measurements here are ours.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ue_bench.api import ssim

from .hinet import to_pixels, to_unit
from .networks import Hider

Pixels = NDArray[np.uint8]
BATCH = 64
MARGIN = 8  # the cropping attack blackens this part of the height and width on each side: one eighth


def hidden_in(network: Hider, stego: Tensor) -> Tensor:
    """Return what ``stego`` (N x 3 x H x W in [0, 1], any size) hides, same shape, in [0, 1].

    The residual that hiding discarded is taken as zero: as good as a random one, and repeatable. The cover that comes
    out with it is not the clean image, so it is not offered.
    """
    height, width = stego.shape[-2:]
    mirrored = torch.nn.functional.pad(stego, (0, width % 2, 0, height % 2), mode="reflect")
    with torch.inference_mode():
        return network.reveal(mirrored)[..., :height, :width].clamp(0, 1)


def revealed(network: Hider, images: Pixels, device: str = "cpu") -> Pixels:
    """Return what every one of ``images`` hides, rounded to 8 bits."""
    out = np.empty_like(images)
    for first in range(0, len(images), BATCH):
        part = slice(first, first + BATCH)
        out[part] = to_pixels(hidden_in(network, to_unit(images[part], device)))
    return out


def similarity(images: Pixels, logos: Pixels) -> NDArray[np.float64]:
    """Return the normalised cross-correlation of every image with every logo of the same size, N x K in [-1, 1].

    Over all pixels of the three channels, about the mean of each channel. An even surface scores 0 with everything.
    """
    return _normalised(images) @ _normalised(logos).T


def _normalised(images: Pixels) -> NDArray[np.float64]:
    centred = images - images.mean(axis=(1, 2), keepdims=True, dtype=np.float64)
    flat = centred.reshape(len(images), -1)
    unit: NDArray[np.float64] = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-9)
    return unit


@dataclass(frozen=True)
class Extraction:
    """How well logos come out of marked images that went through ``channel``: means over the images."""

    channel: str
    images: int
    psnr: float  # dB, of what was revealed against the logo
    ssim: float
    identified: float  # fraction whose most similar logo is the right one


def extraction(
    network: Hider,
    covers: Pixels,
    logos: Pixels,
    device: str = "cpu",
    report: Callable[[float, float, str], None] = lambda *_: None,
) -> list[Extraction]:
    """Hide the logos in turn in ``covers`` (of the same, even size), and extract them through every channel.

    Channels: ``float`` keeps the network's output as it is, the others store it in 8 bits: as they are, as JPEG of
    quality 90 and 50 (Pillow, its default subsampling), blurred (Gaussian, radius 1), and with an eighth of the
    height and width blackened on each side.
    """
    names = ["float", *CHANNELS]
    sums = {name: np.zeros(3) for name in names}
    for first in range(0, len(covers), BATCH):
        part = slice(first, min(first + BATCH, len(covers)))
        chosen = np.arange(part.start, part.stop) % len(logos)
        with torch.inference_mode():
            stego = network.hide(to_unit(covers[part], device), to_unit(logos[chosen], device))
        stored = to_pixels(stego)
        for name in names:
            if name == "float":
                extracted = to_pixels(hidden_in(network, stego))
            else:
                received = np.stack([CHANNELS[name](image) for image in stored])
                extracted = revealed(network, received, device)
            errors = np.square(extracted / 255 - logos[chosen] / 255).mean(axis=(1, 2, 3))
            psnr = -10 * np.log10(np.maximum(errors, 1e-12))
            right = similarity(extracted, logos).argmax(axis=1) == chosen
            sums[name] += psnr.sum(), ssim(extracted, logos[chosen]).sum(), right.sum()
        report(part.stop, len(covers), "extract logos")
    return [Extraction(name, len(covers), *map(float, sums[name] / len(covers))) for name in names]


def _jpeg(quality: int) -> Callable[[Pixels], Pixels]:
    def compressed(image: Pixels) -> Pixels:
        from PIL import Image

        with io.BytesIO() as stream:
            Image.fromarray(image).save(stream, "JPEG", quality=quality)
            return np.asarray(Image.open(stream))

    return compressed


def _blurred(image: Pixels) -> Pixels:
    from PIL import Image, ImageFilter

    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(1)))


def _cropped(image: Pixels) -> Pixels:
    rows, columns = image.shape[0] // MARGIN, image.shape[1] // MARGIN
    kept = np.zeros_like(image)
    inside = (slice(rows, image.shape[0] - rows), slice(columns, image.shape[1] - columns))
    kept[inside] = image[inside]
    return kept


CHANNELS: dict[str, Callable[[Pixels], Pixels]] = {
    "8 bits": lambda image: image,
    "jpeg 90": _jpeg(90),
    "jpeg 50": _jpeg(50),
    "blur": _blurred,
    "crop": _cropped,
}
