"""The reader of CIFAR's pickles: what their authors and NumPy write, and nothing that a pickle could do besides."""

from __future__ import annotations

import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ue_bench_datasets.pickled import read_pickle, unpickled

DATA = np.arange(24, dtype=np.uint8).reshape(4, 6)
# As Python 2 and an old NumPy wrote the files: the content is a string of one byte a character.
PYTHON_2 = (
    b"\x80\x02}q\x01(U\x06labelsq\x02]q\x03(K\x06K\x09eU\x04dataq\x04cnumpy.core.multiarray\n_reconstruct\nq\x05cnumpy\n"
    b"ndarray\nq\x06K\x00\x85U\x01b\x87Rq\x07(K\x01K\x02K\x03\x86cnumpy\ndtype\nq\x08U\x02u1K\x00K\x01\x87Rq\x09(K\x03U\x01|"
    b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x06\x00\x01\x80\xff\x41\x0atbu."
)


def written(path: Path, content: object) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol=2))
    return path


def test_the_authors_files(tmp_path: Path) -> None:
    stored = read_pickle(written(tmp_path / "a", PYTHON_2))
    assert stored["labels"] == [6, 9]
    assert stored["data"].dtype == np.uint8
    assert stored["data"].tolist() == [[0, 1, 128], [255, 65, 10]]


@pytest.mark.parametrize("array", [DATA, np.asfortranarray(DATA), DATA.astype(">i4"), np.arange(-3, 3)])
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_what_numpy_writes_comes_back(tmp_path: Path, array: NDArray[Any], protocol: int) -> None:
    (tmp_path / "a").write_bytes(pickle.dumps({"data": array}, protocol=protocol))
    if protocol == 5:
        with pytest.raises(pickle.UnpicklingError, match=r"it asks for numpy\._core\.numeric\._frombuffer"):
            read_pickle(tmp_path / "a")
        return
    found = read_pickle(tmp_path / "a")["data"]
    assert found.dtype == array.dtype
    assert found.tolist() == array.tolist()


class Call:
    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        return self.call


def test_nothing_is_called(tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    for call in (Call(os.mkdir, str(proof)), Call(eval, f"open({str(proof)!r}, 'w')"), Call(np.load, str(proof))):
        with pytest.raises(pickle.UnpicklingError, match="does not belong into a file of arrays"):
            read_pickle(written(tmp_path / "a", {"data": call}))
    assert not proof.exists()


def test_bytes_are_never_taken_for_addresses(tmp_path: Path) -> None:
    objects = PYTHON_2.replace(b"U\x02u1", b"U\x02O8").replace(b"U\x06\x00\x01\x80\xff\x41\x0a", b"U\x06AAAAAA")
    for content in (objects, {"data": np.array([None])}, {"data": np.array([[1, 2], "x"], dtype=object)}):
        with pytest.raises(pickle.UnpicklingError, match="it holds an array of other objects than arrays"):
            read_pickle(written(tmp_path / "a", content))
    with pytest.raises(pickle.UnpicklingError, match="it holds an array of 'V4'"):
        read_pickle(written(tmp_path / "a", {"data": np.zeros(2, dtype="V4")}))


def test_an_array_of_arrays_comes_back() -> None:
    whole = np.empty(2, dtype=object)
    whole[0], whole[1] = np.ones((2, 3), np.float32), np.arange(4, dtype=np.float32)
    found = unpickled(pickle.dumps(whole, protocol=2))
    assert found.dtype == object
    assert [(one.dtype, one.tolist()) for one in found] == [(one.dtype, one.tolist()) for one in whole]


@pytest.mark.parametrize("place", [b"r\xff\xff\xff\x7f", b"p2147483647\n"])
def test_no_memory_is_taken_for_a_place_far_beyond_the_file(tmp_path: Path, place: bytes) -> None:
    with pytest.raises(pickle.UnpicklingError, match=r"place 2147483647 in 1\d\d bytes"):
        read_pickle(written(tmp_path / "a", PYTHON_2.replace(b"}q\x01", b"}" + place)))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"K\x02K\x03\x86", b"K\x02K\x04\x86"),  # a shape of more values
        (b"K\x02K\x03\x86", b"J\xff\xff\xff\xffJ" + struct.pack("<i", -6) + b"\x86"),  # of negative sides
        (b"U\x01|", b"U\x01?"),  # no byte order
        (b"cnumpy\ndtype\n", b"cnumpy\nndarray\n"),  # no data type
        (b"}q\x01(", b"(q\x01("),  # no dictionary
    ],
)
def test_damage_is_an_error(tmp_path: Path, old: bytes, new: bytes) -> None:
    assert old in PYTHON_2
    with pytest.raises((pickle.UnpicklingError, KeyError, TypeError, ValueError)):
        read_pickle(written(tmp_path / "a", PYTHON_2.replace(old, new)))
