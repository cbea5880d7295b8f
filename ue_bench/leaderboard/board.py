"""What a board is, as far as its pages are concerned."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field


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
    reference: tuple[str, ...] = ()  # rows to compare with, sorted first
    clean: str = ""  # the row without protection
    plain: str = ""  # the column without a countermeasure
    argument: str = ""  # names the board on a command line, such as a file; the name where nothing is given
    command: str = ""  # reproduces the whole board
    notes: tuple[str, ...] = ()
    column_notes: Mapping[str, str] = field(default_factory=dict)  # countermeasure -> why it changes nothing

    def cell_command(self, protector: str, countermeasure: str, extra: Mapping[str, str] | None = None) -> str:
        """The command line that computes one cell again; ``extra`` maps further options to their values."""
        words = ["ue-bench run --board", shlex.quote(self.argument or self.name)]
        for option, value in {"protector": protector, "countermeasure": countermeasure, **(extra or {})}.items():
            words += [f"--{option}", _quoted(value)]
        return " ".join(words)


def _quoted(value: str) -> str:
    """In single quotes always: a reader who changes a name to one with brackets needs them."""
    quoted = shlex.quote(value)
    return quoted if quoted.startswith(("'", '"')) else f"'{value}'"
