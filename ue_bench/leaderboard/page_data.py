"""Give scripts of a page its rows and columns as plain data: to filter, compare, draw and turn."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from . import formats
from .board import BoardInfo
from .bounds import UNBOUNDED
from .colour import STEP
from .details import RESULT_LABELS, Texts, cells, facts, gaps
from .evidence import PICTURES, Evidence, picture_name
from .families import families
from .headline import BROKEN, LEAST
from .intervals import t_quantile
from .print_agreement import PrintedNumbers, agreements, printed_numbers
from .statistics import Panel, Row
from .victims import groups, named_victims

MOST_DEGREES = 30  # of freedom, from which on columns add little to the factor of an interval


def page_data(
    board: BoardInfo, panels: Sequence[Panel], evidence: Evidence, with_printed: bool = True
) -> dict[str, Any]:
    """Return all that the scripts of a page know; ``with_printed`` with the numbers of papers beside them."""
    texts = Texts()
    victims = [panel.victim for panel in panels]
    shown = cells(board, panels, evidence, texts)
    return {
        "board": board.name,
        "plain": board.plain,
        "broken": BROKEN,
        "least": LEAST,
        "step": STEP,
        "labels": RESULT_LABELS,
        "quantiles": [round(t_quantile(degrees), 4) for degrees in range(1, MOST_DEGREES + 1)],
        "panels": [_panel(panel, evidence, with_printed, victims) for panel in panels],
        "groups": [group.data() for group in groups(panels)],
        "cells": shown,
        "texts": texts.all(),
    }


def classes(panel: Panel) -> list[tuple[str, list[Row]]]:
    """Return rows that are no reference by perturbation class, the class of most rows first, unbounded ones last."""
    return sorted(panel.classes.items(), key=lambda item: (item[0] == UNBOUNDED, -len(item[1]), item[0]))


def seconds(row: Row) -> float:
    """Return the time that making the protected set took, each set of a row once."""
    return fmean(sorted({r.cost.protect_seconds for cell in row.cells.values() for r in cell.results}))


def _panel(panel: Panel, evidence: Evidence, with_printed: bool, victims: Sequence[str]) -> dict[str, Any]:
    columns = [*panel.columns, *panel.extra]
    return {
        "title": formats.setting(panel),
        "dataset": panel.dataset.selector,
        "victim": panel.victim,
        "fraction": panel.fraction,
        "same": [panel.dataset.fingerprint, panel.victim, panel.protocol, panel.protocol_version, panel.precision],
        "facts": facts(panel),
        "chance": panel.chance,
        "images": panel.dataset.test,
        "columns": [_column(panel, column) for column in columns],
        "rows": [_row(panel, row, evidence, victims) for row in panel.rows],
        "gaps": list(gaps(panel, evidence).values()),
        "families": [
            {"name": f.name, "parameter": f.parameter, "points": [[v, columns.index(c)] for v, c in f.points]}
            for f in families(columns)
        ],
        "printed": [_printed(panel, numbers) for numbers in printed_numbers(panel)] if with_printed else [],
    }


def _column(panel: Panel, name: str) -> dict[str, Any]:
    clean = panel.clean_by_column.get(name)
    return {
        "name": name,
        "owned": formats.owned(panel, name),
        "tags": _tags(panel.board, "countermeasure", name),
        "counts": name in panel.counted,
        "clean": clean,
        "defined": panel.share(name, panel.chance) is not None,
    }


def _row(panel: Panel, row: Row, evidence: Evidence, victims: Sequence[str]) -> dict[str, Any]:
    back, rank, budget = row.recovery, panel.ranks.get(row.protector), row.budget
    devices = sorted({r.environment.device for cell in row.cells.values() for r in cell.results})
    return {
        "name": row.protector,
        "reference": row.reference,
        "class": "reference" if row.reference else budget.perturbation_class,
        "tags": _tags(panel.board, "protector", row.protector),
        "victims": named_victims(row, victims) if len(set(victims)) > 1 else [],  # that it was made against
        "declared": budget.declared,
        "rank": rank.text() if rank else formats.MISSING,
        "share": back.mean.mean if back else None,
        "low": back.mean.low if back else None,
        "high": back.mean.high if back else None,
        "worst": back.shares[back.worst] if back else None,
        "rms": budget.rms,
        "psnr": budget.psnr,
        "seconds": seconds(row),
        "devices": devices,
        "picture": f"{PICTURES}/{picture}" if (picture := _picture_name(row)) in evidence.pictures else "",
        "cells": {c: row.cells[c].keys[0] for c in (*panel.columns, *panel.extra) if c in row.cells},
    }


def _picture_name(row: Row) -> str:
    return picture_name(next(iter(row.cells.values())).results[0])


def _printed(panel: Panel, numbers: PrintedNumbers) -> dict[str, Any]:
    texts = [agreement.text for agreement in agreements(panel) if agreement.source == numbers.source]
    return {
        "source": numbers.source,
        "agreement": texts[0] if texts else "",
        "names": numbers.names,
        "cells": numbers.accuracies,
        "clean": numbers.clean,
    }


def _tags(board: BoardInfo, kind: str, selector: str) -> tuple[str, ...]:
    return board.tags(kind, selector) if board.tags else ()
