"""Compute what an adversary gets back: shares of the clean accuracy, and how far a worst case is too high by being one.

Percentages throughout. Pure functions, no third-party library.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist, fmean

from .intervals import Z975, Estimate, average_error, estimate

BROKEN = 80.0  # percent of the clean accuracy above chance, from which a countermeasure counts as breaking a protector
LEAST = 5.0  # points above chance that the clean row must have in a column for its shares to mean anything
STEPS = 200  # of the integration over the distribution of a maximum


@dataclass(frozen=True)
class Column:
    """What a share needs of one column: the row's and the clean row's accuracies, by seed."""

    name: str
    row: Mapping[int, float]
    clean: Mapping[int, float]


@dataclass(frozen=True)
class Recovery:
    """What an adversary gets back of a protector's images.

    ``shares`` are recovered shares by column, in percent of the clean accuracy above chance: 0 is guessing, 100 what
    unprotected images give. ``broken`` are the columns that recover at least 80 %.
    """

    shares: Mapping[str, float]
    mean: Estimate

    @property
    def worst(self) -> str:
        """The column that recovers most."""
        return max(self.shares, key=lambda name: self.shares[name])

    @property
    def broken(self) -> tuple[str, ...]:
        return tuple(name for name, share in self.shares.items() if share >= BROKEN)


def is_defined(clean: float, chance: float) -> bool:
    """Return whether shares mean anything in a column: whether its clean row is well above chance."""
    return clean - chance >= LEAST


def recovery(columns: Sequence[Column], chance: float, images: int, *, clean_row: bool = False) -> Recovery | None:
    """Return the recovered shares of a row; None where no column has a clean row above chance.

    The interval of the mean is over shares of single seeds, each against the clean row of its seed, or against the mean
    of the clean row where a seed of that is near chance, where all columns have the same two or more; else it is of the
    test set. The test set's error counts the row and the clean row as if
    they failed on unrelated images, which is wide for rows near the clean one. That one has 100 %, exactly.
    """
    defined = [c for c in columns if is_defined(fmean(c.clean.values()), chance)]
    if not defined:
        return None
    tops = {c.name: fmean(c.clean.values()) - chance for c in defined}
    shares = {c.name: 100 * (fmean(c.row.values()) - chance) / tops[c.name] for c in defined}
    mean, n = fmean(shares.values()), min(len(c.row) for c in defined)
    if clean_row:
        return Recovery(shares, Estimate(mean, n))
    error = _test_set_error(defined, tops, shares, images)
    alone = Estimate(mean, n, None, mean - Z975 * error, mean + Z975 * error)
    seeds = set(defined[0].row)
    if len(seeds) < 2 or any(set(c.row) != seeds or not seeds <= set(c.clean) for c in defined):
        return Recovery(shares, alone)
    of_seeds = all(is_defined(c.clean[s], chance) for c in defined for s in seeds)
    by_seed = [
        fmean(100 * (c.row[s] - chance) / ((c.clean[s] - chance) if of_seeds else tops[c.name]) for c in defined)
        for s in sorted(seeds)
    ]
    half = math.hypot(estimate(by_seed).half_width or 0.0, Z975 * error)
    return Recovery(shares, replace(alone, half_width=half, low=mean - half, high=mean + half))


def _test_set_error(
    columns: Sequence[Column], tops: Mapping[str, float], shares: Mapping[str, float], images: int
) -> float:
    """Return the standard error of a mean share from the test set alone, in percent."""
    own = average_error([fmean(c.row.values()) for c in columns], images, [100 / tops[c.name] for c in columns])
    clean = [fmean(c.clean.values()) for c in columns]
    return math.hypot(own, average_error(clean, images, [abs(shares[c.name]) / tops[c.name] for c in columns]))


def bias_of_maximum(means: Sequence[float], errors: Sequence[float]) -> float:
    """Return by how much the largest of several measured numbers is expected to be above the largest true one.

    By the parametric bootstrap: the numbers are taken for true ones and measured again, with independent normal errors
    of these standard deviations; the mean excess of the new maximum over the old one is its bias. It is integrated,
    which is the limit of infinitely many resamples.
    """
    pairs = list(zip(means, errors, strict=True))
    low = max(mean - 8 * error for mean, error in pairs)
    # Numbers that are never the largest would cost time and change nothing.
    spread = [NormalDist(mean, error) for mean, error in pairs if error > 0 and mean + 8 * error > low]
    if not spread:
        return 0.0
    top = max(means)
    high = max(top, max(d.mean + 8 * d.stdev for d in spread))
    step = (high - low) / STEPS
    # As NormalDist.cdf, without a call for each of a million values of a large board.
    scaled = [(d.mean, d.stdev * math.sqrt(2.0)) for d in spread]
    erf = math.erf
    points = [low + i * step for i in range(STEPS + 1)]
    below = [math.prod([0.5 * (1.0 + erf((x - mean) / scale)) for mean, scale in scaled]) for x in points]
    area = step * (math.fsum(below) - (below[0] + below[-1]) / 2)  # trapezoids: the ends are flat
    return max(high - area - top, 0.0)
