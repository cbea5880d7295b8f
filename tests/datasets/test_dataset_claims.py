"""Files that claim to hold more than they do, or nothing: one line, and no more memory than there is to read."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat
from scipy.sparse import csc_matrix

from ue_bench.api import Context, UserError, ValidationError, open_stored
from ue_bench_datasets.arrays import Idx, Svhn
from ue_bench_datasets.imagefolder import ImageFolder
from ue_bench_datasets.npz import Npz
from ue_bench_datasets.parquet import Parquet

IMAGES = np.zeros((4, 6, 5, 3), dtype=np.uint8)
LABELS = np.arange(4) % 2
MUCH = 100_000_000  # bytes; a piece of what is read at a time is 32 MiB


@contextmanager
def refused(message: str, kind: type[UserError] = ValidationError) -> Iterator[None]:
    """Expect one line that matches ``message``, and little memory."""
    tracemalloc.start()
    try:
        with pytest.raises(kind, match=message) as caught:
            yield
        assert tracemalloc.get_traced_memory()[1] < MUCH
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)


def npy(shape: str, kind: str = "|u1", content: bytes = bytes(360)) -> bytes:
    """Return an array file whose header says ``shape``, whatever its ``content``."""
    head = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + content


def stored(array: np.ndarray[Any, Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def write_npz(path: Path, **changes: bytes) -> Npz:
    images, labels = stored(IMAGES), stored(LABELS)
    members = {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels, **changes}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return Npz(path=path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_train": npy("(1000000000000,)", "<i8")}, r"array y_train is damaged: 360 bytes are no int64"),
        ({"x_train": npy("(4, 1000000000000000000, 5, 3)")}, r"array x_train is damaged: 360 bytes are no uint8"),
        ({"y_train": npy("(99999999999999999999999,)", "<i8")}, r"array y_train is damaged"),
        ({"class_names": npy("(1000000000000,)", "<U0", b"")}, r"class_names .* 1000000000000 names for 8 images"),
        ({"x_train": b"\x93NUMPY\x01\x00\x50\x00" + 79 * b"(" + b"\n"}, r"array x_train is damaged"),
        ({"y_train": stored(np.array([0, 1, 0, 2**62]))}, rf"has the label {2**62}, but only 8 images"),
    ],
)
def test_an_archive(changes: dict[str, bytes], message: str, tmp_path: Path, ctx: Context) -> None:
    dataset = write_npz(tmp_path / "set.npz", **changes)
    with refused(message):
        dataset.load("train", ctx)


@pytest.mark.parametrize("shape", [(4, 2**32 - 1, 2**32 - 1), (4, 2**32 - 1, 2**31), (4, 65536, 65536)], ids=str)
def test_idx_images(shape: tuple[int, int, int], tmp_path: Path, ctx: Context) -> None:
    for name in ("train", "t10k"):
        (tmp_path / f"{name}-images-idx3-ubyte").write_bytes(struct.pack(">4B3I", 0, 0, 8, 3, *shape) + bytes(120))
        (tmp_path / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">4BI", 0, 0, 8, 1, 4) + bytes([0, 1, 0, 1]))
    with refused("train-images-idx3-ubyte ends .* bytes too early"):
        Idx(path=tmp_path).load("train", ctx)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": np.array([1.0, np.nan, 3.0, 4.0])}, r"labels outside 1\.\.10"),
        ({"y": np.array([1.0, 2.5, 3.0, 4.0])}, r"labels outside 1\.\.10"),
        ({"y": csc_matrix(np.eye(4))}, r"has no array y"),
        ({"X": np.zeros((0, 5, 3, 10), dtype=np.uint8)}, r"not uint8 H x W x 3 x 10"),
        ({"X": np.zeros((6, 0, 3, 10), dtype=np.uint8)}, r"not uint8 H x W x 3 x 10"),
    ],
)
def test_svhn(changes: dict[str, Any], message: str, tmp_path: Path, ctx: Context) -> None:
    for split in ("train", "test"):
        whole = {"X": np.zeros((6, 5, 3, 10), dtype=np.uint8), "y": np.arange(1, 11)}
        savemat(tmp_path / f"{split}_32x32.mat", whole | changes)
    with refused(message):
        Svhn(path=tmp_path).load("train", ctx)


@pytest.mark.parametrize("label", [2**40, 2**63 + 1])
def test_a_parquet_label(
    label: int, tmp_path: Path, write_parquet: Callable[..., Path], encode: Callable[..., bytes], ctx: Context
) -> None:
    for split in ("train", "test"):
        labels = np.array([0, 1, 0, label], dtype=np.uint64)
        write_parquet(tmp_path / f"{split}.parquet", [encode(i) for i in range(4)], labels)
    with refused("has the label"):
        Parquet(path=tmp_path).load("train", ctx)


def test_metadata_of_the_hub_that_are_nested_without_end(
    tmp_path: Path, encode: Callable[..., bytes], ctx: Context
) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    for split in ("train", "test"):
        table = pa.table({"image": [encode(0), encode(1)], "label": [0, 1]})
        table = table.replace_schema_metadata({"huggingface": 100_000 * "["})
        parquet.write_table(table, tmp_path / f"{split}.parquet")
    assert Parquet(path=tmp_path).load("train", ctx).class_names == ("class_0", "class_1")


def png(width: int, height: int) -> bytes:
    """Return a PNG file of that size whose pixels are missing."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(20_000, 20_000), (2**31 - 1, 2**31 - 1)], ids=str)
def test_an_image(size: tuple[int, int], tmp_path: Path, ctx: Context) -> None:
    for split in ("train", "test"):
        (tmp_path / split / "cat").mkdir(parents=True)
        (tmp_path / split / "cat" / "0.png").write_bytes(png(*size))
    with refused("cannot decode .*decompression bomb"):
        ImageFolder(path=tmp_path).load("train", ctx)
    with refused("cannot read cat/0.png: .*decompression bomb"):
        open_stored(tmp_path / "train" / "cat").read(slice(0, 1))
