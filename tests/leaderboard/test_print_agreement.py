from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ue_bench.catalogue import boards
from ue_bench.contract.table import Ask, Line, Table
from ue_bench.leaderboard import published
from ue_bench.leaderboard.board import board_info
from ue_bench.leaderboard.print_agreement import SHORT_HEADS, agreements, among_prints, short_lines
from ue_bench.leaderboard.statistics import panels
from ue_bench.leaderboard.tables import markdown
from ue_bench.store.results import ResultStore

from .factory import BOARD, grid, result

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = BOARD.countermeasures
PRINTED = {
    "none": (90.0, 80.0),
    "em": (10.0, 70.0),
    "ops": (20.0, 60.0),
    "ar": (30.0, 50.0),
    "lsp": (40.0, 40.0),
}
MEASURED = {
    "none": (70.0, 60.0),
    "em[preset=micro]": (11.0, 20.0),
    "ops": (12.0, 15.0),
    "ar": (13.0, 14.0),
    "lsp": (60.0, 13.0),
}


def table(number: int = 9, **asked: Any) -> Table:
    """Return a printed table; of numbers other than 9 with accuracies that differ in their means."""
    printed = PRINTED if number == 9 else {name: (a, b - a / 10) for name, (a, b) in PRINTED.items()}
    lines = tuple(
        Line((name,), dict(zip(COLUMNS, row, strict=True)), {c: Ask(name, (c,), **asked) for c in COLUMNS})
        for name, row in printed.items()
    )
    return Table("t", "a title", f"A paper, Table {number}", ("method",), lines)


def use(monkeypatch: pytest.MonkeyPatch, *tables: Table) -> None:
    monkeypatch.setattr(published, "readable_tables", lambda: list(tables))


def test_agreement_by_column_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, table())
    [panel] = panels(grid(MEASURED), BOARD)
    [found] = agreements(panel)
    assert dict(found.rows)["em[preset=micro]"] == "em"  # the only row of that plugin stands for its bare name
    first, second = found.columns
    # printed order em ops ar lsp: measured in the same order, and in the other column too
    assert (first.tau, first.n) == (1.0, 4)
    assert first.spearman == pytest.approx(1.0)
    assert second.tau == 1.0
    # half recovered in print from 50 and 45 on, here from 40 and 35 on. Column 1: never in print, lsp here: 3 of 4.
    # Column 2: em, ops and ar in print, none here: 1 of 4
    assert [(c.alike, c.signs) for c in found.columns] == [(3, 4), (1, 4)]
    # 4 of 8 alike; by chance 3/8 * 1/8 + 5/8 * 7/8 = 38/64
    assert found.kappa == pytest.approx((4 / 8 - 38 / 64) / (1 - 38 / 64))
    mean, worst = found.summary
    # means in print are 40 throughout
    assert (mean.column, mean.tau) == ("mean over columns", None)
    assert worst.n == 4


@pytest.mark.parametrize(
    "asked", [{"fraction": 0.5}, {"victim": "vgg11"}, {"of": "evasion"}], ids=lambda asked: next(iter(asked))
)
def test_numbers_of_other_things_are_not_compared(monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any]) -> None:
    use(monkeypatch, table(**asked))
    [panel] = panels(grid(MEASURED), BOARD)
    assert agreements(panel) == []


def test_two_variants_of_a_method_stand_for_no_bare_name(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, table())
    [panel] = panels(grid(MEASURED | {"em[preset=paper]": (10.0, 10.0)}), BOARD)
    assert agreements(panel) == []  # three rows are left


def test_too_few_rows_have_no_agreement(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, table())
    [panel] = panels([result(name, "vanilla", 20.0) for name in ("none", "ops", "ar", "lsp")], BOARD)
    assert agreements(panel) == []


def test_pages_state_it(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, table())
    text = markdown(BOARD, panels(grid(MEASURED), BOARD))
    assert "## Agreement with print" in text
    assert "Half-recovery signs agree in 4 of 8 cells" in text


def test_the_committed_board_agrees_with_table_1_as_an_outside_check_found() -> None:
    """Taus by column, computed apart from this code before it was written."""
    folder = ROOT / "leaderboards" / "cifar10-micro"
    board = board_info(boards.board("cifar10-micro"))
    [panel] = panels((r for r in ResultStore(folder).results() if r.seed == 0), board)
    [found] = [a for a in agreements(panel) if a.source.endswith("Table 1")]
    taus = {c.column: round(c.tau or 0, 2) for c in found.columns}
    expected = {"vanilla": 0.5, "cutout": 0.59, "gray": 0.78, "at": 0.33, "jpeg[quality=10]": -0.17}
    assert {c: taus[c] for c in expected} == expected
    assert len(found.rows) == 9


def test_prints_are_compared_with_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    other = {"none": (95.0, 90.0), "em": (20.0, 60.0), "ops": (10.0, 80.0), "ar": (30.0, 50.0), "lsp": (90.0, 20.0)}
    lines = tuple(
        Line((name.upper(),), dict(zip(COLUMNS, row, strict=True)), {c: Ask(name, (c,)) for c in COLUMNS})
        for name, row in other.items()
    )
    second = Table("u", "a title", "Another paper, Table 2", ("method",), lines)
    use(monkeypatch, table(), second)
    [panel] = panels(grid(MEASURED), BOARD)
    [found] = among_prints(panel)
    assert found.source == "A paper, Table 9 against Another paper, Table 2"
    assert [name for name, _ in found.rows] == ["em[preset=micro]", "ops", "ar", "lsp"]  # no reference
    # First column: em and ops change places, of six pairs five agree.
    assert found.columns[0].tau == pytest.approx(4 / 6)
    # Half is recovered from 50 and 52.5 on: of the first table by none, of the second by lsp.
    assert (found.columns[0].alike, found.columns[0].signs) == (3, 4)
    assert found.summary[0].n == 4
    assert found.summary[0].tau is None  # the first table's means are all 40
    among = short_lines(panel)[-1]
    assert among[:4] == ["printed tables with each other, one pair", "4", "–", "-0.33"]
    assert among[4] == f"{sum(c.alike for c in found.columns)} of {sum(c.signs for c in found.columns)}"


def test_prints_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, table(number=3), table(number=2))
    [panel] = panels(grid(MEASURED), BOARD)
    lines = short_lines(panel)
    assert [line[0] for line in lines] == [
        "A paper, Table 3",
        "A paper, Table 2",
        "printed tables with each other, one pair",
    ]
    assert [len(line) for line in lines] == [len(SHORT_HEADS)] * 3
    assert lines[2][1:3] == ["4", "+1.00"]
    assert lines[0][2] == f"{agreements(panel)[0].summary[0].tau:+.2f}"


def test_the_rows_behind_a_correlation_are_those_that_have_all_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    fifth = Line(("REM",), dict(zip(COLUMNS, (50.0, 30.0), strict=True)), {c: Ask("rem", (c,)) for c in COLUMNS})
    printed = table()
    use(monkeypatch, replace(printed, lines=(*printed.lines, fifth)))
    [panel] = panels([*grid(MEASURED), result("rem[preset=micro]", COLUMNS[0], 30.0)], BOARD)
    [found] = agreements(panel)
    assert (len(found.rows), found.ranked) == (5, 4)
    assert "over n = 4 rows" in found.text
    assert short_lines(panel)[0][1] == "4"
    assert [c.n for c in found.columns] == [5, 4]


def test_one_table_is_not_compared_with_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, table())
    [panel] = panels(grid(MEASURED), BOARD)
    assert among_prints(panel) == []
    assert [line[0] for line in short_lines(panel)] == [agreements(panel)[0].source]


def test_of_two_rows_of_a_plugin_the_boards_own_stands_for_the_bare_name(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, table())
    rows = MEASURED | {"em[preset=micro,eps=4/255]": (50.0, 50.0)}
    [panel] = panels(grid(rows), replace(BOARD, protectors=()))
    assert agreements(panel) == []  # three rows are too few
    [panel] = panels(grid(rows), replace(BOARD, protectors=("em[preset=micro]",)))
    assert dict(agreements(panel)[0].rows)["em[preset=micro]"] == "em"
