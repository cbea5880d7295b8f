from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray

from ue_bench_raeg import generator

from .helpers import DATA


@pytest.fixture
def one_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks with one coupling a module instead of four, which are as many times faster."""
    monkeypatch.setattr(generator, "BLOCKS", 1)


@pytest.fixture(scope="session")
def photos() -> NDArray[np.uint8]:
    """40 photographs of 64 x 64 pixels."""
    import pyarrow.parquet as pq
    from PIL import Image

    files = sorted((DATA / "photos-256").glob("*.parquet"))
    if not files:
        pytest.skip(f"no photographs at {DATA / 'photos-256'}")
    rows = pq.read_table(files[0]).slice(0, 40).column("image").to_pylist()
    small = [Image.open(io.BytesIO(row["bytes"])).convert("RGB").resize((64, 64), Image.Resampling.BOX) for row in rows]
    return np.stack([np.asarray(image) for image in small])
