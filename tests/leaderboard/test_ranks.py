from __future__ import annotations

import numpy as np
import pytest

from ue_bench.leaderboard.ranks import Rank, bootstrap_variance, compare, paired, ranks

from .simulation import rank_coverage

Table = dict[str, dict[int, float]]


def row(*values: float) -> Table:
    return {f"c{i}": {0: value} for i, value in enumerate(values)}


def test_rows_apart_have_ranks_of_their_own_and_rows_alike_share_one() -> None:
    found = ranks(
        {
            "last": row(70, 71, 69, 70, 72),
            "first": row(10, 11, 9, 10, 12),
            "alike": row(10, 11, 10, 9, 12),
        }
    )
    assert found == {"last": Rank(3, 3, 3), "first": Rank(1, 2, 3), "alike": Rank(1, 2, 3)}
    assert [found[name].text() for name in ("last", "alike")] == ["3", "1–2"]


def test_one_column_that_differs_tells_no_rows_apart() -> None:
    assert compare(paired(row(10, 10, 10, 10, 90), row(10, 10, 10, 10, 10)), 1) == 0


def test_few_columns_tell_no_rows_apart() -> None:
    assert compare(paired(row(10, 10, 10), row(90, 90, 90)), 1) == 0


def test_rows_are_paired_by_the_seeds_that_both_have() -> None:
    first: Table = {"a": {0: 10.0, 1: 12.0}, "b": {0: 20.0, 1: 22.0}}
    second: Table = {"a": {0: 1.0, 1: 2.0, 2: 90.0}, "b": {0: 3.0, 1: 2.0}}
    assert paired(first, second).tolist() == [[9.0, 17.0], [10.0, 20.0]]


@pytest.mark.parametrize("seeds", [(1, 1), (7, 8)])
def test_means_over_all_seeds_are_compared_where_fewer_than_two_are_shared(seeds: tuple[int, int]) -> None:
    first: Table = {"a": {0: 10.0, 1: 12.0}, "b": {0: 20.0, 1: 22.0}}
    second: Table = {"a": {seeds[0]: 1.0}, "b": {seeds[1]: 1.0}}
    assert paired(first, second).tolist() == [[10.0, 20.0]]  # 11 and 21, each less 1


def test_many_rows_at_once_are_compared_as_pairs_are() -> None:
    """A seed more in one cell changes no difference, and lets rows be compared one pair after the other."""
    rng = np.random.default_rng(1)
    values = rng.normal(rng.normal(40, 4, (7, 1, 1)), 3, (7, 6, 2))
    rows = {f"r{i}": {f"c{j}": dict(enumerate(seeds)) for j, seeds in enumerate(row)} for i, row in enumerate(values)}
    together = ranks(rows)
    rows["r3"]["c2"][9] = 99.0
    assert ranks(rows) == together
    assert len({r.low for r in together.values()}) > 2


def test_variance_is_that_of_resampling_seeds_and_columns() -> None:
    rng = np.random.default_rng(0)
    table = rng.normal(0, 5, (3, 6)) + rng.normal(0, 5, (3, 1)) + rng.normal(0, 5, 6)
    seeds = rng.multinomial(3, [1 / 3] * 3, 200_000) / 3
    columns = rng.multinomial(6, [1 / 6] * 6, 200_000) / 6
    resampled = np.einsum("bs,sk,bk->b", seeds, table, columns).var() * 6 / 5
    assert bootstrap_variance(table).item() == pytest.approx(resampled, rel=0.02)


@pytest.mark.parametrize("seeds", [1, 2, 8])
@pytest.mark.parametrize("gap", [0.1, 2.0, 6.0])
def test_rank_intervals_hold_the_true_rank(gap: float, seeds: int) -> None:
    assert rank_coverage(gap, 5.0, seeds) >= 0.95


def test_rows_far_apart_are_told_apart() -> None:
    """An interval that always held every rank would pass the test above."""
    far = [row(*(m + d for d in (0, 3, -3, 2, -2, 1, -1, 0))) for m in (10.0, 30.0, 50.0)]
    assert [r.text() for r in ranks(dict(zip("abc", far, strict=True))).values()] == ["1", "2", "3"]
