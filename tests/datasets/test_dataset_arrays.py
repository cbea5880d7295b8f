"""idx, STL-10 and SVHN files as they are published, in small."""

from __future__ import annotations

import gzip
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ue_bench.api import Context, ImageSet, UserError, ValidationError
from ue_bench_datasets.arrays import Idx, Stl10, Svhn


def write_idx(path: Path, values: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
    head = struct.pack(f">4B{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    data = head + values.tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def some(*shape: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@contextmanager
def refused(kind: type[UserError], message: str) -> Iterator[None]:
    with pytest.raises(kind, match=re.escape(message)) as caught:
        yield
    assert "\n" not in str(caught.value)


class TestIdx:
    @pytest.fixture(params=["", ".gz"])
    def folder(self, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
        for name, images, labels in (("train", some(6, 5, 4), [0, 1, 2, 0, 1, 2]), ("t10k", some(3, 5, 4), [2, 1, 0])):
            write_idx(tmp_path / f"{name}-images-idx3-ubyte{request.param}", images)
            write_idx(tmp_path / f"{name}-labels-idx1-ubyte{request.param}", np.array(labels, dtype=np.uint8))
        return tmp_path

    def test_gray_images_in_order(self, folder: Path, ctx: Context) -> None:
        train = Idx(path=folder).load("train", ctx)
        assert (train.images == some(6, 5, 4)[..., None]).all()
        assert train.labels.tolist() == [0, 1, 2, 0, 1, 2]
        assert train.class_names == ("0", "1", "2")
        assert Idx(path=folder).load("test", ctx).labels.tolist() == [2, 1, 0]
        assert len(Idx(path=folder).files(folder)) == 4

    def test_a_part(self, folder: Path, ctx: Context) -> None:
        part = Idx(path=folder, limit_per_class=1).load("train", ctx)
        assert (part.images[..., 0] == some(6, 5, 4)[:3]).all()

    @pytest.mark.parametrize("cut", [2, 9, 20])
    def test_a_file_that_is_cut_off(self, cut: int, folder: Path, ctx: Context) -> None:
        for path in folder.glob("train-images*"):
            path.write_bytes(path.read_bytes()[:cut])
        with pytest.raises(ValidationError, match=r"train-images-idx3-ubyte"):
            Idx(path=folder).load("train", ctx)

    def test_what_is_no_idx_file(self, folder: Path, ctx: Context) -> None:
        for path in folder.glob("train-labels*"):
            path.unlink()
        (folder / "train-labels.idx1-ubyte").write_bytes(b"<html>not found")
        with refused(ValidationError, "train-labels.idx1-ubyte is no idx file"):
            Idx(path=folder).load("train", ctx)

    def test_fewer_labels_than_images(self, folder: Path, ctx: Context) -> None:
        for path in folder.glob("train-labels*"):
            write_idx(path, np.array([0, 1, 2], dtype=np.uint8))
        with refused(ValidationError, "6 images for 3 labels"):
            Idx(path=folder).load("train", ctx)

    def test_a_folder_without_them(self, tmp_path: Path, ctx: Context) -> None:
        with refused(UserError, "has no file train-labels-idx1-ubyte"):
            Idx(path=tmp_path).load("train", ctx)


class TestStl10:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        for split, count in (("train", 20), ("test", 10)):
            images = some(count, 96, 96, 3, seed=count)
            images.transpose(0, 3, 2, 1).copy().tofile(tmp_path / f"{split}_X.bin")
            (np.arange(count, dtype=np.uint8) % 10 + 1).tofile(tmp_path / f"{split}_y.bin")
        return tmp_path

    def test_images_are_upright(self, folder: Path, ctx: Context) -> None:
        data = Stl10(path=folder).load("test", ctx)
        assert (data.images == some(10, 96, 96, 3, seed=10)).all()
        assert data.labels.tolist() == list(range(10))

    def test_names_of_classes(self, folder: Path, ctx: Context) -> None:
        (folder / "class_names.txt").write_text("\n".join("abcdefghij"))
        assert Stl10(path=folder).load("test", ctx).class_names == tuple("abcdefghij")
        (folder / "class_names.txt").write_text("a b")
        with refused(ValidationError, "has 2 names, not 10"):
            Stl10(path=folder).load("test", ctx)

    def test_damage(self, folder: Path, ctx: Context) -> None:
        (folder / "test_X.bin").write_bytes(b"x" * 1000)
        with refused(ValidationError, "test_X.bin has 1,000 bytes, not 276,480 for 10 labels"):
            Stl10(path=folder).load("test", ctx)
        (folder / "test_y.bin").write_bytes(b"\0" * 10)
        with refused(ValidationError, "labels outside 1..10"):
            Stl10(path=folder).load("test", ctx)


class TestSvhn:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        from scipy.io import savemat

        labels = np.arange(1, 11, dtype=np.uint8)[:, None]
        for split in ("train", "test"):
            images = some(10, 32, 32, 3).transpose(1, 2, 3, 0)
            savemat(tmp_path / f"{split}_32x32.mat", {"X": images, "y": labels})
        return tmp_path

    def test_the_label_10_is_the_digit_0(self, folder: Path, ctx: Context) -> None:
        data = Svhn(path=folder).load("train", ctx)
        assert isinstance(data, ImageSet)
        assert (data.images == some(10, 32, 32, 3)).all()
        assert data.labels.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]
        assert data.class_names == tuple("0123456789")

    @pytest.mark.parametrize("content", [b"", b"MATLAB 5.0 MAT-file", b"\x89HDF\r\n\x1a\n" + b"\0" * 600])
    def test_damage(self, content: bytes, folder: Path, ctx: Context) -> None:
        (folder / "train_32x32.mat").write_bytes(content)
        with refused(ValidationError, "cannot read train_32x32.mat"):
            Svhn(path=folder).load("train", ctx)
