"""Split a board's page where it would be too large to open: an overview, and pages of some rows each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from . import commands, formats, print_agreement, summary, victims
from .board import BoardInfo
from .evidence import Evidence
from .page import html
from .statistics import Panel, Row
from .templating import render, stylesheet

MOST_RESULTS = 900  # on a page, which is then below 1.5 MB


@dataclass(frozen=True)
class Part:
    """Some rows of one table: ``number`` says which of the board's tables, ``first`` which row of it comes first."""

    name: str
    number: int
    first: int
    panel: Panel

    @property
    def label(self) -> str:
        return f"rows {formats.span(self.first, self.first + len(self.panel.rows) - 1)}"


def pages(
    board: BoardInfo, panels: Sequence[Panel], evidence: Evidence | None, evasion: bool, home: str = ""
) -> dict[str, str]:
    """Return the page of a board by its name, or its pages where one would be too large."""
    if sum(map(_results, (row for panel in panels for row in panel.rows))) <= MOST_RESULTS:
        return {"index.html": html(board, panels, evidence, evasion, home=home)}
    parts = list(_parts(panels))
    texts = {"index.html": _overview(board, panels, parts, evasion, home)}
    for i, part in enumerate(parts):
        near = [other for other in (parts[i - 1] if i else None, *parts[i + 1 : i + 2]) if other is not None]
        links = [("overview", f"index.html#panel-{part.number}"), *((other.label, other.name) for other in near)]
        texts[part.name] = html(board, [part.panel], evidence, evasion, links, home)
    return texts


def _results(row: Row) -> int:
    return sum(cell.n for cell in row.cells.values())


def _parts(panels: Sequence[Panel]) -> Iterator[Part]:
    """Yield consecutive rows of one table after the other, as many as a page holds, and one at least."""
    count = 0
    for number, panel in enumerate(panels, start=1):
        start = 0
        while start < len(panel.rows):
            end, room = start, MOST_RESULTS
            while end < len(panel.rows) and (end == start or _results(panel.rows[end]) <= room):
                room -= _results(panel.rows[end])
                end += 1
            count += 1
            yield Part(f"rows-{count}.html", number, start + 1, _some_rows(panel, panel.rows[start:end]))
            start = end


def _some_rows(panel: Panel, rows: Sequence[Row]) -> Panel:
    """Return a panel of some rows, with the ranks that they have among all."""
    part = replace(panel, rows=tuple(rows))
    part.__dict__["ranks"] = panel.ranks  # fills the cached property
    return part


def _overview(board: BoardInfo, panels: Sequence[Panel], parts: Sequence[Part], evasion: bool, home: str) -> str:
    homes = {(part.number, row.protector): part.name for part in parts for row in part.panel.rows}
    tables = [
        (
            panel,
            [(kind, row.protector, homes[number, row.protector], summary.texts(panel, row), formats.span(*row.n))
             for kind, row in summary.lines(panel)],
            [part for part in parts if part.number == number],
            [found.text for found in print_agreement.agreements(panel)],
            (lines := commands.board_commands(board, panel)),
            commands.needs(board, panel, lines),
        )
        for number, panel in enumerate(panels, start=1)
    ]  # fmt: skip
    return render(
        "overview.html", board=board, tables=tables, summary=summary, evasion=evasion, home=home, f=formats,
        across=victims.groups(panels), css=stylesheet("site.css"),
    )  # fmt: skip
