"""``ue-bench leaderboard``: build pages from results, check them, and add results from elsewhere."""

from __future__ import annotations

import json
import shlex
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import NothingSelected, UserError
from .common import cache_option, data_dir_option, json_option, print_json, say

if TYPE_CHECKING:
    from ..leaderboard.board import BoardInfo
    from ..leaderboard.validation import Checked
    from ..store.schema import Result


@click.group("leaderboard")
def command() -> None:
    """Build a board's pages from its results, check them, or add results from elsewhere."""


_board = click.option(
    "--board", "board_name", default="demo", show_default=True, help="The board to show, or a TOML file."
)
_out = click.option("--out", type=click.Path(path_type=Path), help="Results folder; ue-bench-results/BOARD by default.")
_all = click.option("--all", "every", is_flag=True, help="All boards in --out, ue-bench-results by default.")


def _results(board_name: str, out: Path | None) -> tuple[list[Result], BoardInfo, Path]:
    from ..catalogue import boards
    from ..leaderboard.board import board_info
    from ..leaderboard.commands import empty_board_command
    from ..store.evasion import EvasionStore
    from ..store.results import ResultStore

    board = boards.board(board_name)
    folder = out or Path("ue-bench-results") / board.name
    results = ResultStore(folder).results()
    info = board_info(board)
    if not results and not EvasionStore(folder).results():
        there = f" --out {shlex.quote(str(out))}" if out else ""
        raise NothingSelected(f"no results in {folder}", f"fill it with '{empty_board_command(info)}{there}'")
    return results, info, folder


def _root(out: Path | None) -> Path:
    """Return the folder of boards. Raises UserError where a board is named, too; says which folders are no boards."""
    from ..leaderboard.site import find_boards

    source = click.get_current_context().get_parameter_source("board_name")
    if source is click.core.ParameterSource.COMMANDLINE:
        raise UserError("--all and --board exclude each other", "--out names the folder that holds the boards")
    root = out or Path("ue-bench-results")
    for name in find_boards(root)[1]:
        say(f"ue-bench: {root / name} holds results, but no board has that name: left out")
    return root


@command.command("build")
@_board
@_out
@_all
@click.option("--methods", is_flag=True, help="With --all: a page for every protector and countermeasure too.")
@click.option("--pictures", is_flag=True,
              help="Small pictures of protected sets in the cache, for index.html; not with --all.")  # fmt: skip
@data_dir_option
@cache_option
def build(
    board_name: str,
    out: Path | None,
    every: bool,
    methods: bool,
    pictures: bool,
    data_dir: Path | None,
    cache_dir: Path | None,
) -> None:
    """Write README.md, leaderboard.csv, protectors.csv and index.html beside the results.

    With --all, for every board in a folder of boards, with an index over them.
    """
    from ..leaderboard.build import build as write
    from ..leaderboard.site import write as write_all

    _need_all(methods, every)
    if pictures and every:
        raise UserError("--pictures and --all exclude each other", "draw the pictures of one board, then build all")
    if every:
        for path in write_all(_root(out), methods):
            print(path)
        return
    results, info, folder = _results(board_name, out)
    if pictures:
        _draw(board_name, results, folder, data_dir, cache_dir)
    for path in write(results, info, folder):
        print(path)
    say(f"ue-bench: pages of {len(results)} results")


def _draw(board: str, results: list[Result], folder: Path, data_dir: Path | None, cache_dir: Path | None) -> None:
    from ..grid.grid import Request
    from ..leaderboard.pictures import write_pictures

    request = Request(board=board, devices="cpu", data_dir=data_dir, cache_dir=cache_dir)
    paths, left_out = write_pictures(request, results, folder)
    for path in paths:
        print(path)
    for line in left_out:
        say(f"ue-bench: no picture of {line}")


@command.command("check")
@_board
@_out
@_all
@json_option
def check(board_name: str, out: Path | None, every: bool, as_json: bool) -> int:
    """Compare the pages with the results they were built from. Exit code 4 when they differ."""
    from ..leaderboard.build import check as compare
    from ..leaderboard.site import check as compare_all

    differences = compare_all(_root(out)) if every else compare(*_results(board_name, out))
    print(
        json.dumps(differences, allow_nan=False) if as_json else "\n".join(differences),
        end="\n" if as_json or differences else "",
    )
    if not differences:
        say("ue-bench: the pages agree with the results")
    return 4 if differences else 0


@command.command("summary")
@_board
@_out
@click.option("--columns", default="", help="Countermeasures to show beside means, such as 'vanilla,at'.")
@click.option("--into", type=click.Path(path_type=Path, dir_okay=False, exists=True),
              help="A page in which the last summary is replaced.")  # fmt: skip
def summary(board_name: str, out: Path | None, columns: str, into: Path | None) -> None:
    """Print the table and what its seeds agree on, in Markdown for the front page of a project."""
    from ..catalogue.registry import registry
    from ..leaderboard.front_page import front_page
    from ..leaderboard.statistics import panels
    from ..leaderboard.submission import badges_in

    results, info, folder = _results(board_name, out)
    shown = [plugin.selector for plugin in registry().resolve("countermeasure", columns)] if columns else []
    if not results:
        raise NothingSelected(f"no results of training in {folder}", "its other results are in its README.md")
    text = "\n".join(front_page(panel, shown) for panel in panels(results, info, badges_in(folder)))
    if into is None:
        print(text, end="")
        return
    words = ["ue-bench", "leaderboard", "summary", "--board", board_name]
    words += [word for name, value in (("--out", out), ("--columns", columns)) if value for word in (name, str(value))]
    _replace_in(into, text, shlex.join(words))
    print(into)


def _replace_in(path: Path, text: str, command: str) -> None:
    """Put a summary into a page, whose permissions and ends of lines stay."""
    from ..atomic import write_atomically
    from ..leaderboard.front_page import replaced

    content = path.read_bytes()
    try:
        page = content.decode("utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{path} is not text in UTF-8", "name a page in Markdown") from None
    mode = stat.S_IMODE(path.stat().st_mode)
    page = replaced(page.replace("\r\n", "\n"), text, command)
    write_atomically(path, page.replace("\n", "\r\n") if b"\r\n" in content else page)
    path.chmod(mode)


@command.command("serve")
@_board
@_out
@_all
@click.option("--methods", is_flag=True, help="With --all: a page for every protector and countermeasure too.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one.")
@click.option(
    "--refresh", type=click.IntRange(0), default=15, show_default=True,
    help="Seconds after which browsers load a page again; 0: never.",
)  # fmt: skip
def serve(board_name: str, out: Path | None, every: bool, methods: bool, port: int, refresh: int) -> int:
    """Serve the pages on 127.0.0.1, made anew when results have come, until Ctrl-C.

    While a run goes on its results appear. Nothing is written, and nobody but this machine is answered.

    \b
    ue-bench leaderboard serve --board cifar10-micro
    """
    from ..catalogue import boards
    from ..leaderboard import build, site
    from ..leaderboard.board import board_info
    from ..leaderboard.serving import Pages, Server
    from ..store.results import ResultStore

    _need_all(methods, every)
    if every:
        root = _root(out)
        pages = Pages(
            root, lambda: site.site(root, methods), lambda: [root / name for name in site.find_boards(root)[0]]
        )
    else:
        board = boards.board(board_name)
        folder, info = out or Path("ue-bench-results") / board.name, board_info(board)
        store = ResultStore(folder)
        pages = Pages(folder, lambda: build.render_folder(store.results(), info, folder), lambda: [folder])
    with Server(pages, port, refresh) as server:
        print(server.address, flush=True)
        say(f"ue-bench: pages of {pages.root}; Ctrl-C ends this")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            say("ue-bench: stopped")
    return 0


def _need_all(methods: bool, every: bool) -> None:

    if methods and not every:
        raise UserError("--methods needs --all", "pages of methods are linked from the index over all boards")


_files = click.argument("files", nargs=-1, type=click.Path(path_type=Path), metavar="FILE...")


def _checked(files: tuple[Path, ...], board_name: str, out: Path | None) -> tuple[Checked, BoardInfo, Path]:
    from datetime import UTC, datetime

    from ..catalogue import boards
    from ..leaderboard.board import board_info
    from ..leaderboard.validation import validate as check_files
    from ..store.results import ResultStore

    board = boards.board(board_name)
    folder = out or Path("ue-bench-results") / board.name
    info = board_info(board)
    missing = [path for path in files if not path.exists() and not path.is_symlink()]
    if missing or not files:
        what = f"{missing[0]} is not there" if missing else "there is nothing to look at"
        raise UserError(what, "name files of results, or folders of them")
    return check_files(files, info, ResultStore(folder).results(), datetime.now(UTC)), info, folder


@command.command("validate")
@_files
@_board
@_out
@json_option
def validate(files: tuple[Path, ...], board_name: str, out: Path | None, as_json: bool) -> int:
    """Check result files before they go on a board. Exit code 4 when one is refused.

    FILE is a result, or a folder of them. --out is the board that they are to go on: they are held to its data, to its
    reference rows, and to its results of the same cells.
    """
    checked, _, _ = _checked(files, board_name, out)
    if as_json:
        plain = {"new": [*map(str, checked.new)], "known": [*map(str, checked.known)], "refused": [*checked.refused]}
        print_json(plain)
    else:
        for line in checked.refused:
            print(line)
    say(f"ue-bench: {len(checked.new)} new results, {len(checked.known)} known ones, {len(checked.refused)} refused")
    return 4 if checked.refused else 0


@command.command("submit")
@_files
@_board
@_out
@click.option("--author", help="Whose results these are, for those that do not say.")
@click.option("--link", help="Where more is said of them: an https address.")
@click.option("--undo", is_flag=True, help="Take the last submission back in place of making one.")
def submit(
    files: tuple[Path, ...],
    board_name: str,
    out: Path | None,
    author: str | None,
    link: str | None,
    undo: bool,
) -> int:
    """Add validated results to a board as self-reported, and build its pages again.

    All of them or, where one is refused, none (exit code 4). Results of cells that the board has are not copied: they
    reproduce those. --undo takes the last submission back.
    """
    from datetime import UTC, datetime

    from ..catalogue import boards
    from ..leaderboard.board import board_info
    from ..leaderboard.build import build as write
    from ..leaderboard.submission import submit as add
    from ..leaderboard.submission import undo as take_back
    from ..store.results import ResultStore

    if undo:
        if files or author or link:
            raise UserError("--undo takes no files, author or link", "it takes the last submission back, whole")
        board = boards.board(board_name)
        folder, info = out or Path("ue-bench-results") / board.name, board_info(board)
        last = take_back(folder)
        said = f"{len(last.added)} results and {len(last.reproduced)} reproductions taken back"
    else:
        checked, info, folder = _checked(files, board_name, out)
        for line in checked.refused:
            print(line)
        if checked.refused:
            say(f"ue-bench: {len(checked.refused)} files are refused, so none is submitted")
            return 4
        added = add(checked, folder, datetime.now(UTC), author, link)
        said = f"{len(added.added)} results added, {len(added.reproduced)} reproduced"
    write(ResultStore(folder).results(), info, folder)
    say(f"ue-bench: {said}; the pages are built again")
    return 0
