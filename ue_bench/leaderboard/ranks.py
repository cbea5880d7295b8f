"""Rank rows with intervals: rows that cannot be told apart share a rank.

Two rows are compared by the paired bootstrap over seeds and columns: both are resampled alike, with the columns and the
seeds that both have. One seed in common tells nothing of seeds: then the mean over all that a row has counts. The
variance of the mean difference over such resamples has a closed form, which is used in place of resamples: the limit of
infinitely many, the same on every machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

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
    better, worse = np.zeros(len(names), dtype=int), np.zeros(len(names), dtype=int)
    for i, verdicts in enumerate(_verdicts(list(rows.values()))):
        better[i] += (verdicts > 0).sum()  # the other one is lower
        worse[i] += (verdicts < 0).sum()
        better[i + 1 :] += verdicts < 0
        worse[i + 1 :] += verdicts > 0
    return {
        name: Rank(1 + int(above), len(names) - int(below), len(names))
        for name, above, below in zip(names, better, worse, strict=True)
    }


def _verdicts(rows: Sequence[Values]) -> Iterator[NDArray[np.int64]]:
    """Yield, for one row after the other, how it compares with those behind it, see ``compare``."""
    others = len(rows) - 1
    seeds = {column: set(values) for column, values in rows[0].items()} if rows else {}
    shared = set.intersection(*seeds.values()) if seeds else set()
    alike = all({c: set(values) for c, values in row.items()} == dict.fromkeys(seeds, shared) for row in rows)
    if alike and shared:  # all at once, for a board may have hundreds of rows
        table = np.array([[[row[c][s] for c in seeds] for s in sorted(shared)] for row in rows])
        for i in range(others):
            yield compare(table[i] - table[i + 1 :], others)
        return
    for i, first in enumerate(rows):
        pairs = (paired(first, second) for second in rows[i + 1 :])
        yield np.array([compare(pair, others).item() for pair in pairs], dtype=np.int64)


def compare(differences: NDArray[np.float64], comparisons: int) -> NDArray[np.int64]:
    """Return 1 where a row has the higher mean for certain, -1 where the lower one, 0 where neither is certain.

    ``differences`` from other rows are ... x seeds x columns. ``comparisons`` share the error of 5 %.
    """
    columns = differences.shape[-1]
    if columns < FEWEST:
        return np.zeros(differences.shape[:-2], dtype=np.int64)
    mean = differences.mean((-2, -1))
    half = _quantile(columns - 1, comparisons) * np.sqrt(bootstrap_variance(differences))
    verdicts: NDArray[np.int64] = (mean > half).astype(np.int64) - (mean < -half)
    return verdicts


def paired(first: Values, second: Values) -> NDArray[np.float64]:
    """Return differences, seeds by columns that both have: of two or more seeds in common, else of means."""
    columns = [c for c in first if c in second]
    shared = set.intersection(*(set(values[c]) for values in (first, second) for c in columns)) if columns else set()
    if len(shared) > 1:
        return np.array([[first[c][s] - second[c][s] for c in columns] for s in sorted(shared)])
    return np.array([[_mean(first[c]) - _mean(second[c]) for c in columns]])


def bootstrap_variance(differences: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the variance of the mean of tables, ... x seeds x columns, when both are resampled with replacement.

    The columns' part is corrected for their number, as the variance of a sample is.
    """
    s, k = differences.shape[-2:]
    total = differences.sum((-2, -1))
    columns = (differences.sum(-2) ** 2).sum(-1)
    seeds = (differences.sum(-1) ** 2).sum(-1)
    cells = (differences**2).sum((-2, -1))
    # Counts of resampling s of s have E[n_i n_j] = (s - 1) / s, and 1 more where i = j.
    a, b = (s - 1) / s, (k - 1) / k
    second_moment = (a * b * total**2 + a * columns + b * seeds + cells) / (s * k) ** 2
    variance: NDArray[np.float64] = np.maximum(second_moment - (total / (s * k)) ** 2, 0.0) * k / (k - 1)
    return variance


@lru_cache(256)
def _quantile(degrees: int, comparisons: int) -> float:
    """Return Student's t from which on differences have the wrong sign in 5 % of cases, all comparisons together."""
    from scipy.special import stdtrit

    quantile: float = stdtrit(degrees, 1 - (1 - LEVEL) / max(comparisons, 1)).item()
    return quantile


def _mean(values: Mapping[int, float]) -> float:
    return fmean(values.values())
