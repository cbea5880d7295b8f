from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ue_bench.errors import UserError
from ue_bench.owner import keyfile
from ue_bench.owner.pictures import digest

from .helpers import random_image


def a_key(*entries: tuple[bytes, keyfile.Entry]) -> keyfile.Key:
    return keyfile.Key("noise", 1, {"eps": 0.1}, 7, "cpu", 2, "fp32", {"w": np.arange(6).reshape(2, 3)}, dict(entries))


def test_a_key_comes_back_as_it_was_written(tmp_path: Path) -> None:
    clean, other = random_image(), random_image(seed=1)
    entries = [
        (digest(clean), keyfile.entry(other, other, True, True)),
        (digest(other), keyfile.entry(clean, other, False, True)),
        (bytes(16), keyfile.entry(clean, other, False, False)),
    ]
    (tmp_path / "k").write_bytes(keyfile.encode(a_key(*entries)))
    found = keyfile.load(tmp_path / "k")
    assert found.images == dict(entries)
    assert np.array_equal(found.arrays["w"], np.arange(6).reshape(2, 3))
    assert replace(found, arrays={}, images={}) == replace(a_key(), arrays={})
    assert found.protector().selector == "noise[eps=25.5/255]"


def test_a_key_may_know_no_image(tmp_path: Path) -> None:
    (tmp_path / "k").write_bytes(keyfile.encode(a_key()))
    assert keyfile.load(tmp_path / "k").images == {}


def test_sidecars_restore_every_difference() -> None:
    recovered, clean = random_image(), random_image(seed=1)
    entry = keyfile.entry(clean, recovered, False, True)
    assert not entry.exact
    assert np.array_equal(entry.restored(recovered), clean)
    near = np.where(np.arange(clean.size).reshape(clean.shape) % 50, clean, clean ^ 1)
    assert len(keyfile.entry(clean, near, False, True).sidecar or b"") < clean.size // 3
    assert keyfile.entry(clean, clean, False, True).sidecar is None
    assert keyfile.entry(clean, recovered, False, False).sidecar is None


def test_files_that_cannot_be_told_apart_any_more() -> None:
    one, other = random_image(), random_image(seed=1)
    gray, colour = (keyfile.entry(one, one, gray, False) for gray in (True, False))
    assert keyfile.merged(gray, colour) == colour == keyfile.merged(colour, gray)
    assert keyfile.merged(gray, gray) == gray
    unsure = keyfile.merged(colour, keyfile.entry(other, one, False, True))
    assert (unsure.exact, unsure.sidecar) == (False, None)
    assert unsure.clean not in (digest(one), digest(other))


@pytest.mark.parametrize("sidecar", [b"", b"damaged", zlib.compress(b"too short")])
def test_damaged_sidecars(sidecar: bytes) -> None:
    with pytest.raises(UserError, match="damaged"):
        keyfile.Entry(bytes(16), False, False, sidecar).restored(random_image())
