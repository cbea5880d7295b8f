"""Write numbers and names as the pages show them."""

from __future__ import annotations

import re

from .badges import REPORTED, REPRODUCED
from .bounds import PerturbationSummary
from .cell_summary import CellSummary
from .intervals import Z975, Estimate
from .statistics import Panel, Row

MISSING = "–"
ACCURACY = "Accuracy of the victim on clean test images, in percent: lower is better protection."


def pieces(name: str) -> list[str]:
    """Cut a selector where a line may break: before a bracket, after a separator."""
    return [piece for piece in re.split(r"(?=\[)|(?<=[,+\-=])", name) if piece]


def percent(value: float) -> str:
    return f"{value:.1f}"


def interval(value: Estimate) -> str:
    """Write ``94.6 ± 0.4``, or the mean alone where no interval exists."""
    return percent(value.mean) + (f" ± {percent(value.half_width)}" if value.half_width is not None else "")


def mean(row: Row) -> str:
    """Write the mean of a row, or how much of it is there."""
    return interval(row.mean) if row.mean else f"incomplete ({row.done}/{len(row.columns)})"


def worst(row: Row) -> str:
    """Write the accuracy in the worst case; of an incomplete row a lower bound."""
    if row.worst is None:
        return MISSING
    return ("" if row.complete else "≥ ") + interval(row.worst.accuracy)


def recovered(row: Row) -> str:
    """Write what an adversary gets back in the mean, in percent."""
    if row.recovery is None:
        return MISSING
    mean = row.recovery.mean
    return f"{mean.mean:.0f}" + (f" ± {mean.half_width:.0f}" if mean.half_width is not None else "") + " %"


def source(row: Row) -> str:
    """Write whose numbers a row has, and whether the code is known that measured them."""
    again = row.badges.get(REPRODUCED, 0)
    counted = f" ({again} of {sum(row.badges.values())} results)" if again else ""
    return f"{row.badge}{counted}" + ("" if row.clean_commits else " ‡")


def cell(value: CellSummary) -> str:
    """Write the accuracy of a cell, with a mark where an earlier epoch is more than 5 points better."""
    return interval(value.accuracy) + ("^" if value.peaks_early else "")


def span(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}–{high}"


def seeds(panel: Panel) -> str:
    """Return how many seeds the panel's numbers rest on, and what follows for intervals."""
    low, high = panel.n
    count = f"n = {span(low, high)} seed{'s' if high > 1 else ''} per cell"
    if high == 1:
        return f"{count}: nothing is known of the spread over seeds, intervals are of the test set alone"
    said = f"{count}; ± is a 95 % interval over seeds and test images" + (", absent where n = 1" if low == 1 else "")
    two = any(cell.n == 2 for row in panel.rows for cell in row.cells.values())
    return said + ("; at n = 2 it is nearly worthless: 12.7 standard errors to each side" if two else "")


def test_set(panel: Panel) -> str:
    """Return the share of the uncertainty that the size of the test set explains."""
    largest = max(cell.binomial_error for row in panel.rows for cell in row.cells.values())
    half = f"95 % interval at most ± {Z975 * largest:.1f} points"
    return f"Of the test set alone ({panel.dataset.test:,} images, Wilson): {half}, whatever the seeds."


def _is_unknown(commit: str) -> bool:
    return not commit


def _is_changed(commit: str) -> bool:
    return commit.endswith("+")


def psnr(value: float | None) -> str:
    return "∞" if value is None else f"{value:.1f}"


def linf(budget: PerturbationSummary) -> str:
    return f"{budget.linf_max}" + (f" ({budget.exceeded} exceeds declared)" if budget.exceeds else "")


def fraction(value: float) -> str:
    return f"{100 * value:g} %"


def data(panel: Panel) -> str:
    """Return the data a panel was measured on, with its source."""
    d = panel.dataset
    size = f"{d.train:,} training and {d.test:,} test images, {d.classes} classes, {d.width}x{d.height}"
    return f"{d.selector}: {d.source}; {size}"


def setting(panel: Panel) -> str:
    """Return what every number of a panel shares beside the data."""
    return f"victim {panel.victim}, {recipe(panel)}"


def recipe(panel: Panel) -> str:
    """Return how the victim of a panel was trained, and on what part of protected images."""
    made = f"protocol {panel.protocol} v{panel.protocol_version}, {panel.precision}"
    return f"{made}, {fraction(panel.fraction)} of the training set protected"


def owned(panel: Panel, column: str) -> str:
    """Write the share of training images that the adversary of a column has unprotected; empty where there is none."""
    clean = panel.clean_data(column)
    share = f"{100 * clean.images / panel.dataset.train:.3g} %"
    had = "in queries" if clean.queries else "in pairs" if clean.pairs else "clean"
    return f"{share} {had}" if clean.images else ""


def controls(panel: Panel) -> list[str]:
    """Return how columns with clean data compare with their controls, which have the same without the method.

    Of protected rows; of reference rows where there are no others.
    """
    lines = []
    for column in (*panel.columns, *panel.extra):
        control = panel.clean_data(column).control
        both = [row for row in panel.rows if column in row.cells and control in row.cells]
        rows = [row for row in both if not row.reference] or both
        if rows:
            shown = ", ".join(
                f"{row.protector} {row.cells[column].mean - row.cells[control].mean:+.1f}" for row in rows
            )
            lines.append(f"{column} less its control {control}, which has the same clean images, in points: {shown}.")
        elif control:
            lines.append(f"{column} has a control that is not measured here: {control}.")
    return lines


def column_notes(panel: Panel) -> list[tuple[str, str]]:
    """Return (countermeasure, note) for every column that changes nothing, with how far it is from plain training."""
    plain = panel.board.plain
    notes = []
    for column in (*panel.columns, *panel.extra):
        note = panel.board.column_notes.get(column)
        if note is None:
            continue
        if plain and column != plain:
            note += f" It repeats {plain} with the same seed: equal to it on a CPU, off by run noise on a GPU; "
            note += "not robustness."
            gap = panel.difference(plain, column)
            note += "" if gap is None else f" Here the two differ by at most {percent(gap)} points."
        notes.append((column, note))
    return notes


def remarks(panel: Panel) -> list[str]:
    """Return what a reader must know about this panel's rows and cells."""
    lines = []
    cells: list[CellSummary] = [cell for row in panel.rows for cell in row.cells.values()]
    if any(row.mean is None for row in panel.rows):
        lines.append("Rows marked incomplete lack cells, so they have no mean; their worst case is a lower bound.")
    if panel.missing:
        lines.append(f"No result yet: {', '.join(panel.missing)}.")
    if panel.extra:
        lines.append(f"Not on the board, in no mean and no worst case: {', '.join(panel.extra)}.")
    images = {column: panel.clean_data(column).images for column in (*panel.columns, *panel.extra)}
    if any(images.values()):
        shown = ", ".join(f"{column} ({count:,})" for column, count in images.items() if count)
        lines.append(
            f"In these columns the adversary has so many of the {panel.dataset.train:,} training images unprotected "
            f"too: {shown}."
        )
    lines += controls(panel)
    over = [f"{row.protector} ({row.budget.exceeded})" for row in panel.rows if row.budget.exceeds]
    if over:
        lines.append(f"Measured perturbations exceed the declared budget: {', '.join(over)}.")
    idle = [f"{c.protector} under {c.countermeasure}" for c in cells if any(not r.metrics.learned for r in c.results)]
    if idle:
        count = "1 cell ended at chance on its" if len(idle) == 1 else f"{len(idle)} cells ended at chance on their"
        lines.append(f"{count} own training data, which says nothing about protection: {', '.join(idle)}.")
    results = panel.results
    unknown, changed = (sum(test(r.environment.commit) for r in results) for test in (_is_unknown, _is_changed))
    if unknown or changed:
        lines.append(
            f"‡ Measured with code that no commit holds: of {len(results)} results {unknown} have no commit and "
            f"{changed} are of a changed tree."
        )
    reported = [row.protector for row in panel.rows if row.badge == REPORTED]
    if reported:
        lines.append(
            f"Self-reported and so without a rank, until half of its cells were measured again: {', '.join(reported)}."
        )
    if panel.set_aside:
        lines.append(f"{panel.set_aside} self-reported result(s) of cells that were measured here count in nothing.")
    superseded = sum(cell.superseded for cell in cells)
    if superseded:
        lines.append(f"{superseded} older result(s) of a cell and seed set aside for a newer one.")
    return lines
