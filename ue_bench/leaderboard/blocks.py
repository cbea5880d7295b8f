"""Print wide tables on a terminal, in blocks of as many groups of columns as its width takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .tables import WIDTH, folded

NAME_WIDTH = 15  # of a group's name
HEAD_WIDTH = 10  # of a column's head
GAP = 2  # between columns
PADDING = 2  # that tabulate gives every head


@dataclass(frozen=True)
class Group:
    """Columns under one name, each with a head and, for every row of the table, a text."""

    name: str
    heads: Sequence[str]
    cells: Sequence[Sequence[str]]

    @property
    def names(self) -> list[str]:
        """The name over several lines."""
        return folded(self.name, NAME_WIDTH)

    def width(self) -> int:
        """Return how many characters the columns take, with the gap before each."""
        columns = [max(map(len, column)) for column in zip(*self.cells, strict=True)]
        heads = [max(map(len, folded(head, HEAD_WIDTH))) for head in self.heads]
        heads[0] = max([heads[0], *map(len, self.names)])
        return sum(max(cells, head + PADDING) + GAP for cells, head in zip(columns, heads, strict=True))


def blocks(corner: Sequence[str], rows: Sequence[Sequence[str]], groups: Sequence[Group]) -> list[str]:
    """Return the table in blocks that fit a terminal.

    ``rows`` are the labels, a text for every head in ``corner``, and are repeated in every block. A group that does
    not fit beside others has a block of its own, however wide it is.
    """
    widths = [max(len(head) + PADDING, *map(len, column)) for head, *column in zip(corner, *rows, strict=True)]
    room = WIDTH - sum(widths) - GAP * (len(widths) - 1)
    return [_block(corner, rows, chosen) for chosen in _packed(groups, room)]


def _packed(groups: Sequence[Group], room: int) -> Iterator[list[Group]]:
    chosen: list[Group] = []
    for group in groups:
        if chosen and sum(g.width() for g in chosen) + group.width() > room:
            yield chosen
            chosen = []
        chosen.append(group)
    if chosen:
        yield chosen


def _block(corner: Sequence[str], rows: Sequence[Sequence[str]], groups: Sequence[Group]) -> str:
    from tabulate import tabulate

    high = max(len(group.names) for group in groups)
    deep = max(len(folded(head, HEAD_WIDTH)) for group in groups for head in group.heads)
    heads = list(corner)
    for group in groups:
        for i, head in enumerate(group.heads):
            name, under = group.names if i == 0 else [], folded(head, HEAD_WIDTH)
            heads.append("\n".join([*name, *[""] * (high - len(name) + deep - len(under)), *under]))
    body = [[*row, *(text for group in groups for text in group.cells[i])] for i, row in enumerate(rows)]
    align = ["left"] * len(corner) + ["right"] * (len(heads) - len(corner))
    return str(tabulate(body, headers=heads, tablefmt="simple", disable_numparse=True, colalign=align))
