from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for surrogates that the tests of a module share, where its fixture ``ctx`` says so."""
    return tmp_path_factory.mktemp("artifacts")
