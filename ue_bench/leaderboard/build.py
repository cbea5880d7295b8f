"""Write the files of a leaderboard with ``build``, and compare them with the results with ``check``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import zip_longest
from pathlib import Path

from ue_bench.store.schema import Result

from ..atomic import write_atomically
from . import summary, tables
from .board import BoardInfo
from .evidence import Evidence, evidence
from .page import html
from .statistics import panels
from .submission import badges, submissions


def render(
    results: Iterable[Result],
    board: BoardInfo,
    badges: Mapping[str, str] | None = None,
    beside: Evidence | None = None,
) -> dict[str, str]:
    """Return the text of each file by its name. The same results give the same text, in whatever order they come.

    ``beside`` is what lies beside the results: curves, failures and the names of their files.
    """
    shown = panels(results, board, badges)
    return {
        "README.md": tables.markdown(board, shown),
        "leaderboard.csv": tables.csv(board, shown),
        "protectors.csv": summary.csv(board, shown),
        "index.html": html(board, shown, beside),
    }


def _texts(results: Iterable[Result], board: BoardInfo, out: Path) -> dict[str, str]:
    every = list(results)
    return render(every, board, badges(submissions(out)), evidence(out, every))


def build(results: Iterable[Result], board: BoardInfo, out: Path) -> list[Path]:
    """Write README.md, leaderboard.csv, protectors.csv and index.html into ``out``, and return their paths."""
    texts = _texts(results, board, out)
    for name, text in texts.items():
        write_atomically(out / name, text)
    return [out / name for name in texts]


def check(results: Iterable[Result], board: BoardInfo, out: Path) -> list[str]:
    """Return what in ``out`` is not what ``build`` would write: one line a file, empty when all is well."""
    texts = _texts(results, board, out)
    differences = (_difference(out / name, text) for name, text in texts.items())
    return [difference for difference in differences if difference]


def _difference(path: Path, expected: str) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return f"{path.name} is missing"
    if content == expected.encode():
        return ""
    lines = content.decode(errors="replace").split("\n")
    pairs = enumerate(zip_longest(lines, expected.split("\n"), fillvalue="<end of file>"), start=1)
    number, (has, wants) = next((n, pair) for n, pair in pairs if pair[0] != pair[1])
    at = next((i for i, (a, b) in enumerate(zip(has, wants, strict=False)) if a != b), min(len(has), len(wants)))
    return f"{path.name} differs from the results in line {number}: {_excerpt(has, at)}, expected {_excerpt(wants, at)}"


def _excerpt(line: str, at: int) -> str:
    """Return the surroundings of the first difference."""
    return repr(line[max(at - 20, 0) : at + 30])
