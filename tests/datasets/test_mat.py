"""The reader of MATLAB files, against SciPy's writer and reader, and against files that are not what they say."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.io import loadmat, savemat

from ue_bench_datasets.arrays import DAMAGED
from ue_bench_datasets.mat import read_array

ARRAYS: list[NDArray[Any]] = [
    np.arange(2 * 3 * 4 * 5, dtype=np.uint8).reshape(2, 3, 4, 5),
    np.array([[1], [10]], dtype=np.uint8),  # so short that they stand in the tag
    np.array([[1.0, -2.5]]),
    np.array([[1.5]], dtype=np.float32),
    np.arange(-6, 6, dtype=np.int16)[None],
    np.array([[2**40]], dtype=np.int64),
    np.zeros((0, 3), dtype=np.uint8),
]


@pytest.mark.parametrize("packed", [False, True])
def test_arrays_are_those_of_scipy(tmp_path: Path, packed: bool) -> None:
    file = tmp_path / "a.mat"
    names = {f"v{i}": array for i, array in enumerate(ARRAYS)}
    others = {"text": "abc", "cell": np.array([1, "a"], dtype=object), "complex": np.array([[1j]]), "struct": {"a": 1}}
    savemat(file, others | names, do_compression=packed)
    known = loadmat(file)
    for name, array in names.items():
        found = read_array(file, name)
        assert found is not None
        assert (found.dtype, found.shape) == (known[name].dtype, known[name].shape)
        assert (found == array).all()
    assert [read_array(file, name) for name in ("text", "cell", "complex", "struct", "nothing")] == [None] * 5


def element(kind: int, content: bytes, order: str = "<") -> bytes:
    return struct.pack(f"{order}II", kind, len(content)) + content + bytes(-len(content) % 8)


def array(name: bytes, shape: tuple[int, ...], content: bytes, order: str = "<", kind: int = 2) -> bytes:
    parts = [
        element(6, struct.pack(f"{order}II", 9, 0), order),
        element(5, struct.pack(f"{order}{len(shape)}i", *shape), order),
        element(1, name, order),
        element(kind, content, order),
    ]
    return element(14, b"".join(parts), order)


def file_of(path: Path, *elements: bytes, order: str = "<") -> Path:
    mark = b"IM" if order == "<" else b"MI"
    path.write_bytes(b"MATLAB 5.0".ljust(124) + struct.pack(f"{order}H", 0x100) + mark + b"".join(elements))
    return path


@pytest.mark.parametrize("order", ["<", ">"])
def test_both_byte_orders_and_columns_first(tmp_path: Path, order: str) -> None:
    file = file_of(tmp_path / "a.mat", array(b"X", (2, 3), bytes(range(6)), order), order=order)
    found = read_array(file, "X")
    assert found is not None
    assert found.tolist() == [[0, 2, 4], [1, 3, 5]]


PACKED = zlib.compress(array(b"X", (2, 3), bytes(6)))


@pytest.mark.parametrize(
    ("elements", "says"),
    [
        ([array(b"X", (2, 4), bytes(6))], "X has 6 numbers, not those of 2 x 4"),
        ([array(b"X", (-2, -3), bytes(6))], "X has 6 numbers"),
        ([array(b"X", (2**31 - 1, 2**31 - 1), bytes(6))], "X has 6 numbers"),
        ([array(b"X", (2, 3), bytes(6), kind=99)], "X has no numbers"),
        ([array(b"X", (2, 3), bytes(6))[:-20]], "longer than what holds it"),
        ([struct.pack("<II", 14, 2**32 - 1)], "longer than what holds it"),
        ([b"\0\0\0"], "requires a buffer"),
        ([struct.pack("<II", 15, len(PACKED)) + PACKED[:-4] + b"junk"], "incorrect data check"),
        ([struct.pack("<II", 15, 4) + b"junk"], "incorrect header check"),
        ([struct.pack("<II", 15, len(PACKED) - 9) + PACKED[:-9]], "X ends too early"),
    ],
)
def test_damage_is_said(tmp_path: Path, elements: list[bytes], says: str) -> None:
    with pytest.raises((*DAMAGED, ValueError), match=says):
        read_array(file_of(tmp_path / "a.mat", *elements), "X")


def test_a_file_that_unpacks_to_more_than_it_says_is_not_unpacked(tmp_path: Path) -> None:
    claimed = array(b"X", (2, 3), bytes(6))
    bomb = zlib.compress(claimed + bytes(10**7), 9)
    found = read_array(file_of(tmp_path / "a.mat", struct.pack("<II", 15, len(bomb)) + bomb), "X")
    assert found is not None  # what follows the array is not looked at
    assert found.shape == (2, 3)
    large = zlib.compress(struct.pack("<II", 14, 2**32 - 1) + claimed[8:] + bytes(10**6), 9)
    with pytest.raises(ValueError, match="X is 4,294,967,295 bytes long"):
        read_array(file_of(tmp_path / "b.mat", struct.pack("<II", 15, len(large)) + large), "X")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no MATLAB file of version 5"),
        (b"x" * 200, "no MATLAB file of version 5"),
        (b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\0\2IM", "save it with the option -v7"),
    ],
)
def test_other_files_are_named(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "a.mat").write_bytes(content)
    with pytest.raises(ValueError, match=says):
        read_array(tmp_path / "a.mat", "X")
