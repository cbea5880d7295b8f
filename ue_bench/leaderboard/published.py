"""Show numbers printed in papers beside the measured ones on a board's page, never among them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean

from ..catalogue import tables
from ..catalogue.loading import Problem
from ..catalogue.registry import registry
from ..contract.table import Line, Table
from ..errors import EnvironmentProblem
from .statistics import Panel


@dataclass(frozen=True)
class PublishedRow:
    """A method of a published table, with its accuracies in percent by countermeasure. Single runs."""

    protector: str  # our selector
    method: str  # the name in print
    accuracies: dict[str, float]
    notes: tuple[str, ...]
    repeated: tuple[str, ...] = ()  # columns that count with another, as on the board

    @property
    def mean(self) -> float:
        """The mean, recomputed: some printed means are not the mean of their row."""
        return fmean(self.accuracies[c] for c in self._counted)

    @property
    def worst(self) -> str:
        """The countermeasure with the highest accuracy."""
        return max(self._counted, key=lambda c: self.accuracies[c])

    @property
    def _counted(self) -> list[str]:
        return [c for c in self.accuracies if c not in self.repeated] or list(self.accuracies)


@dataclass(frozen=True)
class Published:
    """The lines of a published table for one dataset."""

    dataset: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[PublishedRow, ...]


def published(table: Table, dataset: str, clean: str, repeated: tuple[str, ...] = ()) -> Published | None:
    """Return what ``table`` prints for a dataset, ``clean`` images first, then by mean; None without any.

    Columns that are ``repeated`` count with another, as on the board.
    """
    rows = [_row(line, repeated) for line in table.lines if line.dataset == dataset and line.printed]
    if not rows or dataset not in table.published:
        return None
    ordered = sorted(rows, key=lambda row: (row.protector != clean, row.mean))
    return Published(dataset, f"Published ({table.published[dataset]})", table.printed, tuple(ordered))


def _row(line: Line, repeated: tuple[str, ...]) -> PublishedRow:
    return PublishedRow(", ".join(line.protectors), line.label[-1], dict(line.printed), line.notes, repeated)


def beside(panels: Iterable[Panel]) -> list[Published]:
    """Return the published tables for the datasets of these panels, each once.

    A table is one for a dataset by the name of the dataset, or by that of the board, where a board's images are a
    folder. A table that cannot be made is left out, and is among the problems of its distribution.
    """
    names = {
        (name, panel.board.clean, panel.repeated)
        for panel in panels
        for name in (panel.dataset.selector.partition("[")[0], panel.board.name)
    }
    tables_of_pages = [table for table in readable_tables() if table.published]
    candidates = (published(table, *name) for name in sorted(names) for table in tables_of_pages)
    return [candidate for candidate in candidates if candidate]


def readable_tables() -> list[Table]:
    """Return all registered tables; one that cannot be made is among the problems of its distribution."""
    readable = []
    for name in tables.names():
        try:
            table = tables.table(name)
        except EnvironmentProblem as error:
            problem = Problem(registry().tables[name].distribution, error.message)
            if problem not in registry().problems:
                registry().problems.append(problem)
            continue
        readable.append(table)
    return readable
