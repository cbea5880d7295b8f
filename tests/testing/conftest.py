from __future__ import annotations

from pathlib import Path

import pytest

from ue_bench.api import Context, ImageSet
from ue_bench.grid.surrogates import Surrogates
from ue_bench.testing import pictures


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    """Losses are compared to the bit."""


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    (tmp_path / "scratch").mkdir()
    return Context("cpu", 0, tmp_path / "scratch", tmp_path / "artifacts", tmp_path / "data", networks=Surrogates())


@pytest.fixture
def data() -> ImageSet:
    return pictures(24, (10, 13))
