"""Optimal value transfer: how the values of a host are best changed so that they carry a message.

Zhang, "Reversible Data Hiding with Optimal Value Transfer", IEEE Transactions on Multimedia 2013; Zhang, Hu, Li and
Yu, "Recursive Histogram Modification", IEEE Transactions on Image Processing 2013. A host value x with distribution
P_X becomes y; what can be hidden in a value, less what it takes to have x back, is H(Y) - H(X). Among all transfers
of that rate, the one of least mean squared change has the marginal P_Y that minimises W(P_X, P_Y) - T H(Y), where W
is the cost of the monotone ("non-crossing") coupling of the two and T, the temperature, the price of a nat in squared
gray levels.

Hosts here are prediction errors, modelled by two-sided geometric distributions. Embedding and extraction need the
same integers on any machine: everything that decides them is made of sums, products, quotients and square roots of
doubles, one after the other, which IEEE 754 fixes, without any function of a library of mathematics.
"""

from __future__ import annotations

import itertools
import math
import operator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Counts = NDArray[np.int64]

# Of a host: P_X(x) falls by scale / (1 + scale) from one level to the next.
SCALES = tuple(itertools.accumulate([1.35] * 23, operator.mul, initial=0.1))
# For each: exp(-1 / T) is temperature / (1 + temperature), so that T is about temperature + 1 / 2.
TEMPERATURES = tuple(itertools.accumulate([1.3] * 31, operator.mul, initial=0.2))
REACH = 255  # largest prediction error
TOTAL = 1 << 16  # of the integers that stand for probabilities
MARGIN = 3.0  # in scales
SWEEPS = 200  # of the relaxation; 100 times as many move the distortion at a rate by less than a thousandth


@dataclass(frozen=True)
class Transfer:
    """A coupling in integers: ``rows[x]`` are the values y that x may become, ``columns[y]`` those it may have been.

    Each is a tuple of values, one of their frequencies and the sum of these, for x and y in -255..255, at index
    x + 255. Every value may stay what it is. ``gain`` is H(Y) - H(X) in bits and ``distortion`` the mean squared
    change, both of a host that is as the model.
    """

    rows: tuple[tuple[tuple[int, ...], tuple[int, ...], int], ...]
    columns: tuple[tuple[tuple[int, ...], tuple[int, ...], int], ...]
    gains: Numbers  # bits that a value x carries on average, less those that x costs then
    gain: float
    distortion: float
    margin: int  # predictions nearer than this to 0 or 255 leave too little room: such pixels stay


@lru_cache(maxsize=256)  # some 0.4 MB each
def transfer(scale: int, temperature: int) -> Transfer:
    """Return the transfer between a host of ``SCALES[scale]`` and what it becomes at ``TEMPERATURES[temperature]``."""
    ratio = SCALES[scale] / (1 + SCALES[scale])
    factor = TEMPERATURES[temperature] / (1 + TEMPERATURES[temperature])  # exp(-1 / T)
    reach = min(REACH, 16 + round(12 * SCALES[scale]) + round(4 * math.sqrt(TEMPERATURES[temperature])))
    host = _whole(geometric(ratio, reach))
    marked = _whole(optimum(_tail(host / TOTAL), factor))
    margin = min(100, 1 + math.floor(MARGIN * SCALES[scale]))
    return _coupled(host, marked, reach, margin)


def geometric(ratio: float, reach: int) -> Numbers:
    """Return the two-sided geometric distribution on -reach..reach."""
    half = np.multiply.accumulate(np.full(reach + 1, ratio)) / ratio
    both = np.concatenate([half[:0:-1], half])
    shares: Numbers = both / np.add.accumulate(both)[-1]  # not a sum, whose order depends on the processor
    return shares


def optimum(host: Numbers, factor: float) -> Numbers:
    """Return P_Y on -reach..reach for a symmetric host, whose tails P(X > x) for x = 0.. are ``host``.

    ``factor`` is exp(-1 / T). By symmetry the unknowns are the tails P(Y > y), y >= 0. Mass on the border between y
    and y + 1 comes from the atom x where the tail falls; it is where it should be when P(y + 1) / P(y) is
    ``factor`` ** (2 (y - x) + 1), or at the border between two atoms when that lies between theirs. One border after
    the other is put there, the even and the odd ones in turn: coordinate descent on a convex function whose kinks
    are each one coordinate's own, so that it ends at the minimum.
    """
    count = len(host)
    powers = np.concatenate([[1.0], np.multiply.accumulate(np.full(4 * count + 4, factor))]).clip(1e-280)
    upper = np.concatenate([[1.0], host[:-1]])  # P(X > x - 1); the atom 0 reaches below the middle
    tails = _stretched(host, factor)
    borders = [np.arange(start, count - 1, 2) for start in (0, 1)]

    def placed(y: NDArray[np.intp], x: NDArray[np.intp]) -> Numbers:
        """Return where the tails of ``y`` belong if their mass comes from atoms ``x``."""
        power = 2 * (y - x) + 1
        weight = np.where(power > 0, powers[np.abs(power)], 1 / powers[np.abs(power)])  # P(y + 1) / P(y)
        above = np.where(y > 0, tails[y - 1], 1.0)
        share = np.where(y > 0, 1.0, 2.0)  # the middle gives to both sides
        below = tails[y + 1]
        found: Numbers = (weight * above + below) / (1 + share * weight)
        return found

    for sweep in range(2 * SWEEPS):
        y = borders[sweep % 2]
        # The atom of each tail: host[x] <= tail < upper[x].
        x = np.searchsorted(-host, -tails[y], side="left").clip(0, count - 1)
        wanted = placed(y, x)
        lower, higher = host[x], upper[x]
        into_lower, into_higher = wanted < lower, wanted > higher
        beyond = np.where(into_lower, x + 1, np.maximum(x - 1, 0)).clip(0, count - 1)
        other = placed(y, beyond)
        # Into the next atom, but no farther at once; at the border where the next one pushes back.
        moved = np.where(into_lower, np.minimum(np.maximum(other, host[beyond]), lower), wanted)
        moved = np.where(into_higher, np.maximum(np.minimum(other, upper[beyond]), higher), moved)
        tails[y] = moved
    masses = np.concatenate([[1 - 2 * tails[0]], tails[:-1] - tails[1:]])
    return np.concatenate([masses[:0:-1], masses])


def _stretched(host: Numbers, factor: float) -> Numbers:
    """Return tails to start from: those of a wider two-sided geometric distribution."""
    count = len(host)
    middle = 1 - 2 * host[0]
    scale = (1 - middle) / (2 * middle)  # of a geometric distribution with that middle
    wider = math.sqrt(scale * scale + factor / (1 - factor) / 2)
    return _tail(geometric(wider / (1 + wider), count - 1))


def _tail(masses: Numbers) -> Numbers:
    """Return P(X > x) for x = 0..reach of a symmetric distribution on -reach..reach."""
    half = masses[len(masses) // 2 + 1 :]
    return np.concatenate([np.add.accumulate(half[::-1])[::-1], [0.0]])


def _whole(masses: Numbers) -> Counts:
    """Return a symmetric distribution as integers of at least 1 that add up to ``TOTAL``."""
    half = np.maximum(1, np.floor(masses[len(masses) // 2 + 1 :] * TOTAL)).astype(np.int64)
    middle = TOTAL - 2 * int(half.sum())
    while middle < 1:  # a very wide host: what was rounded up is taken back where there is most
        half[half.argmax()] -= 1
        middle += 2
    return np.concatenate([half[::-1], [middle], half])


def _coupled(host: Counts, marked: Counts, reach: int, margin: int) -> Transfer:
    """Couple two integer distributions on -reach..reach without crossings."""
    ends_x, ends_y = np.add.accumulate(host), np.add.accumulate(marked)
    rows: list[dict[int, int]] = [{} for _ in range(2 * REACH + 1)]
    columns: list[dict[int, int]] = [{} for _ in range(2 * REACH + 1)]
    x = y = done = 0
    distortion = 0.0
    while done < TOTAL:
        end = min(int(ends_x[x]), int(ends_y[y]))
        if end > done:
            a, b = x - reach + REACH, y - reach + REACH
            rows[a][b] = columns[b][a] = end - done
            distortion += (end - done) / TOTAL * (x - y) ** 2
            done = end
        x += int(ends_x[x]) == end
        y += int(ends_y[y]) == end
    for value in range(2 * REACH + 1):
        rows[value].setdefault(value, 1)
        columns[value].setdefault(value, 1)
    gain = float(_entropy(marked) - _entropy(host))
    return Transfer(_frozen(rows), _frozen(columns), _gains(rows, columns), gain, distortion, margin)


def _frozen(lists: list[dict[int, int]]) -> tuple[tuple[tuple[int, ...], tuple[int, ...], int], ...]:
    return tuple(
        (tuple(value - REACH for value in sorted(line)), tuple(line[v] for v in sorted(line)), sum(line.values()))
        for line in lists
    )


def _entropy(counts: Counts) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


def _gains(rows: list[dict[int, int]], columns: list[dict[int, int]]) -> Numbers:
    """Return for each x the mean of log P(x | y) - log P(y | x) in bits: what a value of it adds to what is hidden."""
    sums = [sum(line.values()) for line in columns]
    gains = np.zeros(len(rows))
    for x, line in enumerate(rows):
        total = sum(line.values())
        for y, count in line.items():
            share = count / total
            gains[x] += share * (math.log2(columns[y][x] / sums[y]) - math.log2(share))
    return gains
