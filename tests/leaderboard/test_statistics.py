from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from ue_bench.leaderboard.badges import HERE, REPORTED
from ue_bench.leaderboard.bounds import UNBOUNDED
from ue_bench.leaderboard.formats import remarks
from ue_bench.leaderboard.intervals import average_error
from ue_bench.leaderboard.statistics import panels

from .factory import BOARD, grid, result


def test_cell_over_seeds() -> None:
    [panel] = panels([result(accuracy=a, seed=s) for s, a in enumerate((10.0, 12.0, 14.0))], BOARD)
    cell = panel.rows[0].cells["vanilla"]
    assert (cell.n, cell.mean, cell.seeds) == (3, 12.0, (0, 1, 2))
    # t-interval 4.9687 over seeds; Wilson's upper side at 12 % of 10,000 images is 0.6514: hypot 5.0112
    assert cell.half_width == pytest.approx(5.0112, abs=1e-4)
    assert cell.binomial_error == pytest.approx(0.32496, abs=1e-5)  # 100 * sqrt(0.12 * 0.88 / 10000)


def test_mean_and_worst_case_of_a_row() -> None:
    [panel] = panels(grid({"em": (10.0, 85.0)}), BOARD)
    [row] = panel.rows
    assert row.mean is not None
    assert (row.mean.mean, row.mean.n, row.mean.half_width) == (47.5, 1, None)
    assert row.worst is not None
    assert (row.worst.countermeasure, row.worst.mean) == ("jpeg[quality=10]", 85.0)


def test_interval_of_a_row_is_over_the_means_of_seeds() -> None:
    # seeds give row means (10 + 80) / 2 = 45 and (20 + 90) / 2 = 55: sd 7.0711, t(1) = 12.706 -> 63.53, clipped
    [panel] = panels(grid({"em": (10.0, 80.0)}, seed=0) + grid({"em": (20.0, 90.0)}, seed=1), BOARD)
    mean = panel.rows[0].mean
    assert mean is not None
    assert (mean.mean, mean.n) == (50.0, 2)
    assert (mean.low, mean.high, mean.half_width) == (0.0, 100.0, 50.0)


def test_row_with_uneven_seeds_has_a_mean_of_cell_means_and_the_interval_of_the_test_set() -> None:
    [panel] = panels([*grid({"em": (10.0, 80.0)}), result("em", "vanilla", 20.0, seed=1)], BOARD)
    [row] = panel.rows
    assert row.mean is not None
    assert (row.mean.mean, row.mean.n, row.mean.half_width) == (47.5, 1, None)  # (15 + 80) / 2
    assert row.mean.low == pytest.approx(47.5 - 1.96 * average_error([15.0, 80.0], 10_000), abs=1e-3)
    assert row.n == (1, 2)


def test_incomplete_row_has_no_mean_but_a_worst_case_so_far() -> None:
    [panel] = panels([result("em", "vanilla", 10.0)], BOARD)
    [row] = panel.rows
    assert row.mean is None
    assert (row.complete, row.done) == (False, 1)
    assert row.worst is not None
    assert row.worst.countermeasure == "vanilla"


def test_countermeasure_off_the_board_is_shown_and_never_counted() -> None:
    [panel] = panels([*grid({"em": (10.0, 20.0)}), result("em", "gray", 99.0)], BOARD)
    [row] = panel.rows
    assert panel.extra == ("gray",)
    assert row.cells["gray"].mean == 99.0
    assert row.mean is not None
    assert row.mean.mean == 15.0
    assert row.worst is not None
    assert row.worst.mean == 20.0


def test_row_with_nothing_but_extra_columns() -> None:
    [panel] = panels([result("em", "gray", 99.0)], BOARD)
    assert panel.rows[0].worst is None


def test_board_without_columns_takes_what_it_finds() -> None:
    [panel] = panels([result("em", "b"), result("em", "a")], replace(BOARD, countermeasures=()))
    assert panel.columns == ("a", "b")


def test_reference_rows_first_then_the_best_mean_then_incomplete_rows() -> None:
    rows = {"noise": (94.0, 84.0), "none": (95.0, 85.0), "weak": (80.0, 80.0), "strong": (10.0, 20.0)}
    [panel] = panels([result("absent", "vanilla", 1.0), *grid(rows)], BOARD)
    assert [row.protector for row in panel.rows] == ["none", "noise", "strong", "weak", "absent"]
    assert [row.reference for row in panel.rows] == [True, True, False, False, False]
    assert panel.missing == ("em", "ar")


@pytest.mark.parametrize(
    "change",
    [
        {"fingerprint": "0" * 32},
        {"protocol": "full"},
        {"protocol_version": 2},
        {"precision": "bf16"},
        {"victim": "vgg11"},
        {"fraction": 0.5},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_differs_is_never_averaged(change: dict[str, Any]) -> None:
    found = panels([result(accuracy=10.0), result(accuracy=90.0, seed=1, **change)], BOARD)
    assert sorted(panel.rows[0].cells["vanilla"].mean for panel in found) == [10.0, 90.0]
    assert [panel.n for panel in found] == [(1, 1), (1, 1)]


def test_the_same_images_under_another_name_are_the_same_data() -> None:
    names = ("imagefolder[path=photos#00000001]", "imagefolder[path=copy#00000002]")
    results = [result("em", c, selector=name) for c, name in zip(("vanilla", "gray"), names, strict=True)]

    [panel] = panels(results, BOARD)

    assert set(panel.rows[0].cells) == {"vanilla", "gray"}


def test_two_results_of_one_seed_are_not_two_seeds() -> None:
    old = result(accuracy=10.0, finished="2026-01-01T00:00:00Z")
    new = result(accuracy=30.0, finished="2026-02-01T00:00:00Z")
    [panel] = panels([new, old], BOARD)
    cell = panel.rows[0].cells["vanilla"]
    assert (cell.n, cell.mean, cell.superseded) == (1, 30.0, 1)


def test_budget_counts_each_protected_set_once() -> None:
    # seed 0 has three cells of one set, seed 1 has one: the mean is over two sets
    results = [result("em", c, rms=4.0, linf_max=7, psnr=30.0, ssim=0.9) for c in ("vanilla", "gray", "at")]
    [panel] = panels([*results, result("em", seed=1, rms=6.0, linf_max=8, psnr=34.0, ssim=1.0)], BOARD)
    budget = panel.rows[0].budget
    assert (budget.declared, budget.linf_max, budget.rms, budget.psnr) == ("linf 8/255", 8, 5.0, 32.0)
    assert budget.ssim == pytest.approx(0.95)
    assert not budget.exceeds


@pytest.mark.parametrize(
    ("declared", "changes", "exceeded"),
    [
        ("linf 8/255", {"linf_max": 8}, ""),
        ("linf 8/255", {"linf_max": 9}, "Linf 9"),
        ("l2 1.0", {"linf_max": 200, "l2_mean": 1.1}, ""),  # rounding alone may add a tenth
        ("l2 1.0", {"l2_mean": 1.2}, "mean L2 1.2"),
        ("l2 1.0 at 32x32", {"l2_mean": 50.0}, "mean L2 50"),
        ("l2 7.0 at 224x224", {"l2_mean": 1.0}, ""),  # a seventh of the side, and of the norm
        ("l2 7.0 at 224x224", {"l2_mean": 1.2}, "mean L2 1.2"),
        ("psnr 32", {"psnr": 32.5}, ""),
        ("psnr 60", {"psnr": 32.5}, "PSNR 32.5"),
        ("ssim 0.9", {"ssim": 0.93}, ""),
        ("ssim 0.95", {"ssim": 0.93}, "SSIM 0.93"),
        ("pixels 1", {"l0_mean": 1.0}, ""),
        ("pixels 1", {"l0_mean": 1.01}, "mean L0 1.01"),
        ("rms 6/255", {"rms": 6.5}, ""),
        ("rms 6/255", {"rms": 6.6}, "RMS 6.6"),
        ("mse (8/255)^2", {"rms": 8.5}, ""),
        ("mse (1/255)^2", {"rms": 7.5}, "RMS 7.5"),
        ("none", {"linf_max": 255}, ""),
        ("whatever 3", {"linf_max": 255}, ""),
    ],
)
def test_measured_against_declared(declared: str, changes: dict[str, Any], exceeded: str) -> None:
    [panel] = panels([result(declared=declared, **changes)], BOARD)
    budget = panel.rows[0].budget
    assert (budget.exceeded, budget.exceeds) == (exceeded, bool(exceeded))
    without = ("none", "whatever", "psnr", "ssim")  # nothing to be ranked by
    assert (budget.perturbation_class == UNBOUNDED) == bool(exceeded or declared.startswith(without))


@pytest.mark.parametrize("declared", ["l2 lots", "linf 8/255 or so", "linf 300/255", "l2 1.0 at 0x32", "rms 8", ""])
def test_what_cannot_be_read_bounds_nothing(declared: str) -> None:
    [panel] = panels([result(declared=declared, linf_max=90, rms=50.0, l2_mean=50.0)], BOARD)
    assert panel.rows[0].budget.perturbation_class == UNBOUNDED


def test_epochs_before_a_refit_say_nothing_of_it() -> None:
    cells = [result("em", c, 40.0, accuracy_peak=72.0) for c in BOARD.countermeasures]
    [row] = panels(cells, replace(BOARD, refits=lambda column: column == "vanilla"))[0].rows
    assert [row.cells[c].peaks_early for c in BOARD.countermeasures] == [False, True]
    assert row.highest_peak is row.cells["jpeg[quality=10]"]
    [alone] = panels(cells, replace(BOARD, refits=lambda column: True))[0].rows
    assert (alone.highest_peak, alone.highest_peak and alone.highest_peak.peak) == (alone.worst, 40.0)


def test_reported_seeds_do_not_move_what_was_measured_here() -> None:
    here = [result("em", c, 20.0) for c in BOARD.countermeasures]
    theirs = [result("em", "vanilla", 90.0, seed=1), result("em", "gray", 90.0), result("ar", "vanilla", 50.0)]
    [panel] = panels([*here, *theirs], BOARD, {r.key: REPORTED for r in theirs})
    rows = {row.protector: row for row in panel.rows}
    assert (rows["em"].cells["vanilla"].mean, rows["em"].cells["vanilla"].n) == (20.0, 1)
    assert rows["em"].cells["gray"].mean == 90.0  # what nobody measured here stands, and counts in no mean
    assert (rows["em"].badge, rows["ar"].badge) == (HERE, REPORTED)
    assert panel.set_aside == 1
    assert any(fact.startswith("1 self-reported result(s) of cells") for fact in remarks(panel))


def test_unchanged_images_have_no_psnr() -> None:
    [panel] = panels([result("none", declared="none", psnr=None)], BOARD)
    assert panel.rows[0].budget.psnr is None


def test_order_of_results_does_not_matter() -> None:
    results = [
        result(p, c, 10.0 + i, seed=s, victim=v)
        for i, (p, c, s, v) in enumerate(
            (p, c, s, v) for p in ("none", "em", "ar") for c in ("vanilla", "at") for s in (0, 1) for v in ("a", "b")
        )
    ]
    shuffled = random.Random(0).sample(results, len(results))
    assert panels(shuffled, BOARD) == panels(results, BOARD)


def test_no_results_no_panels() -> None:
    assert panels([], BOARD) == []


def test_fully_protected_panel_comes_first() -> None:
    found = panels([result(fraction=0.5), result(fraction=1.0)], BOARD)
    assert [panel.fraction for panel in found] == [1.0, 0.5]
