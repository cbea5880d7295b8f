"""Image sets in one NumPy archive."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
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

IMAGES = {
    "train": ("x_train", "X_train", "train_x", "train_images", "train_data"),
    "test": ("x_test", "X_test", "test_x", "test_images", "test_data"),
}
LABELS = {
    "train": ("y_train", "Y_train", "train_y", "train_labels", "train_targets"),
    "test": ("y_test", "Y_test", "test_y", "test_labels", "test_targets"),
}
NAMES = ("class_names", "label_names", "classes")
DAMAGED = (zipfile.BadZipFile, zlib.error, OSError, EOFError)  # an archive, not the header of an array in it


class Member(NamedTuple):
    """An array in the archive, as its header describes it."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool


class Npz(StoredDataset):
    """``x_train, y_train, x_test, y_test`` in an ``.npz`` file.

    Images are uint8, N x H x W x 3 or N x 3 x H x W, or gray with one channel or none. Other usual names of the arrays
    are understood; ``class_names`` is used if there. Images are read piece by piece.
    """

    name: ClassVar[str] = "npz"

    path: InputPath = Field(description="the .npz file")

    def files(self, data_dir: Path) -> list[Path]:
        return [self.path]

    def load(self, split: str, ctx: Context) -> ImageSet:
        check_split(split)
        with _archive(self.path) as archive:
            with _reading(self.path):
                labels = {s: _labels(archive, self._find(archive, LABELS[s])) for s in SPLITS}
                names = self._class_names(archive, labels)
                members = {s: self._find(archive, IMAGES[s]) for s in SPLITS}
            for part, values in labels.items():
                check_labels(values, names, f"{self.path.name} {part}")
            for part, member in members.items():
                _check_images(member, labels[part])
            member = members[split]
            rows = first_per_class(labels[split], self.limit(split))
            parts = chosen(_pieces(archive, member, self.path), rows)
            images = store_arrays(parts, len(rows), self.size, ctx, f"reading {self.path.name} {split}")
        return ImageSet(images, labels[split][rows], names, self.path.stem)

    def _find(self, archive: zipfile.ZipFile, names: tuple[str, ...]) -> Member:
        stored = [name.removesuffix(".npy") for name in archive.namelist()]
        member = next((name for name in names if name in stored), None)
        if member is None:
            raise ValidationError(f"{self.path.name} has no array {names[0]}", f"it has {', '.join(stored) or 'none'}")
        return _header(archive, member)

    def _class_names(self, archive: zipfile.ZipFile, labels: dict[str, Labels]) -> tuple[str, ...]:
        for name in NAMES:
            if f"{name}.npy" in archive.namelist():
                member, images = _header(archive, name), sum(map(len, labels.values()))
                if math.prod(member.shape) > images:
                    raise ValidationError(
                        f"array {name} of {self.path.name} has {math.prod(member.shape)} names for {images} images",
                        "give one name a class",
                    )
                return tuple(map(str, _read(archive, member).ravel()))
        return numbered(count_classes(labels.values(), self.path.name))


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open the archive. Raises UserError in one line when that cannot be done."""
    check_file(path)
    if not path.is_file():
        raise UserError(f"{path} is a folder", "give the .npz file in it")
    with _reading(path):
        archive = zipfile.ZipFile(path)
    with archive:
        yield archive


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Say in one line whatever is wrong with an archive that is read here, and nothing else: not a full disk."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # zipfile raises what damaged archives lead it to, UnicodeDecodeError among it
        reason = first_line(error)
        raise ValidationError(f"cannot read {path}: {reason}", "it is damaged or not an .npz file") from error


def _header(archive: zipfile.ZipFile, name: str) -> Member:
    """Read what an array is. Raises ValidationError where it is not as long as it says: memory is taken for that."""
    with archive.open(f"{name}.npy") as file:
        member = Member(name, *_read_header(file, name))
        stored = archive.getinfo(f"{name}.npy").file_size - file.tell()
    if stored != math.prod(member.shape) * member.dtype.itemsize:
        raise ValidationError(
            f"array {name} is damaged: {stored:,} bytes are no {member.dtype} {member.shape}", "write the file again"
        )
    return member


def _read_header(file: Any, name: str) -> tuple[tuple[int, ...], np.dtype[Any], bool]:
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
    except DAMAGED:
        raise
    except Exception as error:  # NumPy parses the header as Python: damaged ones fail in many ways
        reason = first_line(error)
        raise ValidationError(f"array {name} is damaged: {reason}", "write the file again") from error
    if dtype.hasobject:
        raise ValidationError(f"array {name} holds Python objects", "save it as plain numbers")
    return shape, dtype, fortran


def _read(archive: zipfile.ZipFile, member: Member) -> NDArray[Any]:
    with archive.open(f"{member.name}.npy") as file:
        try:
            return np.asarray(np.lib.format.read_array(file, allow_pickle=False))
        except ValueError as error:
            raise ValidationError(f"array {member.name} is damaged: {error}", "write the file again") from error


def _labels(archive: zipfile.ZipFile, member: Member) -> Labels:
    values = _read(archive, member)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise ValidationError(
            f"array {member.name} is {values.dtype} {values.shape}, not one integer an image",
            "give class numbers from 0",
        )
    return values.astype(np.int64)


def _check_images(member: Member, labels: Labels) -> None:
    if member.dtype != np.uint8:
        raise ValidationError(f"array {member.name} is {member.dtype}, not uint8", "save pixels as uint8, 0 to 255")
    gray = len(member.shape) == 3
    colour = len(member.shape) == 4 and (member.shape[3] in (1, 3) or member.shape[1] in (1, 3))
    if not (gray or colour):
        raise ValidationError(
            f"array {member.name} has shape {member.shape}", "images are N x H x W x 3 or N x 3 x H x W"
        )
    if member.shape[0] != len(labels):
        raise ValidationError(
            f"array {member.name} has {member.shape[0]} images for {len(labels)} labels", "give one label an image"
        )


def _pieces(archive: zipfile.ZipFile, member: Member, path: Path) -> Iterator[Pixels]:
    """Yield the images, N x H x W x 3, some at a time."""
    if member.fortran:  # such an array is not stored image after image
        with _reading(path):
            whole = _read(archive, member)
        yield rgb(whole)
        return
    each = math.prod(member.shape[1:])
    step = max(1, CHUNK_BYTES // max(each, 1))
    with archive.open(f"{member.name}.npy") as file:
        _read_header(file, member.name)
        for start in range(0, member.shape[0], step):
            count = min(step, member.shape[0] - start)
            with _reading(path):
                data = file.read(count * each)
            if len(data) != count * each:
                raise ValidationError(
                    f"array {member.name} ends after image {start + len(data) // each}", "write the file again"
                )
            yield rgb(np.frombuffer(data, dtype=np.uint8).reshape(count, *member.shape[1:]))
