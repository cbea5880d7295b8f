from __future__ import annotations

from pathlib import Path

import pytest

from ue_bench.api import Context
from ue_bench.grid.surrogates import Surrogates


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
