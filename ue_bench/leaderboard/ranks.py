"""Rank rows with intervals: rows that cannot be told apart share a rank.

Two rows are compared by the paired bootstrap over seeds and columns: both are resampled alike, with the columns and the
seeds that both have. The variance of the mean difference over such resamples has a closed form, which is used in place
of resamples: the limit of infinitely many, the same on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

LEVEL = 0.95
FEWEST = 4  # columns that tell rows apart at all
Values = Mapping[str, Mapping[int, float]]  # by column and seed


@dataclass(frozen=True)
class Rank:
    """The ranks that a row may have among ``rows``, 1 the best; ``low`` is the rank it shares with its like."""

    low: int
    high: int
    rows: int

    def text(self) -> str:
        """Return the rank as it is shown."""
        return str(self.low) if self.low == self.high else f"{self.low}–{self.high}"


def ranks(rows: Mapping[str, Values]) -> dict[str, Rank]:
    """Return the ranks of rows with the same columns: the lower the mean, the better.

    A row's lowest rank is one more than the number of rows that are better for certain, its highest is what is left by
    those that are worse for certain. The interval misses the true rank where a difference is certain and has the wrong
    sign; a row's comparisons share an error of 5 % for that (Bonferroni), so that it holds it with 95 % at least.
    """
    names = list(rows)
    better = dict.fromkeys(names, 0)
    worse = dict(better)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            verdict = compare(rows[first], rows[second], len(names) - 1)
            for name, sign in ((first, verdict), (second, -verdict)):
                better[name] += sign > 0  # the other one is lower
                worse[name] += sign < 0
    return {name: Rank(1 + better[name], len(names) - worse[name], len(names)) for name in names}


def compare(first: Values, second: Values, comparisons: int) -> int:
    """Return 1 where ``first`` has the higher mean for certain, -1 where the lower one, 0 where neither is certain.

    ``comparisons`` share the error of 5 %.
    """
    columns = [c for c in first if c in second]
    if len(columns) < FEWEST:
        return 0
    differences = paired(first, second, columns)
    mean = sum(map(sum, differences)) / (len(differences) * len(columns))
    half = _quantile(len(columns) - 1, comparisons) * math.sqrt(bootstrap_variance(differences))
    return (mean > half) - (mean < -half)


def paired(first: Values, second: Values, columns: Sequence[str]) -> list[list[float]]:
    """Return differences, seeds by columns, of the seeds that both rows have everywhere; of means where none is."""
    shared = set.intersection(*(set(values[c]) for values in (first, second) for c in columns))
    if shared:
        return [[first[c][s] - second[c][s] for c in columns] for s in sorted(shared)]
    return [[_mean(first[c]) - _mean(second[c]) for c in columns]]


def bootstrap_variance(differences: Sequence[Sequence[float]]) -> float:
    """Return the variance of the mean of a table, seeds by columns, when both are resampled with replacement.

    The columns' part is corrected for their number, as the variance of a sample is.
    """
    s, k = len(differences), len(differences[0])
    total = sum(map(sum, differences))
    columns = sum(sum(column) ** 2 for column in zip(*differences, strict=True))
    seeds = sum(sum(row) ** 2 for row in differences)
    cells = sum(value * value for row in differences for value in row)
    # Counts of resampling s of s have E[n_i n_j] = (s - 1) / s, and 1 more where i = j.
    a, b = (s - 1) / s, (k - 1) / k
    second_moment: float = (a * b * total**2 + a * columns + b * seeds + cells) / (s * k) ** 2
    return max(second_moment - (total / (s * k)) ** 2, 0.0) * k / (k - 1)


@lru_cache(256)
def _quantile(degrees: int, comparisons: int) -> float:
    """Return Student's t from which on differences have the wrong sign in 5 % of cases, all comparisons together."""
    from scipy.special import stdtrit

    quantile: float = stdtrit(degrees, 1 - (1 - LEVEL) / max(comparisons, 1)).item()
    return quantile


def _mean(values: Mapping[int, float]) -> float:
    return sum(values.values()) / len(values)
