"""``ue-bench figures board`` and ``curves``: plots of results that are there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .common import say

if TYPE_CHECKING:
    from ..leaderboard.plots import CurveLine
    from ..leaderboard.statistics import Panel
    from ..store.results import ResultStore

board_option = click.option(
    "--board", "board_name", default="demo", show_default=True, help="The board of the results, or a TOML file."
)
results_option = click.option(
    "--results", type=click.Path(path_type=Path), help="Results folder; ue-bench-results/BOARD by default."
)
plot_option = click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="File to write: NAME.png, .svg or .pdf."
)


@click.command("board")
@board_option
@results_option
@click.option("--panel", "number", type=click.IntRange(1), help="Which table of the board; that with most results.")
@plot_option
def board(board_name: str, results: Path | None, number: int | None, out: Path) -> None:
    """Draw a board: all rows and columns, coloured by recovered share.

    It is legible where it is 830 pixels wide, as in a README.

    \b
    ue-bench figures board --board cifar10-micro --results leaderboards/cifar10-micro --out leaderboard.png
    """
    from ..atomic import check_output, write_output
    from ..errors import UserError
    from ..leaderboard import plots
    from ..leaderboard.findings import main_panel

    check_output(out, *plots.FORMATS)
    _, panels = _panels(board_name, results)
    if number is not None and number > len(panels):
        raise UserError(f"there is no table {number}, only {len(panels)}", "leave out --panel")
    chosen = main_panel(panels) if number is None else panels[number - 1]
    assert chosen is not None  # there are results
    write_output(out, plots.save(lambda: plots.board(chosen), out.suffix[1:].lower()))
    print(out)
    say(f"ue-bench: {len(chosen.rows)} rows, {len(chosen.columns) + len(chosen.extra)} columns")


def _panels(board_name: str, out: Path | None) -> tuple[ResultStore, list[Panel]]:
    """Return the results in a folder, with their store. Raises NothingSelected where there are none."""
    from ..catalogue import boards
    from ..errors import NothingSelected
    from ..leaderboard.board import board_info
    from ..leaderboard.statistics import panels
    from ..leaderboard.submission import badges_in
    from ..store.results import ResultStore

    board = boards.board(board_name)
    store = ResultStore(out or Path("ue-bench-results") / board.name)
    found = panels(store.results(), board_info(board), badges_in(store.out))
    if not found:
        raise NothingSelected(f"no results in {store.out}", "name their folder with --results")
    return store, found


@click.command("curves")
@board_option
@results_option
@click.option("-P", "--protector", "protectors", multiple=True, help="Selectors of rows, a line each; all by default.")
@click.option("-C", "--countermeasure", "countermeasures", multiple=True,
              help="Selectors of columns, a panel each; the board's plain one by default.")  # fmt: skip
@plot_option
def curves(
    board_name: str, results: Path | None, protectors: tuple[str, ...], countermeasures: tuple[str, ...], out: Path
) -> None:
    """Plot learning curves: the victim's accuracy on clean test images over its training.

    Means over seeds, with a band from the lowest to the highest of several. The dotted line is chance.

    \b
    ue-bench figures curves --board cifar10-micro -P none -P em -P lsp -C 'vanilla,gray' --out curves.svg
    """
    from ..atomic import check_output, write_output
    from ..errors import NothingSelected
    from ..leaderboard import plots
    from ..leaderboard.findings import main_panel

    check_output(out, *plots.FORMATS)
    store, panels = _panels(board_name, results)
    panel = main_panel(panels)
    assert panel is not None  # there are results
    rows = _chosen("protector", protectors, [row.protector for row in panel.rows])
    columns = _chosen("countermeasure", countermeasures or (panel.board.plain,), [*panel.columns, *panel.extra])
    shown = {column: _lines(store, panel, rows, column) for column in columns}
    shown = {column: lines for column, lines in shown.items() if lines}
    names = {line.name for lines in shown.values() for line in lines}
    if not names:
        raise NothingSelected(f"no curve of these cells in {store.out / 'curves'}", "see its README.md for its cells")
    if len(names) > plots.MOST_LINES:
        raise NothingSelected(f"{len(names)} lines cannot be told apart", f"choose {plots.MOST_LINES} rows or fewer")
    write_output(out, plots.save(lambda: plots.curves(shown, panel.chance), out.suffix[1:].lower()))
    print(out)
    low, high = panel.n
    say(f"ue-bench: {len(names)} rows under {len(shown)} countermeasures; n = {low}" + (f" to {high}" * (high > low)))


def _lines(store: ResultStore, panel: Panel, rows: Sequence[str], column: str) -> list[CurveLine]:
    """Return the curves of a column, one a row, for those that are there; of seeds at the epochs that all have."""
    import numpy as np

    from ..leaderboard.plots import CurveLine

    lines = []
    for row in panel.rows:
        if row.protector not in rows or column not in row.cells:
            continue
        found = [curve for key in row.cells[column].keys if (curve := store.curve(key)) is not None]
        shared = sorted(set.intersection(*({*curve.epoch} for curve in found))) if found else []
        if not shared:
            continue
        values = np.array([[dict(zip(c.epoch, c.accuracy_test, strict=True))[e] for e in shared] for c in found])
        band = (values.min(0), values.max(0)) if len(found) > 1 else None
        lines.append(CurveLine(row.protector, np.array(shared), values.mean(0), band))
    return lines


def _chosen(kind: str, texts: Sequence[str], known: Sequence[str]) -> list[str]:
    """Return those of the ``known`` selectors that are named, all without any.

    A name alone stands for all variants of it that are known.
    """
    import fnmatch

    from ..catalogue.registry import registry
    from ..errors import NothingSelected

    if not texts:
        return list(known)
    found: list[str] = []
    for text in texts:
        globbed = [name for name in known if fnmatch.fnmatchcase(name, text) or name.partition("[")[0] == text]
        found += globbed or [plugin.selector for plugin in registry().resolve(kind, text)]
    found = [name for name in dict.fromkeys(found) if name in known]
    if not found:
        raise NothingSelected(f"no result of {', '.join(texts)}", f"{kind}s with results: {', '.join(known)}")
    return found
