"""A thousand images of mixed formats through ``ue-bench protect`` and ``ue-bench recover``."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from toys import tree

from . import invertible
from .conftest import Command
from .helpers import load

SIZES = [(32, 32), (32, 40), (28, 28), (48, 32), (24, 24)]
KINDS = [".png", ".jpg", ".bmp", ".tif", ".gif", ".webp", ".ppm", ".tga", "-gray.png", "-glass.png", "-16.png",
         "-cmyk.tif", "-palette.png", "-gray-glass.png", "-turned.jpg"]  # fmt: skip
UNUSABLE = {"c0/broken.png", "c0/empty.jpg", "c0/half.png", "c0/moving.gif", "c0/photo.heic", "stray.png"}


def write_photos(folder: Path, count: int, sizes: list[tuple[int, int]]) -> None:
    """Images in seven classes, in every format, and six files that cannot be used."""
    rng = np.random.default_rng(0)
    for number in range(count):
        kind, (height, width) = KINDS[number % len(KINDS)], sizes[number % len(sizes)]
        rough = rng.integers(60, 190, (height // 4, width // 4, 3)).repeat(4, axis=0).repeat(4, axis=1)
        noise = rng.integers(-2, 3, (height, width, 3))
        image = Image.fromarray((rough + noise).astype(np.uint8))
        options: dict[str, Any] = {}
        if "16" in kind:
            image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
        elif "cmyk" in kind:
            image = image.convert("CMYK")
        elif "palette" in kind:
            image = image.quantize(32)
        elif "gray" in kind:
            image = image.convert("LA" if "glass" in kind else "L")
        elif "glass" in kind:
            image.putalpha(Image.fromarray(rng.integers(0, 256, (height, width), dtype=np.uint8)))
        elif "turned" in kind:
            exif = Image.Exif()
            exif[0x0112] = 3
            options["exif"] = exif
        place = folder / f"c{number % 7}"
        place.mkdir(parents=True, exist_ok=True)
        image.save(place / f"{number} é{kind}", **options)
    whole = next((folder / "c0").glob("*.png")).read_bytes()
    (folder / "c0" / "half.png").write_bytes(whole[: len(whole) // 2])
    (folder / "c0" / "broken.png").write_bytes(b"broken")
    (folder / "c0" / "empty.jpg").write_bytes(b"")
    (folder / "c0" / "photo.heic").write_bytes(b"?")
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    frames[0].save(folder / "c0" / "moving.gif", save_all=True, append_images=frames[1:])
    frames[0].save(folder / "stray.png")


def pixels(path: Path) -> NDArray[np.uint8]:
    """What the documentation says of a file, by other means than the command's."""
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        if "turned" in path.name:
            return np.asarray(image.convert("RGB"))[::-1, ::-1]
        if "-16." in path.name:
            return np.asarray(image) // 257
        if "cmyk" in path.name or image.mode == "P":
            return np.asarray(image.convert("RGB"))
        return np.asarray(image)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("protector", "sizes", "exact"),
    [("shuffled", SIZES, 1000), ("rit-igsm[preset=micro,surrogate_epochs=1,passes=2]", SIZES[:1], 900)],
    ids=["shuffled", "rit-igsm"],
)
def test_nothing_is_lost(
    ue_bench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protector: str, sizes: list[tuple[int, int]],
    exact: int,
) -> None:  # fmt: skip
    invertible.register(monkeypatch)
    write_photos(tmp_path / "photos", 1000, sizes)
    options = ["--device", "cpu", "--threads", "1"]
    found = ue_bench("protect", "-P", protector, *options, "photos", "out", "--json")
    assert found.code == 1
    record = found.json
    assert set(record["failed"]) == UNUSABLE
    assert all(f"  {name}: " in found.err for name in UNUSABLE)
    assert len(record["files"]) == 1000
    assert tree(tmp_path / "out") == sorted(record["files"].values())
    assert record["recovery"]["exact"] >= exact

    found = ue_bench("recover", "out.key.safetensors", "out", "back", "--json")
    assert len(found.json["exact"]) == record["recovery"]["exact"]
    assert set(found.json["failed"]) == {record["files"][name] for name in record["recovery"]["lost"]}
    assert found.code == (1 if found.json["failed"] else 0)
    for name, target in record["files"].items():
        if target in found.json["exact"]:
            assert np.array_equal(load(tmp_path / "back" / target), pixels(tmp_path / "photos" / name)), name
