"""Estimate how far seeds move an accuracy, from cells that are alike. Pure functions, no third-party library.

Seeds move cells by very different amounts: on the board ``cifar10-micro`` by half a point where nothing protects, and
by ten where a network is between two solutions. So cells are put together by the share of the clean accuracy that an
adversary gets back: under 20 %, from 20 to 80, and beyond.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

EDGES = (20.0, 80.0)  # percent


@dataclass(frozen=True)
class Spread:
    """A standard deviation over seeds in points, and its degrees of freedom."""

    deviation: float
    degrees: int


NONE = Spread(0.0, 0)


@dataclass(frozen=True)
class Spreads:
    """Those of cells with a low, a middle and a high recovered share; without any where no cell has two seeds."""

    found: tuple[Spread, ...] = ()

    def of(self, share: float | None) -> Spread:
        """Return that of cells with this share: the largest where it or that of such cells is not known."""
        known = [spread for spread in self.found if spread.degrees]
        if not known:
            return NONE
        own = self.found[_place(share)] if share is not None else NONE
        return own if own.degrees else max(known, key=lambda spread: spread.deviation)

    @property
    def range(self) -> tuple[float, float] | None:
        """The smallest and the largest; None where no cell has two seeds."""
        known = [spread.deviation for spread in self.found if spread.degrees]
        return (min(known), max(known)) if known else None


def spreads(cells: Iterable[tuple[float | None, Sequence[float]]]) -> Spreads:
    """Return the spreads of cells, given by recovered share in percent and values by seed.

    Cells without a share, and with one seed, say nothing.
    """
    groups: list[list[Sequence[float]]] = [[] for _ in range(len(EDGES) + 1)]
    for share, values in cells:
        if share is not None and len(values) > 1:
            groups[_place(share)].append(values)
    return Spreads(tuple(map(_pooled, groups)))


def _place(share: float) -> int:
    return sum(share >= edge for edge in EDGES)


def _pooled(cells: Sequence[Sequence[float]]) -> Spread:
    degrees = sum(len(values) - 1 for values in cells)
    if not degrees:
        return NONE
    squares = math.fsum((v - fmean(values)) ** 2 for values in cells for v in values)
    return Spread(math.sqrt(squares / degrees), degrees)
