"""Simulate boards whose true numbers are known, to count how often an interval holds the truth.

``python -m tests.leaderboard.simulation`` prints the tables of docs/results.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ue_bench.leaderboard.intervals import Estimate, accuracy, estimate, mean_accuracy

SPREADS = (0.3, 1.0, 2.0, 5.0)  # standard deviation over seeds, in points
SEEDS = (2, 3, 5, 8)
IMAGES = (1_000, 10_000)
TRUTHS = (10.0, 50.0, 90.0)
Array = NDArray[np.float64]


def on_test_set(shares: Array, images: int, rng: np.random.Generator) -> Array:
    """Return measured accuracies for true ones, both from 0 to 1, trials x victims.

    A test set of a trial is drawn once: each image has a difficulty, the same for all victims, and those above the
    victim's true accuracy are got wrong.
    """
    order = np.argsort(shares, axis=1)
    edges = np.take_along_axis(shares, order, axis=1)
    ends = np.zeros((len(shares), 1)), np.ones((len(shares), 1))
    counts = rng.multinomial(images, np.diff(np.concatenate([ends[0], edges, ends[1]], axis=1), axis=1))
    measured = np.empty_like(shares)
    np.put_along_axis(measured, order, np.cumsum(counts, axis=1)[:, :-1] / images, axis=1)
    return measured


def cell_coverage(
    truth: float, spread: float, seeds: int, images: int, trials: int = 2_000, *, alone: bool = False
) -> float:
    """Return how often the interval of a cell holds ``truth``, the accuracy over all seeds and images, in percent.

    ``alone``: how often that over seeds alone does.
    """
    rng = np.random.default_rng([int(truth), int(10 * spread), seeds, images])
    shares = np.clip(rng.normal(truth, spread, (trials, seeds)) / 100, 0, 1)
    rows = 100 * on_test_set(shares, images, rng)
    return _held([estimate(row) if alone else accuracy(row, images) for row in rows.tolist()], truth)


def row_coverage(truths: Sequence[float], spread: float, seeds: int, images: int, trials: int = 1_000) -> float:
    """Return how often the interval of a row's mean holds the true one; every cell has its own seeds' errors."""
    rng = np.random.default_rng([len(truths), int(10 * spread), seeds, images])
    shares = np.clip(rng.normal(truths, spread, (trials, seeds, len(truths))) / 100, 0, 1)
    flat = on_test_set(shares.reshape(trials, -1), images, rng).reshape(shares.shape)
    truth = float(np.mean(truths))
    return _held([mean_accuracy(rows, images) for rows in (100 * flat).tolist()], truth)


def _held(found: Sequence[Estimate], truth: float) -> float:
    return sum(e.low is not None and e.high is not None and e.low <= truth <= e.high for e in found) / len(found)


def cells_table() -> list[list[str]]:
    """Return the smallest and largest coverage of cells over ``TRUTHS``, by test images, spread and seeds."""
    lines = []
    for images in IMAGES:
        for spread in SPREADS:
            found = [[cell_coverage(truth, spread, n, images) for truth in TRUTHS] for n in SEEDS]
            lines.append([f"{images:,}", f"{spread:g}", *(f"{100 * min(f):.0f}–{100 * max(f):.0f}" for f in found)])
    return lines


if __name__ == "__main__":
    print("| test images | sd over seeds | n = 2 | n = 3 | n = 5 | n = 8 |\n|---:|---:|---:|---:|---:|---:|")
    for line in cells_table():
        print(f"| {' | '.join(line)} |")
    row = (10.0, 10.0, 11.0, 15.0, 20.0, 25.0, 30.0, 45.0, 50.0, 65.0, 67.0, 70.0)
    for n in SEEDS:
        print(n, [row_coverage(row, spread, n, images) for images in IMAGES for spread in SPREADS])
