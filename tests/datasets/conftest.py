from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet
from real import DATA
from sets import Images, OneLine

from ue_bench.errors import UserError


@pytest.fixture(scope="session")
def real_data() -> Path:
    if not DATA.is_dir():
        pytest.skip(f"real data is not there: {DATA}")
    return DATA


def pixels(value: int, shape: tuple[int, ...] = (8, 8, 3)) -> Images:
    """A flat picture, so that every decoder gives back ``value``."""
    return np.full(shape, value, dtype=np.uint8)


@pytest.fixture
def encode() -> Callable[..., bytes]:
    def encode(value: int = 0, shape: tuple[int, ...] = (8, 8, 3), **options: Any) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(pixels(value, shape)).save(buffer, **{"format": "PNG", **options})
        return buffer.getvalue()

    return encode


@pytest.fixture
def write_image() -> Callable[..., Path]:
    def write(path: Path, value: int = 0, shape: tuple[int, ...] = (8, 8, 3), **options: Any) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(value, shape)).save(path, **options)
        return path

    return write


@pytest.fixture
def write_parquet() -> Callable[..., Path]:
    """Writes a file as the hub does: a struct of bytes and path, labels, class names in the metadata."""

    def write(
        path: Path,
        images: Sequence[bytes | None],
        labels: Sequence[Any],
        names: Sequence[str] | None = None,
        image: str = "image",
        label: str = "label",
        extra: dict[str, Any] | None = None,
        row_group_size: int = 3,
    ) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        columns = {
            image: pa.array([{"bytes": data, "path": None} for data in images], type=kind),
            label: pa.array(labels),
            **{name: pa.array(values) for name, values in (extra or {}).items()},
        }
        table = pa.table(columns)
        if names is not None:
            features = {image: {"_type": "Image"}, label: {"names": list(names), "_type": "ClassLabel"}}
            table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        parquet.write_table(table, path, row_group_size=row_group_size)
        return path

    return write


@pytest.fixture
def one_line() -> OneLine:
    """The message a user reads, after a check that it is one line with a hint."""

    def check(caught: pytest.ExceptionInfo[UserError]) -> str:
        assert "\n" not in str(caught.value)
        assert caught.value.hint, f"no hint: {caught.value}"
        return str(caught.value)

    return check
