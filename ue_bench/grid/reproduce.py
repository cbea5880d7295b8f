"""Computing a paper's table on a board: from what it asks for to cells, stages and measured numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean
from typing import cast

from ..catalogue import selectors, tables
from ..catalogue.registry import registry
from ..contract.context import ProgressReport, silent
from ..contract.plugin import Countermeasure, Protector, Victim
from ..contract.table import Ask, Kind, Table
from ..errors import UserError
from ..leaderboard.comparison import Comparison, Place, average
from ..leaderboard.evasion import setting as evasion_setting
from ..leaderboard.intervals import Estimate
from .cell import Cell
from .evasion import EvasionCell
from .grid import Grid, Request, resolve
from .stages.base import Stage, Stores
from .stages.evade import EvadeStage
from .stages.features import FeatureStage
from .stages.train import TrainStage

STAGES: dict[Kind, Callable[..., Stage]] = {"training": TrainStage, "features": FeatureStage, "evasion": EvadeStage}


@dataclass(frozen=True)
class Wanted:
    """What is asked for in one place, of one victim and seed: the mean over ``cells``."""

    place: Place
    ask: Ask
    cells: tuple[Cell, ...]

    @property
    def victim(self) -> str:
        """How the victim is shown."""
        return self.cells[0].victim.selector

    @property
    def images(self) -> int | None:
        """Test images that an accuracy is of; None for other numbers."""
        first = self.cells[0]
        shown = first.images if isinstance(first, EvasionCell) else None
        return (shown or first.data.info.test) if self.ask.unit == "percent" else None

    @property
    def stages(self) -> list[Stage]:
        """The stages that yield the numbers."""
        return [STAGES[self.ask.of](cell) for cell in self.cells]


@dataclass(frozen=True, kw_only=True)
class TableGrid(Grid):
    """A table on a board: what is computed for it, and where that is kept.

    ``table`` has the lines that this board can be compared with. ``given`` are the settings it was made with.
    """

    table: Table
    given: Mapping[str, str]
    wanted: Sequence[Wanted]

    @property
    def targets(self) -> list[Stage]:
        """The stages that yield the table's numbers, each once."""
        return self._targets

    @cached_property
    def _targets(self) -> list[Stage]:
        stages = {stage.key: stage for wanted in self.wanted for stage in wanted.stages}
        return list(stages.values())

    def measured(self) -> dict[Place, dict[str, Estimate]]:
        """Return what is stored, by place and victim: means over seeds of which every stage has its number."""
        stores = Stores(self.env)
        seeds: dict[tuple[Place, str], list[float]] = {}
        images: dict[Place, int | None] = {}  # of the test set, for accuracies
        for wanted in self.wanted:
            found = [numbers for stage in wanted.stages if (numbers := stage.measured(stores)) is not None]
            if len(found) == len(wanted.cells):
                mean = fmean(numbers[wanted.ask.value] for numbers in found)
                seeds.setdefault((wanted.place, wanted.victim), []).append(mean)
                images[wanted.place] = wanted.images
        measured: dict[Place, dict[str, Estimate]] = {}
        for (place, victim), values in seeds.items():
            measured.setdefault(place, {})[victim] = average(values, images[place])
        return measured

    def comparison(self) -> Comparison:
        """Return the table with printed and measured numbers."""
        named = {ask.protector: registry().one("protector", ask.protector).selector for ask in self.table.asks}
        return Comparison(self.table, self._setting(), self._victims, named, self.measured(), self.given)

    @property
    def _victims(self) -> tuple[str, ...]:
        """The board's victims, as far as the table asks for them."""
        return tuple(dict.fromkeys(wanted.victim for wanted in self.wanted if wanted.ask.victim is None))

    def _setting(self) -> str:
        """What the measured numbers share."""
        shown = [cell for cell in self.cells if isinstance(cell, EvasionCell)]
        trained = [cell for cell in self.cells if not isinstance(cell, EvasionCell)]
        said = [evasion_setting(shown)] if shown else []
        if trained:
            first, victims = trained[0], ", ".join(dict.fromkeys(cell.victim.selector for cell in trained))
            info = self.data.info
            shares = {cell.fraction for cell in trained}
            part = (
                f", {100 * first.fraction:g} % of the images protected" if shares == {first.fraction} != {1.0} else ""
            )
            said.append(
                f"Measured: {info.selector} ({info.source}, {info.train:,} images{part}), {victims}, protocol "
                f"{first.protocol.name} v{first.protocol.version}, {first.precision}."
            )
        return " ".join(said)


def unused_options(table: Table) -> set[str]:
    """Return the parts of a request that change nothing in ``table``: ``fraction``, ``victims``, ``images`` ..."""
    shown = [ask for ask in table.asks if ask.of == "evasion"]
    trained = [ask for ask in table.asks if ask.of != "evasion"]
    unused = set() if shown else {"images", "transfer"}
    if all(ask.fraction is not None for ask in trained):
        unused.add("fraction")
    if all(ask.victim is not None for ask in table.asks):
        unused.add("victims")
    return unused


def resolve_table(
    table: Table,
    request: Request,
    given: Mapping[str, str] | None = None,
    images: int | None = None,
    transfer: bool = False,
    report: ProgressReport = silent,
) -> TableGrid:
    """Return what is to be computed for ``table`` on the board of ``request``, whose rows and columns are not used.

    Lines of other datasets are left out. ``given`` are the settings that the table was made with; ``images`` and
    ``transfer`` are those of ``EvasionCell``. Raises UserError where the table has no line for the board's dataset, a
    setting names a plugin that is not there, or things do not fit together.
    """
    table = _installed(table, given or {})
    if not table.asks:
        raise UserError(f"nothing in {table.name} can be measured", " ".join(table.notes) or "see its settings")
    protectors = tuple(dict.fromkeys(ask.protector for ask in table.asks))
    countermeasures = tuple(dict.fromkeys(name for ask in table.asks for name in ask.countermeasures))
    base = resolve(replace(request, protectors=protectors, countermeasures=countermeasures, reference=False), report)
    table = _of_dataset(table, base, request)
    wanted = list(_wanted(table, base, images, transfer))
    cells = list({cell.key: cell for own in wanted for cell in own.cells}.values())
    return TableGrid(
        base.board,
        base.data,
        cells,
        base.env,
        base.devices,
        base.executor,
        table=table,
        given=dict(given or {}),
        wanted=wanted,
    )


def _installed(table: Table, given: Mapping[str, str]) -> Table:
    """The table without what needs plugins that are not there, which a note says.

    Raises UserError with the nearest names for one that only the settings ``given`` ask for: its user named it.
    """
    missing = {plugin for ask in table.asks for plugin in _missing(ask)}
    if not missing:
        return table
    if given:
        asked_anyhow = {plugin for ask in tables.table(table.name).asks for plugin in _missing(ask)}
        for kind, name in sorted(missing - asked_anyhow):
            registry().find(kind, name)
    lines = tuple(
        replace(line, asks={column: ask for column, ask in line.asks.items() if not _missing(ask)})
        for line in table.lines
    )
    note = f"Not measured, because it is not installed: {', '.join(sorted(name for _, name in missing))}."
    return replace(table, lines=lines, notes=(*table.notes, note))


def _missing(ask: Ask) -> set[tuple[str, str]]:
    """Return the plugins that are asked for and not there, by kind and name."""
    named = [("protector", ask.protector), *(("countermeasure", name) for name in ask.countermeasures)]
    named += [("victim", ask.victim)] if ask.victim else []
    plugins = {
        (kind, part.name) for kind, text in named for term in selectors.parse(text) for part in term.parts
    }  # fmt: skip
    return {(kind, name) for kind, name in plugins if not name.startswith("@")} - registry().entries.keys()


def _of_dataset(table: Table, base: Grid, request: Request) -> Table:
    """The table with the lines of the board's dataset alone."""
    if not table.datasets:
        return table
    name = base.data.plugin.name
    if name not in table.datasets and request.dataset is None:
        name = base.board.name  # of a board whose images are in a folder
    if name not in table.datasets:
        raise UserError(
            f"{table.name} has lines of {', '.join(table.datasets)}, none of {base.data.plugin.name}",
            f"choose a board of one of them, or see the settings in 'ue-bench reproduce {table.name} --help'",
        )
    return replace(table, lines=tuple(line for line in table.lines if line.dataset in ("", name)))


def _wanted(table: Table, base: Grid, images: int | None, transfer: bool) -> Iterator[Wanted]:
    """The stages of every number that is asked for."""
    for line in table.lines:
        for column, ask in line.asks.items():
            for cells in _cells(ask, base):
                if ask.of == "evasion":
                    cells = [EvasionCell.of(cell, images, transfer) for cell in cells]
                yield Wanted((line.label, column), ask, tuple(cells))


def _cells(ask: Ask, base: Grid) -> Iterator[list[Cell]]:
    """Cells of what is asked for: those that are averaged for every victim and seed."""
    protector = cast(Protector, registry().one("protector", ask.protector))
    countermeasures = [cast(Countermeasure, registry().one("countermeasure", name)) for name in ask.countermeasures]
    like = list({(cell.victim.selector, cell.seed): cell for cell in base.cells}.values())
    if ask.victim is not None:
        victim = cast(Victim, registry().one("victim", ask.victim))
        like = list({cell.seed: replace(cell, victim=victim) for cell in like}.values())
    for cell in like:
        fraction = cell.fraction if ask.fraction is None else ask.fraction
        yield [
            replace(cell, protector=protector, countermeasure=countermeasure, fraction=fraction)
            for countermeasure in countermeasures
        ]
