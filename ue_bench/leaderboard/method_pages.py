"""Write a page for every protector and countermeasure: what it does, its parameters, and its numbers on the boards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..catalogue.describe import describe_property
from ..catalogue.facts import ANSWERS, Facts, facts
from ..catalogue.loading import Problem
from ..catalogue.registry import registry
from ..catalogue.selectors import plugin_names
from ..contract.plugin import megapixels
from ..contract.registration import PluginRecord
from ..errors import EnvironmentProblem, UserError
from . import formats
from .cell_summary import CellSummary
from .numbers import Number, number
from .prose import blocks, spans
from .statistics import Panel
from .templating import render, stylesheet

KINDS = ("protector", "countermeasure")
FOLDER = "methods"


@dataclass(frozen=True)
class Extract:
    """The rows or columns of a method in one panel: variants of it across, what they met down."""

    link: str
    title: str
    setting: str
    corner: str
    across: Sequence[str]
    lines: Sequence[tuple[str, Sequence[Number | None]]]


def known(kind: str) -> list[Facts]:
    """Return what is known of the methods of a kind, sorted by name.

    One that cannot be loaded is left out, and is among the problems of its distribution.
    """
    found = []
    for record in registry().of_kind(kind):
        try:
            found.append(facts(record))
        except EnvironmentProblem as error:
            problem = Problem(record.distribution, error.message)
            if problem not in registry().problems:
                registry().problems.append(problem)
    return found


def address(record: PluginRecord) -> str:
    """Return where the page of a method lies, seen from the index."""
    return f"{FOLDER}/{record.kind}s/{record.name}.html"


def pages(panels: Mapping[str, Sequence[Panel]]) -> dict[str, str]:
    """Return the pages of all methods by their address; ``panels`` are those of boards, by the folder of each."""
    return {address(method.record): page(method, panels) for kind in KINDS for method in known(kind)}


def page(method: Facts, panels: Mapping[str, Sequence[Panel]]) -> str:
    """Return the page of one method."""
    return render(
        "method.html",
        record=method.record,
        note=method.note,
        glance=list(_glance(method)),
        sections=[(heading, [_block(block) for block in blocks(text)]) for heading, text in _sections(method) if text],
        parameters=[(n, describe_property(s), s.get("description", "")) for n, s in method.parameters.items()],
        extracts=list(_extracts(method.record, panels)),
        home="../../index.html",
        f=formats,
        css=stylesheet("site.css"),
    )


def _glance(method: Facts) -> Iterator[tuple[str, str]]:
    """Yield what a reader looks for first, as labels and texts; nothing that is not so."""
    record = method.record
    lines = [
        ("paper", method.paper),
        ("declared bound", method.budget),
        ("networks", "trains or attacks them" if method.uses_networks else ""),
        ("recovery", "its images can be recovered with the key that protection writes" if method.recovers else ""),
        ("largest image", megapixels(method.largest_image) if method.largest_image else ""),
        ("network passes an image", f"{method.passes:.3g}, where plain training has 1" if method.passes > 1 else ""),
        ("clean images it needs", f"{method.clean_images:,}" if method.clean_images else ""),
        ("what it must know", method.must_know),
        ("queries", ANSWERS if method.answers_queries else ""),
        ("tags", ", ".join(record.tags)),
        ("comes with", record.distribution.partition(" ")[0]),
        ("revision", str(method.revision)),
        ("on the command line", f"ue-bench show {record.name}"),
    ]
    return (line for line in lines if line[1])


def _sections(method: Facts) -> list[tuple[str, str]]:
    parts = method.sections
    return [
        ("What it does", f"{parts.opening}\n\n{parts.method}"),
        ("Deviations", parts.deviations),
        ("Numbers to expect", parts.expected),
        ("Errors", parts.raises),
    ]


def _block(block: str | list[str]) -> dict[str, Any]:
    """Return a paragraph or the items of a list, each cut into text and code."""
    if isinstance(block, str):
        return {"text": spans(block), "points": []}
    return {"text": [], "points": [spans(item) for item in block]}


def _extracts(method: PluginRecord, panels: Mapping[str, Sequence[Panel]]) -> Iterator[Extract]:
    of_protector = method.kind == "protector"
    for folder, of_board in panels.items():
        for place, panel in enumerate(of_board, start=1):
            rows = [row for row in panel.rows if not of_protector or _is_of(row.protector, method)]
            columns = [c for c in (*panel.columns, *panel.extra) if of_protector or _is_of(c, method)]
            cells = {(row.protector, c): row.cells[c] for row in rows for c in columns if c in row.cells}
            if not cells:
                continue
            protectors = [row.protector for row in rows]
            across, down = (protectors, columns) if of_protector else (columns, protectors)
            yield Extract(
                link=f"../../{folder}/index.html#panel-{place}",
                title=panel.board.title,
                setting=f"{panel.dataset.selector}, {formats.setting(panel)}. {formats.seeds(panel)}.",
                corner="countermeasure" if of_protector else "protector",
                across=across,
                lines=[
                    (name, [_number(panel, cells.get((one, name) if of_protector else (name, one))) for one in across])
                    for name in down
                ],
            )


def _is_of(selector: str, method: PluginRecord) -> bool:
    try:
        return method.name in plugin_names(selector)
    except UserError:  # of a result that an older version wrote otherwise
        return False


def _number(panel: Panel, cell: CellSummary | None) -> Number | None:
    if cell is None:
        return None
    return number(formats.cell(cell), panel.share(cell.countermeasure, cell.mean))
