"""Files of data sets that are damaged: images, or an error of the user's, never another exception."""

from __future__ import annotations

import gzip
import pickle
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ue_bench.api import Context, Dataset
from ue_bench_datasets.arrays import Idx, Stl10, Svhn
from ue_bench_datasets.cifar import Cifar10
from ue_bench_datasets.imagefolder import ImageFolder
from ue_bench_datasets.npz import Npz
from ue_bench_datasets.parquet import Parquet

from .helpers import damaged, fuzz, many, users

CLASSES = 10
IMAGES = np.random.default_rng(0).integers(0, 256, (CLASSES, 6, 5, 3), dtype=np.uint8)
LABELS = np.arange(CLASSES)


def write_npz(folder: Path) -> Dataset:
    np.savez(folder / "set.npz", x_train=IMAGES, y_train=LABELS, x_test=IMAGES, y_test=LABELS)
    return Npz(path=folder / "set.npz")


def write_mat(folder: Path) -> Dataset:
    from scipy.io import savemat

    for split in ("train", "test"):
        savemat(folder / f"{split}_32x32.mat", {"X": IMAGES.transpose(1, 2, 3, 0), "y": LABELS[:, None] + 1})
    return Svhn(path=folder)


def write_idx(folder: Path, packed: bool = False) -> Dataset:
    images = struct.pack(">4B3I", 0, 0, 8, 3, *IMAGES.shape[:3]) + IMAGES[..., 0].tobytes()
    labels = struct.pack(">4BI", 0, 0, 8, 1, CLASSES) + bytes(range(CLASSES))
    for split in ("train", "t10k"):
        for name, content in (("images-idx3", images), ("labels-idx1", labels)):
            file = folder / f"{split}-{name}-ubyte{'.gz' if packed else ''}"
            file.write_bytes(gzip.compress(content) if packed else content)
    return Idx(path=folder)


def write_stl10(folder: Path) -> Dataset:
    for split in ("train", "test"):
        (folder / f"{split}_X.bin").write_bytes(bytes(CLASSES * 3 * 96 * 96))
        (folder / f"{split}_y.bin").write_bytes(bytes(range(1, CLASSES + 1)))
    (folder / "class_names.txt").write_text("\n".join("abcdefghij"), encoding="utf-8")
    return Stl10(path=folder)


def write_parquet(folder: Path) -> Dataset:
    import pyarrow as pa
    from pyarrow import parquet

    write_folder(folder / "images")
    contents = [(folder / "images" / "train" / str(label) / "0.png").read_bytes() for label in range(CLASSES)]
    table = pa.table({"image": [{"bytes": content, "path": None} for content in contents], "label": LABELS})
    for split in ("train", "test"):
        parquet.write_table(table, folder / f"{split}.parquet")
    return Parquet(path=folder)


def write_folder(folder: Path) -> Dataset:
    for split in ("train", "test"):
        for label, image in enumerate(IMAGES):
            (folder / split / str(label)).mkdir(parents=True)
            Image.fromarray(image).save(folder / split / str(label) / "0.png")
    return ImageFolder(path=folder)


def write_pickles(folder: Path) -> Dataset:
    place = folder / "cifar-10-batches-py"
    place.mkdir()
    data = np.zeros((CLASSES, 3 * 32 * 32), dtype=np.uint8)
    batch = pickle.dumps({"labels": list(range(CLASSES)), "data": data}, protocol=2)
    for name in [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]:
        (place / name).write_bytes(batch)
    (place / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}, protocol=2))
    return Cifar10()


FILES: dict[str, Callable[[Path], Dataset]] = {
    "set.npz": write_npz,
    "train_32x32.mat": write_mat,
    "train-images-idx3-ubyte": write_idx,
    "train-labels-idx1-ubyte": write_idx,
    "train-images-idx3-ubyte.gz": partial(write_idx, packed=True),
    "train-labels-idx1-ubyte.gz": partial(write_idx, packed=True),
    "train_y.bin": write_stl10,
    "class_names.txt": write_stl10,
    "train.parquet": write_parquet,
    "train/3/0.png": write_folder,
    "cifar-10-batches-py/data_batch_2": write_pickles,
    "cifar-10-batches-py/batches.meta": write_pickles,
}


@many
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file(name: str, examples: int, tmp_path: Path, ctx: Context) -> None:
    """Of a set of each kind, one of the files is damaged; read whole, as a run reads it."""
    dataset = FILES[name](tmp_path)
    assert len(dataset.load("train", ctx)) in (CLASSES, 5 * CLASSES)
    file, before = tmp_path / name, set(tmp_path.iterdir())

    def check(content: bytes) -> None:
        file.write_bytes(content)
        users(lambda: dataset.load("train", ctx))
        for stored in set(tmp_path.iterdir()) - before:
            stored.unlink()

    fuzz(check, damaged(file.read_bytes()), examples)
