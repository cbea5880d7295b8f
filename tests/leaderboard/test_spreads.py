from __future__ import annotations

import math

from ue_bench.leaderboard.spreads import NONE, Spread, Spreads, spreads

CELLS = [
    (5.0, [9.0, 11.0]),  # squares 2
    (19.9, [12.0, 16.0]),  # squares 8
    (50.0, [30.0, 40.0, 50.0]),  # squares 200
    (80.0, [60.0]),  # says nothing
    (None, [0.0, 90.0]),  # nor does this
]


def test_cells_are_pooled_with_those_of_like_share() -> None:
    found = spreads(CELLS)
    assert found.of(0.0) == Spread(math.sqrt(10 / 2), 2)
    assert found.of(20.0) == found.of(79.9) == Spread(10.0, 2)
    assert found.range == (math.sqrt(10 / 2), 10.0)


def test_where_nothing_is_known_the_largest_stands() -> None:
    found = spreads(CELLS)
    assert found.of(80.0) == found.of(100.0) == found.of(None) == Spread(10.0, 2)


def test_one_seed_shows_no_spread() -> None:
    assert spreads([(5.0, [9.0]), (90.0, [60.0])]).of(5.0) == Spreads().of(5.0) == NONE
    assert Spreads().range is None
