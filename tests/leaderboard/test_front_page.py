from __future__ import annotations

from collections.abc import Mapping

import pytest

from ue_bench.errors import UserError
from ue_bench.leaderboard.front_page import front_page, replaced, verdicts
from ue_bench.leaderboard.statistics import Panel, panels

from .factory import BOARD, grid, result

CLEAN = {"none": (90.0, 70.0)}


def panel(rows: Mapping[str, tuple[float, ...]], **changes: object) -> Panel:
    [found] = panels(grid({**CLEAN, **rows}, **changes), BOARD)
    return found


def test_what_breaks_and_what_survives() -> None:
    """Of 80 and 60 points above chance, 80 % are 64 and 48: accuracies of 74 and 58."""
    found = verdicts(panel({"em": (15.0, 68.0), "ar": (20.0, 30.0), "tap": (85.0, 69.0)}))
    assert found.broken == {"ar": (), "em": ("jpeg[quality=10]",), "tap": ("vanilla", "jpeg[quality=10]")}
    assert found.kept == {"ar": ("vanilla", "jpeg[quality=10]"), "em": ("vanilla",), "tap": ()}
    assert found.torn == {"ar": (), "em": (), "tap": ()}
    assert found.sentences() == [
        "`jpeg[quality=10]` breaks 2 of 3 protectors, not `ar`; `vanilla` breaks 1 of 3 protectors, not `ar` and `em`.",
        "`ar` survives 2 of 2 columns.",
        "Plain training alone breaks `tap`; 2 of 3 protectors survive it.",
    ]
    assert "every cell has one seed" in found.sureness()


@pytest.mark.parametrize(("accuracy", "broken"), [(74.0, True), (73.9, False)])
def test_the_limit_is_a_share_of_the_clean_accuracy(accuracy: float, broken: bool) -> None:
    found = verdicts(panel({"em": (accuracy, 30.0)}))
    assert ("vanilla" in found.broken["em"], "vanilla" in found.kept["em"]) == (broken, not broken)


def test_seeds_that_disagree_say_nothing_and_are_named() -> None:
    rows = CLEAN | {"ar": (20.0, 30.0)}
    results = [*grid(rows | {"em": (80.0, 30.0)}, seed=0), *grid(rows | {"em": (70.0, 31.0)}, seed=1)]
    [several] = panels([*results, *grid({"tap": (85.0, 69.0)})], BOARD)  # tap has one seed
    found = verdicts(several)
    assert (found.broken["em"], found.kept["em"], found.torn["em"]) == ((), ("jpeg[quality=10]",), ("vanilla",))
    assert (found.broken["tap"], found.several) == (("vanilla", "jpeg[quality=10]"), 4)
    assert found.sureness() == (
        "of 4 cells with several seeds these agree in 3 (of 1 with a seed within 15 points of the limit in 0), and not "
        "in `em` under `vanilla`"
    )
    assert found.sentences()[0] == (
        "`vanilla` breaks 1 of 3 protectors, not `ar`, and seeds disagree on `em`; "
        "`jpeg[quality=10]` breaks 1 of 3 protectors, not `ar` and `em`."
    )
    assert found.sentences()[1:] == [
        "`ar` survives 2 of 2 columns.",
        "Plain training alone breaks `tap`; 1 of 3 protectors survive it, and seeds disagree on `em`.",
    ]
    assert "at every seed; of 4 cells with several seeds these agree in 3 (of 1" in front_page(several)


def test_of_many_cells_that_disagree_some_are_named() -> None:
    rows = [CLEAN | {f"ar[seed={i}]": (value, 30.0) for i in range(8)} for value in (80.0, 70.0)]
    [several] = panels([r for seed, row in enumerate(rows) for r in grid(row, seed=seed)], BOARD)
    said = verdicts(several).sureness()
    assert said.startswith("of 16 cells with several seeds these agree in 8 (of 8 with a seed within 15 points of the")
    assert said.count("under `vanilla`") == 6
    assert said.endswith(" and 2 more")


def test_seeds_that_agree_are_counted() -> None:
    rows = CLEAN | {"em": (80.0, 30.0)}
    [several] = panels([*grid(rows, seed=0), *grid(rows, seed=1)], BOARD)
    assert verdicts(several).sureness() == "of 2 cells with several seeds these agree in 2"


def test_incomplete_rows_and_references_are_left_out() -> None:
    results = [*grid(CLEAN | {"noise": (90.0, 70.0)}), result("em", "vanilla", 15.0)]
    [found] = panels(results, BOARD)
    assert verdicts(found).broken == {}
    assert verdicts(found).sentences() == []
    assert "is *broken*" not in front_page(found)
    assert "`noise`" in front_page(found)
    assert "`em`" not in front_page(found)


def test_a_board_without_a_whole_row_says_so() -> None:
    [found] = panels([result("none", "vanilla", 90.0), result("em", "vanilla", 15.0)], BOARD)
    text = front_page(found)
    assert "No row has all columns yet." in text
    assert "|" not in text


def test_rows_with_a_bound_stand_beside_unbounded_ones() -> None:
    results = [
        *grid(CLEAN | {"em": (15.0, 68.0)}),
        *grid({"cuda": (15.0, 20.0)}, declared="none", linf_max=200),
    ]
    [found] = panels(results, BOARD)
    assert verdicts(found).sentences()[1] == (
        "`cuda` survives 2 of 2 columns; of those with a bound `em` survives 1 of them, broken by `jpeg[quality=10]`."
    )


def test_the_front_page_has_the_columns_that_are_asked_for() -> None:
    text = front_page(panel({"em": (15.0, 68.0)}), ["jpeg[quality=10]"])
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    assert ["Linf 8/255", "1", "`em`", "51 %", "1 of 2", "68.0", "41.5", "6.0", "32.5"] in rows
    assert len({len(line) for line in text.splitlines() if line.startswith("|")}) == 1  # columns stand under each other
    assert "one seed a cell (n=1: the spread over seeds is not known)" in text
    assert "nothing tells how often another one would say otherwise" in text
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
