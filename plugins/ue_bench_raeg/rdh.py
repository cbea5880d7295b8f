"""Reversible data hiding in 8-bit images: what is hidden and the image itself both come out again, bit for bit.

Prediction-error expansion in layers. A layer is one colour of the checkerboard of one channel, without the border. A
pixel is predicted by the mean of its four neighbours, which are of the other colour and so the same for embedding and
extraction. With threshold T, errors e in [-T, T-1] become 2e + bit, others move by T. Where that could leave 0..255
the pixel is left alone. Extraction cannot always see which: a bit says so for every pixel that might have been left
alone as it looks now. These bits, the overflow map, are stored in the layer itself, in pixels that leave no doubt,
before its share of the message.

Which layers are used, and their thresholds, stand in the lowest bits of border pixels, whose old bits are hidden too.
Layers are undone in reverse order. Images are uint8, H x W x 3.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ue_bench.api import UserError

from .packing import inflated

Pixels = NDArray[np.uint8]
Plane = NDArray[np.int32]  # one channel, flat
Bits = NDArray[np.uint8]

THRESHOLDS = (1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64)
LAYERS = 6  # of a pass: three channels, two colours
MAX_PASSES = 4
HEAD = LAYERS * MAX_PASSES + 7 + 7 + 10  # layers in use, threshold, that of the last layer, checksum
MAP_LENGTH = 24  # bits that say how many bytes of map follow


class NoRoom(Exception):
    """The message does not fit."""


@lru_cache(maxsize=64)
def places(height: int, width: int, colour: int) -> NDArray[np.intp]:
    """Return flat positions of one colour of the checkerboard inside the border."""
    rows, columns = np.mgrid[1 : height - 1, 1 : width - 1]
    inside = (rows + columns) % 2 == colour
    positions: NDArray[np.intp] = rows[inside] * width + columns[inside]
    return positions


@lru_cache(maxsize=64)
def border(height: int, width: int, count: int = HEAD) -> NDArray[np.intp]:
    """Return flat positions in H x W x 3 of the ``count`` values that hold the head, or as many as there are."""
    flags = np.ones((height, width, 3), dtype=bool)
    flags[1:-1, 1:-1] = False
    return np.flatnonzero(flags)[:count]


def _overflows(values: Plane, predicted: Plane, threshold: int) -> NDArray[np.bool_]:
    """Return whether embedding either bit could take ``values`` out of 0..255."""
    error = values - predicted
    inner = (error >= -threshold) & (error < threshold)
    moved = predicted + np.where(inner, 2 * error, np.where(error > 0, error + threshold, error - threshold))
    overflow: NDArray[np.bool_] = (moved < 0) | (moved + inner > 255)
    return overflow


@dataclass
class Layer:
    """A layer before embedding: what every pixel becomes with a zero bit, and which of them may carry a bit.

    ``prefix`` is the map, which goes first.
    """

    where: NDArray[np.intp]
    values: Plane
    carriers: NDArray[np.intp]
    prefix: Bits

    @property
    def room(self) -> int:
        """Bits of the message that fit."""
        return len(self.carriers) - len(self.prefix)

    def write(self, plane: Plane, bits: Bits) -> None:
        """Put at most ``room`` bits into ``plane``; the rest is filled with zeros."""
        values = self.values.copy()
        stream = np.concatenate([self.prefix, bits])
        values[self.carriers[: len(stream)]] += stream
        plane[self.where] = values


def open_layer(plane: Plane, size: tuple[int, int], colour: int, threshold: int) -> Layer:
    """Return the layer of ``colour`` in ``plane`` as it would be embedded."""
    where, predicted = predict(plane, size, colour)
    values = plane[where]
    error = values - predicted
    inner = (error >= -threshold) & (error < threshold)
    skipped = _overflows(values, predicted, threshold)
    moved = predicted + np.where(inner, 2 * error, np.where(error > 0, error + threshold, error - threshold))
    moved = np.where(skipped, values, moved).astype(np.int32)
    doubtful = _overflows(moved, predicted, threshold)
    carriers = inner & ~skipped & ~doubtful & ~_overflows(moved + 1, predicted, threshold)
    return Layer(where, moved, np.flatnonzero(carriers), _prefix(skipped[doubtful]))


def close_layer(plane: Plane, size: tuple[int, int], colour: int, threshold: int) -> Bits:
    """Undo a layer of ``plane`` in place, and give the bits behind its map. Raises UserError when there is none."""
    where, predicted = predict(plane, size, colour)
    marked = plane[where]
    distance = marked - predicted
    doubtful = _overflows(marked, predicted, threshold)
    inner = (distance >= -2 * threshold) & (distance < 2 * threshold)
    zero = marked - (distance & 1)
    carriers = inner & ~doubtful
    carriers &= ~_overflows(zero, predicted, threshold) & ~_overflows(zero + 1, predicted, threshold)
    skipped, bits = _split((distance[carriers] & 1).astype(np.uint8), int(doubtful.sum()))
    error = np.where(inner, distance >> 1, np.where(distance > 0, distance - threshold, distance + threshold))
    restored = predicted + error
    left_alone = np.flatnonzero(doubtful)[skipped]
    restored[left_alone] = marked[left_alone]
    plane[where] = restored
    return bits


def predict(plane: Plane, size: tuple[int, int], colour: int) -> tuple[NDArray[np.intp], Plane]:
    """Return the positions of one colour in ``plane``, and the mean of each one's neighbours, rounded down."""
    where = places(*size, colour)
    width = size[1]
    around = plane[where - width] + plane[where + width] + plane[where - 1] + plane[where + 1]
    return where, around >> 2


def _prefix(skipped: NDArray[np.bool_]) -> Bits:
    """Return what precedes the message: a zero where no pixel is doubtful, else a one, the map's length, the map."""
    if len(skipped) == 0:
        return np.zeros(1, np.uint8)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(np.packbits(skipped).tobytes()) + packer.flush()
    head = np.array([1, *(len(packed) >> k & 1 for k in reversed(range(MAP_LENGTH)))], np.uint8)
    return np.concatenate([head, to_bits(packed)])


def _split(stream: Bits, doubtful: int) -> tuple[NDArray[np.bool_], Bits]:
    """Return the map of so many doubtful pixels, and what follows it."""
    if doubtful == 0 and len(stream) and stream[0] == 0:
        return np.zeros(0, dtype=bool), stream[1:]
    end = 1 + MAP_LENGTH
    length = 8 * number(stream[1:end])
    try:
        if doubtful == 0 or len(stream) < end + length:
            raise ValueError("no map")
        unpacked = inflated(to_bytes(stream[end : end + length]), -(-doubtful // 8), -15)
        flags = np.unpackbits(np.frombuffer(unpacked, np.uint8), count=doubtful)
    except (ValueError, zlib.error) as error:
        raise nothing() from error
    return flags.astype(bool), stream[end + length :]


def nothing() -> UserError:
    return UserError("nothing is hidden in it, or it was changed since", "give the image as it was written")


def to_bits(data: bytes) -> Bits:
    return np.unpackbits(np.frombuffer(data, np.uint8))


def to_bytes(bits: Bits) -> bytes:
    return np.packbits(bits).tobytes()


def number(bits: Bits) -> int:
    """Return an integer from its bits, the highest first."""
    return int("".join(map(str, bits.tolist())) or "0", 2)


def in_bits(value: int, length: int) -> Bits:
    return np.array([value >> k & 1 for k in reversed(range(length))], np.uint8)


def _planes(image: Pixels) -> tuple[list[Plane], Bits]:
    """Return channels to work on, the lowest bits of the head's values cleared, and those bits."""
    flat = image.astype(np.int32).reshape(-1)
    head = border(*image.shape[:2])
    old = (flat[head] & 1).astype(np.uint8)
    flat[head] &= ~1
    return [flat[channel::3].copy() for channel in range(3)], old


def _image(planes: list[Plane], size: tuple[int, int], bits: Bits) -> Pixels:
    flat = np.stack(planes, axis=1).reshape(-1)
    flat[border(*size)] |= bits
    return flat.astype(np.uint8).reshape(*size, 3)


def embed(image: Pixels, message: bytes, passes: int = 1, max_threshold: int = THRESHOLDS[-1]) -> Pixels:
    """Embed ``message`` in ``image`` at the smallest threshold at which it fits into so many passes.

    A pass is all six layers; more than one embeds into images that hold something already, at a growing distortion.
    Raises NoRoom when it does not fit, or the image is too small for anything.
    """
    size = (image.shape[0], image.shape[1])
    if min(size) < 4 or len(border(*size)) < HEAD:
        raise NoRoom("the image is too small")
    planes, old = _planes(image)
    check = in_bits(zlib.crc32(message), 32)
    bits = np.concatenate([old, in_bits(len(message), 32), check, to_bits(message)])
    small = _small_errors(planes, size)
    for threshold in THRESHOLDS:
        # Saves most of the tries that would fail: later layers are predicted worse, hardly ever better.
        if threshold <= max_threshold and 1.05 * passes * small[threshold] >= len(bits):
            filled = _fill(planes, size, bits, threshold, passes)
            if filled:
                return _image(filled[0], size, _head(filled[1], threshold, filled[2]))
    raise NoRoom(f"{len(message)} bytes do not fit")


def room(image: Pixels, passes: int = 1, max_threshold: int = THRESHOLDS[-1]) -> int:
    """Estimate from above how many bytes ``embed`` might take."""
    size = (image.shape[0], image.shape[1])
    if min(size) < 4:
        return 0
    threshold = max(t for t in THRESHOLDS if t <= max_threshold)
    return max(0, int(1.05 * passes * _small_errors(_planes(image)[0], size)[threshold] - HEAD - 64) // 8)


def _small_errors(planes: list[Plane], size: tuple[int, int]) -> NDArray[np.int64]:
    """Count prediction errors in [-T, T-1], for every T up to 256, as long as nothing is embedded."""
    reach = []
    for plane in planes:
        for colour in (0, 1):
            where, predicted = predict(plane, size, colour)
            error = plane[where] - predicted
            reach.append(np.where(error < 0, -error, error + 1))
    counts: NDArray[np.int64] = np.cumsum(np.bincount(np.concatenate(reach), minlength=257))
    return counts


def _fill(
    planes: list[Plane], size: tuple[int, int], bits: Bits, threshold: int, passes: int
) -> tuple[list[Plane], list[int], int] | None:
    """Return planes that hold ``bits``, the layers used and the threshold of the last; None where they do not fit."""
    planes, used, place = [plane.copy() for plane in planes], [], 0
    for index in range(LAYERS * passes):
        plane, colour = planes[index // 2 % 3], index % 2
        layer = open_layer(plane, size, colour, threshold)
        if layer.room <= 0:
            continue
        used.append(index)
        rest, last = bits[place:], threshold
        if layer.room >= len(rest):
            for last in THRESHOLDS:
                layer = open_layer(plane, size, colour, last)
                if last == threshold or layer.room >= len(rest):
                    layer.write(plane, rest)
                    return planes, used, last
        layer.write(plane, rest[: layer.room])
        place += layer.room
    return None


def _head(used: list[int], threshold: int, last: int) -> Bits:
    flags = np.zeros(LAYERS * MAX_PASSES, np.uint8)
    flags[used] = 1
    body = np.concatenate([flags, in_bits(threshold, 7), in_bits(last, 7)])
    return np.concatenate([body, in_bits(zlib.crc32(body.tobytes()) & 1023, 10)])


def extract(image: Pixels) -> tuple[Pixels, bytes]:
    """Return the image before ``embed``, and the message. Raises UserError when nothing is hidden in it."""
    size = (image.shape[0], image.shape[1])
    if min(size) < 4 or len(border(*size)) < HEAD:
        raise nothing()
    planes, head = _planes(image)
    body = head[:-10]
    used = np.flatnonzero(head[: LAYERS * MAX_PASSES]).tolist()
    threshold, last = number(head[-24:-17]), number(head[-17:-10])
    if number(head[-10:]) != zlib.crc32(body.tobytes()) & 1023 or not used or not threshold or not last:
        raise nothing()
    parts = []
    for index in reversed(used):
        plane = planes[index // 2 % 3]
        parts.append(close_layer(plane, size, index % 2, last if index == used[-1] else threshold))
    bits = np.concatenate(parts[::-1])
    if len(bits) < HEAD + 64:
        raise nothing()
    old, length, check = bits[:HEAD], number(bits[HEAD : HEAD + 32]), number(bits[HEAD + 32 : HEAD + 64])
    message = to_bytes(bits[HEAD + 64 : HEAD + 64 + 8 * length])
    if len(message) != length or zlib.crc32(message) != check or any(p.min() < 0 or p.max() > 255 for p in planes):
        raise nothing()
    return _image(planes, size, old), message
