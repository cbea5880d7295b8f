"""Reversible data hiding by optimal value transfer, as RAE and RAEG use it: image and message come out bit by bit.

The host are the prediction errors of ``rdh.py``: of one colour of the checkerboard, from four neighbours of the
other. First the even pixels of all three channels, then the odd ones, whose neighbours are marked already. How busy
these four are tells the context of a pixel, and the context the width of the distribution that its error is taken to
have. One temperature holds for all, which distributes distortion best between smooth and busy places.

A pixel takes its new value out of the message: an error x becomes y with the probability P(y | x) of
``ovt_transfer``. What is needed to have x back from y, coded by P(x | y), is put into the message in turn. Message
and state are one integer, which an asymmetric numeral system (Duda, 2009) takes symbols from and puts symbols into
without loss; so the recursion of the papers, in which what a block needs is hidden in the next, has blocks of one
pixel. Values that no pixel could have, given its prediction, are left out of both distributions, and pixels whose
prediction is close to 0 or 255 stay as they are: nothing overflows, and no map of exceptions is kept.

What is left of the integer, how many pixels are in use, widths and temperature stand in the lowest bits of border
pixels, whose old bits are hidden too. Images are uint8, H x W x 3.

Ours, where the papers are silent or hide otherwise: predictor and contexts, geometric models in place of a histogram
that is stored, the numeral system in place of an arithmetic coder, and the search for the lowest temperature at which
the message fits.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .ovt_transfer import REACH, SCALES, TEMPERATURES, Transfer, transfer
from .rdh import Bits, NoRoom, Pixels, Plane, border, in_bits, nothing, number, predict, to_bits, to_bytes

BUSY = (3, 7, 13, 25, 49)  # sums of two differences of opposite neighbours, from which on the next context begins
CONTEXTS = len(BUSY) + 1
COLOURS = 2
STATE, USED, INDEX, CHECK = 48, 24, 5, 10  # bits in the head
HEAD = STATE + USED + INDEX * (1 + COLOURS * CONTEXTS) + CHECK
FRAME = (HEAD + 7) // 8 + 4  # bytes beside the message: old bits of the head, checksum
Line = tuple[tuple[int, ...], tuple[int, ...], int]


@dataclass(frozen=True)
class Errors:
    """Pixels of one colour in one channel: where they are, their predictions, contexts and errors."""

    where: NDArray[np.intp]
    predicted: Plane
    contexts: NDArray[np.int64]
    errors: Plane


@dataclass(frozen=True)
class Attempt:
    """What embedding at one temperature came to."""

    planes: list[Plane]
    state: int
    used: int
    scales: list[int]  # of all contexts, even pixels first


def embed(image: Pixels, message: bytes, least_psnr: float) -> Pixels:
    """Return ``image`` with ``message`` hidden in it, at the lowest temperature at which it fits.

    Raises NoRoom when it does not, or would leave less than ``least_psnr`` dB.
    """
    planes, old = _planes(image)
    size = (image.shape[0], image.shape[1])
    body = to_bytes(old) + message
    payload = int.from_bytes(b"\1" + _sum(body, image) + body, "big")
    wanted = payload.bit_length() - STATE
    for temperature in range(_coolest(planes, size, wanted), len(TEMPERATURES)):
        attempt = _embedded(planes, size, payload, temperature)
        if attempt is not None:
            marked = _image(attempt.planes, size, _head(attempt, temperature))
            if _psnr(marked, image) < least_psnr:
                break
            return marked
    raise NoRoom(f"{len(message)} bytes do not fit")


def room(image: Pixels, least_psnr: float) -> int:
    """Estimate how many bytes ``embed`` might take, rather too many than too few."""
    size = (image.shape[0], image.shape[1])
    if len(border(*size, HEAD)) < HEAD or min(size) < 4:
        return 0
    planes, _ = _planes(image)
    low, high = 0, len(TEMPERATURES)
    limit = 255**2 / 10 ** (least_psnr / 10) * image.size
    while low < high:  # the first temperature that distorts too much
        middle = (low + high) // 2
        if _expected(planes, size, middle)[1] <= limit:
            low = middle + 1
        else:
            high = middle
    bits = _expected(planes, size, low - 1)[0] if low else 0.0
    return max(0, int(bits + STATE) // 8 - FRAME)


def extract(image: Pixels) -> tuple[Pixels, bytes]:
    """Return the image before ``embed``, and the message. Raises UserError when nothing is hidden in it."""
    size = (image.shape[0], image.shape[1])
    if min(size) < 4 or len(border(*size, HEAD)) < HEAD:
        raise nothing()
    planes, head = _planes(image)
    body, fields = head[:-CHECK], iter(np.split(head[:-CHECK], np.cumsum([STATE, USED, INDEX])))
    if number(head[-CHECK:]) != _check(body):
        raise nothing()
    state, used, temperature = (number(next(fields)) for _ in range(3))
    scales = [number(bits) for bits in next(fields).reshape(-1, INDEX)]
    layers = _order(size, used)
    if temperature >= len(TEMPERATURES) or max(scales) >= len(SCALES) or sum(count for *_, count in layers) != used:
        raise nothing()
    for colour, plane, count in reversed(layers):
        errors = _errors(planes[plane], size, colour)
        tables = _tables(scales, colour, temperature)
        state, originals = _taken(errors, tables, state, count)
        planes[plane][errors.where[:count]] = errors.predicted[:count] + originals
    content = state.to_bytes((state.bit_length() + 7) // 8, "big")
    checked, hidden = content[1:5], content[5:]
    old = to_bits(hidden[: FRAME - 4])[:HEAD]
    if content[:1] != b"\1" or len(old) < HEAD:
        raise nothing()
    original = _image(planes, size, old)
    if _sum(hidden, original) != checked:
        raise nothing()
    return original, hidden[FRAME - 4 :]


def _embedded(planes: list[Plane], size: tuple[int, int], payload: int, temperature: int) -> Attempt | None:
    """Embed at one temperature; None where something of the payload is left at the end."""
    planes, state, used = [plane.copy() for plane in planes], payload, 0
    scales: list[int] = []
    for colour in range(COLOURS):
        layers = [_errors(plane, size, colour) for plane in planes]
        scales += _fitted(layers)
        tables = _tables(scales, colour, temperature)
        for plane, errors in zip(planes, layers, strict=True):
            if state.bit_length() > STATE:
                state, marked = _given(errors, tables, state)
                plane[errors.where[: len(marked)]] = errors.predicted[: len(marked)] + marked
                used += len(marked)
    return Attempt(planes, state, used, scales) if state.bit_length() <= STATE and used < 1 << USED else None


def _decoded(state: int, counts: Sequence[int], total: int) -> tuple[int, int]:
    """Take a symbol out of an asymmetric numeral system with those frequencies; return it and what is left."""
    above, rest = divmod(state, total)
    place = 0
    while rest >= counts[place]:
        rest -= counts[place]
        place += 1
    return place, above * counts[place] + rest


def _encoded(state: int, counts: Sequence[int], total: int, place: int) -> int:
    """Put a symbol back, the inverse of ``_decoded``."""
    above, rest = divmod(state, counts[place])
    return above * total + sum(counts[:place]) + rest


def _given(errors: Errors, tables: list[Transfer], state: int) -> tuple[int, NDArray[np.int32]]:
    """Let pixels take their marked errors out of ``state``, and put back what recovery needs; until little is left."""
    marked: list[int] = []
    margins = [table.margin for table in tables]
    rows, columns = [table.rows for table in tables], [table.columns for table in tables]
    for x, low, context in zip(
        errors.errors.tolist(), (-errors.predicted).tolist(), errors.contexts.tolist(), strict=True
    ):
        if not margins[context] <= -low <= REACH - margins[context]:
            marked.append(x)
            continue
        values, counts, total = _possible(rows[context][x + REACH], low)
        place, state = _decoded(state, counts, total)
        y = values[place]
        values, counts, total = _possible(columns[context][y + REACH], low)
        state = _encoded(state, counts, total, values.index(x))
        marked.append(y)
        if state.bit_length() <= STATE:
            break
    return state, np.array(marked, np.int32)


def _taken(errors: Errors, tables: list[Transfer], state: int, count: int) -> tuple[int, NDArray[np.int32]]:
    """Undo ``_given`` for the first ``count`` pixels, the last one first; return the state and original errors."""
    originals = np.empty(count, np.int32)
    margins = [table.margin for table in tables]
    rows, columns = [table.rows for table in tables], [table.columns for table in tables]
    marked, lows, contexts = errors.errors.tolist(), (-errors.predicted).tolist(), errors.contexts.tolist()
    for index in reversed(range(count)):
        y, low, context = marked[index], lows[index], contexts[index]
        if not margins[context] <= -low <= REACH - margins[context]:
            originals[index] = y
            continue
        values, counts, total = _possible(columns[context][y + REACH], low)
        place, state = _decoded(state, counts, total)
        x = values[place]
        values, counts, total = _possible(rows[context][x + REACH], low)
        if y not in values:
            raise nothing()
        state = _encoded(state, counts, total, values.index(y))
        originals[index] = x
    return state, originals


def _possible(line: Line, low: int) -> Line:
    """Return the part of ``line`` with values in low..low + 255: those with which a pixel is in 0..255."""
    values, counts, _ = line
    if low <= values[0] and values[-1] <= low + 255:
        return line
    kept = [(value, count) for value, count in zip(values, counts, strict=True) if low <= value <= low + 255]
    if not kept:
        raise nothing()
    return tuple(v for v, _ in kept), tuple(c for _, c in kept), sum(c for _, c in kept)


def _errors(plane: Plane, size: tuple[int, int], colour: int) -> Errors:
    where, predicted = predict(plane, size, colour)
    width = size[1]
    busy = np.abs(plane[where - width] - plane[where + width]) + np.abs(plane[where - 1] - plane[where + 1])
    return Errors(where, predicted, np.searchsorted(BUSY, busy, side="right"), plane[where] - predicted)


def _fitted(layers: list[Errors]) -> list[int]:
    """Return for each context the index of the width under which its errors are most likely."""
    contexts = np.concatenate([layer.contexts for layer in layers])
    sizes = np.abs(np.concatenate([layer.errors for layer in layers]))
    counts = np.bincount(contexts, minlength=CONTEXTS)
    means = np.bincount(contexts, sizes, minlength=CONTEXTS) / np.maximum(1, counts)
    ratios = np.array(SCALES) / (1 + np.array(SCALES))
    likelihood = np.log((1 - ratios) / (1 + ratios)) + means[:, None] * np.log(ratios)
    return [int(index) for index in likelihood.argmax(axis=1)]


def _tables(scales: list[int], colour: int, temperature: int) -> list[Transfer]:
    return [transfer(scale, temperature) for scale in scales[colour * CONTEXTS : (colour + 1) * CONTEXTS]]


def _expected(planes: list[Plane], size: tuple[int, int], temperature: int) -> tuple[float, float]:
    """Estimate the bits that can be hidden at a temperature and the sum of squared changes, as if nothing were yet."""
    bits = distortion = 0.0
    for colour in range(COLOURS):
        layers = [_errors(plane, size, colour) for plane in planes]
        tables = [transfer(scale, temperature) for scale in _fitted(layers)]
        for layer in layers:
            for context, table in enumerate(tables):
                inside = (layer.predicted >= table.margin) & (layer.predicted <= 255 - table.margin)
                errors = layer.errors[(layer.contexts == context) & inside]
                bits += float(table.gains[errors + REACH].sum())
                distortion += table.distortion * len(errors)
    return bits, distortion


def _coolest(planes: list[Plane], size: tuple[int, int], bits: int) -> int:
    """Return the first temperature at which so many ``bits`` might fit."""
    low, high = 0, len(TEMPERATURES)
    while low < high:
        middle = (low + high) // 2
        if _expected(planes, size, middle)[0] < bits:
            low = middle + 1
        else:
            high = middle
    return low


def _order(size: tuple[int, int], used: int) -> list[tuple[int, int, int]]:
    """Return colours, channels and numbers of pixels of the layers that ``used`` pixels are in."""
    layers: list[tuple[int, int, int]] = []
    for colour in range(COLOURS):
        inside = len(predict(np.zeros(size[0] * size[1], np.int32), size, colour)[0])
        for plane in range(3):
            count = min(used, inside)
            if count:
                layers.append((colour, plane, count))
            used -= count
    return layers


def _head(attempt: Attempt, temperature: int) -> Bits:
    fields = [in_bits(attempt.state, STATE), in_bits(attempt.used, USED), in_bits(temperature, INDEX)]
    body = np.concatenate([*fields, *(in_bits(scale, INDEX) for scale in attempt.scales)])
    return np.concatenate([body, in_bits(_check(body), CHECK)])


def _sum(hidden: bytes, image: Pixels) -> bytes:
    """Return a checksum of what is hidden and of the image before: a pixel that was changed since is told."""
    return zlib.crc32(image.tobytes(), zlib.crc32(hidden)).to_bytes(4, "big")


def _check(body: Bits) -> int:
    return zlib.crc32(body.tobytes()) % (1 << CHECK)


def _planes(image: Pixels) -> tuple[list[Plane], Bits]:
    """Return channels to work on, the lowest bits of the head's values cleared, and those bits."""
    flat = image.astype(np.int32).reshape(-1)
    places = border(image.shape[0], image.shape[1], HEAD)
    if len(places) < HEAD:
        raise NoRoom("too small an image")
    old = (flat[places] & 1).astype(np.uint8)
    flat[places] -= old
    return [plane.copy() for plane in flat.reshape(-1, 3).T], old


def _image(planes: list[Plane], size: tuple[int, int], head: Bits) -> Pixels:
    flat = np.stack(planes, axis=1).reshape(-1)
    flat[border(*size, HEAD)] += head
    if flat.min() < 0 or flat.max() > 255:
        raise nothing()
    return flat.astype(np.uint8).reshape(*size, 3)


def _psnr(one: Pixels, other: Pixels) -> float:
    error = float(np.square(one.astype(np.int32) - other).mean())
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)
