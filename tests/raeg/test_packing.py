from __future__ import annotations

import zlib

import pytest

from ue_bench_raeg.packing import inflated


@pytest.mark.parametrize("content", [b"", b"abc", bytes(1000)])
def test_what_was_packed_comes_back(content: bytes) -> None:
    assert inflated(zlib.compress(content), len(content)) == content
    raw = zlib.compressobj(9, zlib.DEFLATED, -15)
    assert inflated(raw.compress(content) + raw.flush(), len(content), -15) == content


@pytest.mark.parametrize("size", [0, 2, 4])
def test_another_size_is_refused(size: int) -> None:
    with pytest.raises(zlib.error, match=f"not the packed form of {size} bytes"):
        inflated(zlib.compress(b"abc"), size)


def test_what_is_cut_off_is_refused() -> None:
    with pytest.raises(zlib.error):
        inflated(zlib.compress(bytes(1000))[:-4], 1000)
