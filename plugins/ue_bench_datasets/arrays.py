"""Image sets as their authors publish arrays of them: idx files, the binaries of STL-10, the MATLAB files of SVHN."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, NamedTuple

import numpy as np
from pydantic import Field

from ue_bench.api import Context, ImageSet, InputPath, UserError, ValidationError, check_file, first_line

from .common import (
    CHUNK_BYTES,
    SPLITS,
    Labels,
    Pixels,
    StoredDataset,
    check_labels,
    check_split,
    chosen,
    count_classes,
    first_per_class,
    numbered,
    rgb,
    store_arrays,
)
from .mat import read_array

IDX_FILES = {
    "train": (("train-images",), ("train-labels",)),
    "test": (("t10k-images", "test-images"), ("t10k-labels", "test-labels")),
}
IDX_BYTES = 8  # the type of unsigned bytes in an idx header
STL10_SIDE, STL10_CLASSES = 96, 10
DAMAGED = (OSError, EOFError, zlib.error, struct.error)  # gzip's and ours, of a file that is cut off or changed


class _InFolder(StoredDataset):
    """A dataset in a folder, whose labels and images are read by ``labels_of`` and ``pieces_of``."""

    path: InputPath = Field(description="folder with the files")

    def labels_of(self, split: str) -> Labels:
        raise NotImplementedError

    def pieces_of(self, split: str, count: int) -> Iterator[Pixels]:
        """Yield ``count`` images, N x H x W x 3, some at a time."""
        raise NotImplementedError

    def names(self, labels: dict[str, Labels]) -> tuple[str, ...]:
        return numbered(count_classes(labels.values(), self.path.name))

    def load(self, split: str, ctx: Context) -> ImageSet:
        check_split(split)
        labels = {s: self.labels_of(s) for s in SPLITS}
        names = self.names(labels)
        for part, values in labels.items():
            check_labels(values, names, f"{self.path.name} {part}")
        rows = first_per_class(labels[split], self.limit(split))
        parts = chosen(self.pieces_of(split, len(labels[split])), rows)
        images = store_arrays(parts, len(rows), self.size, ctx, f"reading {self.path.name} {split}")
        return ImageSet(images, labels[split][rows], names, self.path.name)

    def find(self, *names: str) -> Path:
        """Return the first file in the folder of one of these names. Raises UserError when there is none."""
        check_file(self.path, "folder")
        for name in names:
            if (self.path / name).exists():
                check_file(self.path / name)
                return self.path / name
        raise UserError(f"{self.path} has no file {names[0]}", f"{self.name} needs it as it was published")


class IdxHeader(NamedTuple):
    """What an idx file holds: numbers of ``shape``, of the type 8, unsigned bytes."""

    shape: tuple[int, ...]

    @classmethod
    def read(cls, file: BinaryIO, path: Path) -> IdxHeader:
        """Read the header from the start of ``file``. Raises ValidationError when there is none."""
        magic = _exactly(file, 4, path)
        if magic[:2] != b"\0\0" or magic[2] != IDX_BYTES or magic[3] not in (1, 3):
            raise ValidationError(f"{path.name} is no idx file of bytes", "take the files as they were published")
        return cls(struct.unpack(f">{magic[3]}I", _exactly(file, 4 * magic[3], path)))


class Idx(_InFolder):
    """The idx files of MNIST, Fashion-MNIST, KMNIST and others, gzipped or not; gray images become RGB.

    ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``, ``t10k-images-idx3-ubyte`` and
    ``t10k-labels-idx1-ubyte``, or the same with ``.`` before ``idx``, in one folder. Classes have numbers for names.
    """

    name: ClassVar[str] = "idx"

    def files(self, data_dir: Path) -> list[Path]:
        return [
            self._file(names, rank) for split in SPLITS for names, rank in zip(IDX_FILES[split], (3, 1), strict=True)
        ]

    def _file(self, names: tuple[str, ...], rank: int) -> Path:
        return self.find(*(f"{n}{dot}idx{rank}-ubyte{z}" for n in names for dot in "-." for z in ("", ".gz")))

    def labels_of(self, split: str) -> Labels:
        path = self._file(IDX_FILES[split][1], 1)
        with _opened(path) as file:
            [count] = self._header(file, path, 1)
            values = np.frombuffer(_exactly(file, count, path), dtype=np.uint8)
        return values.astype(np.int64)

    def pieces_of(self, split: str, count: int) -> Iterator[Pixels]:
        path = self._file(IDX_FILES[split][0], 3)
        with _opened(path) as file:
            images, height, width = self._header(file, path, 3)
            if images != count:
                raise ValidationError(f"{path.name} has {images} images for {count} labels", "fetch both again")
            yield from _pieces(file, path, count, (height, width))

    def names(self, labels: dict[str, Labels]) -> tuple[str, ...]:
        """Return names without gaps: some sets of letters count from 1."""
        return tuple(map(str, range(count_classes(labels.values(), self.path.name))))

    @staticmethod
    def _header(file: BinaryIO, path: Path, rank: int) -> tuple[int, ...]:
        shape = IdxHeader.read(file, path).shape
        if len(shape) != rank or not all(shape[1:]):
            raise ValidationError(
                f"{path.name} holds an array of shape {shape}", "take the files as they were published"
            )
        return shape


class Stl10(_InFolder):
    """STL-10 (Coates et al., 2011): 5,000 training and 8,000 test photographs of ten classes, 96 x 96.

    ``train_X.bin``, ``train_y.bin``, ``test_X.bin``, ``test_y.bin`` and, if it is there, ``class_names.txt``. Images
    are stored by channel and column. The 100,000 without labels are not read.
    """

    name: ClassVar[str] = "stl10"
    paper: ClassVar[str] = "Coates, Ng and Lee, Single-Layer Networks in Unsupervised Feature Learning, AISTATS 2011"

    def files(self, data_dir: Path) -> list[Path]:
        found = [self.find(f"{split}_{part}.bin") for split in SPLITS for part in "Xy"]
        names = self.path / "class_names.txt"
        return [*found, names] if names.exists() else found

    def labels_of(self, split: str) -> Labels:
        path = self.find(f"{split}_y.bin")
        values = np.fromfile(path, dtype=np.uint8).astype(np.int64) - 1
        if len(values) and (values.min() < 0 or values.max() >= STL10_CLASSES):
            raise ValidationError(f"{path.name} has labels outside 1..{STL10_CLASSES}", "fetch it again")
        return values

    def pieces_of(self, split: str, count: int) -> Iterator[Pixels]:
        path, each = self.find(f"{split}_X.bin"), 3 * STL10_SIDE * STL10_SIDE
        if path.stat().st_size != count * each:
            raise ValidationError(
                f"{path.name} has {path.stat().st_size:,} bytes, not {count * each:,} for {count} labels",
                "fetch it again",
            )
        with path.open("rb") as file:
            for piece in _pieces(file, path, count, (3, STL10_SIDE, STL10_SIDE)):
                yield piece.transpose(0, 2, 1, 3)  # columns come first

    def names(self, labels: dict[str, Labels]) -> tuple[str, ...]:
        path = self.path / "class_names.txt"
        if not path.exists():
            return numbered(STL10_CLASSES)
        names = tuple(path.read_text(encoding="utf-8", errors="replace").split())
        if len(names) != STL10_CLASSES:
            raise ValidationError(f"{path.name} has {len(names)} names, not {STL10_CLASSES}", "fetch it again")
        return names


class Svhn(_InFolder):
    """SVHN (Netzer et al., 2011), cropped digits: 73,257 for training and 26,032 for testing, 32 x 32.

    ``train_32x32.mat`` and ``test_32x32.mat``. The digit 0, which has the label 10, becomes class 0. A file is read
    whole, some 200 MB.
    """

    name: ClassVar[str] = "svhn"
    paper: ClassVar[str] = "Netzer et al., Reading Digits in Natural Images with Unsupervised Feature Learning, 2011"

    def files(self, data_dir: Path) -> list[Path]:
        return [self._file(split) for split in SPLITS]

    def _file(self, split: str) -> Path:
        return self.find(f"{split}_32x32.mat")

    def labels_of(self, split: str) -> Labels:
        labels = self._arrays(split, "y")
        if labels.dtype.kind not in "iuf" or not np.isin(labels, np.arange(1, 11)).all():
            raise ValidationError(f"{self._file(split).name} has labels outside 1..10", "fetch it again")
        digits: Labels = labels.ravel().astype(np.int64) % 10
        return digits

    def pieces_of(self, split: str, count: int) -> Iterator[Pixels]:
        images = self._arrays(split, "X")
        shape = images.shape
        if images.dtype != np.uint8 or len(shape) != 4 or not all(shape) or shape[2:] != (3, count):
            raise ValidationError(
                f"X of {self._file(split).name} is {images.dtype} {shape}, not uint8 H x W x 3 x {count}",
                "fetch it again",
            )
        step = max(1, CHUNK_BYTES // math.prod(shape[:3]))
        for start in range(0, count, step):
            yield np.ascontiguousarray(images[..., start : start + step].transpose(3, 0, 1, 2))

    def names(self, labels: dict[str, Labels]) -> tuple[str, ...]:
        return tuple("0123456789")

    def _arrays(self, split: str, name: str) -> Any:
        """Return an array of a file."""
        path = self._file(split)
        try:
            stored = read_array(path, name)
        except (*DAMAGED, ValueError) as error:
            raise ValidationError(f"cannot read {path.name}: {first_line(error)}", "fetch it again") from error
        if stored is None:
            raise ValidationError(f"{path.name} has no array {name}", "take the cropped digits, format 2")
        return stored


def _opened(path: Path) -> BinaryIO:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]  # GzipFile


def _exactly(file: BinaryIO, count: int, path: Path) -> bytearray:
    """Read so many bytes. Raises ValidationError when the file has fewer, or is damaged."""
    data = bytearray()
    try:
        while len(data) < count and (piece := file.read(min(count - len(data), CHUNK_BYTES))):
            data += piece  # memory for what there is, whatever a damaged header says
    except DAMAGED as error:
        raise ValidationError(f"cannot read {path.name}: {error}", "fetch it again") from error
    if len(data) != count:
        raise ValidationError(f"{path.name} ends {count - len(data):,} bytes too early", "fetch it again")
    return data


def _pieces(file: BinaryIO, path: Path, count: int, shape: tuple[int, ...]) -> Iterator[Pixels]:
    """Yield ``count`` images of ``shape``, H x W or 3 x H x W, as N x H x W x 3."""
    each = math.prod(shape)
    step = max(1, CHUNK_BYTES // each)
    for start in range(0, count, step):
        here = min(step, count - start)
        yield rgb(np.frombuffer(_exactly(file, here * each, path), dtype=np.uint8).reshape(here, *shape))
