"""A table of RAEG with printed and measured columns, never mixed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from . import formats
from .raeg import Line, Table
from .statistics import Estimate, estimate
from .tables import WIDTH, folded, paragraph

COLUMN = 10  # characters of a heading
LEGEND = (
    "Accuracies in percent, PSNR in dB. Printed numbers are of other data, classifiers and recipes, single runs: "
    "compare signs, not levels."
)


def average(values: Sequence[float]) -> Estimate:
    """Over seeds; an infinite PSNR, where nothing is lost, has no interval."""
    if any(map(math.isinf, values)):
        return Estimate(fmean(values), len(values), None)
    return estimate(values)


@dataclass(frozen=True)
class Comparison:
    """``measured`` is by victim, then by the label of a line; lines without a result are not in it."""

    table: Table
    setting: str
    selectors: Mapping[tuple[str, ...], str]
    measured: Mapping[str, Mapping[tuple[str, ...], Estimate]]

    def plain(self) -> dict[str, Any]:
        """Plain data for JSON; an infinite mean is null."""
        rows = [
            {
                "row": list(line.label),
                "protector": self.selectors.get(line.label),
                "printed": line.printed,
                "measured": {
                    victim: {
                        "mean": found[line.label].mean if math.isfinite(found[line.label].mean) else None,
                        "n": found[line.label].n,
                        "ci95_half_width": found[line.label].half_width,
                    }
                    for victim, found in self.measured.items()
                    if line.label in found
                },
            }
            for line in self.table.lines
        ]
        return {
            "table": self.table.name, "title": self.table.title, "setting": self.setting, "rows": rows,
            "notes": list(self.table.notes),
        }  # fmt: skip

    def text(self) -> str:
        """For a terminal: printed columns in blocks, the measured ones to the right of each."""
        from tabulate import tabulate

        width = sum(max(len(line.label[i]) for line in self.table.lines) + 2 for i in range(len(self.table.heads)))
        room = WIDTH - width - (COLUMN + 2) * len(self.measured)
        fit = max(1, room // (COLUMN + 2))
        parts = [paragraph([self.table.title, self.setting, LEGEND])]
        columns = self.table.printed
        for first in range(0, len(columns), fit):
            block = columns[first : first + fit]
            head = [*self.table.heads]
            head += ["\n".join(["printed", *folded(c, COLUMN)]) for c in block]
            head += ["\n".join(["measured", *folded(v, COLUMN)]) for v in self.measured]
            align = ["left"] * len(self.table.heads) + ["right"] * (len(head) - len(self.table.heads))
            body = [[*line.label, *self._printed(line, block), *self._measured(line)] for line in self.table.lines]
            parts.append(str(tabulate(body, head, tablefmt="simple", disable_numparse=True, colalign=align)))
        return "\n\n".join([*parts, paragraph(self.table.notes)]) + "\n"

    def markdown(self) -> str:
        from tabulate import tabulate

        head = [*self.table.heads, "selector", *self.table.printed, *(f"measured: `{v}`" for v in self.measured)]
        body = []
        for line in self.table.lines:
            selector = self.selectors.get(line.label)
            shown = f"`{selector}`" if selector else formats.MISSING
            body.append([*line.label, shown, *self._printed(line, self.table.printed), *self._measured(line)])
        left = len(self.table.heads) + 1
        align = ["left"] * left + ["right"] * (len(head) - left)
        drawn = str(tabulate(body, head, tablefmt="pipe", disable_numparse=True, colalign=align))
        notes = "\n".join(f"- {note}" for note in self.table.notes)
        return "\n\n".join([f"## {self.table.title}", f"{self.setting} {LEGEND}", drawn, notes]) + "\n"

    def _printed(self, line: Line, columns: Sequence[str]) -> list[str]:
        return [_number(line, line.printed[c]) if c in line.printed else formats.MISSING for c in columns]

    def _measured(self, line: Line) -> list[str]:
        shown = []
        for found in self.measured.values():
            value = found.get(line.label)
            if value is None:
                shown.append(formats.MISSING)
            else:
                spread = "" if value.half_width is None else f" ± {_number(line, value.half_width)}"
                shown.append(_number(line, value.mean) + spread)
        return shown


def _number(line: Line, value: float) -> str:
    if math.isinf(value):
        return "∞"
    return f"{value:.3f}" if line.label[-1].startswith("ssim") else f"{value:.1f}"
