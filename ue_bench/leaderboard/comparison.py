"""Printed and measured numbers of a table side by side, never mixed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from . import formats
from .printed import COSINES, PrintedRow, PrintedTable
from .statistics import Estimate, estimate
from .tables import WIDTH, folded, paragraph

NAME_WIDTH = 15


@dataclass(frozen=True)
class Comparison:
    """A printed table and what was measured for its rows in one setting.

    ``selectors`` and ``measured`` are by label; a row that was not asked for is in neither.
    """

    table: PrintedTable
    setting: str
    selectors: Mapping[str, str]
    measured: Mapping[str, Mapping[str, Estimate]]

    @property
    def complete(self) -> bool:
        """Whether every row that was asked for has all its numbers."""
        return all(len(self.measured[label]) == len(self.table.columns) for label in self.selectors)

    def mean(self, label: str) -> float | None:
        """Over the columns; None while one is missing."""
        found = self.measured.get(label, {})
        return fmean(e.mean for e in found.values()) if len(found) == len(self.table.columns) else None

    def plain(self) -> dict[str, Any]:
        """Plain data for JSON."""
        rows = [
            {
                "row": row.label,
                "protector": self.selectors.get(row.label),
                "printed": row.values,
                "measured": {
                    column: {"mean": e.mean, "n": e.n, "ci95_half_width": e.half_width}
                    for column, e in self.measured.get(row.label, {}).items()
                },
            }
            for row in self.table.rows
        ]
        return {"table": self.table.name, "title": self.table.title, "setting": self.setting, "rows": rows}

    def text(self) -> str:
        """For a terminal: columns of the paper's table down, its rows across in pairs, in blocks."""
        fit = (WIDTH - 18) // (2 * (self._digits + 6) + 2)
        rows = self.table.rows
        parts = [paragraph([self.table.title, self.setting, self._legend])]
        parts += [self._block(rows[first : first + fit]) for first in range(0, len(rows), fit)]
        return "\n\n".join([*parts, paragraph(self._notes())]).rstrip() + "\n"

    def _block(self, rows: Sequence[PrintedRow]) -> str:
        from tabulate import tabulate

        names = [folded(row.label, NAME_WIDTH) for row in rows]
        height = max(map(len, names))
        head = [""]
        for name in names:
            head += ["\n".join([*name, *[""] * (height - len(name)), "printed"]), "\n" * height + "measured"]
        body = [[c, *(t for row in rows for t in self._pair(row, c))] for c in self.table.columns]
        if self._averaged:
            body.append(["mean", *(t for row in rows for t in self._means(row))])
        align = ["left", *["right"] * (2 * len(rows))]
        return str(tabulate(body, headers=head, tablefmt="simple", disable_numparse=True, colalign=align))

    def markdown(self) -> str:
        """One table, rows as in print, each number ``printed / measured``."""
        from tabulate import tabulate

        head = ["row", "selector", *(["mean"] if self._averaged else []), *(f"`{c}`" for c in self.table.columns)]
        body = []
        for row in self.table.rows:
            selector = self.selectors.get(row.label)
            pairs = ([self._means(row)] if self._averaged else []) + [self._pair(row, c) for c in self.table.columns]
            shown = f"`{selector}`" if selector else formats.MISSING
            body.append([row.label, shown, *(f"{printed} / {measured}" for printed, measured in pairs)])
        align = ["left", "left", *["right"] * (len(head) - 2)]
        drawn = str(tabulate(body, headers=head, tablefmt="pipe", disable_numparse=True, colalign=align))
        parts = [f"## {self.table.title}", f"{self.setting} {self._legend}", drawn]
        return "\n\n".join([*parts, *(f"- {note}" for note in self._notes())]) + "\n"

    @property
    def _averaged(self) -> bool:
        return self.table.columns != COSINES and len(self.table.columns) > 6  # over thirteen ways to train

    @property
    def _digits(self) -> int:
        return 4 if self.table.columns == COSINES else 1

    @property
    def _legend(self) -> str:
        unit = "Mean cosines." if self.table.columns == COSINES else "Accuracy on clean test images in percent."
        return f"{unit} Printed numbers are single runs of other victims and recipes."

    def _pair(self, row: PrintedRow, column: str) -> tuple[str, str]:
        found = self.measured.get(row.label, {}).get(column)
        printed = f"{row.values[column]:.{self._digits}f}"
        if found is None:
            return printed, formats.MISSING
        spread = f" ± {found.half_width:.{self._digits}f}" if found.half_width is not None else ""
        return printed, f"{found.mean:.{self._digits}f}{spread}"

    def _means(self, row: PrintedRow) -> tuple[str, str]:
        mean = self.mean(row.label)
        return formats.percent(row.mean), formats.MISSING if mean is None else formats.percent(mean)

    def _notes(self) -> list[str]:
        return [f"{row.label}, {note}." for row in self.table.rows for note in row.notes]


def compare(
    table: PrintedTable,
    selectors: Mapping[str, str],
    cells: Iterable[Any],
    values: Callable[[Any], Mapping[str, float]],
) -> list[Comparison]:
    """One comparison for every victim among ``cells``; ``selectors`` are canonical, by label.

    ``values`` gives the measured numbers of a cell by column, none where it has no result yet.
    """
    by_victim: dict[str, list[Any]] = defaultdict(list)
    for cell in cells:
        by_victim[cell.victim.selector].append(cell)
    found = []
    for victim, own in by_victim.items():
        numbers: dict[tuple[str, str], list[float]] = defaultdict(list)
        for cell in own:
            for column, value in values(cell).items():
                numbers[cell.protector.selector, column].append(value)
        measured = {
            label: {c: estimate(numbers[selector, c]) for c in table.columns if numbers[selector, c]}
            for label, selector in selectors.items()
        }
        found.append(Comparison(table, setting(own, victim), selectors, measured))
    return found


def setting(cells: Sequence[Any], victim: str) -> str:
    """What cells of training share."""
    first = cells[0]
    seeds = len({cell.seed for cell in cells})
    return (
        f"Measured: {first.data.info.selector} ({first.data.info.source}, {first.data.info.train:,} images), "
        f"{victim}, protocol {first.protocol.name} v{first.protocol.version}, {first.precision}, n = {seeds}."
    )
