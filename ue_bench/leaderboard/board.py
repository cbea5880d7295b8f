"""What a board is, as far as its pages are concerned."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..catalogue.boards import Board
from ..catalogue.registry import registry

IDENTITY = (
    "No-op: at sigma 0.1 and kernel 3 this filter returns every 8-bit image unchanged. "
    "It repeats vanilla with the same seed: equal to it on a CPU, off by run noise on a GPU; not robustness."
)


def _identities() -> dict[str, str]:
    return {"gaussian-filter": IDENTITY, "gaussian-filter[sigma=0.1]": IDENTITY}


@dataclass(frozen=True)
class BoardInfo:
    """The plan of a board: which rows and columns it wants, and how to fill it.

    Selectors are canonical, as they stand in a result.
    """

    name: str
    title: str
    description: str = ""
    countermeasures: tuple[str, ...] = ()  # columns, in order; empty: whatever the results hold
    protectors: tuple[str, ...] = ()  # rows the board wants; other rows are shown all the same
    reference: tuple[str, ...] = ("none", "noise")  # rows to compare with, sorted first
    command: str = ""  # reproduces the whole board
    notes: tuple[str, ...] = ()
    column_notes: Mapping[str, str] = field(default_factory=_identities)  # countermeasure -> what a reader must know

    def cell_command(self, protector: str, countermeasure: str, extra: Mapping[str, str] | None = None) -> str:
        """The command line that computes one cell again; ``extra`` maps further options to their values."""
        words = ["ue-bench run --board", shlex.quote(self.name)]
        for option, value in {"protector": protector, "countermeasure": countermeasure, **(extra or {})}.items():
            words += [f"--{option}", _quoted(value)]
        return " ".join(words)


def board_info(board: Board) -> BoardInfo:
    """Return what the pages need to know of a board; selectors in canonical form."""
    names = registry()

    def selectors(kind: str, texts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(p.selector for p in names.resolve(kind, texts))

    return BoardInfo(
        name=board.name,
        title=board.title,
        description=board.description,
        countermeasures=selectors("countermeasure", board.countermeasures),
        protectors=selectors("protector", board.protectors),
        reference=selectors("protector", board.reference),
        command=f"ue-bench run --board {board.name} --protector all --countermeasure all",
        notes=board.notes,
    )


def _quoted(value: str) -> str:
    """In single quotes always: a reader who changes a name to one with brackets needs them."""
    quoted = shlex.quote(value)
    return quoted if quoted.startswith(("'", '"')) else f"'{value}'"
