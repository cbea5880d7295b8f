"""Read an array of numbers from a MATLAB file of version 5, as SVHN is published in.

A reader of our own, because that of SciPy ends the whole process on some damaged files. It reads what is asked for and
nothing else, checks every length against what there is before memory is taken, and runs nothing: such files can hold
objects and functions, which are passed over.

Format: MathWorks, "MAT-File Format", 2019, "Level 5 MAT-File Format".
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HEADER = 128
MATRIX, COMPRESSED = 14, 15
STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}  # by type
NUMBERS = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}  # by class
HEAD_TYPES = [6, 5, 1]  # of flags, dimensions and name
COMPLEX = 0x800
HEAD = 1024  # bytes of an array that hold its class, dimensions and name, the name being short
MOST = 2**31  # bytes of an array: that a small file can unpack to more is no reason to take them


def read_array(path: Path, name: str) -> NDArray[Any] | None:
    """Return the array called ``name``; None where there is none, or no real numbers are in it.

    Raises ValueError, or struct.error or zlib.error, where the file is damaged or of another version.
    """
    content = path.read_bytes()
    order = _byte_order(content)
    for kind, element in _elements(memoryview(content)[HEADER:], order):
        array = _unpacked(element, name, order) if kind == COMPRESSED else element if kind == MATRIX else None
        if array is not None and _head(array, order)[2] == name:
            return _array(array, order)
    return None


def _byte_order(content: bytes) -> str:
    if content[:19] == b"MATLAB 7.3 MAT-file" or content[:4] == b"\x89HDF":
        raise ValueError("it is of MATLAB 7.3; save it with the option -v7")
    order = {b"IM": "<", b"MI": ">"}.get(content[126:128])
    if order is None or struct.unpack_from(f"{order}H", content, 124) != (0x100,):
        raise ValueError("it is no MATLAB file of version 5")
    return order


def _elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Yield type and content of each element."""
    at = 0
    while at < len(data):
        first, size = struct.unpack_from(f"{order}II", data, at)
        kind, start, end = first, at + 8, at + 8 + size
        if first >> 16:  # up to four bytes stand in place of the size
            kind, size, start, end = first & 0xFFFF, first >> 16, at + 4, at + 8
        elif kind != COMPRESSED:
            end += -size % 8
        if start + size > min(end, len(data)):
            raise ValueError("an element is longer than what holds it")
        yield kind, data[start : start + size]
        at = end


def _unpacked(packed: memoryview, name: str, order: str) -> memoryview | None:
    """Return a compressed array's content; None, unpacked no further than its name, if it is not called ``name``."""
    reader = zlib.decompressobj()
    head = reader.decompress(packed, HEAD)
    kind, size = struct.unpack_from(f"{order}II", head)
    if kind != MATRIX:
        return None
    if _head(memoryview(head)[8:], order)[2] != name:
        return None
    if size > MOST:
        raise ValueError(f"{name} is {size:,} bytes long")
    rest = reader.decompress(reader.unconsumed_tail, max(size + 8 - len(head), 0) + 1)
    whole = head + rest
    if len(whole) < size + 8:
        raise ValueError(f"{name} ends too early")
    return memoryview(whole)[8 : 8 + size]


def _head(array: memoryview, order: str) -> tuple[int, tuple[int, ...], str]:
    """Return flags, dimensions and name of an array; no name of what is stored in another form, such as an object."""
    parts = list(islice(_elements(array, order), 3))
    if [kind for kind, _ in parts] != HEAD_TYPES or len(parts[0][1]) != 8 or len(parts[1][1]) % 4:
        return 0, (), ""
    [flags] = struct.unpack_from(f"{order}I", parts[0][1])
    shape = tuple(np.frombuffer(parts[1][1], f"{order}i4").tolist())
    return flags, shape, bytes(parts[2][1]).decode("ascii", "replace")


def _array(array: memoryview, order: str) -> NDArray[Any] | None:
    flags, shape, name = _head(array, order)
    kind = NUMBERS.get(flags & 0xFF)
    if kind is None or flags & COMPLEX:
        return None
    parts = list(islice(_elements(array, order), 3, 4))
    stored = STORED.get(parts[0][0]) if parts else None
    if stored is None:
        raise ValueError(f"{name} has no numbers")
    values = np.frombuffer(parts[0][1], f"{order}{stored}")
    if min(shape, default=0) < 0 or len(values) != math.prod(shape):
        raise ValueError(f"{name} has {len(values):,} numbers, not those of {' x '.join(map(str, shape))}")
    return values.astype(kind, copy=False).reshape(shape, order="F")
