"""Write the files of a leaderboard with ``build``, and compare them with the results with ``check``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

from ue_bench.store.evasion import EvasionResult, EvasionStore
from ue_bench.store.schema import Result

from ..atomic import write_atomically
from . import parts, summary, tables
from .board import BoardInfo
from .evasion_page import render_evasion
from .evidence import Evidence, evidence
from .statistics import Panel, panels
from .submission import badges_in

HOME = "../index.html"  # over all boards, seen from the folder of one
ROWS = "rows-*.html"  # pages of some rows of a large board


def render(
    results: Iterable[Result],
    board: BoardInfo,
    badges: Mapping[str, str] | None = None,
    beside: Evidence | None = None,
    evaded: Iterable[EvasionResult] = (),
    home: str = "",
) -> dict[str, str]:
    """Return the text of each file by its name. The same results give the same text, in whatever order they come.

    ``beside`` is what lies beside the results: curves, failures and the names of their files. ``home`` is the address
    of the index over all boards, empty where there is none.
    """
    return render_panels(board, panels(results, board, badges), beside, evaded, home)


def render_panels(
    board: BoardInfo,
    shown: Sequence[Panel],
    beside: Evidence | None = None,
    evaded: Iterable[EvasionResult] = (),
    home: str = "",
) -> dict[str, str]:
    """Return the text of each file by its name, of panels that are made already."""
    of_evasion, said = render_evasion(board, evaded, home)
    return {
        "README.md": "\n".join(filter(None, [tables.markdown(board, shown), said])),
        "leaderboard.csv": tables.csv(board, shown),
        "protectors.csv": summary.csv(board, shown),
        **parts.pages(board, shown, beside, evasion=bool(of_evasion), home=home),
        **of_evasion,
    }


def render_folder(results: Iterable[Result], board: BoardInfo, out: Path, home: str = "") -> dict[str, str]:
    """Return the text of each file by its name: of these results, and of what else lies in the board's folder."""
    every = list(results)
    return render(every, board, badges_in(out), evidence(out, every), EvasionStore(out).results(), home)


def home_of(out: Path) -> str:
    """Return the address of the index over all boards, seen from the folder of one; empty where it is not on one."""
    try:
        text = (out.resolve().parent / "index.html").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
    return HOME if f'href="{out.resolve().name}/index.html"' in text else ""


def build(results: Iterable[Result], board: BoardInfo, out: Path) -> list[Path]:
    """Write README.md, leaderboard.csv, protectors.csv, index.html and what there is of evasion, and return paths."""
    texts = render_folder(results, board, out, home_of(out))
    write(out, texts)
    return [out / name for name in texts]


def write(out: Path, texts: Mapping[str, str]) -> None:
    """Write these files into the folder of a board, and remove pages of rows that are no longer there."""
    for name, text in texts.items():
        write_atomically(out / name, text)
    for page in left(out, texts):
        page.unlink()


def left(out: Path, texts: Mapping[str, str]) -> list[Path]:
    """Return pages of rows, of a larger board, that are none of these files."""
    return [page for page in sorted(out.glob(ROWS)) if page.name not in texts]


def check(results: Iterable[Result], board: BoardInfo, out: Path) -> list[str]:
    """Return what in ``out`` is not what ``build`` would write: one line a file, empty when all is well."""
    texts = render_folder(results, board, out, home_of(out))
    return [*compare(out, texts), *(f"{page.name} is a page of no rows" for page in left(out, texts))]


def compare(out: Path, texts: Mapping[str, str]) -> list[str]:
    """Return which files in ``out`` are missing or hold another text, and where: one line a file."""
    differences = (_difference(out / name, name, text) for name, text in texts.items())
    return [difference for difference in differences if difference]


def _difference(path: Path, name: str, expected: str) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return f"{name} is missing"
    if content == expected.encode():
        return ""
    lines = content.decode(errors="replace").split("\n")
    pairs = enumerate(zip_longest(lines, expected.split("\n"), fillvalue="<end of file>"), start=1)
    number, (has, wants) = next((n, pair) for n, pair in pairs if pair[0] != pair[1])
    at = next((i for i, (a, b) in enumerate(zip(has, wants, strict=False)) if a != b), min(len(has), len(wants)))
    return f"{name} differs from the results in line {number}: {_excerpt(has, at)}, expected {_excerpt(wants, at)}"


def _excerpt(line: str, at: int) -> str:
    """Return the surroundings of the first difference."""
    return repr(line[max(at - 20, 0) : at + 30])
