from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

import numpy as np
import pytest

from ue_bench.leaderboard.spreads import NONE, Spread, Spreads, spreads

CELLS: list[tuple[Sequence[float] | None, Sequence[float]]] = [
    ([4.0, 6.0], [9.0, 11.0]),  # squares 2
    ([18.0, 21.8], [12.0, 16.0]),  # squares 8
    ([30.0, 50.0, 70.0], [30.0, 40.0, 50.0]),  # squares 200
    ([80.0], [60.0]),  # says nothing
    (None, [0.0, 90.0]),  # nor does this
]


def test_cells_are_pooled_with_those_of_like_share() -> None:
    found = spreads(CELLS)
    assert found.of(0.0, 2) == Spread(math.sqrt(10 / 2), 2)
    assert found.of(20.0, 2) == found.of(79.9, 3) == Spread(10.0, 2)


def test_seeds_by_themselves_are_pooled_where_their_own_share_puts_them() -> None:
    """The cell with 18 and 21.8 %: one of its seeds looks like a low one, the other like one of the middle."""
    found = spreads(CELLS)
    assert found.of(0.0).degrees == 0.5 + 0.5 + 0.5
    assert found.of(0.0).deviation == pytest.approx(math.sqrt((1 + 1 + 4) / 1.5))
    assert found.of(50.0).degrees == pytest.approx(0.5 + 3 * 2 / 3)
    assert found.of(50.0).deviation == pytest.approx(math.sqrt((4 + 200) / 2.5))


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_the_spread_of_single_seeds_is_that_of_what_they_are_put_with(seeds: int) -> None:
    """Cells of one true spread, all in one place: both estimates are of it."""
    values = np.random.default_rng(seeds).normal(30, 4, (20_000, seeds))
    found = spreads((row.tolist(), row.tolist()) for row in np.clip(values, 20, 79))
    assert found.of(50.0).deviation == pytest.approx(4.0, abs=0.1)
    assert found.of(50.0).deviation == pytest.approx(found.of(50.0, seeds).deviation, abs=1e-9)


def test_one_seed_of_a_torn_cell_has_the_spread_of_torn_cells() -> None:
    """At one seed a cell is found to be low, at another one in the middle: from one of them nobody knows."""
    torn: list[tuple[Sequence[float] | None, Sequence[float]]] = [([10.0, 50.0], [10.0, 50.0])] * 5
    firm: list[tuple[Sequence[float] | None, Sequence[float]]] = [([10.0, 10.0], [10.0, 10.0])] * 5
    found = spreads([*torn, *firm])
    assert found.of(10.0, 2).deviation == 0
    # Of fifteen seeds that look low five are of torn cells, 20 points from their middle.
    assert found.of(10.0).deviation == pytest.approx(math.sqrt(fmean([2 * 20**2] * 5 + [0.0] * 10)))


def test_where_nothing_is_known_the_largest_stands() -> None:
    found = spreads(CELLS)
    assert found.of(80.0, 2) == found.of(100.0, 2) == found.of(None, 2) == Spread(10.0, 2)
    assert found.of(100.0) == found.of(50.0)


def test_one_seed_shows_no_spread() -> None:
    assert spreads([([5.0], [9.0]), ([90.0], [60.0])]).of(5.0) == Spreads().of(5.0) == NONE
    assert Spreads().range is None
