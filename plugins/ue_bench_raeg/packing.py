"""Unpack what came from outside: no more than there is room for."""

from __future__ import annotations

import zlib


def inflated(data: bytes, size: int, window: int = zlib.MAX_WBITS) -> bytes:
    """Return the ``size`` bytes that ``data`` was packed from, ``window`` as in ``zlib``.

    Raises zlib.error where they are more or fewer, without memory for more of them.
    """
    reader = zlib.decompressobj(window)
    unpacked = reader.decompress(data, size + 1)
    if len(unpacked) != size or not reader.eof:
        raise zlib.error(f"not the packed form of {size} bytes")
    return unpacked
