"""Give seeds to the rows of a grid one after the other, until they are told apart or a budget is used up.

What comes next depends on the stored results alone, and so does how much of the budget is used: the same command
continues where it was stopped, and a finished one does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, product
from statistics import fmean

from ..errors import UserError
from ..leaderboard.board import BoardInfo, board_info
from ..leaderboard.separation import FEWEST, Pair, Separation, separate
from ..leaderboard.statistics import Panel, Row, panels
from ..leaderboard.submission import badges_in
from ..store.schema import Result
from .cell import Cell, Cells
from .filling import FillOptions, Follower
from .grid import Grid
from .progress import duration
from .stages.base import Stores

Place = tuple[str, str]  # selectors of a protector and a victim


@dataclass(frozen=True)
class Budget:
    """What may be spent on seeds beyond those of the grid: cells, or seconds of devices. One of the two is given."""

    cells: int | None = None
    seconds: float | None = None

    def allows(self, spent: Spent) -> bool:
        """Return whether that much may be spent in all."""
        if self.cells is not None:
            return spent.cells <= self.cells
        return self.seconds is None or spent.seconds <= self.seconds

    @property
    def limit(self) -> str:
        """All of it, in words."""
        return f"{self.cells} cells" if self.cells is not None else f"{duration(self.seconds or 0.0)} of device time"

    def text(self, spent: Spent) -> str:
        """Return how much of it is spent, in words."""
        return f"{spent.cells if self.cells is not None else duration(spent.seconds)} of {self.limit}"


@dataclass(frozen=True)
class Spent:
    """Cells, and the seconds that their training and the protected sets took."""

    cells: int
    seconds: float

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.cells + other.cells, self.seconds + other.seconds)


@dataclass(frozen=True)
class Step:
    """The next seed: all cells of one row at that seed, and what those that are missing are expected to cost."""

    place: Place
    seed: int
    cells: Cells
    cost: Spent


@dataclass(frozen=True)
class ClassState:
    """How far the rows of one perturbation class are told apart, for one victim."""

    name: str
    panel: Panel
    separation: Separation

    def text(self) -> str:
        """Return it in a sentence."""
        pairs, left = self.separation.pairs, self.separation.open
        said = f"{self.name}, {self.panel.victim}: {len(pairs) - len(left)} of {len(pairs)} pairs of rows are apart"
        return f"{said}; not yet {'; '.join(map(_shown, left))}" if left else said


def _shown(pair: Pair) -> str:
    names = f"{pair.first.name} and {pair.second.name}"
    if pair.difference is None or pair.difference.half_width is None:
        return f"{names} ({FEWEST} seeds each are needed)"
    return f"{names} ({abs(pair.difference.mean):.1f} ± {pair.difference.half_width:.1f})"


class Separating:
    """A grid, the seeds that its rows have beyond it, and what to compute next.

    All columns of a row at one seed are one step: they share a protected set, so that their errors are related and the
    set is paid for once. Columns that change nothing get no further seeds. Raises UserError for a part of a grid.
    """

    def __init__(self, grid: Grid, budget: Budget) -> None:
        if not isinstance(grid.cells, Cells):
            raise UserError("rows cannot be told apart by a part of their cells", "leave --shard out")
        self.grid, self.budget = grid, budget
        self._base: Cells = grid.cells
        protectors, victims, seeds, columns = grid.cells.axes
        selector = grid.cells.shared.selector
        self._last = max(seeds)
        self._protectors = {selector(p): p for p in protectors}
        self._victims = {selector(v): v for v in victims}
        names = [selector(c) for c in columns]
        self.info: BoardInfo = replace(board_info(grid.board), countermeasures=tuple(names))
        idle = [c for c in names if c in self.info.column_notes and c != self.info.plain and self.info.plain in names]
        self._columns = [c for name, c in zip(names, columns, strict=True) if name not in idle]
        self.given_up: set[Place] = set()  # rows of which a cell failed: they get no more seeds now

    def cells(self, place: Place, seeds: Sequence[int]) -> Cells:
        """Return the cells of a row at further seeds."""
        base, protector, victim = self._base, self._protectors[place[0]], self._victims[place[1]]
        return Cells(
            base.data, [protector], self._columns, [victim], base.protocol, seeds, base.fraction, base.precision
        )

    def whole_grid(self) -> Grid:
        """Return the grid with the cells of all further seeds that have results."""
        stored = Stores(self.grid.env).results.results()
        keys = {r.key for r in stored}
        return self.grid.with_cells([*self._base, *(cell for cell in self._further(stored) if cell.key in keys)])

    def results(self) -> list[Result]:
        """Return the stored results of the grid and of further seeds."""
        stored = Stores(self.grid.env).results.results()
        keys = {cell.key for cell in self._base} | {cell.key for cell in self._further(stored)}
        return [r for r in stored if r.key in keys]

    def _further(self, stored: Sequence[Result]) -> Iterator[Cell]:
        """Yield the cells of rows at every seed beyond the grid of which they have a result."""
        for protector, victim in product(self._protectors, self._victims):
            place = protector, victim
            seeds = {r.seed for r in stored if (r.protector, r.victim) == place and r.seed > self._last}
            if seeds:
                yield from self.cells(place, sorted(seeds))

    def spent(self, results: Sequence[Result]) -> Spent:
        """Return what the seeds beyond the grid have cost so far, whoever computed them."""
        return _cost([r for r in results if r.seed > self._last])

    def classes(self, results: Sequence[Result]) -> list[ClassState]:
        """Return how far rows are told apart, for every class of two rows or more."""
        states = []
        for panel in panels(results, self.info, badges_in(self.grid.env.out)):
            values = {row.protector: _by_seed(row) for row in panel.rows if row.complete and not row.reference}
            for name, rows in panel.classes.items():
                complete = [row.protector for row in rows if row.protector in values]
                if len(complete) > 1:
                    states.append(ClassState(name, panel, separate(values, complete)))
        return states

    def next_step(self, results: Sequence[Result]) -> Step | None:
        """Return the step that brings rows nearest to being apart for its cost; None where nothing is left to do.

        First every row of a class that is not told apart gets two seeds, the cheapest first.
        """
        spent = self.spent(results)
        found: list[tuple[tuple[bool, float, int, float], Step]] = []
        for state in self.classes(results):
            gains, left = state.separation.gains(), {r for p in state.separation.open for r in (p.first, p.second)}
            for row in sorted(left, key=lambda row: row.name):
                place = row.name, state.panel.victim
                if place in self.given_up:
                    continue
                step = self._step(place, results)
                if self.budget.allows(spent + step.cost):
                    worth = gains[row.name] / max(step.cost.seconds, 1e-3)
                    found.append(((row.n < FEWEST, worth, -row.n, -step.cost.seconds), step))
        return max(found, key=lambda pair: pair[0])[1] if found else None

    def _step(self, place: Place, results: Sequence[Result]) -> Step:
        own = [r for r in results if (r.protector, r.victim) == place]
        done = {(r.seed, r.countermeasure) for r in own}
        names = [self._base.shared.selector(c) for c in self._columns]
        seed = next(s for s in count(self._last + 1) if any((s, name) not in done for name in names))
        missing = [name for name in names if (seed, name) not in done]
        train = sum(fmean(r.cost.train_seconds for r in own if r.countermeasure == name) for name in missing)
        known = any(at == seed for at, _ in done)  # then its protected set is there
        protect = 0.0 if known else fmean(r.cost.protect_seconds for r in own)
        return Step(place, seed, self.cells(place, [seed]), Spent(len(missing), train + protect))

    def grid_of(self, step: Step) -> Grid:
        """Return the cells of a step as a grid."""
        return replace(self.grid, cells=step.cells, whole=step.cells)

    def verdict(self, results: Sequence[Result]) -> str:
        """Return in a sentence why nothing more is computed."""
        spent = self.budget.text(self.spent(results))
        if not any(state.separation.open for state in self.classes(results)):
            return f"all rows that share a class are apart, with {spent} spent on further seeds"
        if self.given_up:
            return f"rows with failed cells get no more seeds, {spent} spent"
        return f"the budget allows no further seed of a row, {spent} spent"


def run(
    separating: Separating,
    follower: Follower,
    jobs: int | None,
    options: FillOptions | None,
    say: Callable[[str], None],
) -> dict[str, str]:
    """Fill the grid, then give seeds to rows until they are apart; return why each failed stage failed, by key."""
    failed = separating.grid.fill(follower, jobs, options)
    while not failed or options is None or options.max_failures is None:
        results = separating.results()
        step = separating.next_step(results)
        for state in separating.classes(results) if step is None else ():
            say(state.text())
        if step is None:
            say(separating.verdict(results))
            break
        say(f"seed {step.seed} of {step.place[0]}, {separating.budget.text(separating.spent(results))} spent")
        new = separating.grid_of(step).fill(follower, jobs, options)
        if new:
            separating.given_up.add(step.place)
        failed |= new
    return failed


def _by_seed(row: Row) -> list[float]:
    """Return the row's mean over the columns at every seed that all of them have."""
    columns = list(row.compared().values())
    seeds = set.intersection(*(set(values) for values in columns)) if columns else set()
    return [fmean(values[seed] for values in columns) for seed in sorted(seeds)]


def _cost(results: Sequence[Result]) -> Spent:
    """Return what results have cost: every protected set once."""
    sets = {(r.protector, r.seed): r.cost.protect_seconds for r in results}
    return Spent(len(results), sum(r.cost.train_seconds for r in results) + sum(sets.values()))
