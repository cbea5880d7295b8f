"""A board resolved: its cells, and what is still missing of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast, overload

from .. import arguments, machine
from ..catalogue import boards, protocols
from ..catalogue.registry import LeftOut, registry
from ..contract.board import Board
from ..contract.context import ProgressReport, silent
from ..contract.plugin import Countermeasure, Dataset, Protector, Victim
from ..errors import UserError
from ..leaderboard.results import Results
from ..leaderboard.submission import badges_in
from ..schedule.choice import LOCAL, ExecutorChoice
from ..schedule.devices import MOST_WORKERS, slots
from ..store import perturbation, requests
from ..store.schema import Result
from .cell import Cell, Cells, Data, cells
from .data import stored_dataset
from .environment import RunEnvironment
from .filling import FillOptions, Follower, fill, not_tried_again
from .planner import Planned, plan
from .sharding import Shard
from .stages.base import Stage, Stores
from .stages.train import TrainStage
from .surrogates import check_surrogates
from .timings import Timed, Timings, remembered


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
class Targets(Sequence[Stage]):
    """The stages that yield what is wanted of cells; each is there while somebody holds it."""

    cells: Sequence[Cell]
    goal: Callable[[Any], Stage]

    def __len__(self) -> int:
        return len(self.cells)

    def __iter__(self) -> Iterator[Stage]:
        return map(self.goal, self.cells)

    @overload
    def __getitem__(self, index: int) -> Stage: ...
    @overload
    def __getitem__(self, index: slice) -> list[Stage]: ...
    def __getitem__(self, index: int | slice) -> Stage | list[Stage]:
        chosen = self.cells[index]
        return self.goal(chosen) if isinstance(chosen, Cell) else [self.goal(cell) for cell in chosen]


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
    whole: Cells | None = None  # the request, where ``cells`` are all or some of its cells

    @property
    def targets(self) -> Sequence[Stage]:
        """The stage of every cell that yields what is wanted of it."""
        return Targets(self.cells, self.goal)

    def with_cells(self, chosen: Iterable[Cell], goal: Callable[[Any], Stage] | None = None) -> Grid:
        """Return a grid of other cells in the same place, of which ``goal`` is wanted."""
        return replace(self, cells=list(chosen), goal=goal or self.goal, whole=None)

    def shard(self, shard: Shard) -> Grid:
        """Return the part of this grid that belongs to ``shard``."""
        return replace(self, cells=[cell for cell in self.cells if shard.holds(self.goal(cell))])

    @property
    def precision(self) -> str:
        """What its networks compute in; "" where there is no cell."""
        return next((cell.precision for cell in self.cells), "")

    @property
    def place(self) -> str:
        """What the times of its stages depend on beside their work: device, size of images, precision, threads."""
        info, env = self.data.info, self.env
        if env.device == "cpu":
            label = machine.label("cpu")
        else:  # torch tells, in a process of its own
            label = next(d.label for d in machine.devices() if d.name == env.device)
        return f"{info.height}x{info.width}|{label}|{self.precision}|{env.threads}"

    def missing(self, options: FillOptions | None = None) -> list[Planned]:
        """Return the stages still to compute, as ``fill`` would with these ``options``."""
        stores = Stores(self.env)
        given_up = not_tried_again(self.targets, stores, options or FillOptions())
        return plan([t for t in self.targets if t.key not in given_up] if given_up else self.targets, stores)

    def fill(self, follower: Follower, jobs: int | None = None, options: FillOptions | None = None) -> dict[str, str]:
        """Compute what is missing; return why each failed stage failed, by key."""
        if self.whole is not None and self.goal is TrainStage:
            Stores(self.env).results.create()
            requests.record(self.env.out, self.whole.wanted())
        return self._fill(self.targets, follower, jobs, options)

    def fill_stage(self, stage: Stage, follower: Follower) -> dict[str, str]:
        """Compute one stage, after what it needs and is missing, on one worker; as ``fill``."""
        return self._fill([stage], follower, 1, None)

    def _fill(
        self, targets: Sequence[Stage], follower: Follower, jobs: int | None, options: FillOptions | None
    ) -> dict[str, str]:
        """Fill with what this machine remembers of times; it keeps those of stages that run here, each alone."""
        if self.executor.is_remote:
            return fill(targets, self.env, self.devices, jobs, follower, options, self.executor)
        timings = Timings(self.env.cache_dir)
        predict = remembered(timings, self.place)
        if options is None or options.pack in (None, 1):
            follower = Timed(follower, timings, self.place)
        return fill(targets, self.env, self.devices, jobs, follower, options, predict=predict)

    def results(self) -> list[Result]:
        """Return the stored results of training of the cells."""
        keys = {cell.key for cell in self.cells}
        return [r for r in Stores(self.env).results.results() if r.key in keys]

    def outcome(self) -> Results:
        """Return the stored results of training of the cells, which of them failed, and which are missing."""
        results = self.results()
        keys = {cell.key: cell.id for cell in self.cells}
        failures = [f for f in Stores(self.env).results.failures() if f.key in keys]
        done = {r.key for r in results}
        missing = [name for key, name in keys.items() if key not in done]
        return Results(self.board, results, failures, missing, badges_in(self.env.out))

    def unchanged(self, results: Iterable[Result]) -> list[str]:
        """Return the protectors that left every image as it was: their results are those of clean images."""
        protectors = {cell.key: cell.protector for cell in self.cells}
        return sorted({r.protector for r in results if perturbation.unchanged(protectors[r.key], r.budget)})


def resolve(request: Request, report: ProgressReport = silent, left_out: LeftOut | None = None) -> Grid:
    """Return the grid that ``request`` describes. Loads the dataset: its fingerprint is part of every key.

    ``left_out`` hears of what a glob or a tag stands for and cannot be had here; without, that is an error.

    Raises UserError for what does not exist or does not fit together.
    """
    request = _checked(request)
    request.executor.check(request.devices, request.precision)
    board = request.board if isinstance(request.board, Board) else boards.board(request.board)
    names = registry()
    everything = (*board.reference, *board.protectors)
    wanted = names.resolve("protector", request.protectors or board.protectors, everything, left_out=left_out)
    if request.reference:  # always part of the grid, whatever is excluded
        reference = names.resolve("protector", board.reference)
        wanted = [*reference, *(p for p in wanted if p not in reference)]
    check_surrogates(cast(list[Protector], wanted))
    columns = names.resolve(
        "countermeasure",
        request.countermeasures or board.countermeasures,
        board.countermeasures,
        left_out=left_out,
    )
    victims = names.resolve("victim", request.victims or board.victims, board.victims, left_out=left_out)
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
        board.seeds if request.seeds is None else request.seeds,
        request.fraction,
        _precision(request.precision, device),
    )
    return Grid(board, data, chosen, env, request.devices, request.executor, whole=chosen)


def _checked(request: Request) -> Request:
    """Return ``request`` with plain numbers. Raises UserError where one cannot be."""
    arguments.known("precision", request.precision, arguments.PRECISIONS)
    seeds = None if request.seeds is None else arguments.seeds_of(request.seeds)
    return replace(
        request,
        seeds=seeds or None,
        fraction=arguments.share("the fraction", request.fraction),
        threads=arguments.whole("the number of threads", request.threads, 1, MOST_WORKERS),
    )


def _precision(precision: str, device: str) -> str:
    """Return ``precision``, or for ``auto`` the one that ``device`` computes fastest in."""
    if precision != "auto":
        return precision
    [fastest] = [d.precision for d in machine.devices() if d.name == device]
    return fastest
