"""A board resolved: its cells, and what is still missing of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from .. import machine
from ..catalogue import boards, protocols
from ..catalogue.registry import registry
from ..contract.board import Board
from ..contract.context import Report, silent
from ..contract.plugin import Countermeasure, Dataset, Protector, Victim
from ..errors import UserError
from ..schedule.choice import LOCAL, ExecutorChoice
from ..schedule.devices import slots
from ..store import perturbation
from ..store.schema import Result
from .cell import Cell, Data, cells
from .data import stored_dataset
from .environment import RunEnvironment
from .filling import FillOptions, Follower, fill
from .planner import Planned, plan
from .stages.base import Stage, Stores
from .stages.train import TrainStage


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked of a board. Selectors; empty or None for the board's own. ``reference`` adds its reference rows."""

    board: str | Board = "demo"
    protectors: Sequence[str] = ()
    countermeasures: Sequence[str] = ()
    victims: Sequence[str] = ()
    dataset: str | None = None
    protocol: str | None = None
    seeds: Sequence[int] | None = None
    fraction: float = 1.0
    precision: str = "auto"
    devices: str = "auto"
    threads: int = 1
    out: Path | None = None
    data_dir: Path | None = None
    cache_dir: Path | None = None
    reference: bool = True
    executor: ExecutorChoice = LOCAL


@dataclass(frozen=True)
class Grid:
    """The cells of a request, where they are computed and kept, and the stage that yields what is wanted of a cell."""

    board: Board
    data: Data
    cells: Sequence[Cell]
    env: RunEnvironment
    devices: str = "auto"
    executor: ExecutorChoice = LOCAL
    goal: Callable[[Any], Stage] = TrainStage

    @cached_property
    def targets(self) -> list[Stage]:
        """The stage of every cell that yields what is wanted of it."""
        return [self.goal(cell) for cell in self.cells]

    def with_cells(self, chosen: Iterable[Cell], goal: Callable[[Any], Stage] | None = None) -> Grid:
        """Return a grid of other cells in the same place, of which ``goal`` is wanted."""
        return replace(self, cells=list(chosen), goal=goal or self.goal)

    def missing(self) -> list[Planned]:
        """Return the stages still to compute."""
        return plan(self.targets, Stores(self.env))

    def fill(self, follower: Follower, jobs: int | None = None, options: FillOptions | None = None) -> dict[str, str]:
        """Compute what is missing; return why each failed stage failed, by key."""
        return fill(self.targets, self.env, self.devices, jobs, follower, options, self.executor)

    def results(self) -> list[Result]:
        """Return the stored results of training of the cells."""
        keys = {cell.key for cell in self.cells}
        return [r for r in Stores(self.env).results.results() if r.key in keys]

    def unchanged(self, results: Iterable[Result]) -> list[str]:
        """Return the protectors that left every image as it was: their results are those of clean images."""
        protectors = {cell.key: cell.protector for cell in self.cells}
        return sorted({r.protector for r in results if perturbation.unchanged(protectors[r.key], r.budget)})


def resolve(request: Request, report: Report = silent) -> Grid:
    """Return the grid that ``request`` describes. Loads the dataset: its fingerprint is part of every key.

    Raises UserError for what does not exist or does not fit together.
    """
    request.executor.check(request.devices, request.precision)
    board = request.board if isinstance(request.board, Board) else boards.board(request.board)
    names = registry()
    everything = (*board.reference, *board.protectors)
    wanted = names.resolve("protector", request.protectors or board.protectors, everything)
    if request.reference:  # always part of the grid, whatever is excluded
        reference = names.resolve("protector", board.reference)
        wanted = [*reference, *(p for p in wanted if p not in reference)]
    columns = names.resolve("countermeasure", request.countermeasures or board.countermeasures, board.countermeasures)
    victims = names.resolve("victim", request.victims or board.victims, board.victims)
    recipe = protocols.protocol(request.protocol or board.protocol)
    device = "cpu" if request.executor.is_remote else slots(request.devices, 1, request.threads)[0].device
    out = request.out or Path("ue-bench-results") / board.name
    env = RunEnvironment.of(request.cache_dir, request.data_dir, out, device, request.threads)
    dataset = request.dataset or board.dataset.replace("{data_dir}", str(env.data_dir))
    sets = names.resolve("dataset", dataset, folders=(env.data_dir,))
    if len(sets) != 1:
        raise UserError("one dataset at a time", "run the command once for each")
    data = stored_dataset(cast(Dataset, sets[0]), env, report)
    chosen = cells(
        data,
        cast(list[Protector], wanted),
        cast(list[Countermeasure], columns),
        cast(list[Victim], victims),
        recipe,
        request.seeds or board.seeds,
        request.fraction,
        default_precision(request.precision, device),
    )
    return Grid(board, data, chosen, env, request.devices, request.executor)


def default_precision(precision: str, device: str) -> str:
    """Return ``precision``, or for ``auto`` the one that ``device`` computes fastest in."""
    if precision != "auto":
        return precision
    [fastest] = [d.precision for d in machine.devices() if d.name == device]
    return fastest
