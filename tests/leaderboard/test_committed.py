"""The results in this repository, whose keys are a promise, and their pages."""

from __future__ import annotations

from pathlib import Path

from ue_bench.leaderboard import site
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


def test_pages_are_those_of_the_results() -> None:
    """Else: ``ue-bench leaderboard build --all --out leaderboards``."""
    assert site.check(ROOT / "leaderboards") == []
