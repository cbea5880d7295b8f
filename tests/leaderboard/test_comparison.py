"""Printed and measured numbers side by side, in text, Markdown and JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import fmean
from typing import Any

import pytest

from ue_bench.catalogue import tables
from ue_bench.contract.table import Ask, Line, Table
from ue_bench.leaderboard.comparison import Comparison, Place, average
from ue_bench.leaderboard.intervals import Estimate
from ue_bench.leaderboard.tables import WIDTH

NET, OTHER = "net", "other"


def comparison(
    table: Table, measured: Mapping[Place, Mapping[str, Estimate]], victims: tuple[str, ...] = (NET,)
) -> Comparison:
    return Comparison(table, "Measured: here.", victims, {"raw[a=1]": "raw"}, measured, {})


def paired(*values: tuple[float, ...], mean: bool = False, **fields: Any) -> Table:
    """Lines a, b, ... of printed numbers in columns x, y, ..., all of them measured too."""
    lines = tuple(
        Line(
            ("abcdefgh"[i],), dict(zip("xyz", row, strict=False)), {c: Ask("raw[a=1]", (c,)) for c in "xyz"[: len(row)]}
        )
        for i, row in enumerate(values)
    )
    return Table("t", "a title", "A paper, Table 1", ("row",), lines, mean=mean, **fields)


def numbers(
    table: Table, values: Mapping[str, tuple[float, ...]], victim: str = NET
) -> dict[Place, dict[str, Estimate]]:
    """One seed of every number, by line."""
    return {
        ((line,), column): {victim: Estimate(value, 1)}
        for line, row in values.items()
        for column, value in zip(table.columns, row, strict=False)
    }


def whole(line: Line, columns: int) -> dict[Place, dict[str, Estimate]]:
    """Three seeds of the first columns of a line: 50, 51, ..."""
    return {(line.label, c): {NET: Estimate(50.0 + i, 3, 1.5)} for i, c in enumerate(list(line.asks)[:columns])}


def words(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


class TestPaired:
    """Columns that are printed and measured: Table K of Deep Hiding."""

    table = tables.table("tableK", {"steps": "7"})
    first, second, third = table.lines
    found = comparison(table, whole(first, 13) | whole(second, 2))

    def test_complete_lines_alone_have_a_mean(self) -> None:
        assert self.found.mean(self.first, NET) == 56
        assert self.found.mean(self.second, NET) is None
        assert not self.found.complete

    def test_columns_go_down_and_lines_across(self) -> None:
        text = self.found.text()
        assert max(map(len, text.splitlines())) <= WIDTH
        lines = {line[0]: line[1:] for line in words(text) if line}
        assert lines["vanilla"] == ["94.6", "50.0", "±", "1.5", "94.7", "50.0", "±", "1.5", "10.0", "–"]
        assert lines["mean"] == ["87.8", "56.0", "86.8", "–", "16.3", "–"]
        assert "Deep Hiding (ICLR 2024 submission), Table K: losses of the hiding network" in text
        assert "Measured numbers have n = 3 seeds" in text

    def test_markdown_has_both_in_a_cell(self) -> None:
        markdown = " ".join(self.found.markdown().split())
        assert "| L_total | `deephiding[retrain=true,train_steps=7]` | 16.3 / – | 10.0 / – |" in markdown
        assert "| clean data | `none` | 87.8 / 56.0 | 94.6 / 50.0 ± 1.5 |" in markdown
        assert "Each number is printed / measured." in markdown
        assert "- L_hide only, gaussian-filter: equal to the median filter, a copy error perhaps." in markdown

    def test_json_keeps_them_apart(self) -> None:
        found = self.found.plain()
        assert found["table"] == "tableK"
        assert found["rows"][1]["row"] == ["L_hide only"]
        assert found["rows"][1]["printed"]["cutout"] == 95.05
        assert found["rows"][1]["measured"] == {
            "vanilla": {NET: {"mean": 50.0, "n": 3, "ci95_half_width": 1.5}},
            "cutout": {NET: {"mean": 51.0, "n": 3, "ci95_half_width": 1.5}},
        }
        assert found["rows"][2]["measured"] == {}


class TestApart:
    """Measured numbers in a column of their own, for two victims."""

    table = Table(
        "t",
        "a title",
        "A paper, Table 2",
        ("quantity",),
        (
            Line(("acc",), {"paper A": 91.25, "paper B": 92.0}, {"here": Ask("raw[a=1]", ("v",), of="evasion")}),
            Line(("psnr",), {"paper A": 40.0}, {"here": Ask("p", ("v",), of="evasion", value="psnr")}, unit="dB"),
            Line(("ssim",), {"paper A": 0.9}, unit="ssim"),
        ),
        ("a note",),
    )
    found = comparison(
        table,
        {(("acc",), "here"): {NET: Estimate(50.0, 3, 1.5)}, (("psnr",), "here"): {NET: Estimate(math.inf, 1, None)}},
        (NET, OTHER),
    )

    def test_lines_go_down(self) -> None:
        assert [line for line in words(self.found.text()) if line][-4:] == [
            ["acc", "91.2", "92.0", "50.0", "±", "1.5", "–"],
            ["psnr", "40.0", "–", "∞", "–"],
            ["ssim", "0.900", "–", "–", "–"],
            ["a", "note"],
        ]

    def test_markdown_names_the_selector(self) -> None:
        text = " ".join(self.found.markdown().split())
        assert "| quantity | selector | paper A | paper B | measured: `net` | measured: `other` |" in text
        assert "| acc | `raw` | 91.2 | 92.0 | 50.0 ± 1.5 | – |" in text
        assert "| ssim | – | 0.900 | – | – | – |" in text
        assert "- a note" in text

    def test_json_can_be_read(self) -> None:
        rows = self.found.plain()["rows"]
        assert rows[0]["measured"] == {"here": {NET: {"mean": 50.0, "n": 3, "ci95_half_width": 1.5}}}
        assert rows[1]["measured"]["here"][NET]["mean"] is None  # nothing was lost
        assert rows[2]["protectors"] == []


@pytest.mark.parametrize("name", tables.names())
@pytest.mark.parametrize("victims", [(), ("resnet9[blocks=1]",), ("resnet9[blocks=1]", "resnet18[width=32]")])
def test_tables_fit_a_terminal(name: str, victims: tuple[str, ...]) -> None:
    table = tables.table(name)
    measured = {
        (line.label, column): {victim: Estimate(99.9, 3, 12.3) for victim in victims}
        for line in table.lines
        for column in line.asks
    }
    text = Comparison(table, "Measured: here.", victims, {}, measured, {}).text()
    assert max(map(len, text.splitlines())) <= WIDTH


def test_a_victim_that_the_table_asks_for_stands_in_every_column() -> None:
    table = Table(
        "t",
        "a title",
        "A paper, Table 1",
        ("row",),
        (
            Line(("a",), {"x": 1.0}, {"x": Ask("p", ("v",))}),
            Line(("b",), {"x": 2.0}, {"x": Ask("p", ("v",), victim="third")}),
        ),
    )
    measured: dict[Place, dict[str, Estimate]] = {
        (("a",), "x"): {NET: Estimate(10.0, 1), OTHER: Estimate(20.0, 1)},
        (("b",), "x"): {"third": Estimate(30.0, 1)},
    }
    found = comparison(table, measured, (NET, OTHER))
    assert found.complete
    assert ["x", "1.0", "10.0", "20.0", "2.0", "30.0", "30.0"] in words(found.text())
    assert list(found.plain()["rows"][1]["measured"]["x"]) == ["third"]
    assert not comparison(table, {**measured, (("a",), "x"): {NET: Estimate(10.0, 1)}}, (NET, OTHER)).complete


def test_nothing_measured_is_said() -> None:
    text = comparison(paired((1.0,)), {}).text()
    assert "Nothing is measured yet." in text
    assert "Spearman" not in text


class TestAgreement:
    printed = ((1.0, 10.0), (2.0, 20.0), (3.0, 30.0), (4.0, 40.0))

    def test_orders_are_compared_over_all_numbers_and_over_means(self) -> None:
        table = paired(*self.printed, mean=True)
        reversed_means = numbers(table, {"a": (8.0, 80.0), "b": (7.0, 70.0), "c": (6.0, 60.0), "d": (5.0, 50.0)})
        every, means = comparison(table, reversed_means).agreement
        assert (means.of, means.pairs) == ("means of lines", 4)
        assert means.spearman == pytest.approx(-1)
        # Ranks 1 2 3 4 5 6 7 8 against 4 3 2 1 8 7 6 5: 1 - 6 * 40 / (8 * 63).
        assert (every.of, every.pairs) == ("accuracies", 8)
        assert every.spearman == pytest.approx(1 - 240 / 504)
        assert means.text() == (
            "Printed and measured order of means of lines, net: Spearman rank correlation -1.00, n = 4 pairs."
        )
        assert means.text() in comparison(table, reversed_means).markdown()
        assert means.plain() in comparison(table, reversed_means).plain()["agreement"]

    def test_incomplete_lines_have_no_mean_to_rank(self) -> None:
        table = paired(*self.printed, mean=True)
        measured = numbers(table, {"a": (8.0, 80.0), "b": (7.0, 70.0), "c": (6.0, 60.0), "d": (5.0,)})
        [every] = comparison(table, measured).agreement
        assert every.pairs == 7

    @pytest.mark.parametrize("rows", [("a", "b", "c"), ()])
    def test_three_pairs_are_too_few(self, rows: tuple[str, ...]) -> None:
        table = paired(*((row[0],) for row in self.printed))
        assert comparison(table, numbers(table, {row: (1.0 + ord(row),) for row in rows})).agreement == []

    def test_numbers_that_are_all_alike_have_no_order(self) -> None:
        table = paired(*((row[0],) for row in self.printed))
        assert comparison(table, numbers(table, dict.fromkeys("abcd", (10.0,)))).agreement == []

    def test_every_printed_column_is_compared_with_a_measured_one_apart(self) -> None:
        ask = Ask("p", ("v",), of="evasion")
        psnr = Ask("p", ("v",), of="evasion", value="psnr")
        lines = [Line((str(i),), {"A": float(i), "B": -float(i)}, {"here": ask}) for i in range(4)]
        lines += [Line((f"p{i}",), {"A": float(i)}, {"here": psnr}, unit="dB") for i in range(4)]
        table = Table("t", "a title", "A paper", ("row",), tuple(lines))
        measured: dict[Place, dict[str, Estimate]] = {
            ((str(i),), "here"): {NET: Estimate(10.0 * i, 1)} for i in range(4)
        }
        measured |= {((f"p{i}",), "here"): {NET: Estimate(math.inf, 1)} for i in range(4)}  # has no rank
        found = comparison(table, measured).agreement
        assert [(a.printed, a.of, round(a.spearman, 6), a.pairs) for a in found] == [
            ("A", "accuracies", 1, 4),
            ("B", "accuracies", -1, 4),
        ]
        assert "(printed: B)" in found[1].text()


def test_an_infinite_psnr_has_no_interval() -> None:
    assert average([math.inf, 40.0]) == Estimate(math.inf, 2, None)
    assert average([39.0, 41.0]).mean == fmean([39.0, 41.0])
    assert average([39.0, 41.0]).half_width is not None
