"""Group results into panels of rows and cells, with intervals. Pure functions, no third-party library.

A *panel* holds what may be compared: one dataset (by fingerprint), victim, protocol version, precision and fraction
protected. Results of different panels are never averaged together. Accuracies are those of the victim on clean test
images, in percent: lower is better protection.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from statistics import fmean

from ue_bench.errors import ValidationError
from ue_bench.store.schema import DatasetInfo, Result

from .badges import HERE, REPORTED, REPRODUCED
from .board import BoardInfo, CleanData
from .bounds import UNBOUNDED, PerturbationSummary, measured
from .cell_summary import CellSummary
from .headline import Column, Recovery, bias_of_maximum, is_defined, recovery
from .intervals import Estimate, mean_accuracy
from .ranks import Rank, ranks
from .spreads import Spread, Spreads, spreads
from .versions import obstacle


@dataclass(frozen=True)
class Row:
    """A protector: its cells in the order of the panel's columns, and what they come to.

    ``clean`` are the cells of the row without protection, and ``spreads`` the standard deviations over seeds of the
    panel's cells.
    """

    protector: str
    reference: bool
    columns: tuple[str, ...]  # the countermeasures that count
    cells: dict[str, CellSummary]
    clean: Mapping[str, CellSummary] = field(default_factory=dict)
    chance: float = 0.0
    spreads: Spreads = field(default_factory=Spreads)
    badges: Mapping[str, int] = field(default_factory=dict)  # how many of its results have which

    @property
    def badge(self) -> str:
        """Where its numbers are from; self-reported until half of those that are not from here were measured again."""
        again, reported = self.badges.get(REPRODUCED, 0), self.badges.get(REPORTED, 0)
        if reported > again:
            return REPORTED
        return REPRODUCED if again else HERE

    @property
    def clean_commits(self) -> bool:
        """Whether every result of the row is of a commit without changes."""
        return all(r.clean_commit for cell in self.cells.values() for r in cell.results)

    @property
    def done(self) -> int:
        return sum(c in self.cells for c in self.columns)

    @property
    def complete(self) -> bool:
        return self.done == len(self.columns) > 0

    @cached_property
    def mean(self) -> Estimate | None:
        """Mean over the board's countermeasures; None while one is missing.

        Its interval is over the means of single seeds where every column has the same two or more seeds, and of the
        test set alone where not. ``n`` is the smallest number of seeds of any column.
        """
        if not self.complete:
            return None
        cells = [self.cells[c] for c in self.columns]
        if len({cell.seeds for cell in cells}) == 1:
            by_seed = zip(*([r.metrics.accuracy_last for r in cell.results] for cell in cells), strict=True)
            return mean_accuracy(list(by_seed), cells[0].images)
        alone = mean_accuracy([[cell.mean for cell in cells]], cells[0].images)
        return replace(alone, n=min(cell.n for cell in cells))

    @cached_property
    def worst(self) -> CellSummary | None:
        """The countermeasure that breaks the protector most; of an incomplete row, the worst so far."""
        cells = [self.cells[c] for c in self.columns if c in self.cells]
        return max(cells, key=lambda cell: cell.mean, default=None)

    @cached_property
    def recovery(self) -> Recovery | None:
        """What an adversary gets back; None while a cell is missing here or in the row without protection."""
        if not self.complete or not all(c in self.clean for c in self.columns):
            return None
        columns = [Column(c, self.cells[c].by_seed, self.clean[c].by_seed) for c in self.columns]
        images = self.cells[self.columns[0]].images
        return recovery(columns, self.chance, images, clean_row=self._is_clean)

    @property
    def _is_clean(self) -> bool:
        return any(cell.protector == self.protector for cell in self.clean.values())

    @cached_property
    def worst_bias(self) -> float:
        """Points by which the accuracy of the worst case is expected to be too high, being the largest of several."""
        cells = [self.cells[c] for c in self.columns if c in self.cells]
        return bias_of_maximum([cell.mean for cell in cells], [self.error(cell) for cell in cells]) if cells else 0.0

    @cached_property
    def recovery_bias(self) -> float:
        """Percent by which the largest recovered share is expected to be too high."""
        if self.recovery is None or self._is_clean:
            return 0.0
        errors = [100 * self.error(self.cells[c]) / (self.clean[c].mean - self.chance) for c in self.recovery.shares]
        return bias_of_maximum(list(self.recovery.shares.values()), errors)

    def error(self, cell: CellSummary) -> float:
        """Return the standard error of a cell's mean."""
        return math.hypot(self.spread(cell).deviation / math.sqrt(cell.n), cell.binomial_error)

    def spread(self, cell: CellSummary) -> Spread:
        """Return the spread over seeds of cells like this one."""
        return self.spreads.of(_share(cell.mean, self.clean.get(cell.countermeasure), self.chance), cell.n)

    def compared(self) -> dict[str, dict[int, float]]:
        """Return, by column and seed, what rows are ranked by: recovered shares, or accuracies without a clean row."""
        if self.recovery is None:
            return {c: self.cells[c].by_seed for c in self.columns}
        tops = {c: self.clean[c].mean - self.chance for c in self.columns}
        return {
            c: {seed: 100 * (value - self.chance) / top for seed, value in self.cells[c].by_seed.items()}
            for c, top in tops.items()
            if is_defined(self.clean[c].mean, self.chance)
        }

    @cached_property
    def highest_peak(self) -> CellSummary | None:
        """The countermeasure whose best epoch, chosen on the test set, gives an adversary most."""
        cells = [self.cells[c] for c in self.columns if c in self.cells]
        return max(cells, key=lambda cell: cell.peak, default=None)

    @property
    def n(self) -> tuple[int, int]:
        """Smallest and largest number of seeds of a cell."""
        counts = [cell.n for cell in self.cells.values()]
        return min(counts), max(counts)

    @cached_property
    def budget(self) -> PerturbationSummary:
        return measured(r for cell in self.cells.values() for r in cell.results)


@dataclass(frozen=True)
class Panel:
    """A table of comparable rows."""

    board: BoardInfo
    dataset: DatasetInfo
    victim: str
    protocol: str
    protocol_version: int
    precision: str
    fraction: float
    columns: tuple[str, ...]  # the board's countermeasures, in order
    repeated: tuple[str, ...]  # those among them that change nothing: they repeat plain training and count with it
    extra: tuple[str, ...]  # countermeasures the board does not ask for: shown, never in mean or worst case
    rows: tuple[Row, ...]
    missing: tuple[str, ...]  # protectors the board asks for and that have no result here
    set_aside: int = 0  # self-reported results of cells that were measured here

    @property
    def n(self) -> tuple[int, int]:
        """Smallest and largest number of seeds of a cell."""
        counts = [row.n for row in self.rows]
        return min(low for low, _ in counts), max(high for _, high in counts)

    def clean_data(self, column: str) -> CleanData:
        """Return what the adversary of a column has unprotected of the training set."""
        return self.board.clean_data(column) if self.board.clean_data else CleanData()

    @property
    def counted(self) -> tuple[str, ...]:
        """The countermeasures that count, each once."""
        return tuple(c for c in self.columns if c not in self.repeated)

    @cached_property
    def clean_by_column(self) -> dict[str, float]:
        """Accuracies in percent of training on unprotected images, where they are known."""
        return {c: cell.mean for row in self.rows[:1] for c, cell in row.clean.items()}

    @property
    def undefined(self) -> tuple[str, ...]:
        """Columns in which clean training is too near to chance for a share."""
        return tuple(c for c in self.counted if c in self.clean_by_column and self.share(c, self.chance) is None)

    @property
    def spreads(self) -> Spreads:
        """Standard deviations over seeds, by recovered share."""
        return self.rows[0].spreads

    @cached_property
    def classes(self) -> dict[str, list[Row]]:
        """Rows that are no reference by perturbation class, the lowest recovered share first."""
        rows: dict[str, list[Row]] = defaultdict(list)
        for row in sorted(self.rows, key=_recovered):
            if not row.reference:
                rows[row.budget.perturbation_class].append(row)
        return {name: rows[name] for name in sorted(rows, key=lambda name: (name == UNBOUNDED, name))}

    @cached_property
    def ranks(self) -> dict[str, Rank]:
        """Ranks of complete rows, each within its perturbation class; rows that are only self-reported have none."""
        found: dict[str, Rank] = {}
        for rows in self.classes.values():
            ranked = (row for row in rows if row.complete and row.badge != REPORTED)
            found |= ranks({row.protector: row.compared() for row in ranked})
        return found

    @property
    def results(self) -> list[Result]:
        return [r for row in self.rows for cell in row.cells.values() for r in cell.results]

    @property
    def chance(self) -> float:
        """Accuracy of guessing among balanced classes, in percent."""
        return 100 / self.dataset.classes

    @property
    def clean(self) -> float | None:
        """Accuracy of plain training on unprotected data, where the panel has it."""
        return self.clean_by_column.get(self.board.plain)

    def share(self, column: str, accuracy: float) -> float | None:
        """Return what an adversary gets back in a column, in percent; None where clean training is not known there."""
        clean = self.clean_by_column.get(column, self.chance)
        return 100 * (accuracy - self.chance) / (clean - self.chance) if is_defined(clean, self.chance) else None

    def difference(self, first: str, second: str) -> float | None:
        """Return the largest difference between two columns in any row."""
        pairs = [(r.cells[first], r.cells[second]) for r in self.rows if {first, second} <= r.cells.keys()]
        return max((abs(a.mean - b.mean) for a, b in pairs), default=None)


def panels(results: Iterable[Result], board: BoardInfo, badges: Mapping[str, str] | None = None) -> list[Panel]:
    """Return every panel that has a result, in a fixed order whatever the order of ``results``.

    ``badges`` by key say where results are from; those without one were measured here. Seeds that somebody reported of
    a cell that was measured here, or reproduced, are left out.
    """
    groups: dict[_Identity, list[Result]] = defaultdict(list)
    for r in results:
        groups[_identity(r)].append(r)
    order = sorted(groups, key=lambda identity: (_first(groups[identity]).dataset.selector, identity))
    return [_panel(groups[identity], board, badges or {}) for identity in order]


_Identity = tuple[str, str, str, int, str, float]


def _identity(r: Result) -> _Identity:
    """Return everything two results must share to be compared; the fully protected set sorts first.

    The dataset's fingerprint tells its pixels, labels and classes. Its name does not: the same images may lie in
    folders of other names, or beside files that are no images.
    """
    return (r.dataset.fingerprint, r.victim, r.protocol, r.protocol_version, r.precision, -r.fraction)


def _first(results: Iterable[Result]) -> Result:
    return min(results, key=lambda r: (r.key, r.finished))


def _panel(results: list[Result], board: BoardInfo, badges: Mapping[str, str]) -> Panel:
    every = len(results)
    results = _trusted(results, badges)
    by_cell: dict[tuple[str, str], list[Result]] = defaultdict(list)
    for r in results:
        by_cell[r.protector, r.countermeasure].append(r)
    cells = {name: _cell(board, *name, of_cell) for name, of_cell in by_cell.items()}
    seen = sorted({countermeasure for _, countermeasure in cells})
    columns = board.countermeasures or tuple(seen)
    extra = tuple(c for c in seen if c not in columns)
    first = _first(results)
    repeated = tuple(c for c in columns if c in board.column_notes and c != board.plain and board.plain in columns)
    counted = tuple(c for c in columns if c not in repeated)
    shown = (*columns, *extra)
    clean = {c: cells[board.clean, c] for c in shown if (board.clean, c) in cells}
    chance = 100 / first.dataset.classes if first.dataset.classes else 0.0
    over_seeds = spreads(
        (_shares(cell, clean.get(column), chance), list(cell.by_seed.values()))
        for (_, column), cell in cells.items()
        if column not in repeated
    )
    rows = [
        Row(
            protector,
            protector in board.reference,
            counted,
            {c: cells[protector, c] for c in shown if (protector, c) in cells},
            clean,
            chance,
            over_seeds,
            _badges(results, protector, badges, counted),
        )
        for protector in sorted({protector for protector, _ in cells})
    ]
    here = {row.protector for row in rows}
    return Panel(
        board=board,
        dataset=first.dataset,
        victim=first.victim,
        protocol=first.protocol,
        protocol_version=first.protocol_version,
        precision=first.precision,
        fraction=first.fraction,
        columns=columns,
        repeated=repeated,
        extra=extra,
        rows=tuple(sorted(rows, key=lambda row: _order(row, board))),
        missing=tuple(p for p in board.protectors if p not in here),
        set_aside=every - len(results),
    )


def _share(accuracy: float, clean: CellSummary | None, chance: float) -> float | None:
    if clean is None or not is_defined(clean.mean, chance):
        return None
    return 100 * (accuracy - chance) / (clean.mean - chance)


def _shares(cell: CellSummary, clean: CellSummary | None, chance: float) -> list[float] | None:
    """Return recovered shares in percent, one a seed; None where they mean nothing."""
    found = [_share(value, clean, chance) for value in cell.by_seed.values()]
    return [share for share in found if share is not None] or None


def _cell(board: BoardInfo, protector: str, countermeasure: str, results: list[Result]) -> CellSummary:
    """Keep one result a seed: that of the present code, else the newest, for an older one was made with other code.

    Raises ValidationError where two results of one key have other numbers: neither is the true one by itself.
    """
    by_key: dict[str, Result] = {}
    for r in results:
        if r.metrics != by_key.setdefault(r.key, r).metrics:
            raise ValidationError(
                f"two results of the cell {r.id} have other numbers", f"remove one of the files ending in {r.key[:16]}"
            )
    newest: dict[int, Result] = {}
    several = len({r.seed for r in by_key.values()}) < len(by_key)
    for r in sorted(by_key.values(), key=lambda r: (several and not obstacle(board, r), r.finished, r.key)):
        newest[r.seed] = r
    superseded = len({r.key for r in results} - {r.key for r in newest.values()})
    refitted = board.refits is not None and board.refits(countermeasure)
    return CellSummary(protector, countermeasure, tuple(newest[seed] for seed in sorted(newest)), superseded, refitted)


def _trusted(results: Sequence[Result], badges: Mapping[str, str]) -> list[Result]:
    """Leave out self-reported seeds of cells that were measured here or reproduced: they would move what is trusted."""
    reported = [badges.get(r.key, HERE) == REPORTED for r in results]
    trusted = {(r.protector, r.countermeasure) for r, own in zip(results, reported, strict=True) if not own}
    return [
        r for r, own in zip(results, reported, strict=True) if not own or (r.protector, r.countermeasure) not in trusted
    ]


def _badges(
    results: Iterable[Result], protector: str, badges: Mapping[str, str], counted: Sequence[str]
) -> Mapping[str, int]:
    """Count where a row's results are from: those of columns that count, or all of a row that has none of these."""
    own = [r for r in results if r.protector == protector]
    return Counter(badges.get(r.key, HERE) for r in [r for r in own if r.countermeasure in counted] or own)


def _recovered(row: Row) -> tuple[bool, float, str]:
    """Sort complete rows first, the lowest recovered share first; by accuracy where there is no clean row."""
    values = [value for seeds in row.compared().values() for value in seeds.values()] if row.complete else []
    return not row.complete, fmean(values) if values else 0.0, row.protector


def _order(row: Row, board: BoardInfo) -> tuple[int, float, str]:
    """Sort reference rows in the board's order, then the best protector first, then incomplete rows."""
    if row.reference:
        return 0, board.reference.index(row.protector), row.protector
    return (1, row.mean.mean, row.protector) if row.mean else (2, -row.done, row.protector)
