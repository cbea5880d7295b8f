"""What recovery misses, kept beside protected images so that they can be restored bit by bit.

A sidecar is small because recovery misses little: differences, nearly all of them zero, and for sides that are no
multiples of 8 the part of the protected image beyond them. It restores files whose pixels nobody has changed.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

from ue_bench.api import ValidationError

from .apply import Pixels, protect_padded, recover_padded
from .generator import TwoWay, padded
from .packing import inflated

HEAD = struct.Struct("<4sHHII")  # magic, height, width, CRC-32 of the original, length of the differences
MAGIC = b"RSC1"
LEVEL = 9  # of zlib


def make(network: TwoWay, clean: Pixels, protected: Pixels) -> list[bytes]:
    """Make a sidecar for each of ``protected`` images, N x H x W x 3, that ``network`` made of ``clean`` ones."""
    height, width = clean.shape[1:3]
    whole = protected
    if (padded(height), padded(width)) != (height, width):
        whole = protect_padded(network, clean)
        whole[:, :height, :width] = protected
    missing = clean - recover_padded(network, whole)[:, :height, :width]  # modulo 256
    sidecars = []
    for original, full, difference in zip(clean, whole, missing, strict=True):
        differences = zlib.compress(difference.tobytes(), LEVEL)
        # What lies at the right of the image, then what lies below.
        edge = zlib.compress(full[:height, width:].tobytes() + full[height:].tobytes(), LEVEL)
        head = HEAD.pack(MAGIC, height, width, zlib.crc32(original.tobytes()), len(differences))
        sidecars.append(head + differences + edge)
    return sidecars


def restore(network: TwoWay, protected: Pixels, sidecars: list[bytes], batch: int) -> Pixels:
    """Restore the originals of ``protected`` images, N x H x W x 3, exactly; ``batch`` of them at a time.

    Raises ValidationError when there is not one sidecar an image, one is of another size, or pixels were changed.
    """
    if len(sidecars) != len(protected):
        raise ValidationError(f"{len(sidecars)} sidecars for {len(protected)} images", "every image needs its own")
    images = np.empty_like(protected)
    for start in range(0, len(protected), batch):
        where = slice(start, start + batch)
        whole, missing, sums = _read(protected[where], sidecars[where], start)
        originals = recover_padded(network, whole)[:, : protected.shape[1], : protected.shape[2]] + missing
        for index, (image, crc) in enumerate(zip(originals, sums, strict=True), start):
            if zlib.crc32(image.tobytes()) != crc:
                raise ValidationError(
                    f"image {index} does not fit its sidecar: a pixel was changed, or the generator is another",
                    "recover without sidecars",
                )
        images[where] = originals
    return images


def _read(protected: Pixels, sidecars: list[bytes], first: int) -> tuple[Pixels, Pixels, list[int]]:
    """Read whole protected images, what recovery misses, and checksums; ``first`` numbers the first sidecar."""
    height, width = protected.shape[1:3]
    whole = np.empty((len(protected), padded(height), padded(width), 3), np.uint8)
    whole[:, :height, :width] = protected
    missing, sums = np.empty_like(protected), []
    for index, sidecar in enumerate(sidecars):
        try:
            magic, high, wide, crc, length = HEAD.unpack_from(sidecar)
            if (magic, high, wide) != (MAGIC, height, width):
                raise ValueError("of something else")
            differences, edge = sidecar[HEAD.size : HEAD.size + length], sidecar[HEAD.size + length :]
            missing[index] = np.frombuffer(inflated(differences, missing[index].size), np.uint8).reshape(
                height, width, 3
            )
            outside = np.frombuffer(inflated(edge, whole[index].size - missing[index].size), np.uint8)
            right, below = np.split(outside, [height * (padded(width) - width) * 3])
            whole[index, :height, width:] = right.reshape(height, padded(width) - width, 3)
            whole[index, height:] = below.reshape(padded(height) - height, padded(width), 3)
        except (struct.error, zlib.error, ValueError) as error:
            raise ValidationError(
                f"sidecar {first + index} is not one of an image of {height} x {width}", "check its file"
            ) from error
        sums.append(crc)
    return whole, missing, sums
