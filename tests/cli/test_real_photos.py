"""``ue-bench protect`` and ``ue-bench recover`` on real photographs."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from real import DATA

from ue_bench_raeg import generator
from ue_bench_raeg.keys import write_generator

from .conftest import Command
from .helpers import load

PHOTOS = DATA / "photos-256"
KINDS = (".jpg", ".png", ".webp", ".bmp", ".tif")
OPTIONS = ["--device", "cpu", "--threads", "1", "--json"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def write_photos(folder: Path, count: int, sizes: list[tuple[int, int]]) -> None:
    """Parts of that many photographs, in two classes and five formats."""
    import pyarrow.parquet as pq

    files = sorted(PHOTOS.glob("*.parquet"))
    if not files:
        pytest.skip(f"no photographs at {PHOTOS}")
    rng = np.random.default_rng(0)
    for number, row in enumerate(pq.read_table(files[0]).slice(0, count).column("image").to_pylist()):
        height, width = sizes[number % len(sizes)]
        top, left = (int(rng.integers(0, 257 - side)) for side in (height, width))
        photo = Image.open(io.BytesIO(row["bytes"])).convert("RGB").crop((left, top, left + width, top + height))
        place = folder / f"class {number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        photo.save(place / f"{number}{KINDS[number % 5]}")


def colours(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_a_lossless_key_restores_200_photographs_of_mixed_sizes(
    ue_bench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a generator that changes images by some gray levels and cannot take all of it back."""
    rng = np.random.default_rng(1)
    write_photos(tmp_path / "photos", 200, [(int(a), int(b)) for a, b in rng.integers(40, 120, (20, 2))])
    monkeypatch.setattr(generator, "BLOCKS", 1)
    network, source = generator.Generator(4, spectral=False), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, generator.SubNetwork):
                module.last.weight.copy_(torch.randn(module.last.weight.shape, generator=source) * 0.004)
    write_generator(tmp_path / "g.safetensors", network.plain_weights(), network.settings, {})

    found = ue_bench("protect", "-P", "raeg[weights=g.safetensors]", *OPTIONS, "--lossless", "photos", "out")
    assert found.code == 0
    files = found.json["files"]
    assert len(files) == 200
    assert found.json["recovery"]["stored"] > 100  # without what the key keeps these would not be exact
    (tmp_path / "g.safetensors").unlink()  # the key is enough
    found = ue_bench("recover", "out.key.safetensors", "out", "back", "--json")
    assert (found.code, len(found.json["exact"])) == (0, 200)
    for name, target in files.items():
        assert not np.array_equal(load(tmp_path / "out" / target), colours(tmp_path / "photos" / name)), name
        assert np.array_equal(load(tmp_path / "back" / target), colours(tmp_path / "photos" / name)), name


def test_rae_restores_exactly_where_it_fits_and_says_where_it_does_not(ue_bench: Command, tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 100, [(64, 64)])
    selector = "rae-igsm[preset=micro,surrogate_epochs=1,eps=1/255,passes=2,scale=1]"
    found = ue_bench("protect", "-P", selector, *OPTIONS, "--seed", "1", "photos", "out")
    assert found.code == 0
    record, lost = found.json, found.json["recovery"]["lost"]
    assert record["recovery"]["exact"] + len(lost) == 100
    assert len(lost) > 0
    assert record["recovery"]["exact"] > 30
    found = ue_bench("recover", "out.key.safetensors", "out", "back", "--json")
    assert found.code == 1
    assert set(found.json["failed"]) == {record["files"][name] for name in lost}
    assert all("nothing is hidden in it" in reason for reason in found.json["failed"].values())
    for name, target in record["files"].items():
        if name in lost:
            assert not (tmp_path / "back" / target).exists()
        else:
            assert np.array_equal(load(tmp_path / "back" / target), colours(tmp_path / "photos" / name)), name
