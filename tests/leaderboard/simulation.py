"""Simulate boards whose true numbers are known, to count how often an interval holds the truth.

``python -m tests.leaderboard.simulation`` prints the tables of docs/results.md; with a file it draws the figure.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from ue_bench.leaderboard.headline import Column, recovery
from ue_bench.leaderboard.intervals import Estimate, accuracy, estimate, mean_accuracy
from ue_bench.leaderboard.ranks import ranks
from ue_bench.leaderboard.separation import Pair, separate

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
    return _held([mean_accuracy(trial.tolist(), images) for trial in 100 * flat], truth)


def _held(found: Sequence[Estimate], truth: float) -> float:
    return sum(e.low is not None and e.high is not None and e.low <= truth <= e.high for e in found) / len(found)


def rank_coverage(gap: float, spread: float, seeds: int, trials: int = 60) -> float:
    """Return how often rank intervals of six rows hold the true ranks.

    Twelve columns drawn at random differ by 15 points from one another and by 10 from row to row; true means of rows
    are ``gap`` points apart. Every cell has a ``spread`` over seeds, and half as much is common to a row's cells.
    """
    rng = np.random.default_rng([int(10 * gap), int(10 * spread), seeds])
    held = 0
    for _ in range(trials):
        values = 30 + gap * np.arange(6)[:, None, None] + rng.normal(0, 15, (1, 1, 12)) + rng.normal(0, 10, (6, 1, 12))
        values = values + rng.normal(0, spread, (6, seeds, 12)) + rng.normal(0, spread / 2, (6, seeds, 1))
        rows = {str(r): {str(c): dict(enumerate(values[r, :, c].tolist())) for c in range(12)} for r in range(6)}
        found = ranks(rows)
        held += sum(found[str(r)].low <= r + 1 <= found[str(r)].high for r in range(6))
    return held / (6 * trials)


SPREADS_OF_ROWS = ("equal", "unequal", "one row unstable")  # of five rows


def _spreads(kind: str, rng: np.random.Generator) -> Array:
    """Return standard deviations over seeds of five rows' means: 1, or 0.3 to 3, or 0.3 and one of 5."""
    if kind == "equal":
        return np.ones(5)
    return np.exp(rng.uniform(math.log(0.3), math.log(3), 5)) if kind == "unequal" else np.array([0.3] * 4 + [5.0])


def separation_coverage(
    gap: float, kind: str, further: int = 30, trials: int = 400, *, fixed: bool = False, normal: bool = True
) -> float:
    """Return in how many trials all intervals of five rows' differences hold the truth at every look.

    Rows begin with two seeds; then the one that gains most gets the next, until all are apart or ``further`` seeds are
    spent, and all intervals are looked at after each. True means are ``gap`` apart. ``fixed``: with intervals for a
    number of seeds that was fixed beforehand. Not ``normal``: errors of the same spread with a long tail to one side.
    """
    return 1 - len(separation_misses(gap, kind, further, trials, fixed=fixed, normal=normal)) / trials


def separation_misses(
    gap: float, kind: str, further: int, trials: int, *, fixed: bool = False, normal: bool = True
) -> list[int]:
    """Return after how many further seeds an interval first missed the truth, of the trials in which one did."""
    rng = np.random.default_rng([int(10 * gap), SPREADS_OF_ROWS.index(kind)])
    missed: list[int] = []
    truth: Array = gap * np.arange(5.0)
    for _ in range(trials):
        spreads = _spreads(kind, rng)

        def drawn(row: int, spreads: Array = spreads) -> float:
            error = rng.normal() if normal else rng.exponential() - 1
            return float(truth[row] + spreads[row] * error)

        rows = {str(row): [drawn(row), drawn(row)] for row in range(5)}
        missed += [spent for spent, held in enumerate(_looks(rows, truth, drawn, further, fixed)) if not held][:1]
    return missed


def _looks(
    rows: dict[str, list[float]], truth: Array, drawn: Callable[[int], float], further: int, fixed: bool
) -> Iterator[bool]:
    """Yield after every seed whether all intervals hold the truth."""
    for spent in range(further + 1):
        found = separate(rows, list(rows))
        yield all(_holds(pair, truth, rows, len(found.pairs), fixed) for pair in found.pairs)
        if not found.open or spent == further:
            return
        gains = found.gains()
        chosen = max(rows, key=lambda row: (gains[row], -len(rows[row])))
        rows[chosen].append(drawn(int(chosen)))


def _holds(pair: Pair, truth: Array, rows: dict[str, list[float]], comparisons: int, fixed: bool) -> bool:
    true = truth[int(pair.first.name)] - truth[int(pair.second.name)]
    assert pair.difference is not None
    half = pair.difference.half_width
    if fixed:  # Welch's interval
        a, b = (float(np.var(rows[p.name], ddof=1)) / p.n for p in (pair.first, pair.second))
        degrees = (a + b) ** 2 / (a**2 / (pair.first.n - 1) + b**2 / (pair.second.n - 1))
        half = math.sqrt(a + b) * float(stdtrit(degrees, 1 - 0.025 / comparisons))
    assert half is not None
    return bool(abs(pair.difference.mean - true) <= half)


def share_coverage(truths: Sequence[float], spread: float, seeds: int, images: int, trials: int = 500) -> float:
    """Return how often the interval of a mean recovered share holds the true one; clean rows are at 70 %."""
    rng = np.random.default_rng([len(truths), int(10 * spread), seeds, images, 1])
    k, top = len(truths), 70.0
    shares = np.clip(rng.normal([*truths, *[top] * k], spread, (trials, seeds, 2 * k)) / 100, 0, 1)
    flat = 100 * on_test_set(shares.reshape(trials, -1), images, rng).reshape(shares.shape)
    found = []
    for trial in flat:
        pairs = [(dict(enumerate(trial[:, c].tolist())), dict(enumerate(trial[:, k + c].tolist()))) for c in range(k)]
        back = recovery([Column(str(c), *pair) for c, pair in enumerate(pairs)], 10.0, images)
        assert back is not None
        found.append(back.mean)
    return _held(found, 100 * (float(np.mean(truths)) - 10) / (top - 10))


def cells_table() -> list[list[str]]:
    """Return the smallest and largest coverage of cells over ``TRUTHS``, by test images, spread and seeds."""
    lines = []
    for images in IMAGES:
        for spread in SPREADS:
            found = [[cell_coverage(truth, spread, n, images) for truth in TRUTHS] for n in SEEDS]
            lines.append([f"{images:,}", f"{spread:g}", *(f"{100 * min(f):.0f}–{100 * max(f):.0f}" for f in found)])
    return lines


def draw_separation(path: Path, trials: int = 300) -> None:
    """Draw how often every interval so far holds the truth, by the number of further seeds: docs/separation.png."""
    from matplotlib.figure import Figure

    figure = Figure((6.4, 3.2), layout="constrained")
    axes = figure.subplots()
    for kind, style in zip(SPREADS_OF_ROWS, ("-", "--", ":"), strict=True):
        for fixed, color, name in ((False, "C0", "valid at any seed"), (True, "C1", "for a fixed number of seeds")):
            missed = separation_misses(0.0, kind, 30, trials, fixed=fixed)
            held = [100 * (1 - sum(at <= spent for at in missed) / trials) for spent in range(31)]
            axes.plot(range(31), held, style, color=color, label=f"{name}, {kind}")
    axes.axhline(95, color="gray", linewidth=0.8)
    axes.set(
        xlabel="further seeds given to five rows that are alike", ylabel="all looks so far right (%)", ylim=(40, 101)
    )
    axes.legend(fontsize=7, loc="lower left")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        draw_separation(Path(sys.argv[1]))
        sys.exit()
    print("| test images | sd over seeds | n = 2 | n = 3 | n = 5 | n = 8 |\n|---:|---:|---:|---:|---:|---:|")
    for line in cells_table():
        print(f"| {' | '.join(line)} |")
    row = (10.0, 10.0, 11.0, 15.0, 20.0, 25.0, 30.0, 45.0, 50.0, 65.0, 67.0, 70.0)
    for n in SEEDS:
        settings = [(spread, n, images) for images in IMAGES for spread in SPREADS]
        print(f"n = {n}, rows:", [row_coverage(row, *setting) for setting in settings])
        print(f"n = {n}, shares:", [share_coverage(row, *setting) for setting in settings])
    for gap in (0.0, 2.0):
        for kind in SPREADS_OF_ROWS:
            looked = [separation_coverage(gap, kind), separation_coverage(gap, kind, normal=False)]
            print(f"separation, {gap} apart, {kind}:", looked, separation_coverage(gap, kind, fixed=True))
    for gap in (0.1, 2.0, 6.0, 15.0):
        print(f"ranks, {gap} apart:", [rank_coverage(gap, spread, n) for spread in (0.3, 5.0) for n in (1, *SEEDS)])
