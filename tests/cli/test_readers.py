"""Folders that are not quite what they should be, through the command line."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from ue_bench.api import open_protector

from .conftest import Command
from .helpers import random_image, write

PLAN = ("plan", "-P", "lsp", "-C", "vanilla", "-D")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for split in ("train", "test"):
        for index in range(16):
            suffix = ("png", "bmp")[index % 4 // 2]
            name = tmp_path / "photos" / split / "ab"[index % 2] / f"photo {index}.{suffix}"
            write(name, random_image((16, 16), index))
    return tmp_path / "photos"


def test_a_link_to_nothing_is_named(photos: Path, ue_bench: Command) -> None:
    (photos / "train" / "a" / "999.png").symlink_to("../../.git/annex/objects/none.png")

    done = ue_bench(*PLAN, f"imagefolder[path={photos}]")

    assert done.code == 4
    assert "train/a/999.png is a link to nothing" in done.err
    assert "Traceback" not in done.err


def test_a_link_to_a_parent_folder_is_not_followed(photos: Path, ue_bench: Command) -> None:
    (photos / "train" / "a" / "up").symlink_to("..")

    assert ue_bench(*PLAN, f"imagefolder[path={photos}]").code == 0


def test_the_folder_of_the_only_configuration_is_read(tmp_path: Path, ue_bench: Command) -> None:
    folder = tmp_path / "svhn" / "cropped_digits"
    folder.mkdir(parents=True)
    for split in ("train", "test"):
        images = []
        for index in range(4):
            stream = io.BytesIO()
            Image.fromarray(random_image((16, 16), index)).save(stream, "PNG")
            images.append({"bytes": stream.getvalue(), "path": None})
        table = pa.table({"image": pa.array(images), "label": pa.array([0, 1, 0, 1])})
        parquet.write_table(table, folder / f"{split}-00000-of-00001.parquet")

    assert ue_bench(*PLAN, f"parquet[path={tmp_path / 'svhn'}]").code == 0


def test_an_owner_measures_what_protect_wrote(photos: Path, tmp_path: Path, ue_bench: Command) -> None:
    mine, cache = tmp_path / "mine", tmp_path / "cache"
    assert ue_bench("protect", "-P", "noise", str(photos / "train"), str(mine)).code == 0

    selectors = f"precomputed[path={mine}]", f"imagefolder[path={photos}]"
    with open_protector(*selectors, cache_dir=cache) as (protector, data, ctx):
        change = protector.protect(data, ctx).images.astype(np.int64) - data.images

    assert len(change) == 16
    assert abs(change).max() == 8
