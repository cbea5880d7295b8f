"""The command line on a board of few results."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ue_bench.catalogue import boards
from ue_bench.cli.main import main
from ue_bench.leaderboard.board import board_info
from ue_bench.leaderboard.build import build
from ue_bench.store.results import ResultStore

from .forging import BOARD, Run


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ue-bench", "leaderboard", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        shown = capsys.readouterr()
        return int(end.value.code or 0), shown.out, shown.err

    return call


@pytest.fixture
def board(tmp_path: Path) -> Path:
    """A board with three clean cells of the committed one, and none of ``em``."""
    out = tmp_path / "board"
    for name in ("vanilla", "gray", "at"):
        [path] = (BOARD / "results" / "none").glob(f"{name}-resnet9*-s0-*.json")
        target = out / "results" / "none" / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    build(ResultStore(out).results(), board_info(boards.board("cifar10-micro")), out)
    return out
