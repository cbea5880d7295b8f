from __future__ import annotations

import math

import numpy as np
import pytest

from ue_bench.leaderboard.ranks import Rank
from ue_bench.leaderboard.separation import PRIOR_SCALE, anytime_quantile, separate

from .simulation import SPREADS_OF_ROWS, separation_coverage


def test_rows_far_apart_are_told_apart_after_a_few_seeds_and_ranked() -> None:
    rows = {"far": [60.0, 61.0, 60.5, 60.2], "low": [20.0, 20.4, 21.0, 20.6], "alike": [20.2, 20.9, 20.1, 20.8]}
    found = separate(rows, list(rows))
    assert [(p.first.name, p.second.name) for p in found.open] == [("low", "alike")]
    assert found.ranks() == {"far": Rank(3, 3, 3), "low": Rank(1, 2, 3), "alike": Rank(1, 2, 3)}


def test_one_seed_tells_nothing_apart() -> None:
    found = separate({"a": [10.0], "b": [90.0, 90.1], "c": [50.0, 50.1]}, ["a", "b"])
    assert [pair.difference for pair in found.pairs] == [None]
    assert len(found.open) == 1


def test_rows_whose_seeds_are_all_alike_are_apart_where_they_differ() -> None:
    found = separate({"a": [10.0, 10.0], "b": [11.0, 11.0], "c": [11.0, 11.0]}, ["a", "b", "c"])
    assert [(p.first.name, p.second.name) for p in found.open] == [("b", "c")]
    assert set(found.gains().values()) == {0.0}


def test_a_seed_gains_most_for_the_row_that_spreads_most_and_nothing_once_all_is_clear() -> None:
    rows = {"wide": [30.0, 36.0, 33.0, 27.0], "tight": [36.0, 36.5, 35.8, 36.2]}
    gains = separate(rows, list(rows)).gains()
    assert gains["wide"] > 2 * gains["tight"] > 0
    clear = {"wide": [30.0, 31.0, 30.5, 30.2], "tight": [81.0, 81.5, 80.8, 81.2]}
    assert set(separate(clear, list(clear)).gains().values()) == {0.0}


def test_the_pooled_spread_is_that_of_all_rows() -> None:
    rows = {"a": [10.0, 10.1, 10.2], "b": [20.0, 20.1, 20.2]}
    [alone] = separate(rows, ["a", "b"]).pairs
    [beside] = separate(rows | {"unstable": [5.0, 60.0, 30.0]}, ["a", "b"]).pairs
    assert alone.separated
    assert not beside.separated


@pytest.mark.parametrize(("degrees", "seeds", "error"), [(8.0, 3.0, 0.05), (30.0, 6.0, 0.005), (60.0, 20.0, 0.01)])
def test_the_quantile_is_where_the_bayes_factor_reaches_one_over_the_error(
    degrees: float, seeds: float, error: float
) -> None:
    """The Bayes factor of a normal prior on a mean with unknown scale, integrated numerically over prior and scale."""
    t, g = anytime_quantile(degrees, seeds, error), PRIOR_SCALE * seeds
    log_s = np.linspace(-4, 4, 4001)[:, None]  # of the scale, with the prior 1/scale
    delta = np.linspace(-12, 12, 1201)[None, :]  # of the standardised difference, in prior deviations
    s = np.exp(log_s)

    def likelihood(mean: np.ndarray | float) -> np.ndarray:
        return np.exp(-((t - mean) ** 2 + degrees) / (2 * s**2)) * s ** -(degrees + 1)

    prior = np.exp(-(delta**2) / 2) / math.sqrt(2 * math.pi)
    with_difference = (likelihood(delta * math.sqrt(g) * s) * prior).sum() * 0.02
    factor = with_difference / likelihood(0.0).sum()
    assert factor == pytest.approx(1 / error, rel=0.01)


def test_intervals_are_wider_than_those_for_a_fixed_number_of_seeds_but_of_their_kind() -> None:
    assert 1.96 < anytime_quantile(1e6, 5.0, 0.05) < 3.5  # Student's t at 0.975 is 1.96
    assert anytime_quantile(4.0, 2.0, 0.05 / 10) == math.inf  # so few seeds cannot say that


@pytest.mark.parametrize(("gap", "kind"), [*((0.0, kind) for kind in SPREADS_OF_ROWS), (2.0, "unequal")])
def test_intervals_hold_the_truth_however_often_one_looks_and_whenever_one_stops(gap: float, kind: str) -> None:
    assert separation_coverage(gap, kind, trials=50) >= 0.95


def test_intervals_for_a_fixed_number_of_seeds_do_not() -> None:
    """Without a way to fail, the test above would say nothing."""
    assert separation_coverage(0.0, "equal", trials=50, fixed=True) < 0.9
