from __future__ import annotations

from pathlib import Path

import pytest

from ue_bench.api import Context
from ue_bench.grid.surrogates import Surrogates

from .helpers import DATA


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    return Context(
        device="cpu",
        seed=0,
        scratch=tmp_path,
        artifacts=tmp_path / "artifacts",
        data_dir=tmp_path,
        networks=Surrogates(),
    )


@pytest.fixture(scope="session")
def photos() -> Path:
    folder = DATA / "photos-256"
    if not folder.is_dir():
        pytest.skip(f"no photographs at {folder}")
    return folder
