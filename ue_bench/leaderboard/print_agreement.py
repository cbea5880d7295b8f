"""Say how far a panel agrees with papers' tables: in the order of rows, and in what breaks what.

A row of the panel stands for a printed one where both are the same selector. Where the paper's method is asked for by
its bare name, the panel's row may also be the only one of that plugin, such as one with cheaper settings; of several,
it is the one that the board asks for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import combinations
from statistics import fmean

from ..catalogue.registry import registry
from ..contract.table import Ask, Line, Table
from ..errors import UserError
from . import formats, published
from .headline import is_defined
from .statistics import Panel, Row

FEWEST = 4  # rows: of three numbers one order in six is right by chance
HALF = 0.5  # of the clean accuracy above chance
MEAN, WORST = "mean over columns", "worst case"
SHORT_HEADS = ("printed table", "rows", "tau of the mean", "tau of the worst case", "signs", "kappa")
HEADS = ("column", "Kendall's tau", "Spearman", "signs", "n")
LEGEND = (
    "Agreement of measured with printed accuracies over the rows that both have, references apart: rank correlations "
    "by column, and in how many cells both say alike whether at least half of the clean accuracy above chance is "
    "recovered."
)
AMONG = "How far printed tables agree with each other, over the rows and columns of this panel that both have:"
Accuracies = Mapping[str, Mapping[str, float]]  # by row and column


@dataclass(frozen=True)
class ColumnAgreement:
    """Agreement in one column, or of means or worst cases, over ``n`` rows. Correlations are None of constant numbers.

    ``alike`` of ``signs`` cells agree in whether half of the clean accuracy is recovered; there are none for worst
    cases, and without a clean row.
    """

    column: str
    n: int
    tau: float | None
    spearman: float | None
    alike: int = 0
    signs: int = 0


@dataclass(frozen=True)
class PrintAgreement:
    """Agreement of a panel with one table. ``kappa`` is Cohen's, of all signs together: 0 is chance, 1 is perfect."""

    source: str
    rows: tuple[tuple[str, str], ...]  # our row and the printed one
    summary: tuple[ColumnAgreement, ...]  # of means and worst cases
    columns: tuple[ColumnAgreement, ...]
    kappa: float | None = field(default=None)

    @property
    def ranked(self) -> int:
        """Return how many rows the correlations are over: for means those that have all columns."""
        return self.summary[0].n if self.summary else len(self.rows)

    @property
    def text(self) -> str:
        """Return the finding in one or two sentences."""
        said = [f"of the {c.column} {_number(c.tau)}" for c in self.summary or self.columns]
        alike, signs = sum(c.alike for c in self.columns), sum(c.signs for c in self.columns)
        text = f"{self.source}: Kendall's tau {', '.join(said)} over n = {self.ranked} rows."
        if signs:
            text += f" Half-recovery signs agree in {alike} of {signs} cells, kappa {_number(self.kappa)}."
        return text

    def lines(self) -> list[list[str]]:
        """Return the texts of a table with ``HEADS``."""
        return [
            [
                c.column,
                _number(c.tau),
                _number(c.spearman),
                f"{c.alike} of {c.signs}" if c.signs else "–",
                str(c.n),
            ]
            for c in (*self.summary, *self.columns)
        ]


def agreements(panel: Panel) -> list[PrintAgreement]:
    """Return the agreement with every registered table that shares at least four rows and a column with the panel."""
    found = (_agreement(panel, table) for table in published.readable_tables())
    return [agreement for agreement in found if agreement is not None]


@dataclass(frozen=True)
class PrintedNumbers:
    """What a table prints for cells of a panel: accuracies by row and column, and names in print by row.

    ``clean`` are the printed accuracies of unprotected images by column.
    """

    source: str
    accuracies: Accuracies
    names: Mapping[str, str]
    clean: Mapping[str, float]


def printed_numbers(panel: Panel) -> list[PrintedNumbers]:
    """Return what registered tables print for cells of the panel, references too; tables without any are left out."""
    found = []
    for table in published.readable_tables():
        matches, clean = _matches(panel, table)
        accuracies = {
            row.protector: {c: value for c, value in printed.items() if c in (*panel.columns, *panel.extra)}
            for row, _, printed in matches
        }
        names = {row.protector: line.label[-1] for row, line, _ in matches}
        accuracies = {name: values for name, values in accuracies.items() if values}
        if accuracies:
            found.append(PrintedNumbers(table.source, accuracies, names, clean))
    return found


def _matches(panel: Panel, table: Table) -> tuple[list[tuple[Row, Line, dict[str, float]]], dict[str, float]]:
    """Return rows with their line of the table and what it prints, each once, and what it prints of clean images."""
    names = {panel.dataset.selector.partition("[")[0], panel.board.name, ""}
    matched: dict[str, tuple[Row, Line, dict[str, float]]] = {}
    clean: dict[str, float] = {}
    for line in table.lines:
        if line.dataset not in names:
            continue
        for protector, printed in _printed(panel, line).items():
            if protector == panel.board.clean:
                clean |= printed
            row = _row(panel, protector)
            if row is not None and row.protector not in matched:
                matched[row.protector] = row, line, printed
    return list(matched.values()), clean


def _agreement(panel: Panel, table: Table) -> PrintAgreement | None:
    matches, clean = _matches(panel, table)
    printed = {row.protector: cells for row, _, cells in matches if not row.reference}
    measured = {row.protector: {c: cell.mean for c, cell in row.cells.items()} for row, _, _ in matches}
    here = {c: cell.mean for row in panel.rows for c, cell in row.clean.items()}
    names = {row.protector: line.label[-1] for row, line, _ in matches}
    return _compared(panel, table.source, (printed, clean), (measured, here), names)


def among_prints(panel: Panel) -> list[PrintAgreement]:
    """Return how far registered tables agree with each other in four rows and two columns of the panel, or more."""
    references = {row.protector for row in panel.rows if row.reference}
    found = []
    for first, second in combinations(printed_numbers(panel), 2):
        sides = [
            ({name: cells for name, cells in numbers.accuracies.items() if name not in references}, numbers.clean)
            for numbers in (first, second)
        ]
        agreement = _compared(panel, f"{first.source} against {second.source}", sides[0], sides[1], first.names)
        if agreement is not None and agreement.summary:
            found.append(agreement)
    return found


def short_lines(panel: Panel) -> list[list[str]]:
    """Return the texts of a table with ``SHORT_HEADS``: a line for each printed table, and one for all with each other.

    A table with too few columns for a mean is left out.
    """
    lines = [[agreement.source, *_short([agreement])] for agreement in agreements(panel) if agreement.summary]
    if prints := among_prints(panel):
        pairs = "one pair" if len(prints) == 1 else f"{len(prints)} pairs"
        lines.append([f"printed tables with each other, {pairs}", *_short(prints)])
    return lines


def _short(found: Sequence[PrintAgreement]) -> list[str]:
    """Return rows, correlations and kappas from the smallest to the largest, and all signs together."""
    rows = [agreement.ranked for agreement in found]
    columns = [column for agreement in found for column in agreement.columns]
    signs = sum(column.signs for column in columns)
    return [
        formats.span(min(rows), max(rows)),
        _span([agreement.summary[0].tau for agreement in found]),
        _span([agreement.summary[1].tau for agreement in found]),
        f"{sum(column.alike for column in columns)} of {signs}" if signs else formats.MISSING,
        _span([agreement.kappa for agreement in found]),
    ]


def _span(values: Iterable[float | None]) -> str:
    known = [_number(value) for value in sorted(value for value in values if value is not None)]
    return " to ".join(dict.fromkeys(known[:1] + known[-1:])) or formats.MISSING


def _compared(
    panel: Panel,
    source: str,
    first: tuple[Accuracies, Mapping[str, float]],
    second: tuple[Accuracies, Mapping[str, float]],
    names: Mapping[str, str],
) -> PrintAgreement | None:
    """Compare accuracies, each with those of clean images, over rows and columns that both have; None if too few."""
    matched = [name for name in first[0] if name in second[0]]
    if len(matched) < FEWEST:
        return None
    pairs = {
        column: {
            name: (first[0][name][column], second[0][name][column])
            for name in matched
            if column in first[0][name] and column in second[0][name]
        }
        for column in panel.counted
    }
    pairs = {column: rows for column, rows in pairs.items() if len(rows) >= FEWEST}
    if not pairs:
        return None
    signs = {
        column: _signs(panel.chance, list(rows.values()), first[1].get(column), second[1].get(column))
        for column, rows in pairs.items()
    }
    columns = tuple(_correlated(column, list(rows.values()), signs[column]) for column, rows in pairs.items())
    whole = [name for name in matched if all(name in rows for rows in pairs.values())]
    summary = []
    if len(whole) >= FEWEST and len(pairs) > 1:
        sides = [[list(side) for side in zip(*(rows[name] for rows in pairs.values()), strict=True)] for name in whole]
        summary.append(_correlated(MEAN, [(fmean(a), fmean(b)) for a, b in sides], ()))
        summary.append(_correlated(WORST, [(max(a), max(b)) for a, b in sides], ()))
    every = [sign for of_column in signs.values() for sign in of_column]
    rows = tuple((name, names[name]) for name in matched)
    return PrintAgreement(source, rows, tuple(summary), columns, _kappa(every))


def _printed(panel: Panel, line: Line) -> dict[str, dict[str, float]]:
    """Return printed accuracies by protector and countermeasure, where they are of what the panel has."""
    found: dict[str, dict[str, float]] = {}
    for column, ask in line.asks.items():
        if line.unit == "percent" and column in line.printed and _is_of(panel, ask):
            with suppress(UserError):  # a plugin that is not there
                [countermeasure] = ask.countermeasures
                name = registry().one("countermeasure", countermeasure).selector
                protector = registry().one("protector", ask.protector).selector
                found.setdefault(protector, {})[name] = line.printed[column]
    return found


def _is_of(panel: Panel, ask: Ask) -> bool:
    """Return whether what is asked for is trained as the panel's cells are, save for protocol and victim of a paper."""
    if ask.of != "training" or ask.value != "accuracy" or len(ask.countermeasures) != 1:
        return False
    with suppress(UserError):
        victim = None if ask.victim is None else registry().one("victim", ask.victim).selector
        fraction = 1.0 if ask.fraction is None else ask.fraction
        return victim in (None, panel.victim) and fraction == panel.fraction
    return False


def _row(panel: Panel, protector: str) -> Row | None:
    exact = [row for row in panel.rows if row.protector == protector]
    alike = [row for row in panel.rows if row.protector.partition("[")[0] == protector]
    of_board = [row for row in alike if row.protector in panel.board.protectors]
    return next((rows[0] for rows in (exact, alike, of_board) if len(rows) == 1), None)


def _signs(chance: float, pairs: Sequence[tuple[float, float]], *tops: float | None) -> list[tuple[bool, bool]]:
    """Return whether half of the clean accuracies ``tops`` is recovered on either side, for every row of a column."""
    known = [top for top in tops if top is not None and is_defined(top, chance)]
    if len(known) < len(tops):
        return []
    limits = [chance + HALF * (top - chance) for top in known]
    return [(first >= limits[0], second >= limits[1]) for first, second in pairs]


def _correlated(
    column: str, pairs: Sequence[tuple[float, float]], signs: Sequence[tuple[bool, bool]]
) -> ColumnAgreement:
    alike = sum(a == b for a, b in signs)
    if any(len(set(side)) < 2 for side in zip(*pairs, strict=True)):
        return ColumnAgreement(column, len(pairs), None, None, alike, len(signs))
    from scipy.stats import kendalltau, spearmanr

    first, second = zip(*pairs, strict=True)
    tau, rho = kendalltau(first, second).statistic, spearmanr(first, second).statistic
    return ColumnAgreement(column, len(pairs), float(tau), float(rho), alike, len(signs))


def _kappa(signs: Iterable[tuple[bool, bool]]) -> float | None:
    """Return Cohen's kappa; None where chance alone agrees always."""
    both = list(signs)
    if not both:
        return None
    first, second = fmean(a for a, _ in both), fmean(b for _, b in both)
    chance = first * second + (1 - first) * (1 - second)
    return None if chance == 1 else (fmean(a == b for a, b in both) - chance) / (1 - chance)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:+.2f}"
