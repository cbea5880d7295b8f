"""A paper's table as plain data: its printed numbers, and what is measured to stand beside each of them.

A plugin registers ``register.table(name, target, summary)``; the target is a function that returns a :class:`Table`
and takes the table's settings as keyword arguments, all of them text with a default.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from ..errors import UserError, did_you_mean

Kind = Literal["training", "features", "evasion"]
Unit = Literal["percent", "dB", "ssim", "cosine"]
VALUES: dict[Kind, dict[str, Unit]] = {
    "training": {"accuracy": "percent"},
    "features": {"intra": "cosine", "inter": "cosine"},
    "evasion": {"accuracy": "percent", "psnr": "dB", "ssim": "ssim"},
}


@dataclass(frozen=True)
class Ask:
    """A request to measure one number: the mean of ``value`` over ``countermeasures``. All names are selectors.

    ``of`` says of what: of a victim trained on protected images ("training"), of the features it makes of these
    ("features"), or of a victim trained on clean images that is shown protected test images ("evasion").
    ``victim`` and ``fraction`` are given where the paper's table varies them; the board's are used where not.
    """

    protector: str
    countermeasures: tuple[str, ...]
    of: Kind = "training"
    value: str = "accuracy"
    victim: str | None = None
    fraction: float | None = None

    def __post_init__(self) -> None:
        if not self.countermeasures:
            raise ValueError("an ask names at least one countermeasure")
        if self.value not in VALUES[self.of]:
            raise ValueError(f"{self.of} has no {self.value!r}, only {', '.join(VALUES[self.of])}")
        if self.fraction is not None and (self.of == "evasion" or not 0 <= self.fraction <= 1):
            raise ValueError("a fraction is a share from 0 to 1 of the training images that a victim is trained on")

    @property
    def unit(self) -> Unit:
        """The unit of the measured number."""
        return VALUES[self.of][self.value]


@dataclass(frozen=True)
class Line:
    """A line of a table: its label, a word for every head, and by column what was printed and what is measured.

    Printed accuracies are in percent. ``dataset`` names the dataset, or the board, that the line is of, in a table
    whose lines are of several; it is empty where the line is compared with whatever the board has. Every note is a
    sentence that begins with the column it is about.
    """

    label: tuple[str, ...]
    printed: Mapping[str, float] = field(default_factory=dict)
    asks: Mapping[str, Ask] = field(default_factory=dict)
    dataset: str = ""
    unit: Unit = "percent"
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        wrong = {ask.unit for ask in self.asks.values()} - {self.unit}
        if wrong:
            raise ValueError(f"line {self.label} is in {self.unit} and asks for {', '.join(sorted(wrong))}")

    @property
    def name(self) -> str:
        """The label in one piece."""
        return ", ".join(self.label)

    @property
    def protectors(self) -> tuple[str, ...]:
        """Selectors of all protectors that are asked for, each once."""
        return tuple(dict.fromkeys(ask.protector for ask in self.asks.values()))


@dataclass(frozen=True)
class Setting:
    """A value that a table takes from the user: ``--set name=value``. Without a default it may be left out.

    Where there are ``choices``, the harness refuses any other value before it asks for the table.
    """

    name: str
    description: str
    default: str | None = None
    choices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.choices and self.default is not None and self.default not in self.choices:
            raise ValueError(f"the default of {self.name} is none of its choices, {', '.join(self.choices)}")


@dataclass(frozen=True)
class Table:
    """A table of a paper, under the name it is registered by.

    ``source`` is the paper and the number of the table. ``heads`` name the parts of a line's label. ``mean`` is true
    where the paper averages over the columns. ``published`` marks a table whose lines stand on the pages of boards: by
    dataset, how its numbers were made.
    """

    name: str
    title: str
    source: str
    heads: tuple[str, ...]
    lines: tuple[Line, ...] = field(repr=False)
    notes: tuple[str, ...] = ()
    settings: tuple[Setting, ...] = ()
    mean: bool = False
    published: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        labels = [line.label for line in self.lines]
        if len(set(labels)) < len(labels):
            raise ValueError(f"{self.name} has two lines of one label")
        odd = [label for label in labels if len(label) != len(self.heads)]
        if odd:
            raise ValueError(f"{self.name} has {len(self.heads)} heads, its line {odd[0]} another number")

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Columns in the order of the lines, printed ones first."""
        printed = [column for line in self.lines for column in line.printed]
        return tuple(dict.fromkeys([*printed, *(column for line in self.lines for column in line.asks)]))

    @cached_property
    def printed(self) -> tuple[str, ...]:
        """Columns with a printed number."""
        return tuple(c for c in self.columns if any(c in line.printed for line in self.lines))

    @cached_property
    def measured(self) -> tuple[str, ...]:
        """Columns in which something is measured."""
        return tuple(c for c in self.columns if any(c in line.asks for line in self.lines))

    @property
    def asks(self) -> list[Ask]:
        """All that is asked for, in order."""
        return [ask for line in self.lines for ask in line.asks.values()]

    @property
    def datasets(self) -> tuple[str, ...]:
        """The datasets that lines are of, each once."""
        return tuple(dict.fromkeys(line.dataset for line in self.lines if line.dataset))

    def of_columns(self, wanted: Collection[str]) -> Table:
        """Return the table of the columns ``wanted`` alone, without notes on others and on means over all.

        Lines that have none of them are left out. Raises UserError with the nearest names when there is no such column.
        """
        for column in wanted or ("",):
            if column not in self.columns:
                raise UserError(f"{self.name} has no column {column!r}", did_you_mean(column, list(self.columns)))
        gone = tuple(f"{column}:" for column in ("mean", *self.columns) if column not in wanted)
        lines = [
            replace(
                line,
                printed={column: number for column, number in line.printed.items() if column in wanted},
                asks={column: ask for column, ask in line.asks.items() if column in wanted},
                notes=tuple(note for note in line.notes if not note.startswith(gone)),
            )
            for line in self.lines
        ]
        return replace(self, lines=tuple(line for line in lines if line.printed or line.asks))
