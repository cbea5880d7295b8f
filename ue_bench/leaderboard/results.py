"""Give results to Python: a sequence with tables, frames and headline numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, overload

from ..contract.board import Board
from ..store.schema import Failure, Result
from . import summary, tables
from .badges import Badge
from .board import BoardInfo, board_info
from .statistics import Panel, panels

if TYPE_CHECKING:
    import pandas


class Results(Sequence[Result]):
    """The results of a board's cells, sorted by id.

    ``failures`` are cells that failed when they were last tried, ``missing`` the ids of cells without a result.
    Accuracies are those of the victim on clean test images, in percent: lower is better protection. ``badges`` by key
    say where results are from, see :mod:`.submission`; those without one were measured here.
    """

    def __init__(
        self,
        board: Board,
        results: Iterable[Result],
        failures: Sequence[Failure] = (),
        missing: Sequence[str] = (),
        badges: Mapping[str, Badge] | None = None,
    ) -> None:
        self.board = board
        self._badges = badges
        self.failures = tuple(failures)
        self.missing = tuple(missing)
        self._results = tuple(results)

    def __len__(self) -> int:
        return len(self._results)

    @overload
    def __getitem__(self, index: int) -> Result: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Result, ...]: ...
    def __getitem__(self, index: int | slice) -> Result | tuple[Result, ...]:
        return self._results[index]

    def __repr__(self) -> str:
        more = [f"{len(self.failures)} failed"] if self.failures else []
        more += [f"{len(self.missing)} missing"] if self.missing else []
        return f"<{', '.join([f'{len(self)} results of board {self.board.name}', *more])}>"

    @property
    def complete(self) -> bool:
        """Whether every cell that was asked for has a result."""
        return not self.missing

    @property
    def info(self) -> BoardInfo:
        """The board as its pages show it: rows and columns in canonical form."""
        return board_info(self.board)

    def panels(self) -> list[Panel]:
        """Return the results in tables of what may be compared: one dataset, victim, protocol, precision, fraction."""
        return panels(self._results, self.info, self._badges)

    def table(self) -> str:
        """Return the tables as plain text, as ``ue-bench run`` prints them."""
        return "\n".join(tables.terminal(panel) for panel in self.panels())

    def to_pandas(self) -> pandas.DataFrame:
        """Return one row a cell: means over seeds with intervals, and the measured perturbation."""
        return tables.frame(self.panels())

    def worst(self) -> pandas.DataFrame:
        """Return one row a protector: rank in its class, recovered share, mean, and what breaks it most.

        The columns are those of ``protectors.csv``. ``recovered_mean`` and ``mean`` are missing where a column is;
        ``worst`` is then a lower bound, and ``complete`` False.
        """
        return summary.frame(self.panels())
