"""Write the pages of all boards in a folder, an index over them, and a page for every method.

The folder holds one folder a board, named as the board: such as results of ``run``, or the boards of this repository.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..atomic import write_atomically
from ..catalogue import boards
from ..contract.registration import PluginRecord
from ..errors import NothingSelected
from ..store.evasion import EvasionStore
from ..store.results import ResultStore
from . import build, formats, method_pages
from .board import BoardInfo, board_info
from .evidence import evidence
from .findings import Finding, findings, main_panel
from .statistics import Panel, panels
from .submission import badges_in
from .tables import code, escaped, plain
from .templating import render, stylesheet

KINDS = ("results", "evasion")  # folders of results in that of a board
LEAD = (
    "Unlearnable examples are training images that were protected, so that a network trained on them fails on clean "
    "test images. A countermeasure is what an adversary does about it. Each board trains victims on protected images "
    "under every countermeasure. What is said of a board is computed from its results."
)


@dataclass(frozen=True)
class BoardPages:
    """A board with results: the folder it lies in, and its pages by their names in there."""

    folder: str
    info: BoardInfo
    panels: Sequence[Panel]
    texts: Mapping[str, str]
    evaded: int = 0


@dataclass(frozen=True)
class Entry:
    """What the index says of a board."""

    folder: str
    title: str
    description: str
    facts: Sequence[str]
    findings: Sequence[Finding]
    files: Sequence[str]

    @property
    def link(self) -> str:
        return f"{self.folder}/index.html"


def find_boards(root: Path) -> tuple[list[str], list[str]]:
    """Return the folders in ``root`` that are boards with results, and those with results but of no board's name."""
    folders = sorted({path.parent.name for kind in KINDS for path in root.glob(f"*/{kind}") if path.is_dir()})
    known = boards.names()
    return [name for name in folders if name in known], [name for name in folders if name not in known]


def site(root: Path, with_methods: bool) -> dict[str, str]:
    """Return the text of each page by its path in ``root``. The same results give the same text.

    Raises NothingSelected where no folder in ``root`` has the name of a board and results.
    """
    of_boards = list(_boards(root))
    if not of_boards:
        raise NothingSelected(f"no board with results in {root}", "a board's folder has the name of the board")
    texts = {f"{board.folder}/{name}": text for board in of_boards for name, text in board.texts.items()}
    entries = [entry(board) for board in of_boards]
    texts |= {"README.md": _markdown(entries), "index.html": _index(entries, with_methods)}
    if with_methods:
        texts |= method_pages.pages({board.folder: board.panels for board in of_boards})
    return texts


def write(root: Path, with_methods: bool) -> list[Path]:
    """Write all pages into ``root`` and return their paths. Those of methods and rows that are gone are removed."""
    texts = site(root, with_methods)
    for name, text in texts.items():
        write_atomically(root / name, text)
    for page in _superfluous(root, texts, with_methods):
        page.unlink()
    return [root / name for name in texts]


def check(root: Path) -> list[str]:
    """Return what in ``root`` is not what ``write`` would write: one line a file, empty when all is well.

    Pages of methods are looked at where there are any.
    """
    with_methods = (root / method_pages.FOLDER).is_dir()
    texts = site(root, with_methods)
    superfluous = (page.relative_to(root).as_posix() for page in _superfluous(root, texts, with_methods))
    return [*build.compare(root, texts), *(f"{name} is the page of nothing that is here" for name in superfluous)]


def _superfluous(root: Path, texts: Mapping[str, str], with_methods: bool) -> list[Path]:
    """Return pages of rows and of methods that are no longer there."""
    folders = {Path(name).parent for name in texts}
    pages = [page for folder in sorted(folders) for page in sorted((root / folder).glob(build.ROWS))]
    pages += sorted((root / method_pages.FOLDER).glob("*/*.html")) if with_methods else []
    return [page for page in pages if page.relative_to(root).as_posix() not in texts]


def _boards(root: Path) -> Iterator[BoardPages]:
    for name in find_boards(root)[0]:
        results, evaded = ResultStore(root / name).results(), EvasionStore(root / name).results()
        if results or evaded:
            info = board_info(boards.board(name))
            shown = panels(results, info, badges_in(root / name))
            texts = build.render_panels(info, shown, evidence(root / name, results), evaded, build.HOME)
            yield BoardPages(name, info, shown, texts, len(evaded))


def entry(board: BoardPages) -> Entry:
    """Return what the index says of a board: the setting and findings of its panel with most results."""
    main = main_panel(board.panels)
    return Entry(
        folder=board.folder,
        title=board.info.title,
        description=board.info.description,
        facts=list(_facts(board, main)),
        findings=findings(main) if main else [],
        files=[name for name in board.texts if name == "evasion.html" or not name.endswith(".html")],
    )


def _facts(board: BoardPages, main: Panel | None) -> Iterator[str]:
    if main is not None:
        yield from _training_facts(board, main)
    if board.evaded:
        yield f"{board.evaded:,} results of evasion: classifiers trained on clean images see protected test images."


def _training_facts(board: BoardPages, main: Panel) -> Iterator[str]:
    results = sum(len(panel.results) for panel in board.panels)
    tables = f" in {len(board.panels)} tables" if len(board.panels) > 1 else ""
    yield f"{results:,} results{tables}. {formats.seeds(main)}."
    rows = sum(not row.reference for row in main.rows)
    said = "Said below of" if len(board.panels) > 1 else "Data:"
    yield f"{said} {formats.data(main)}; {formats.setting(main)}."
    yield f"{rows} protectors beside the reference rows, {len(main.columns) + len(main.extra)} countermeasures."


def _index(entries: Sequence[Entry], with_methods: bool) -> str:
    listed = {f"{kind}s": _linked(kind) if with_methods else [] for kind in method_pages.KINDS}
    return render("index.html", lead=LEAD, entries=entries, f=formats, css=stylesheet("site.css"), **listed)


def _linked(kind: str) -> list[tuple[PluginRecord, str]]:
    """Return the methods of a kind with the addresses of their pages."""
    return [(method.record, method_pages.address(method.record)) for method in method_pages.known(kind)]


def _markdown(entries: Sequence[Entry]) -> str:
    parts = ["# Leaderboards of unlearnable examples", plain(LEAD)]
    for one in entries:
        links = [f"[{plain(one.title)}]({one.folder}/README.md)", f"[sortable page]({one.link})"]
        parts += [f"## {links[0]}", plain(one.description), "\n".join(f"- {plain(fact)}" for fact in one.facts)]
        found = ("".join(code(text) if is_name else escaped(text) for text, is_name in f.pieces) for f in one.findings)
        parts += ["\n".join(f"{number}. {text}" for number, text in enumerate(found, start=1))]
        files = [f"[{name}]({one.folder}/{name})" for name in one.files if name != "README.md"]
        parts += [" · ".join([links[1], *files])]
    return "\n\n".join(part for part in parts if part) + "\n"
