"""Put tables that differ in the victim alone beside one another: how protection carries over to other networks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any

from ..catalogue.selectors import parse
from ..errors import UserError
from . import formats
from .numbers import Number, number
from .statistics import Panel, Row

LEGEND = (
    "Colour: the recovered share, from chance to the accuracy that the same victim has on clean images under the same "
    "countermeasure."
)
NAMED = "◆: a parameter of the protector names this network, such as that of its surrogate."


@dataclass(frozen=True)
class VictimGroup:
    """Panels of one setting, one a victim; ``numbers`` are their places among the panels of the page."""

    numbers: tuple[int, ...]
    panels: tuple[Panel, ...]

    @property
    def dataset(self) -> str:
        return self.panels[0].dataset.selector

    @property
    def victims(self) -> tuple[str, ...]:
        return tuple(panel.victim for panel in self.panels)

    @property
    def setting(self) -> str:
        """What every number of the group shares beside the data."""
        return f"{len(self.panels)} victims, {formats.recipe(self.panels[0])}"

    @property
    def plain(self) -> str:
        """The countermeasure that is shown first: the board's plain one, where it has one."""
        columns = self.panels[0].columns
        plain = self.panels[0].board.plain
        return plain if plain in columns else columns[0]

    @property
    def seeds(self) -> str:
        """How many seeds the cells have."""
        low, high = min(panel.n[0] for panel in self.panels), max(panel.n[1] for panel in self.panels)
        return f"n = {formats.span(low, high)} seed{'s' if high > 1 else ''} per cell"

    @cached_property
    def rows(self) -> dict[str, dict[str, Row]]:
        """Rows by protector and victim: reference rows, and then the lowest mean share under the plain column."""
        rows: dict[str, dict[str, Row]] = defaultdict(dict)
        for panel in self.panels:
            for row in panel.rows:
                rows[row.protector][panel.victim] = row

        def place(protector: str) -> tuple[bool, bool, float, str]:
            shares = [share for share in self._shares(rows[protector]) if share is not None]
            reference = next(iter(rows[protector].values())).reference
            return not reference, len(shares) < len(self.panels), fmean(shares) if shares else 0.0, protector

        order = [row.protector for row in self.panels[0].rows if row.reference]
        rest = sorted((name for name in rows if name not in order), key=place)
        return {name: rows[name] for name in [*order, *rest]}

    def _shares(self, of_victims: dict[str, Row]) -> Iterator[float | None]:
        for panel in self.panels:
            cell = of_victims[panel.victim].cells.get(self.plain) if panel.victim in of_victims else None
            yield None if cell is None else panel.share(self.plain, cell.mean)

    def lines(self) -> list[tuple[str, list[Number | None]]]:
        """Return every protector with a number a victim, under the plain column."""
        return [
            (protector, [self._number(panel, of_victims.get(panel.victim)) for panel in self.panels])
            for protector, of_victims in self.rows.items()
        ]

    def _number(self, panel: Panel, row: Row | None) -> Number | None:
        cell = row.cells.get(self.plain) if row else None
        return None if cell is None else number(formats.cell(cell), panel.share(self.plain, cell.mean))

    def data(self) -> dict[str, Any]:
        """Return what the scripts of a page know of the group."""
        return {"dataset": self.dataset, "title": self.setting, "plain": self.plain, "panels": list(self.numbers)}


def groups(panels: Sequence[Panel]) -> list[VictimGroup]:
    """Return the groups of at least two panels that differ in the victim alone; victims in the order of the board."""
    alike: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for i, p in enumerate(panels):
        alike[p.dataset.fingerprint, p.protocol, p.protocol_version, p.precision, p.fraction].append(i)
    found = []
    for numbers in alike.values():
        if len(numbers) > 1:
            numbers.sort(key=lambda i: _place(panels[i]))
            found.append(VictimGroup(tuple(numbers), tuple(panels[i] for i in numbers)))
    return found


def _place(panel: Panel) -> tuple[int, str]:
    victims = panel.board.victims
    return victims.index(panel.victim) if panel.victim in victims else len(victims), panel.victim


def named_victims(row: Row, victims: Collection[str]) -> list[str]:
    """Return those of ``victims`` that a parameter of the row's protector names."""
    named = set(_parameters(row))
    return [victim for victim in victims if victim in named]


def _parameters(row: Row) -> Iterable[str]:
    """Yield the parameters of a protector that are text: of its plugins, or where they are not known of its name."""
    made_of = next(iter(row.cells.values())).results[0].cell
    if made_of:
        protector = made_of["protector"]
        for part in protector.get("combination", [protector]):
            yield from (value for value in part["parameters"].values() if isinstance(value, str))
        return
    try:
        terms = parse(row.protector)
    except UserError:
        return
    for part in (part for term in terms for part in term.parts):
        yield from (value for values in part.parameters.values() for value in values if isinstance(value, str))
