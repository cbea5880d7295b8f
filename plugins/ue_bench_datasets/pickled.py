"""Read pickles that data and networks are published as, without what pickles can do: plain data and arrays alone.

NumPy's own functions are not called for what a file says. Given the state of an array of objects they take bytes of the
file for addresses in memory, which ends the process, or worse.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

NUMBERS = frozenset({"b1", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8"})
OBJECTS = frozenset({"O", "O8"})
MEMO = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})
ORDERS = {"|": "|", "<": "<", ">": ">", "=": "="}


def read_pickle(path: Path) -> Any:
    """Return the dictionary in a file, see ``unpickled``."""
    stored = unpickled(path.read_bytes())
    if not isinstance(stored, dict):
        raise pickle.UnpicklingError("no dictionary")
    return {key: _finished(value) for key, value in stored.items()}


def unpickled(content: bytes) -> Any:
    """Return what a pickle holds, strings of Python 2 as text of one byte a character.

    Raises UnpicklingError for anything but plain data, arrays of numbers and arrays of such arrays, and whatever damage
    leads ``pickle`` to.
    """
    _check(content)
    return _finished(_Reader(io.BytesIO(content), encoding="latin1").load())


def _check(content: bytes) -> None:
    """Refuse what claims more than the file holds: a place in the memo far beyond it takes all memory there is."""
    for operation, argument, _ in pickletools.genops(content):
        if operation.name in MEMO and isinstance(argument, int) and argument > len(content):
            raise pickle.UnpicklingError(f"place {argument} in {len(content):,} bytes")


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return _Array
        known = {("numpy", "ndarray"): None, ("numpy", "dtype"): _Type, ("_codecs", "encode"): _encoded}
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which does not belong into a file of arrays")
        return known[module, name]


class _Type:
    """Stands for a data type: its code, and the byte order that comes after."""

    def __init__(self, code: str, *flags: object) -> None:
        if code not in NUMBERS | OBJECTS:
            raise pickle.UnpicklingError(f"it holds an array of {code!r}")
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = ORDERS[state[1]]


class _Array:
    """Stands for an array until its content comes."""

    values: NDArray[Any] | None = None

    def __init__(self, *start: object) -> None:
        pass

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, by_columns, content = state
        if not isinstance(kind, _Type):
            raise pickle.UnpicklingError("an array without a data type")
        if kind.code in OBJECTS:
            values = _arrays(content)
        else:
            raw = content.encode("latin1") if isinstance(content, str) else content
            values = np.frombuffer(raw, f"{kind.order}{kind.code}")
        if math.prod(shape) != len(values) or min(shape, default=0) < 0:
            raise pickle.UnpicklingError(f"an array of {shape} with {len(values)} values")
        self.values = values.reshape(shape, order="F" if by_columns else "C")


def _arrays(content: Any) -> NDArray[Any]:
    """Return an array of arrays, which a pickle gives as a list: bytes in its place would be addresses."""
    if not isinstance(content, list) or not all(isinstance(one, _Array) and one.values is not None for one in content):
        raise pickle.UnpicklingError("it holds an array of other objects than arrays")
    values = np.empty(len(content), dtype=object)
    for i, one in enumerate(content):
        values[i] = one.values
    return values


def _encoded(text: str, name: str = "latin1") -> bytes:
    """Return bytes as Python 3 writes them for protocol 2."""
    if name != "latin1":
        raise pickle.UnpicklingError(f"it asks for the encoding {name!r}")
    return text.encode("latin1")


def _finished(stored: Any) -> Any:
    """Return an array in place of what stands for it, and anything else as it is."""
    return stored.values if isinstance(stored, _Array) else stored
