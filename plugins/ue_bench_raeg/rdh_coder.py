"""An exact arithmetic coder with adaptive counts, for the small integers that reversible protectors hide.

A byte-wise range coder (Martin, 1979) with order-0 counts that start equal. Integers only: what one machine codes, any
other decodes. About 3 us a symbol.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

TOP, BOTTOM = 1 << 32, 1 << 24
STEP = 2  # added to the count of a symbol that was seen; counts start at 1, as Krichevsky and Trofimov's do
LIMIT = 1 << 16  # of all counts together; they are halved beyond


class _Counts:
    """How often each of ``symbols`` symbols was seen."""

    def __init__(self, symbols: int) -> None:
        self.counts = [1] * symbols
        self.total = symbols

    def see(self, symbol: int) -> None:
        self.counts[symbol] += STEP
        self.total += STEP
        if self.total > LIMIT:
            self.counts = [(count + 1) >> 1 for count in self.counts]
            self.total = sum(self.counts)


def encode(symbols: Iterable[int], alphabet: int) -> bytes:
    """Encode ``symbols``, each in 0..alphabet-1; small ones are the fastest."""
    model, out = _Counts(alphabet), bytearray()
    low, size = 0, TOP - 1
    for symbol in symbols:
        counts = model.counts
        unit = size // model.total
        low += unit * sum(counts[:symbol])
        size = unit * counts[symbol]
        if low >= TOP:  # a carry into what is written already
            low -= TOP
            place = len(out) - 1
            while out[place] == 255:
                out[place] = 0
                place -= 1
            out[place] += 1
        while size < BOTTOM:
            out.append(low >> 24)
            low = (low << 8) & (TOP - 1)
            size <<= 8
        model.see(symbol)
    # The shortest number within [low, low + size): decoding reads zeros beyond the end.
    for kept in (1, 2, 3, 4):
        unit = 1 << (32 - 8 * kept)
        number = -(-low // unit) * unit
        if number < low + size:
            break
    if number >= TOP:
        number -= TOP
        place = len(out) - 1
        while out[place] == 255:
            out[place] = 0
            place -= 1
        out[place] += 1
    out += number.to_bytes(4, "big")
    return bytes(out).rstrip(b"\0")


def decode(data: bytes, count: int, alphabet: int) -> list[int]:
    """Decode the ``count`` symbols of ``data``. Anything decodes to something: a checksum must tell if it is right."""
    model, symbols = _Counts(alphabet), []
    code, place, size = int.from_bytes(data[:4].ljust(4, b"\0"), "big"), 4, TOP - 1
    end = len(data)
    for _ in range(count):
        counts = model.counts
        unit = size // model.total
        target = min(code // unit, model.total - 1)
        symbol, below = 0, 0
        while below + counts[symbol] <= target:
            below += counts[symbol]
            symbol += 1
        code -= unit * below
        size = unit * counts[symbol]
        while size < BOTTOM:
            code = (code << 8) | (data[place] if place < end else 0)
            place += 1
            size <<= 8
        symbols.append(symbol)
        model.see(symbol)
    return symbols


def folded(values: NDArray[np.integer]) -> NDArray[np.int64]:
    """Map signed integers to 0, 1, 2, ...: 0, -1, 1, -2, 2, ... so that small ones come first."""
    wide = values.astype(np.int64)
    return np.where(wide < 0, -2 * wide - 1, 2 * wide)


def unfolded(symbols: NDArray[np.integer]) -> NDArray[np.int64]:
    """Undo ``folded``."""
    wide = symbols.astype(np.int64)
    return np.where(wide % 2 == 1, -(wide + 1) // 2, wide // 2)


def entropy(symbols: NDArray[np.integer]) -> float:
    """Estimate the bits of ``symbols`` with the best fixed counts: what coding costs, less the learning of them."""
    counts = np.unique(symbols, return_counts=True)[1]
    return float((counts * np.log2(len(symbols) / counts)).sum()) if len(symbols) else 0.0
