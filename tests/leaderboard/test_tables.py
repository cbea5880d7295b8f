from __future__ import annotations

import io
import re
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from ue_bench.catalogue import boards
from ue_bench.leaderboard import formats, tables
from ue_bench.leaderboard.board import BoardInfo, CleanData, board_info
from ue_bench.leaderboard.evidence import Evidence
from ue_bench.leaderboard.page_data import page_data
from ue_bench.leaderboard.statistics import Panel, panels
from ue_bench.leaderboard.tables import csv, markdown, terminal
from ue_bench.store.schema import Result

from .factory import BOARD, grid, result

ROWS = {"none": (94.56, 85.21), "em": (10.04, 84.8), "ar": (13.31, 20.0)}


def tables_in(text: str) -> list[pd.DataFrame]:
    """The pipe tables of a Markdown page, read back."""
    blocks = re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
    found = []
    for block in blocks:
        lines = [re.split(r"(?<!\\)\|", line)[1:-1] for line in block.splitlines()]
        cells = [[cell.strip() for cell in line] for line in lines]
        found.append(pd.DataFrame(cells[2:], columns=pd.Index(cells[0])))
    return found


def written(results: list[Result], board: BoardInfo = BOARD) -> str:
    return markdown(board, panels(results, board))


def test_markdown_reads_back() -> None:
    summary, measured, *_, published = tables_in(written(grid(ROWS)))
    assert measured["protector"].tolist() == ["`none` (reference)", "`ar`", "`em`"]
    assert measured["`vanilla`"].astype(float).tolist() == [94.6, 13.3, 10.0]
    assert measured["mean"].astype(float).tolist() == [89.9, 16.7, 47.4]
    assert measured["worst case"].tolist() == ["94.6 `vanilla`", "20.0 `jpeg[quality=10]`", "84.8 `jpeg[quality=10]`"]
    assert measured["n"].tolist() == ["1", "1", "1"]
    assert len(published) == 10
    assert summary["protector"].tolist() == ["`none`", "`ar`", "`em`"]
    # clean 94.56 and 85.21, chance 10: ar (3.91 + 13.30) / 2, em (0.05 + 99.45) / 2
    assert summary["recovered share"].tolist() == ["100 %", "9 %", "50 %"]
    assert summary["broken by"].tolist() == ["2 of 2", "0 of 2", "1 of 2"]


def test_markdown_states_n_and_source() -> None:
    text = written(grid(ROWS))
    assert "n = 1 seed per cell: nothing is known of the spread over seeds" in text
    assert "CIFAR-10 (test copy)" in text
    assert "f" * 32 in text


def test_markdown_shows_intervals_of_several_seeds() -> None:
    text = written([result(accuracy=a, seed=s) for s, a in enumerate((10.0, 12.0, 14.0))])
    assert "12.0 ± 5.0" in text
    assert "n = 3 seeds per cell; ± is a 95 % interval over seeds and test images." in text


def test_markdown_marks_incomplete_rows() -> None:
    text = written([result("em", "vanilla", 10.0)])
    assert "incomplete (1/2)" in text
    assert "≥ 10.0 `vanilla`" in text
    assert "No result yet: none, ar." in text


def test_markdown_without_results_says_so() -> None:
    text = written([])
    assert "**There are 0 results on this board yet.**" in text
    assert tables_in(text) == []


def test_markdown_keeps_hostile_names_in_their_cell() -> None:
    name = "a|b`c<b>\n| x"
    [_, measured, *_] = tables_in(written([result(name, "vanilla", 10.0)], replace(BOARD, title="<b>*title*</b>")))
    assert measured["protector"].tolist() == [r"`` a\|b`c<b> \| x ``"]
    assert "# \\<b\\>\\*title\\*\\</b\\>" in written([], replace(BOARD, title="<b>*title*</b>"))


def test_csv_has_one_line_a_cell() -> None:
    results = [*grid(ROWS, seed=0), result("em", "vanilla", 12.04, seed=1)]
    frame = pd.read_csv(io.StringIO(csv(BOARD, panels(results, BOARD))))
    assert len(frame) == 6
    cell = frame[(frame.protector == "em") & (frame.countermeasure == "vanilla")].iloc[0]
    assert (cell.n, cell.seeds, cell.accuracy) == (2, "0 1", 11.04)
    # sd of 10.04 and 12.04 is sqrt(2); 12.706 * sqrt(2) / sqrt(2) = 12.706, and 0.629 of 10,000 images above
    assert cell.ci95_half_width == pytest.approx(12.7216, abs=1e-4)
    assert (cell.ci95_low, cell.ci95_high) == pytest.approx((0.0, 23.7616), abs=1e-4)
    assert cell.ci95_of == "seeds and test set"
    assert cell["keys"].split() == [r.key for r in results if (r.protector, r.countermeasure) == ("em", "vanilla")]
    single = frame[(frame.protector == "ar") & (frame.countermeasure == "vanilla")].iloc[0]
    assert pd.isna(single.ci95_half_width)
    assert (single.ci95_low, single.ci95_high) == pytest.approx(
        (12.6583, 13.9899), abs=1e-4
    )  # Wilson, 13.31 % of 10,000
    assert single.ci95_of == "test set"
    assert single.binomial_error > 0


def test_csv_without_results_has_its_header() -> None:
    frame = pd.read_csv(io.StringIO(csv(BOARD, [])))
    assert frame.empty
    assert {"board", "n", "ci95_low", "ci95_high", "keys"} <= set(frame.columns)


def test_csv_keeps_awkward_names() -> None:
    name = 'quote " comma , line\nend'
    frame = pd.read_csv(io.StringIO(csv(BOARD, panels([result(name)], BOARD))))
    assert frame.protector.tolist() == [name]


def test_terminal_has_countermeasures_down_and_protectors_across() -> None:
    [panel] = panels(grid(ROWS), BOARD)
    lines = [line.split() for line in terminal(panel).splitlines()]
    assert ["countermeasure", "none", "ar", "em"] in lines
    assert ["vanilla", "94.6", "13.3", "10.0"] in lines
    assert ["mean", "89.9", "16.7", "47.4"] in lines
    assert ["worst", "case", "94.6", "20.0", "84.8"] in lines
    assert ["Linf", "max", "(of", "255)", "8", "8", "8"] in lines


def test_terminal_states_n_and_source() -> None:
    [panel] = panels(grid(ROWS), BOARD)
    text = terminal(panel)
    assert "n = 1 seed per cell: nothing is known of the spread over seeds" in text
    assert "CIFAR-10 (test copy)" in text


@pytest.mark.parametrize(("protectors", "blocks"), [(4, 1), (7, 1), (15, 3)])
def test_terminal_fits_its_width(protectors: int, blocks: int) -> None:
    names = ["none", "noise", "deephiding", "deephiding[mode=sample]", *(f"method{i}" for i in range(20))]
    [panel] = panels(grid(dict.fromkeys(names[:protectors], (10.0, 84.8))), BOARD)
    text = terminal(panel)
    assert max(map(len, text.splitlines())) <= 100
    assert text.count("countermeasure  ") == blocks


def test_terminal_breaks_a_name_that_has_no_break() -> None:
    [panel] = panels(grid({"é" * 300: (10.0, 20.0)}), BOARD)
    text = terminal(panel)
    assert max(map(len, text.splitlines())) <= 100
    assert text.count("é") == 300


def test_terminal_marks_missing_cells_and_no_ops() -> None:
    board = replace(BOARD, countermeasures=("vanilla", "gaussian-filter", "gray"))
    [panel] = panels([result("em", "vanilla", 10.0), *(result("ar", c, 12.0) for c in board.countermeasures)], board)
    text = terminal(panel)
    assert re.search(r"^gaussian-filter \* +12\.0 +–$", text, flags=re.MULTILINE)
    assert "1/2 cells" in text
    assert "* gaussian-filter: No-op" in text


def test_cells_that_learned_nothing_are_named_on_page_and_terminal() -> None:
    def idle(countermeasure: str) -> Result:
        found = result("em", countermeasure)
        return found.model_copy(update={"metrics": found.metrics.model_copy(update={"learned": False})})

    results = [idle("vanilla"), result("em", "vanilla", seed=1), result("ar", "vanilla")]
    remark = "1 cell ended at chance on its own training data, which says nothing about protection: em under vanilla."
    assert remark in written(results)
    assert remark in " ".join(terminal(panels(results, BOARD)[0]).split())
    more = [*results, idle("jpeg[quality=10]")]
    assert "2 cells ended at chance on their own training data" in written(more)
    assert "at chance" not in written([r for r in results if r.metrics.learned])


NAMES = ("em", "lsp", "deephiding[mode=sample,hidden=natural]", "a-very-long-name-without-a-bracket", "x[eps=4/255]")


@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_blocks_hold_as_many_protectors_as_fit(count: int) -> None:
    """Every block fits the terminal, or has one protector; with the next protector it would not fit."""
    rows = [result(f"{NAMES[i % 5]}{i}", c, 10.0 + i) for i in range(count) for c in BOARD.countermeasures]
    [panel] = panels(rows, BOARD)
    blocks = list(tables._blocks(panel))
    labels, first = tables._labels(panel), 0
    for block in blocks:
        widths = [max(map(len, block.splitlines()))]
        shown = _protectors_in(block)
        chosen = panel.rows[first : first + shown]
        drawn = {
            width: tables._block(labels, [tables._column(panel, row, width) for row in chosen])
            for width in tables.NAME_WIDTHS
        }
        assert block in drawn.values()
        assert max(widths) <= tables.WIDTH or shown == 1
        more = panel.rows[first : first + shown + 1]
        for width in tables.NAME_WIDTHS if len(more) > shown else ():
            wider = tables._block(labels, [tables._column(panel, row, width) for row in more])
            assert max(map(len, wider.splitlines())) > tables.WIDTH
        first += shown
    assert first == count


def _protectors_in(block: str) -> int:
    """How many columns a block has beside the names of its lines: those of the rule under its head."""
    [rule, *_] = [line for line in block.splitlines() if set(line) <= set("- ") and line.strip()]
    return len(rule.split()) - 1


def test_time_of_a_table_grows_with_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted, because seconds depend on the machine: it was cubic."""
    made = {"columns": 0, "notes": 0}
    column, notes = tables._column, formats.column_notes

    def counted(*arguments: Any) -> list[str]:
        made["columns"] += 1
        return column(*arguments)

    def noted(panel: Panel) -> list[tuple[str, str]]:
        made["notes"] += 1
        return notes(panel)

    monkeypatch.setattr(tables, "_column", counted)
    monkeypatch.setattr(formats, "column_notes", noted)
    [panel] = panels([result(f"toy[count={i}]", c) for i in range(300) for c in BOARD.countermeasures], BOARD)
    terminal(panel)
    assert made["columns"] <= 3 * 2 * 300  # three widths of names; the first that does not fit is drawn again
    assert made["notes"] <= 2


class TestCleanData:
    """Columns whose adversary has some of the training images unprotected."""

    CONTROL = "refit[control=true]"

    @pytest.fixture
    def board(self) -> BoardInfo:
        owned = {"refit": CleanData(5000, control=self.CONTROL), "paired": CleanData(500, pairs=True, control="other")}
        owned[self.CONTROL] = CleanData(5000)
        return replace(
            BOARD, countermeasures=("vanilla", "refit", "paired"), clean_data=lambda c: owned.get(c, CleanData())
        )

    @pytest.fixture
    def results(self) -> list[Result]:
        accuracies = {"none": (94, 64, 90, 30), "em": (10, 42, 50, 29)}
        columns = ("vanilla", "refit", "paired", self.CONTROL)
        return [result(p, c, a) for p, row in accuracies.items() for c, a in zip(columns, row, strict=True)]

    def test_headings_show_the_share(self, results: list[Result], board: BoardInfo) -> None:
        measured = tables_in(written(results, board))[1]
        heads = ["`vanilla`", "`refit` (10 % clean)", "`paired` (1 % in pairs)", f"`{self.CONTROL}` (10 % clean)"]
        assert measured.columns[3:7].tolist() == heads

    def test_a_terminal_and_a_page_show_it(self, results: list[Result], board: BoardInfo) -> None:
        [panel] = panels(results, board)
        assert "\nrefit (10 % clean)" in terminal(panel)
        assert "\nvanilla  " in terminal(panel)
        columns = page_data(board, [panel], Evidence())["panels"][0]["columns"]
        assert [column["owned"] for column in columns] == ["", "10 % clean", "1 % in pairs", "10 % clean"]

    def test_remarks_compare_protected_rows_with_the_control(self, results: list[Result], board: BoardInfo) -> None:
        remarks = formats.remarks(panels(results, board)[0])
        assert (
            f"refit less its control {self.CONTROL}, which has the same clean images, in points: em +13.0."
        ) in remarks
        [panel] = panels([r for r in results if r.protector == "none"], board)
        assert any(remark.endswith("in points: none +34.0.") for remark in formats.remarks(panel))
        assert "paired has a control that is not measured here: other." in remarks
        owners = f"refit (5,000), paired (500), {self.CONTROL} (5,000)"
        assert any(f"of the 50,000 training images unprotected too: {owners}" in remark for remark in remarks)

    def test_csv_counts_the_images_off_the_board_too(self, results: list[Result], board: BoardInfo) -> None:
        lines = tables.frame(panels(results, board))
        assert set(lines[lines.countermeasure == self.CONTROL].clean_images) == {5000}
        assert set(lines[lines.countermeasure == "vanilla"].clean_images) == {0}

    def test_installed_countermeasures_say_it(self) -> None:
        known = board_info(boards.board("cifar10-micro-wide")).clean_data
        assert known is not None
        assert known("deep-feature-reweighting") == CleanData(5000, control="deep-feature-reweighting[control=true]")
        assert known("deep-feature-reweighting[control=true]").control == ""
        assert known("bridgepure-lite[clean=300]") == CleanData(300, True, "dilution[clean=300]")
        assert known("jpeg") == known("nobody-knows-it") == CleanData()
