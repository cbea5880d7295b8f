"""Estimate how far seeds move an accuracy, from cells that are alike. Pure functions, no third-party library.

Seeds move cells by very different amounts: on the board ``cifar10-micro`` by half a point where nothing protects, and
by ten where a network is between two solutions. So cells are put together by the share of the clean accuracy that an
adversary gets back: under 20 %, from 20 to 80, and beyond.

One seed does not show where a cell belongs: one that gives back 10 % at one seed and 50 % at another looks like a firm
one half of the time. So the spread of cells with one seed is found as they are seen: every seed of a cell of several is
taken for the only one, put where its own share says, and held to the others.
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
    degrees: float


NONE = Spread(0.0, 0)


@dataclass(frozen=True)
class Spreads:
    """Those of cells with a low, a middle and a high recovered share; without any where no cell has two seeds.

    ``several`` is for cells whose share is a mean over seeds, ``single`` for those of one seed.
    """

    several: tuple[Spread, ...] = ()
    single: tuple[Spread, ...] = ()

    def of(self, share: float | None, seeds: int = 1) -> Spread:
        """Return that of cells with this share: the largest where it or that of such cells is not known."""
        found = self.several if seeds > 1 else self.single
        known = [spread for spread in found if spread.degrees]
        if not known:
            return NONE
        own = found[_place(share)] if share is not None else NONE
        return own if own.degrees else max(known, key=lambda spread: spread.deviation)

    @property
    def range(self) -> tuple[float, float] | None:
        """The smallest and the largest; None where no cell has two seeds."""
        known = [spread.deviation for spread in (*self.several, *self.single) if spread.degrees]
        return (min(known), max(known)) if known else None


@dataclass
class _Squares:
    """A sum of squares of deviations, and its degrees of freedom."""

    total: float = 0.0
    degrees: float = 0.0

    def add(self, square: float, degrees: float) -> None:
        self.total += square
        self.degrees += degrees

    @property
    def spread(self) -> Spread:
        return Spread(math.sqrt(self.total / self.degrees), self.degrees) if self.degrees else NONE


def spreads(cells: Iterable[tuple[Sequence[float] | None, Sequence[float]]]) -> Spreads:
    """Return the spreads of cells, given by recovered shares in percent and values, one of each a seed.

    Cells without shares, and with one seed, say nothing.
    """
    several, single = ([_Squares() for _ in range(len(EDGES) + 1)] for _ in range(2))
    for shares, values in cells:
        n = len(values)
        if shares is None or n < 2:
            continue
        middle = fmean(values)
        several[_place(fmean(shares))].add(math.fsum((v - middle) ** 2 for v in values), n - 1)
        for share, value in zip(shares, values, strict=True):
            # A seed is n / (n - 1) as far from the mean of the others as from the mean of all, whose squares count
            # for n - 1 degrees together.
            single[_place(share)].add((value - middle) ** 2, (n - 1) / n)
    return Spreads(tuple(one.spread for one in several), tuple(one.spread for one in single))


def _place(share: float) -> int:
    return sum(share >= edge for edge in EDGES)
