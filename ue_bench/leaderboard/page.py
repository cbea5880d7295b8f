"""Write the page ``index.html``: one file, no external request, readable without JavaScript."""

from __future__ import annotations

from collections.abc import Sequence

from . import colour, commands, formats, print_agreement, summary, victims
from .board import BoardInfo
from .details import failure_text, gaps
from .evidence import Evidence
from .headline import BROKEN, is_defined
from .page_data import classes, page_data, seconds
from .print_agreement import PrintAgreement
from .published import Published, beside
from .statistics import Panel
from .tables import PUBLISHED, reproduce
from .templating import render, stylesheet, template

NO_COLOUR = "hx"  # of a number that cannot be placed between chance and clean training
SCRIPTS = ("base", "filter", "table", "turned", "victims", "printed", "charts", "drawer", "compare", "export", "main")


def html(
    board: BoardInfo,
    panels: Sequence[Panel],
    evidence: Evidence | None = None,
    evasion: bool = False,
    beside_it: Sequence[tuple[str, str]] = (),
    home: str = "",
) -> str:
    """Return the whole page as text. ``evasion`` says that there is a page of evasion beside it.

    ``home`` is the address of the index over all boards, empty where there is none.

    A page of some rows of a board has links to its overview and to the pages ``beside_it``, each with a label. What is
    said of all rows together, such as the agreement with print, stands on the overview.
    """
    from markupsafe import Markup

    evidence = evidence or Evidence()
    published = [] if beside_it else beside(panels)
    return render(
        "page.html",
        board=board,
        home=home,
        evasion=evasion,
        beside_it=beside_it,
        panels=panels,
        across=victims.groups(panels),
        victims=victims,
        classes=classes,
        empty_board_command=commands.empty_board_command(board),
        reproduce=[] if beside_it else [reproduce(board, panel) for panel in panels],
        published=[(table, _published_heat(table, board, panels)) for table in published],
        agreements=[] if beside_it else _agreements(panels),
        agreement=print_agreement,
        published_note=PUBLISHED,
        f=formats,
        summary=summary,
        heat=heat,
        seconds=seconds,
        broken=BROKEN,
        levels=range(len(colour.levels(colour.LIGHT))),
        gaps=[gaps(panel, evidence) for panel in panels],
        absent=[_absent(panel, evidence) for panel in panels],
        data=page_data(board, panels, evidence, with_printed=not beside_it),
        css=stylesheet("page.css"),
        js=Markup("".join(template(f"scripts/{name}.js") for name in SCRIPTS)),
    )


def _agreements(panels: Sequence[Panel]) -> list[tuple[Panel, list[PrintAgreement]]]:
    return [(panel, found) for panel in panels if (found := print_agreement.agreements(panel))]


def heat(panel: Panel, column: str, accuracy: float) -> str:
    """Return the class of an accuracy's colour, between chance and clean training under the same countermeasure."""
    return _class(panel.share(column, accuracy))


def _class(share: float | None) -> str:
    return NO_COLOUR if share is None else f"h{colour.level(share)}"


def _published_heat(table: Published, board: BoardInfo, panels: Sequence[Panel]) -> dict[tuple[str, str], str]:
    """Return the class of every printed number by method and column, between chance and what the same table prints."""
    chance = next(p.chance for p in panels if table.dataset in (p.dataset.selector.partition("[")[0], board.name))
    clean = next((row.accuracies for row in table.rows if row.protector == board.clean), {})
    return {
        (row.method, column): _class(
            100 * (accuracy - chance) / (clean[column] - chance)
            if column in clean and is_defined(clean[column], chance)
            else None
        )
        for row in table.rows
        for column, accuracy in row.accuracies.items()
    }


def _absent(panel: Panel, evidence: Evidence) -> list[str]:
    """Return what failed in rows of the board that have no result at all."""
    return [
        f"{protector} under {column}: {failure_text(failure)}"
        for protector in panel.missing
        for column in panel.columns
        for failure in evidence.failed(panel, protector, column)
    ]
