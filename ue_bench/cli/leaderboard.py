"""``ue-bench leaderboard``: build pages from results, or check them."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .common import json_option, say

if TYPE_CHECKING:
    from ..leaderboard.board import BoardInfo
    from ..store.schema import Result


@click.group("leaderboard")
def command() -> None:
    """Build a board's pages from its results, or check them."""


_board = click.option(
    "--board", "board_name", default="demo", show_default=True, help="The board to show, or a TOML file."
)
_out = click.option("--out", type=click.Path(path_type=Path), help="Results folder; ue-bench-results/BOARD by default.")


def _results(board_name: str, out: Path | None) -> tuple[list[Result], BoardInfo, Path]:
    from ..catalogue import boards
    from ..errors import NothingSelected
    from ..leaderboard.board import board_info
    from ..leaderboard.commands import empty_board_command
    from ..store.results import ResultStore

    board = boards.board(board_name)
    folder = out or Path("ue-bench-results") / board.name
    results = ResultStore(folder).results()
    info = board_info(board)
    if not results:
        there = f" --out {shlex.quote(str(out))}" if out else ""
        raise NothingSelected(f"no results in {folder}", f"fill it with '{empty_board_command(info)}{there}'")
    return results, info, folder


@command.command("build")
@_board
@_out
def build(board_name: str, out: Path | None) -> None:
    """Write README.md, leaderboard.csv, protectors.csv and index.html beside the results."""
    from ..leaderboard.build import build as write

    results, info, folder = _results(board_name, out)
    for path in write(results, info, folder):
        print(path)
    say(f"ue-bench: pages of {len(results)} results")


@command.command("check")
@_board
@_out
@json_option
def check(board_name: str, out: Path | None, as_json: bool) -> int:
    """Compare the pages with the results they were built from. Exit code 4 when they differ."""
    from ..leaderboard.build import check as compare

    differences = compare(*_results(board_name, out))
    print(
        json.dumps(differences, allow_nan=False) if as_json else "\n".join(differences),
        end="\n" if as_json or differences else "",
    )
    if not differences:
        say("ue-bench: the pages agree with the results")
    return 4 if differences else 0
