"""The results in this repository, whose keys are a promise, and their pages."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import cast

from ue_bench.catalogue import protocols
from ue_bench.catalogue.boards import board as open_board
from ue_bench.catalogue.registry import registry
from ue_bench.contract.plugin import Countermeasure, Dataset, Protector, Victim
from ue_bench.grid.cell import Cell, Data
from ue_bench.leaderboard import site
from ue_bench.leaderboard.board import BoardInfo, board_info
from ue_bench.leaderboard.versions import obstacle
from ue_bench.store.schema import LARGEST, Result, record_text

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "leaderboards").glob("*/results/*/*.json"))


def test_every_result_holds_the_cell_of_its_key_and_is_small() -> None:
    assert FILES
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        result = Result.model_validate_json(text)  # recomputes the key
        assert result.version == 2, path
        assert record_text(result) == text, path
        assert len(text.encode()) <= LARGEST, path
        digits = path.stem.rpartition("-")[2]
        assert len(digits) >= 8, path
        assert result.key.startswith(digits), path


def planned(result: Result) -> Cell:
    """Return the cell that this version of ue-bench plans for what a result says of itself."""
    assert result.cell is not None
    data = Data(Dataset(), "", result.dataset, result.cell["train"], result.cell["test"])
    names = registry()
    return Cell(
        data,
        cast(Protector, names.one("protector", result.protector)),
        cast(Countermeasure, names.one("countermeasure", result.countermeasure)),
        cast(Victim, names.one("victim", result.victim)),
        protocols.protocol(result.protocol),
        result.seed,
        result.fraction,
        result.precision,
    )


def test_every_result_of_present_revisions_is_found_again() -> None:
    """Planned anew from its selectors, protocol and seed, a cell has the key of its result."""
    boards: dict[str, BoardInfo] = {}
    found: Counter[bool] = Counter()
    for path in FILES:
        result = Result.model_validate_json(path.read_text(encoding="utf-8"))
        name = path.parents[2].name
        if name not in boards:
            boards[name] = board_info(open_board(name))
        current = not obstacle(boards[name], result)
        found[current] += 1
        assert (planned(result).key == result.key) == current, path
    assert found[True] > found[False]


def test_pages_are_those_of_the_results() -> None:
    """Else: ``ue-bench leaderboard build --all --out leaderboards``."""
    assert site.check(ROOT / "leaderboards") == []
