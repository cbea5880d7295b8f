from __future__ import annotations

from pathlib import Path

import pytest

from .helpers import DATA


@pytest.fixture(scope="session")
def photos() -> Path:
    folder = DATA / "photos-256"
    if not folder.is_dir():
        pytest.skip(f"no photographs at {folder}")
    return folder
