"""Tell rows apart seed by seed: intervals of differences that hold at whatever seed one looks or stops.

An interval for a number of seeds that was fixed beforehand misses far more often than in 5 % of cases when one looks
after every seed and stops as soon as it suits. These form a *confidence sequence*: the chance that any of them, ever,
misses the true difference of its rows is 5 %, for all pairs of a class together.

Assumptions: what a row's mean over the columns comes to at one seed is normal, seeds are unrelated, and so are rows.
Where the same seed moves two rows alike, intervals are too wide. All of a row's columns at one seed make one number,
however they are related: they share a protected set. Columns, test images and the clean row are taken as they are.

Each interval inverts the t-test of Lindon, Ham, Tingley and Bojinov (Anytime-Valid Linear Models and Regression
Adjusted Causal Inference in Randomized Experiments, arXiv 2210.08589): a normal prior on the difference, the scale
integrated out. Its error bound is proved for observations of one spread. Those of rows differ, and few seeds tell
little of them: a row's variance is pooled with that of all rows, which counts as two degrees of freedom (as in Smyth,
Statistical Applications in Genetics and Molecular Biology 3, 2004, but of fixed weight), and the degrees of a
difference are Satterthwaite's. Whether the bound holds then is simulated: docs/results.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import fmean, variance

from .intervals import Estimate
from .ranks import LEVEL, Rank

FEWEST = 2  # seeds of a row before it is told from others
PRIOR = 2.0  # degrees of freedom that the pooled variance counts for
PRIOR_SCALE = 2.0  # variance of the prior on a difference, in variances of a difference at one seed
Seeds = Mapping[str, Sequence[float]]  # by row: its mean over the columns, one a seed


@dataclass(frozen=True)
class RowSpread:
    """The mean of a row over ``n`` seeds, and the variance over seeds with its degrees of freedom."""

    name: str
    mean: float
    n: int
    variance: float
    degrees: float

    def with_another(self) -> RowSpread:
        """Return what it is expected to be with one more seed: the same, but for the number of seeds."""
        return replace(self, n=self.n + 1, degrees=self.degrees + 1)


@dataclass(frozen=True)
class Pair:
    """Two rows of a class. ``difference`` has the interval; it is None where a row has too few seeds."""

    first: RowSpread
    second: RowSpread
    difference: Estimate | None

    @property
    def separated(self) -> bool:
        """Whether it is certain which of the two is lower."""
        return self.clearness > 1

    @property
    def clearness(self) -> float:
        """The difference in half-widths of its interval: from 1 on the rows are apart."""
        if self.difference is None or not self.difference.half_width:
            return math.inf if self.difference and self.difference.mean else 0.0
        return abs(self.difference.mean) / self.difference.half_width


@dataclass(frozen=True)
class Separation:
    """All pairs of the rows of one class, and the error that they share."""

    rows: tuple[RowSpread, ...]
    pairs: tuple[Pair, ...]

    @property
    def open(self) -> tuple[Pair, ...]:
        """The pairs that are not told apart yet."""
        return tuple(pair for pair in self.pairs if not pair.separated)

    def ranks(self) -> dict[str, Rank]:
        """Return the ranks that rows may have, the lowest mean first."""
        below = dict.fromkeys((row.name for row in self.rows), 0)
        above = dict(below)
        for pair in self.pairs:
            if pair.separated:
                low, high = sorted((pair.first, pair.second), key=lambda row: row.mean)
                above[high.name] += 1
                below[low.name] += 1
        count = len(self.rows)
        return {row.name: Rank(1 + above[row.name], count - below[row.name], count) for row in self.rows}

    def gains(self) -> dict[str, float]:
        """Return by how much one more seed of each row is expected to bring its open pairs nearer to being apart.

        In half-widths, summed over the pairs, with means and spreads as they are now. Two rows that look alike gain
        next to nothing: seeds go where they may decide something.
        """
        gained = dict.fromkeys((row.name for row in self.rows), 0.0)
        for pair in self.open:
            for now, other in ((pair.first, pair.second), (pair.second, pair.first)):
                later = compared(now.with_another(), other, len(self.pairs))
                gained[now.name] += max(min(later.clearness, 1.0) - pair.clearness, 0.0)
        return gained


def separate(rows: Seeds, names: Sequence[str]) -> Separation:
    """Compare the rows ``names`` of one class, with the spread that all ``rows`` have in common."""
    several = [values for values in rows.values() if len(values) > 1]
    degrees = sum(len(values) - 1 for values in several)
    pooled = math.fsum((len(values) - 1) * variance(values) for values in several) / degrees if degrees else 0.0
    spreads = tuple(_spread(name, rows[name], pooled) for name in names)
    count = len(names) * (len(names) - 1) // 2
    return Separation(spreads, tuple(compared(a, b, count) for a, b in combinations(spreads, 2)))


def _spread(name: str, values: Sequence[float], pooled: float) -> RowSpread:
    own = (len(values) - 1) * variance(values) if len(values) > 1 else 0.0
    degrees = PRIOR + len(values) - 1
    return RowSpread(name, fmean(values), len(values), (PRIOR * pooled + own) / degrees, degrees)


def compared(first: RowSpread, second: RowSpread, comparisons: int) -> Pair:
    """Return how two rows compare, where ``comparisons`` share the error of 5 % (Bonferroni)."""
    if min(first.n, second.n) < FEWEST:
        return Pair(first, second, None)
    a, b = first.variance / first.n, second.variance / second.n
    mean = first.mean - second.mean
    if a + b == 0:  # no seed of any row differs from another: nothing is random
        return Pair(first, second, Estimate(mean, min(first.n, second.n), 0.0, mean, mean))
    degrees = (a + b) ** 2 / (a * a / first.degrees + b * b / second.degrees)
    seeds = (first.variance + second.variance) / (a + b)
    half = math.sqrt(a + b) * anytime_quantile(degrees, seeds, (1 - LEVEL) / comparisons)
    return Pair(first, second, Estimate(mean, min(first.n, second.n), half, mean - half, mean + half))


def anytime_quantile(degrees: float, seeds: float, error: float) -> float:
    """Return how many standard errors an interval reaches to each side that may be looked at after every seed.

    It is where the Bayes factor of a normal prior, ``PRIOR_SCALE`` * ``seeds`` squared standard errors wide, against
    no difference reaches 1 / ``error``. Infinite where so few seeds cannot reach it.
    """
    g = PRIOR_SCALE * seeds
    ratio = ((1 + g) / error**2) ** (1 / (degrees + 1))
    if ratio >= 1 + g:
        return math.inf
    return math.sqrt(degrees * (ratio - 1) / (1 - ratio / (1 + g)))
