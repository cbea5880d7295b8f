"""Compare a paper's table with measured numbers side by side, never mixed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any

from ..contract.table import Line, Table, Unit
from . import formats
from .agreement import Agreement, agreement
from .blocks import Group, blocks
from .intervals import Estimate, accuracy, estimate
from .tables import paragraph

Place = tuple[tuple[str, ...], str]  # label of a line, and column
DIGITS: dict[Unit, int] = {"percent": 1, "dB": 1, "ssim": 3, "cosine": 4}
UNITS: dict[Unit, str] = {
    "percent": "accuracies in percent",
    "dB": "PSNR in dB",
    "ssim": "SSIM",
    "cosine": "mean cosines",
}
PRINTED = "Printed numbers are single runs with other data, victims and recipes: compare signs and orders, not levels."


def average(values: Sequence[float], images: int | None = None) -> Estimate:
    """Return the mean over seeds, of accuracies on so many test ``images`` or of other numbers.

    An infinite PSNR, where nothing is lost, has no interval.
    """
    if images is not None:
        return accuracy(values, images)
    if any(map(math.isinf, values)):
        return Estimate(fmean(values), len(values), None)
    return estimate(values)


@dataclass(frozen=True)
class Comparison:
    """A table and what was measured for it.

    ``victims`` are those of the board; there are none where the table names its own everywhere. ``measured`` is by
    place, and then by victim: every victim of the board, or the one that is asked for. What has no result is not in
    it. ``selectors`` are canonical ones of protectors by how the table writes them; ``setting`` says what all measured
    numbers share, and ``given`` holds the table's settings.
    """

    table: Table
    setting: str
    victims: tuple[str, ...]
    selectors: Mapping[str, str]
    measured: Mapping[Place, Mapping[str, Estimate]]
    given: Mapping[str, str]

    @property
    def complete(self) -> bool:
        """Whether everything that was asked for is there."""
        return all(
            len(self.measured.get((line.label, column), {})) == (1 if ask.victim else len(self.victims))
            for line in self.table.lines
            for column, ask in line.asks.items()
        )

    def value(self, line: Line, column: str, victim: str) -> Estimate | None:
        """Return what was measured in one place: of ``victim``, or of the victim that the table asks for there."""
        by_victim = self.measured.get((line.label, column), {})
        named = column in line.asks and line.asks[column].victim is not None
        return next(iter(by_victim.values()), None) if named else by_victim.get(victim)

    def mean(self, line: Line, victim: str) -> float | None:
        """Return the mean over the columns of a line; None while one is missing."""
        values = [self.value(line, column, victim) for column in self.table.printed]
        known = [value.mean for value in values if value is not None]
        return fmean(known) if len(known) == len(values) else None

    @cached_property
    def agreement(self) -> list[Agreement]:
        """How far the orders of printed and measured numbers agree."""
        return agreement(self.table, self.views, self.value, self.mean)

    @property
    def views(self) -> tuple[str, ...]:
        """The victims that have a measured column each; one without a name where the table names its own."""
        return self.victims or ("",)

    def plain(self) -> dict[str, Any]:
        """Return plain data for JSON; an infinite mean is null."""
        return {
            "table": self.table.name,
            "title": self.table.title,
            "source": self.table.source,
            "settings": dict(self.given),
            "setting": self.setting,
            "columns": list(self.table.columns),
            "rows": [
                {
                    "row": list(line.label),
                    "unit": line.unit,
                    "protectors": self._selectors(line),
                    "printed": dict(line.printed),
                    "measured": {
                        column: {victim: _plain(number) for victim, number in self.measured[line.label, column].items()}
                        for column in line.asks
                        if (line.label, column) in self.measured
                    },
                }
                for line in self.table.lines
            ],
            "agreement": [agreement.plain() for agreement in self.agreement],
            "notes": self._notes(),
        }

    def text(self) -> str:
        """Return the table for a terminal.

        Where numbers are measured in printed columns, columns go down and lines across. Where measured columns stand
        apart, lines go down.
        """
        parts = [paragraph([f"{self.table.source}: {self.table.title}", *self._introduction()])]
        parts += self._by_line() if self._paired else self._by_column()
        parts.append(paragraph([agreement.text() for agreement in self.agreement]))
        parts.append(paragraph(self._notes()))
        return "\n\n".join(part for part in parts if part) + "\n"

    def markdown(self) -> str:
        """Return one table, with the printed and the measured number in one cell where they are of one column."""
        from tabulate import tabulate

        head = [*self.table.heads, "selector", *self._markdown_heads()]
        left = len(self.table.heads) + 1
        body = []
        for line in self.table.lines:
            shown = ", ".join(f"`{selector}`" for selector in self._selectors(line)) or formats.MISSING
            body.append([*line.label, shown, *self._markdown_cells(line)])
        align = ["left"] * left + ["right"] * (len(head) - left)
        drawn = str(tabulate(body, headers=head, tablefmt="pipe", disable_numparse=True, colalign=align))
        how = [f"Each number is {' / '.join(['printed', *self._names()])}."] if self._paired else []
        said = [*(agreement.text() for agreement in self.agreement), *self._notes()]
        parts = [f"## {self.table.source}: {self.table.title}", " ".join([*self._introduction(), *how]), drawn]
        return "\n\n".join([*parts, *(["\n".join(f"- {note}" for note in said)] if said else [])]) + "\n"

    @property
    def _paired(self) -> bool:
        return set(self.table.measured) <= set(self.table.printed)

    def _introduction(self) -> list[str]:
        units = list(dict.fromkeys(UNITS[line.unit] for line in self.table.lines))
        return [text for text in (self.setting, self._seeds(), f"In the table: {', '.join(units)}. {PRINTED}") if text]

    def _seeds(self) -> str:
        """Return how many seeds the measured numbers rest on."""
        counts = {value.n for by_victim in self.measured.values() for value in by_victim.values()}
        if not counts:
            return "Nothing is measured yet."
        low, high = min(counts), max(counts)
        if high == 1:
            return "Every measured number has n = 1 seed: nothing is known of the spread over seeds."
        spread = "± is a 95 % interval over seeds, and of accuracies over test images too."
        return f"Measured numbers have n = {formats.span(low, high)} seeds; {spread}"

    def _selectors(self, line: Line) -> list[str]:
        return [self.selectors.get(protector, protector) for protector in line.protectors]

    def _names(self) -> list[str]:
        """Return what measured columns are called."""
        return [f"measured: `{victim}`" for victim in self.victims] if len(self.victims) > 1 else ["measured"]

    def _notes(self) -> list[str]:
        return [*self.table.notes, *(f"{line.name}, {note}" for line in self.table.lines for note in line.notes)]

    def _by_line(self) -> list[str]:
        names = list(self.table.printed) + (["mean"] if self.table.mean else [])
        heads = ["printed", *(self.victims if len(self.victims) > 1 else ["measured"])]
        groups = []
        for line in self.table.lines:
            cells = [self._cells(line, column) for column in self.table.printed]
            cells += [self._means(line)] if self.table.mean else []
            groups.append(Group(line.name, heads, cells))
        return blocks([""], [[name] for name in names], groups)

    def _by_column(self) -> list[str]:
        lines = self.table.lines
        groups = [Group(c, ["printed"], [[_printed(line, c)] for line in lines]) for c in self.table.printed]
        for column in self.table.measured:
            heads = [f"measured {victim}".strip() for victim in self.views]
            groups.append(Group(column, heads, [self._cells(line, column)[1:] for line in lines]))
        return blocks(list(self.table.heads), [list(line.label) for line in lines], groups)

    def _markdown_heads(self) -> list[str]:
        if self._paired:
            return [*(["mean"] if self.table.mean else []), *(f"`{column}`" for column in self.table.printed)]
        measured = [f"measured: `{victim}`" if victim else "measured" for victim in self.views]
        several = len(self.table.measured) > 1
        return [
            *self.table.printed,
            *(f"{column}, {head}" if several else head for column in self.table.measured for head in measured),
        ]

    def _markdown_cells(self, line: Line) -> list[str]:
        if self._paired:
            cells = [self._means(line)] if self.table.mean else []
            cells += [self._cells(line, column) for column in self.table.printed]
            return [" / ".join(cell) for cell in cells]
        printed = [_printed(line, column) for column in self.table.printed]
        return [*printed, *(text for column in self.table.measured for text in self._cells(line, column)[1:])]

    def _cells(self, line: Line, column: str) -> list[str]:
        """Return the printed number and one measured number a view."""
        return [_printed(line, column), *(_shown(line, self.value(line, column, view)) for view in self.views)]

    def _means(self, line: Line) -> list[str]:
        means = [self.mean(line, view) for view in self.views]
        return [
            _number(line, fmean(line.printed.values())),
            *(formats.MISSING if mean is None else _number(line, mean) for mean in means),
        ]


def _plain(value: Estimate) -> dict[str, Any]:
    mean = value.mean if math.isfinite(value.mean) else None
    return {"mean": mean, "n": value.n, "ci95_half_width": value.half_width}


def _printed(line: Line, column: str) -> str:
    return _number(line, line.printed[column]) if column in line.printed else formats.MISSING


def _shown(line: Line, value: Estimate | None) -> str:
    if value is None:
        return formats.MISSING
    spread = "" if value.half_width is None else f" ± {_number(line, value.half_width)}"
    return _number(line, value.mean) + spread


def _number(line: Line, value: float) -> str:
    return "∞" if math.isinf(value) else f"{value:.{DIGITS[line.unit]}f}"
