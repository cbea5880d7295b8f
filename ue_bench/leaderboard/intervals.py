"""Compute means over seeds with 95 % intervals. Pure functions, no third-party library.

Two things move a measured accuracy: the seed, and which test images there are. The seed's share is estimated from the
spread over seeds. That of the test set is the same for all seeds, which share their images, so no number of seeds shows
it: it is computed from the number of images, and the two are combined as the root of the sum of their squares.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev

Z975 = NormalDist().inv_cdf(0.975)

# Student's t, 97.5 % quantile, for 1 to 30 degrees of freedom (any statistics textbook).
_T975 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


def t_quantile(degrees: int) -> float:
    """Return the factor of a two-sided 95 % interval: Student's t at 0.975."""
    if degrees < 1:
        raise ValueError("an interval needs at least two values")
    if degrees <= len(_T975):
        return _T975[degrees - 1]
    terms = (  # expansion in 1 / degrees, Abramowitz & Stegun 26.7.5
        (Z975**3 + Z975) / 4,
        (5 * Z975**5 + 16 * Z975**3 + 3 * Z975) / 96,
        (3 * Z975**7 + 19 * Z975**5 + 17 * Z975**3 - 15 * Z975) / 384,
    )
    return Z975 + math.fsum(term / float(degrees) ** power for power, term in enumerate(terms, start=1))


@dataclass(frozen=True)
class Estimate:
    """A mean over ``n`` seeds with a 95 % interval from ``low`` to ``high``.

    ``half_width`` is what stands behind ±, the longer side of the interval. It is None at n = 1: the interval of an
    accuracy is then of the test set alone, and that of any other number does not exist.
    """

    mean: float
    n: int
    half_width: float | None = None
    low: float | None = None
    high: float | None = None


def estimate(values: Sequence[float]) -> Estimate:
    """Return the mean and 95 % t-interval over seeds of at least one value that no test set limits."""
    n, mean = len(values), fmean(values)
    if n == 1:
        return Estimate(mean, n)
    half = seed_half_width(values)
    return Estimate(mean, n, half, mean - half, mean + half)


def accuracy(values: Sequence[float], images: int) -> Estimate:
    """Return the mean of accuracies in percent, one a seed, and its interval for all images and all seeds.

    ``images`` is the size of the test set. Its part is Wilson's interval, which is right at the ends, too.
    """
    mean = fmean(values)
    low, high = wilson(mean, images)
    return combined(values, mean - low, high - mean)


def mean_accuracy(rows: Sequence[Sequence[float]], images: int) -> Estimate:
    """Return the mean of ``rows``, one a seed, of accuracies in percent under several countermeasures."""
    columns = [fmean(column) for column in zip(*rows, strict=True)]
    half = Z975 * average_error(columns, images)
    return combined([fmean(row) for row in rows], half, half)


def combined(values: Sequence[float], below: float, above: float) -> Estimate:
    """Return the mean of percentages with an interval from 0 to 100 at most.

    ``below`` and ``above`` are the half-widths of what the test set alone gives.
    """
    n, mean = len(values), fmean(values)
    seeds = seed_half_width(values) if n > 1 else 0.0
    low, high = max(mean - math.hypot(seeds, below), 0.0), min(mean + math.hypot(seeds, above), 100.0)
    return Estimate(mean, n, max(mean - low, high - mean) if n > 1 else None, low, high)


def seed_half_width(values: Sequence[float]) -> float:
    """Return the half-width of the 95 % t-interval over two or more seeds, without the error of the test set."""
    n = len(values)
    return t_quantile(n - 1) * stdev(values) / math.sqrt(n)


def wilson(percent: float, images: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of an accuracy in percent on so many images; all of 0 to 100 without images."""
    if images < 1:
        return 0.0, 100.0
    p, spread = min(max(percent / 100, 0.0), 1.0), Z975**2 / images
    middle = (p + spread / 2) / (1 + spread)
    half = Z975 / (1 + spread) * math.sqrt(p * (1 - p) / images + spread / (4 * images))
    return max(100 * (middle - half), 0.0), min(100 * (middle + half), 100.0)


def binomial_error(percent: float, images: int) -> float:
    """Return the standard error, in points, that the size of the test set alone gives an accuracy in percent."""
    return average_error([percent], images)


def average_error(percents: Sequence[float], images: int, weights: Sequence[float] | None = None) -> float:
    """Return the standard error, in points, that one test set gives the mean of several accuracies in percent.

    ``weights``, none of them negative, multiply the accuracies.

    An upper bound: images are taken to be hard in the same order for all victims, so that errors add up. The
    covariance of two accuracies p <= q is then p (1 - q) / images, the largest that these two can have (Fréchet).
    """
    if not images:
        return math.nan
    clipped = (min(max(percent / 100, 0.0), 1.0) for percent in percents)
    shares = sorted(zip(clipped, weights or [1.0] * len(percents), strict=True))
    total = math.fsum(
        a * p * b * (1 - q) * (1 if i == j else 2)
        for i, (p, a) in enumerate(shares)
        for j, (q, b) in enumerate(shares[i:], i)
    )
    return 100 * math.sqrt(max(total, 0.0) / images) / len(shares)
