"""The perturbation that RAE hides in the image that has it: averaged over blocks where it does not fit otherwise."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from ue_bench.api import UserError

from .rdh import Pixels
from .rdh_coder import decode, encode, entropy, folded, unfolded

SCALES = (1, 2, 4, 8, 16)  # sides of the blocks (RAEG, section on comparisons)
HEAD = struct.Struct("<cBH")  # mark, side of the blocks, size of the alphabet
MARK = b"A"


def pooled(difference: NDArray[np.int16], scale: int) -> NDArray[np.int64]:
    """Average H x W x C over blocks of ``scale`` x ``scale``, rounded; those at the edge may be smaller."""
    height, width = difference.shape[:2]
    rows, columns = np.arange(0, height, scale), np.arange(0, width, scale)
    sums = np.add.reduceat(np.add.reduceat(difference.astype(np.int64), rows, axis=0), columns, axis=1)
    high, wide = np.diff([*rows, height]), np.diff([*columns, width])
    means: NDArray[np.int64] = np.rint(sums / (high[:, None] * wide)[..., None]).astype(np.int64)
    return means


def enlarged(means: NDArray[np.int64], scale: int, size: tuple[int, int]) -> NDArray[np.int64]:
    """Repeat every mean in all places of its block."""
    return means.repeat(scale, axis=0).repeat(scale, axis=1)[: size[0], : size[1]]


def pack(difference: NDArray[np.int16], scale: int) -> tuple[float, NDArray[np.int64]]:
    """Estimate the bytes that ``difference`` takes at ``scale``; return them and what ``packed`` codes."""
    symbols = folded(pooled(difference, scale)).ravel()
    return HEAD.size + entropy(symbols) / 8, symbols


def packed(symbols: NDArray[np.int64], scale: int) -> bytes:
    """Return the message to hide."""
    alphabet = int(symbols.max(initial=0)) + 1
    return HEAD.pack(MARK, scale, alphabet) + encode(symbols.tolist(), alphabet)


def restored(adversarial: Pixels, message: bytes) -> Pixels:
    """Return the original behind ``adversarial``, exact where blocks are single pixels.

    Raises UserError when the message is of something else.
    """
    height, width, channels = adversarial.shape
    try:
        mark, scale, alphabet = HEAD.unpack_from(message)
        if mark != MARK:
            raise ValueError("of something else")
    except (struct.error, ValueError) as error:
        raise UserError("something else is hidden in it", "recover it with the key it was protected with") from error
    shape = (-(-height // scale), -(-width // scale), channels)
    symbols = np.array(decode(message[HEAD.size :], int(np.prod(shape)), alphabet))
    difference = enlarged(unfolded(symbols).reshape(shape), scale, (height, width))
    original: Pixels = np.clip(adversarial - difference, 0, 255).astype(np.uint8)
    return original
