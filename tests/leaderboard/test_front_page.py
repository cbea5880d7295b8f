from __future__ import annotations

from collections.abc import Mapping

import pytest

from ue_bench.errors import UserError
from ue_bench.leaderboard.front_page import certain, front_page, quantile, replaced
from ue_bench.leaderboard.statistics import Panel, panels

from .factory import BOARD, grid, result

CLEAN = {"none": (90.0, 70.0)}


def panel(rows: Mapping[str, tuple[float, ...]], **changes: object) -> Panel:
    [found] = panels(grid({**CLEAN, **rows}, **changes), BOARD)
    return found


def test_what_breaks_and_what_survives() -> None:
    """Of 80 and 60 points above chance, 80 % are 64 and 48: accuracies of 74 and 58."""
    found = certain(panel({"em": (15.0, 68.0), "ar": (20.0, 30.0), "tap": (85.0, 69.0)}))
    assert found.broken == {"ar": (), "em": ("jpeg[quality=10]",), "tap": ("vanilla", "jpeg[quality=10]")}
    assert found.kept == {"ar": ("vanilla", "jpeg[quality=10]"), "em": ("vanilla",), "tap": ()}
    assert found.sentences() == [
        "`jpeg[quality=10]` breaks 2 of 3 protectors and certainly not `ar`; "
        "`vanilla` breaks 1 of 3 protectors and certainly not `ar` and `em`.",
        "`ar` survives 2 of 2 columns.",
        "Plain training alone breaks `tap`; 2 of 3 protectors certainly survive it.",
    ]


def test_what_is_near_the_limit_is_neither() -> None:
    found = certain(panel({"em": (74.5, 30.0)}))
    assert found.broken == {"em": ()}
    assert found.kept == {"em": ("jpeg[quality=10]",)}
    assert found.sentences()[2] == "Plain training breaks none of 1 protectors, and 0 of them certainly survive it."


def test_more_cells_and_fewer_test_images_make_less_certain() -> None:
    near = {"em": (75.9, 30.0)}
    assert certain(panel(near)).broken == {"em": ("vanilla",)}
    assert certain(panel(near, test=1000)).broken == {"em": ()}
    many = near | {f"ar[seed={i}]": (20.0, 30.0) for i in range(400)}
    assert certain(panel(many)).broken["em"] == ()


def test_a_spread_over_seeds_counts() -> None:
    results = [*grid(CLEAN | {"em": (76.0, 30.0)}, seed=0), *grid(CLEAN | {"em": (79.0, 31.0)}, seed=1)]
    [spread] = panels(results, BOARD)
    assert certain(spread).broken["em"] == ()
    assert certain(spread).measured["em"] == ("vanilla",)
    assert "counting the spread over seeds" in front_page(spread)
    assert certain(spread).sentences()[0].startswith("`vanilla` breaks 1 of 1 protectors, 0 of them for certain")
    assert certain(panel({"em": (77.5, 30.5)})).broken["em"] == ("vanilla",)  # were its error the test set's alone


def test_cells_between_two_solutions_do_not_make_others_uncertain() -> None:
    rows = {f"ar[seed={i}]": (89.0, 20.0) for i in range(8)}
    between = {"em": (40.0, 20.0)}, {"em": (60.0, 20.0)}
    moved = {name: (value + 0.5, other + 0.5) for name, (value, other) in rows.items()}
    [spread] = panels([*grid(CLEAN | rows | between[0], seed=0), *grid(CLEAN | moved | between[1], seed=1)], BOARD)
    found = certain(spread)
    assert all(found.broken[name] == ("vanilla",) for name in rows)
    assert found.kept["em"] == ("jpeg[quality=10]",)  # 50 of 90 under plain training, give or take 14


def test_incomplete_rows_and_references_are_left_out() -> None:
    results = [*grid(CLEAN | {"noise": (90.0, 70.0)}), result("em", "vanilla", 15.0)]
    [found] = panels(results, BOARD)
    assert certain(found).broken == {}
    assert certain(found).sentences() == []
    assert "Certain at 95 %" not in front_page(found)
    assert "`noise`" in front_page(found)
    assert "`em`" not in front_page(found)


def test_rows_with_a_bound_stand_beside_unbounded_ones() -> None:
    results = [
        *grid(CLEAN | {"em": (15.0, 68.0)}),
        *grid({"cuda": (15.0, 20.0)}, declared="none", linf_max=200),
    ]
    [found] = panels(results, BOARD)
    assert certain(found).sentences()[1] == (
        "`cuda` survives 2 of 2 columns; of those with a bound `em` survives 1 of them, broken by `jpeg[quality=10]`."
    )


def test_quantiles() -> None:
    assert quantile(0, 0.05) == pytest.approx(1.95996, abs=1e-5)
    assert quantile(4, 0.05) == pytest.approx(2.776, abs=1e-3)


def test_the_front_page_has_the_columns_that_are_asked_for() -> None:
    text = front_page(panel({"em": (15.0, 68.0)}), ["jpeg[quality=10]"])
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    assert ["Linf 8/255", "1", "`em`", "51 %", "1 of 2", "68.0", "41.5", "6.0", "32.5"] in rows
    assert len({len(line) for line in text.splitlines() if line.startswith("|")}) == 1  # columns stand under each other
    assert "one seed a cell (n=1: the spread over seeds is not known)" in text
    assert "counting the error of the test set alone" in text
    with pytest.raises(UserError, match="the board has no column 'jpeg'"):
        front_page(panel({"em": (15.0, 68.0)}), ["jpeg"])


def test_a_page_keeps_what_stands_around_its_summary() -> None:
    page = "before\n<!-- ue-bench leaderboard summary -->\nold\n<!-- end of summary -->\nafter\n"
    text = replaced(page, "new\n", "ue-bench leaderboard summary --board x")
    assert text == (
        "before\n<!-- ue-bench leaderboard summary --board x -->\n\nnew\n\n<!-- end of summary -->\nafter\n"
    )
    assert replaced(text, "new\n", "ue-bench leaderboard summary --board x") == text
    with pytest.raises(UserError, match="no place for a summary"):
        replaced("nothing here", "new", "x")
