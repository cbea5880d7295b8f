"""The results in this repository: their keys are a promise."""

from __future__ import annotations

from pathlib import Path

from ue_bench.store.schema import LARGEST, Result, record_text

FILES = sorted((Path(__file__).resolve().parents[2] / "leaderboards").glob("*/results/*/*.json"))


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
