"""Write the commands that compute a page's cells again, with whatever differs from the defaults of its board."""

from __future__ import annotations

import re
import shlex
from collections import defaultdict
from collections.abc import Iterable, Mapping

from ue_bench.store.schema import Measured, Result

from .board import BoardInfo
from .cell_summary import CellSummary
from .statistics import Panel
from .versions import obstacle

Seeds = tuple[int, ...]
_INPUT = re.compile(r"#[0-9a-f]{8}(?=[\],'\"])")  # of a file, as selectors show it


def cell_command(board: BoardInfo, cell: CellSummary) -> str:
    """Return the command whose grid holds the cell; empty where this version cannot compute it: see ``obstacle``.

    The board's reference rows are part of every grid.
    """
    return _command(board, cell.results[0], cell.protector, cell.countermeasure, cell.seeds)


def missing_command(board: BoardInfo, panel: Panel, protector: str, countermeasure: str) -> str:
    """Return the command whose grid holds a cell without a result; empty where the panel's cells have none either."""
    alike = next((r for r in panel.results if not obstacle(board, r)), None)
    return _command(board, alike, protector, countermeasure, board.seeds) if alike else ""


def board_commands(board: BoardInfo, panel: Panel) -> list[str]:
    """Return commands that fill what the panel shows, and what is missing in the board's rows and columns.

    One is enough where all cells have the same seeds, and no column is there that the board does not ask for. Seeds
    that a row has in some columns alone have a command of their own.
    """
    board_rows = {protector for protector in board.protectors if protector not in board.reference}
    first = next((r for r in panel.results if not obstacle(board, r)), None)
    if first is None:
        return []
    rows, further = _by_seeds(panel)
    if rows and not setting_options(board, first):  # the panel that the board asks for, all of it
        rows[board.seeds if board.seeds in rows else max(rows)] += panel.missing
    columns = "all" if board.countermeasures else ",".join(panel.columns)
    lines = [
        _command(board, first, _selection(names, board_rows, board), columns, seeds) for seeds, names in rows.items()
    ]
    for (seeds, among), names in further.items():
        lines.append(_command(board, first, _selection(names, board_rows, board), ",".join(among), seeds))

    extra: dict[tuple[Seeds, tuple[str, ...]], list[str]] = defaultdict(list)
    for column in panel.extra:
        by_seeds: dict[Seeds, list[str]] = defaultdict(list)
        for row in panel.rows:
            if column in row.cells:
                by_seeds[row.cells[column].seeds].append(row.protector)
        for seeds, names in by_seeds.items():
            extra[seeds, tuple(names)].append(column)
    for (seeds, protectors), more in extra.items():
        lines.append(_command(board, first, _selection(protectors, board_rows, board), ",".join(more), seeds))
    return lines


def needs(board: BoardInfo, panel: Panel, lines: Iterable[str]) -> str:
    """Return what ``board_commands`` need, and which cells of the panel they do not give."""
    old = list(filter(None, (obstacle(board, r) for r in panel.results)))
    if len(old) == len(panel.results):
        return old[0]
    text = conditions(panel.results[0], lines)
    return f"{text} {len(old)} results here are of other versions and not given again: {old[0]}" if old else text


def empty_board_command(board: BoardInfo) -> str:
    """Return the command that begins a board without results."""
    return f"ue-bench run --board {shlex.quote(board.argument or board.name)} --protector all --countermeasure all"


def conditions(result: Measured, commands: Iterable[str]) -> str:
    """Return what has to be there for ``commands`` to compute the cells of the data of ``result``."""
    text = f"The data must be those of fingerprint {result.dataset.fingerprint}: {result.dataset.source}."
    if any(map(_INPUT.search, commands)):
        text += (
            " A name with # and digits is a file or folder by its content: "
            "it is looked for in the current folder, and a dataset in the data folder too."
        )
    return text


def _command(board: BoardInfo, result: Result, protectors: str, countermeasures: str, seeds: Seeds) -> str:
    if obstacle(board, result):
        return ""
    words = ["ue-bench run --board", shlex.quote(board.argument or board.name)]
    words += ["--protector", quoted(protectors), "--countermeasure", quoted(countermeasures)]
    for option, value in setting_options(board, result).items():
        words += [f"--{option}", quoted(value)]
    if seeds != board.seeds:
        words += ["--seeds", ",".join(map(str, seeds))]
    if result.fraction != 1:
        words += ["--fraction", repr(result.fraction)]
    return " ".join([*words, "--precision", result.precision])  # by default it is the machine's


def setting_options(board: BoardInfo, result: Measured) -> Mapping[str, str]:
    """Return the options for what is not the board's."""
    options = {}
    if result.dataset.selector != board.dataset:
        options["dataset"] = result.dataset.selector
    if board.victims != (result.victim,):
        options["victim"] = result.victim
    if result.protocol != board.protocol:
        options["protocol"] = result.protocol
    return options


def _by_seeds(panel: Panel) -> tuple[dict[Seeds, list[str]], dict[tuple[Seeds, tuple[str, ...]], list[str]]]:
    """Return rows by the seeds of all their columns, and by those that they have beyond them in some columns."""
    rows: dict[Seeds, list[str]] = defaultdict(list)
    further: dict[tuple[Seeds, tuple[str, ...]], list[str]] = defaultdict(list)
    for row in panel.rows:
        cells = {c: row.cells[c] for c in panel.columns if c in row.cells}
        if not cells:
            continue
        common = _common_seeds(cells.values())
        rows[common].append(row.protector)
        columns: dict[Seeds, list[str]] = defaultdict(list)
        for column, cell in cells.items():
            columns[tuple(seed for seed in cell.seeds if seed not in common)].append(column)
        for seeds, among in columns.items():
            if seeds:
                further[seeds, tuple(among)].append(row.protector)
    return rows, further


def _common_seeds(cells: Iterable[CellSummary]) -> Seeds:
    """Return the seeds of every cell; all that there are where these have none in common."""
    each = [set(cell.seeds) for cell in cells]
    return tuple(sorted(set.intersection(*each) or set.union(*each)))


def _selection(names: Iterable[str], board_rows: set[str], board: BoardInfo) -> str:
    """Return rows as one selector: ``all`` for those of the board, and others by name."""
    chosen = [name for name in names if name not in board.reference]
    if board_rows and board_rows <= set(chosen):
        return ",".join(["all", *(name for name in chosen if name not in board_rows)])
    return ",".join(chosen or names)  # reference rows come with any others


def quoted(value: str) -> str:
    """Return ``value`` in single quotes: a reader who changes a name to one with brackets needs them."""
    quoted = shlex.quote(value)
    return quoted if value == "all" or quoted.startswith(("'", '"')) else f"'{value}'"
