from __future__ import annotations

from pathlib import Path

import pytest

from ue_bench.store.results import ResultStore


@pytest.fixture
def store(tmp_path: Path) -> ResultStore:
    found = ResultStore(tmp_path / "Ergebnisse für später")
    found.create()
    return found
