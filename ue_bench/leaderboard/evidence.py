"""Read what lies beside a board's results: curves, failures, pictures, and which file holds which result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..keys import digest
from ..store.listing import json_files
from ..store.results import ResultStore, slug
from ..store.schema import Curve, Failure, Result, cell_id
from .cell_summary import CellSummary
from .statistics import Panel

MOST_CURVES = 2000  # results with whose curves a page stays small enough to open; of more it names the files
PICTURES = "pictures"  # folder beside results


@dataclass(frozen=True)
class Evidence:
    """Curves by key, failures by the id of their cell, and paths of results by key, relative to the board's folder.

    ``pictures`` are the names of files in the folder of that name, see ``picture_name``.
    """

    curves: Mapping[str, Curve] = field(default_factory=dict)
    failures: Mapping[str, Failure] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    pictures: frozenset[str] = frozenset()

    def failed(self, panel: Panel, protector: str, countermeasure: str) -> list[Failure]:
        """Return the failures of a cell's seeds that have no result."""
        rows = [row for row in panel.rows if row.protector == protector]
        cell: CellSummary | None = rows[0].cells.get(countermeasure) if rows else None
        names = protector, countermeasure, panel.victim, panel.protocol
        seeds = [seed for seed in panel.board.seeds if cell is None or seed not in cell.seeds]
        ids = [cell_id(panel.dataset.selector, *names, seed, panel.fraction) for seed in seeds]
        return [self.failures[name] for name in ids if name in self.failures]


def evidence(out: Path, results: list[Result]) -> Evidence:
    """Return what lies in the folder of a board; a curve that is missing or cannot be read is left out."""
    files = {path.rpartition("-")[2].removesuffix(".json"): f"results/{path}" for path in json_files(out / "results")}
    lengths = {len(digits) for digits in files}
    paths = {r.key: files[r.key[:n]] for r in results for n in lengths if r.key[:n] in files}
    store = ResultStore(out)
    read = results if len(results) <= MOST_CURVES else []
    curves = {r.key: curve for r in read if (curve := store.curve(r.key)) is not None}
    failures = {failure.id: failure for failure in store.failures()}
    return Evidence(curves, failures, paths, _pictures(out / PICTURES, results))


def picture_name(r: Result) -> str:
    """Return the name of the file with a picture of the protected images that a result is of."""
    return f"{slug(r.protector)}-{digest([r.dataset.fingerprint, r.protector])[:8]}.png"


def _pictures(folder: Path, results: Iterable[Result]) -> frozenset[str]:
    if not folder.is_dir():
        return frozenset()
    first = {(r.dataset.fingerprint, r.protector): r for r in results}
    return frozenset(name for name in map(picture_name, first.values()) if (folder / name).is_file())
