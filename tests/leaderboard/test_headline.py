from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import replace
from statistics import fmean

import pytest

from ue_bench.leaderboard.headline import Column, bias_of_maximum, recovery
from ue_bench.leaderboard.statistics import Panel, Row, panels
from ue_bench.leaderboard.summary import csv, facts, lines, texts

from .factory import BOARD, grid, result

COLUMNS = ("vanilla", "gaussian-filter", "gray", "jpeg[quality=10]")
WIDE = replace(BOARD, countermeasures=COLUMNS)


def board_of(rows: Mapping[str, tuple[float, ...]]) -> Panel:
    results = [result(name, c, a) for name, row in rows.items() for c, a in zip(COLUMNS, row, strict=True)]
    [panel] = panels(results, WIDE)
    return panel


def row_of(panel: Panel, protector: str) -> Row:
    return next(row for row in panel.rows if row.protector == protector)


ROWS = {"none": (90.0, 90.0, 50.0, 70.0), "em": (10.0, 10.0, 42.0, 67.0)}


def test_shares_are_of_the_clean_accuracy_above_chance_by_hand() -> None:
    # chance 10: (10 - 10) / 80, (42 - 10) / 40, (67 - 10) / 60
    back = row_of(board_of(ROWS), "em").recovery
    assert back is not None
    assert dict(back.shares) == pytest.approx({"vanilla": 0.0, "gray": 80.0, "jpeg[quality=10]": 95.0})
    assert back.mean.mean == pytest.approx(175 / 3)
    assert back.broken == ("gray", "jpeg[quality=10]")
    assert back.worst == "jpeg[quality=10]"


def test_the_column_that_changes_nothing_counts_once() -> None:
    panel = board_of(ROWS)
    assert panel.repeated == ("gaussian-filter",)
    mean = row_of(panel, "em").mean
    assert mean is not None
    assert mean.mean == pytest.approx((10 + 42 + 67) / 3)
    assert any("gaussian-filter repeats vanilla and counts with it" in fact for fact in facts(panel))


def test_the_column_counts_where_it_repeats_no_other() -> None:
    [panel] = panels(grid({"em": (10.0, 20.0)}), replace(BOARD, countermeasures=("gaussian-filter", "vanilla")))
    assert panel.repeated == ("gaussian-filter",)
    [panel] = panels([result("em", "gaussian-filter")], replace(BOARD, countermeasures=("gaussian-filter",)))
    assert panel.counted == ("gaussian-filter",)


def test_a_row_waits_for_the_clean_cell_of_every_column() -> None:
    results = [result("em", c, 20.0) for c in COLUMNS] + [result("none", "vanilla", 90.0)]
    [panel] = panels(results, WIDE)
    assert row_of(panel, "em").recovery is None
    assert row_of(panel, "em").mean is not None


def test_a_column_in_which_clean_training_fails_has_no_share() -> None:
    panel = board_of({"none": (90.0, 90.0, 14.0, 70.0), "em": (10.0, 10.0, 30.0, 70.0)})
    back = row_of(panel, "em").recovery
    assert back is not None
    assert set(back.shares) == {"vanilla", "jpeg[quality=10]"}
    assert panel.undefined == ("gray",)
    assert any("No share under gray" in fact for fact in facts(panel))


def test_interval_of_a_share_is_over_seeds_paired_with_the_clean_row() -> None:
    # seed 0: (50 - 10) / 80 = 50 %, seed 1: (46 - 10) / 72 = 50 %: rows move with the clean row, the share does not
    columns = [Column("vanilla", {0: 50.0, 1: 46.0}, {0: 90.0, 1: 82.0})]
    back = recovery(columns, 10.0, 10**12)
    assert back is not None
    assert back.mean.half_width == pytest.approx(0.0, abs=1e-3)


def test_a_clean_seed_at_chance_does_not_decide_the_interval() -> None:
    columns = [Column("vanilla", {0: 50.0, 1: 46.0}, {0: 90.0, 1: 10.0})]
    back = recovery(columns, 10.0, 10**12)
    assert back is not None
    # Each seed against the clean mean, 50: (100, 90) % of 40 points.
    assert back.mean.mean == pytest.approx(95)
    assert back.mean.half_width == pytest.approx(12.706 * 5, rel=1e-3)


def test_interval_of_a_share_at_one_seed_is_of_the_test_set() -> None:
    # row 50 +- 0.5, clean 90 +- 0.3: 100/80 * hypot(0.5, 0.5 * 0.3) * 1.96
    back = recovery([Column("vanilla", {0: 50.0}, {0: 90.0})], 10.0, 10_000)
    assert back is not None
    assert back.mean.half_width is None
    assert back.mean.high == pytest.approx(50 + 1.95996 * 1.25 * math.hypot(0.5, 0.15), abs=1e-3)


@pytest.mark.parametrize(
    ("means", "errors"),
    [((50.0, 50.0), (5.0, 5.0)), ((60.0, 50.0, 55.0), (5.0, 5.0, 1.0)), ((60.0, 10.0), (5.0, 5.0)), ((50.0,), (5.0,))],
)
def test_bias_of_a_maximum_is_that_of_resampling(means: tuple[float, ...], errors: tuple[float, ...]) -> None:
    rng = random.Random(0)
    drawn = fmean(max(map(rng.gauss, means, errors)) for _ in range(40_000)) - max(means)
    assert bias_of_maximum(means, errors) == pytest.approx(drawn, abs=0.12)


def test_bias_of_two_equal_numbers_by_hand() -> None:
    # the larger of two normals is 1 / sqrt(pi) standard deviations above their mean
    assert bias_of_maximum([50.0, 50.0], [2.0, 2.0]) == pytest.approx(2 / math.sqrt(math.pi), abs=1e-3)
    assert bias_of_maximum([50.0, 50.0], [0.0, 0.0]) == 0.0


@pytest.mark.parametrize(
    ("declared", "linf", "expected"),
    [
        ("linf 8/255", 8, "Linf 8/255"),
        ("linf 16/255", 16, "Linf 16/255"),
        ("linf 8/255", 9, "unbounded"),
        ("l2 1.0 at 32x32", 45, "L2"),
        ("mse (8/255)^2", 65, "mean squared error"),
        ("rms 6/255", 16, "mean squared error"),
        ("pixels 1", 255, "pixels"),
        ("none", 235, "unbounded"),
        ("whatever", 3, "unbounded"),
    ],
)
def test_perturbation_classes(declared: str, linf: int, expected: str) -> None:
    [panel] = panels([result(declared=declared, linf_max=linf)], BOARD)
    assert panel.rows[0].budget.perturbation_class == expected


def test_summary_has_a_line_a_protector_and_ranks_within_classes() -> None:
    results = [result(p, c, a, declared=d) for p, a, d in ROWS_OF_CLASSES for c in MANY]
    [panel] = panels(results, replace(BOARD, countermeasures=MANY))
    found = [(kind, row.protector, texts(panel, row)[0][0]) for kind, row in lines(panel)]
    assert found == [
        ("reference", "none", "–"),
        ("L2", "spread", "1"),
        ("Linf 8/255", "strong", "1"),
        ("Linf 8/255", "weak", "2"),
    ]
    assert csv(BOARD, [panel]).splitlines()[2].startswith("tiny,cifar10,")


MANY = ("vanilla", "a", "b", "c", "d")
ROWS_OF_CLASSES = [
    ("none", 90.0, "none"),
    ("weak", 70.0, "linf 8/255"),
    ("strong", 12.0, "linf 8/255"),
    ("spread", 80.0, "l2 1.0"),
]


def test_a_peak_far_above_the_last_epoch_is_marked() -> None:
    [panel] = panels([result("em", c, 20.0, accuracy_peak=51.6) for c in BOARD.countermeasures], BOARD)
    [row] = panel.rows
    assert row.highest_peak is not None
    assert row.highest_peak.peak == 51.6
    assert any("In 2 of 2 cells an earlier epoch is more than 5 points better" in fact for fact in facts(panel))
