"""RIT, reversible image transformation: blocks of an image, moved, shifted and turned to look like another image.

Yin et al. (2019) after Hou et al. (2016). Images are uint8, H x W x 3; blocks b x b. What is left at the right and
below when blocks are cut stays as it is. All statistics are integers that neither shifts nor turns change, so that the
way back finds the same classes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ue_bench.api import UserError

from .rdh import Pixels
from .rdh_coder import decode, encode, folded, unfolded

Ints = NDArray[np.int64]
HEAD = struct.Struct("<cBBBBHIII")  # mark, block, classes, quantum, smooth, alphabet of shifts, lengths of three parts
MARK = b"T"
GREEN = 1


@dataclass(frozen=True)
class Settings:
    """Side of a block, number of classes, quantum of shifts, and the deviation up to which blocks are not turned."""

    block: int = 4
    classes: int = 6
    quantum: int = 8
    smooth: int = 6


def blocks_of(image: Pixels, side: int) -> Ints:
    """Cut an image into blocks in raster order, N x side x side x 3."""
    rows, columns = image.shape[0] // side, image.shape[1] // side
    cut = image[: rows * side, : columns * side].astype(np.int64)
    return cut.reshape(rows, side, columns, side, 3).swapaxes(1, 2).reshape(-1, side, side, 3)


def with_blocks(image: Pixels, blocks: Ints) -> Pixels:
    """Return ``image`` with these blocks in raster order."""
    side = blocks.shape[1]
    rows, columns = image.shape[0] // side, image.shape[1] // side
    rebuilt = image.copy()
    laid = blocks.reshape(rows, columns, side, side, 3).swapaxes(1, 2).reshape(rows * side, columns * side, 3)
    rebuilt[: rows * side, : columns * side] = laid
    return rebuilt


def spread(blocks: Ints) -> Ints:
    """Return N x 3: the variance of each channel of a block times the square of the number of its pixels."""
    flat = blocks.reshape(len(blocks), -1, 3)
    scaled_variance: Ints = flat.shape[1] * np.square(flat).sum(axis=1) - np.square(flat.sum(axis=1))
    return scaled_variance


def thresholds(spreads: Ints, classes: int, pixels: int) -> Ints:
    """Return limits between classes of blocks, in the unit of ``spread``: 1-D k-means of deviations from quantiles."""
    deviations = np.sqrt(spreads) / pixels
    centres = np.quantile(deviations, (np.arange(classes) + 0.5) / classes)
    for _ in range(50):
        label = np.searchsorted((centres[1:] + centres[:-1]) / 2, deviations)
        counts = np.bincount(label, minlength=classes)
        sums = np.bincount(label, deviations, minlength=classes)
        moved = np.where(counts > 0, sums / np.maximum(counts, 1), centres)
        if np.array_equal(moved, centres):
            break
        centres = moved
    limits: Ints = np.ceil(np.square((centres[1:] + centres[:-1]) / 2 * pixels)).astype(np.int64)
    return limits


def turned(blocks: Ints, turns: Ints) -> Ints:
    """Turn every channel of every block counter-clockwise by its own number of right angles; ``turns`` N x 3."""
    turned_blocks = blocks.copy()
    for quarter in (1, 2, 3):
        rotated = np.rot90(blocks, quarter, axes=(1, 2))
        turned_blocks = np.where((turns == quarter)[:, None, None, :], rotated, turned_blocks)
    return turned_blocks


def camouflage(image: Pixels, target: Pixels, settings: Settings) -> tuple[Pixels, bytes]:
    """Make ``image`` look like ``target`` of the same size; return it, and what it takes to undo that.

    Blocks are classed by the deviation of their green channel; so are the target's, in equal numbers. The j-th block of
    a class goes to the j-th place of that class; each channel is shifted towards the target's mean by multiples of the
    quantum, and turned to fit best.
    """
    side, pixels = settings.block, settings.block**2
    blocks, wanted = blocks_of(image, side), blocks_of(target, side)
    spreads = spread(blocks)
    limits = thresholds(spreads[:, GREEN], settings.classes, pixels)
    tags = np.searchsorted(limits, spreads[:, GREEN], side="right")
    # Places in order of deviation, the smoothest get the first class: as many of each as there are blocks.
    places = np.empty_like(tags)
    places[np.argsort(spread(wanted)[:, GREEN], kind="stable")] = np.sort(tags)
    moved = blocks[_source(tags, places)]

    low, high = moved.min(axis=(1, 2)), moved.max(axis=(1, 2))
    gap = (wanted.sum(axis=(1, 2)) - moved.sum(axis=(1, 2))) / (pixels * settings.quantum)
    shifts = np.clip(np.rint(gap).astype(np.int64), -(low // settings.quantum), (255 - high) // settings.quantum)
    moved = moved + settings.quantum * shifts[:, None, None, :]

    errors = np.stack([np.square(np.rot90(moved, k, axes=(1, 2)) - wanted).sum(axis=(1, 2)) for k in range(4)])
    rough = spread(moved) > (settings.smooth * pixels) ** 2
    turns: Ints = np.where(rough, errors.argmin(axis=0), 0)
    camouflaged = with_blocks(image, turned(moved, turns))

    symbols = folded(shifts)
    alphabet = int(symbols.max(initial=0)) + 1
    parts = [
        encode(tags.tolist(), settings.classes),
        encode(symbols.ravel().tolist(), alphabet),
        encode(turns[rough].tolist(), 4),
    ]
    head = HEAD.pack(MARK, side, settings.classes, settings.quantum, settings.smooth, alphabet, *map(len, parts))
    return camouflaged, head + limits.astype("<u8").tobytes() + b"".join(parts)


def _source(tags: Ints, places: Ints) -> Ints:
    """Return which block goes to each place: within a class, in raster order."""
    source = np.empty_like(tags)
    source[np.argsort(places, kind="stable")] = np.argsort(tags, kind="stable")
    return source


def restored(image: Pixels, message: bytes) -> Pixels:
    """Return the original behind a camouflage. Raises UserError for messages of something else."""
    try:
        mark, side, classes, quantum, smooth, alphabet, *lengths = HEAD.unpack_from(message)
        start = HEAD.size + 8 * (classes - 1)
        limits = np.frombuffer(message[HEAD.size : start], "<u8").astype(np.int64)
        ends = start + np.cumsum(lengths)
        if mark != MARK or ends[-1] != len(message):
            raise ValueError("of something else")
    except (struct.error, ValueError) as error:
        raise UserError("something else is hidden in it", "recover it with the key it was protected with") from error
    tag_part, shift_part, turn_part = (message[a:b] for a, b in zip([start, *ends[:-1]], ends, strict=True))
    blocks = blocks_of(image, side)
    spreads, count = spread(blocks), len(blocks)
    rough = spreads > (smooth * side**2) ** 2
    turns = np.zeros((count, 3), np.int64)
    turns[rough] = decode(turn_part, int(rough.sum()), 4)
    shifts = unfolded(np.array(decode(shift_part, 3 * count, alphabet), np.int64)).reshape(count, 3)
    tags = np.array(decode(tag_part, count, classes), np.int64)
    places = np.searchsorted(limits, spreads[:, GREEN], side="right")
    straight = turned(blocks, -turns % 4) - quantum * shifts[:, None, None, :]
    originals = np.empty_like(straight)
    originals[_source(tags, places)] = straight
    return with_blocks(image, originals)
