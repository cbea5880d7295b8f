"""Folders of boards with results made up for the tests."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ue_bench.catalogue import boards
from ue_bench.leaderboard.board import board_info
from ue_bench.store.evasion import EvasionResult
from ue_bench.store.schema import Result, record_text

from .factory import result

ACCURACIES = {"none": 90.0, "em": 20.0, "deephiding[mode=sample]": 30.0, "lsp": 85.0}


def results_of(board: str) -> list[Result]:
    """A row for each of some protectors under all columns of a board."""
    columns = board_info(boards.board(board)).countermeasures
    return [
        result(protector, column, accuracy - number / 10, finished=f"2026-01-02T03:04:{number:02}Z")
        for protector, accuracy in ACCURACIES.items()
        for number, column in enumerate(columns)
    ]


def write_results(out: Path, results: Iterable[Result]) -> None:
    """Write results into the folder of a board."""
    for r in results:
        path = out / "results" / "x" / f"c-{r.key[:16]}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(record_text(r), encoding="utf-8")


def write_evasion(out: Path, results: Iterable[EvasionResult]) -> None:
    """Write results of evasion into the folder of a board."""
    for r in results:
        path = out / "evasion" / "x" / f"c-{r.key[:16]}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(record_text(r), encoding="utf-8")


def two_boards(root: Path) -> Path:
    """Make a folder of two boards with results, and of a third that nobody knows; return it."""
    for name in ("demo", "cifar10-micro"):
        write_results(root / name, results_of(name))
    (root / "strange" / "results").mkdir(parents=True)
    return root
