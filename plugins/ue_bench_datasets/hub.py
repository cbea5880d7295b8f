"""Parquet files in the layout of the Hugging Face hub: encoded images with labels, one row each."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ue_bench.api import UserError, ValidationError, check_file, first_line

from .common import Labels, Picture, Rows, count_classes, numbered

TRAIN = ("train",)
TEST = ("test", "validation", "valid", "val")  # the first of them that exists
IMAGE_NAMES = ("image", "img")
LABEL_NAMES = ("label", "labels", "fine_label", "class")
BATCH = 256  # rows read at a time
SHARD = re.compile(r"(?P<name>.*?)(?P<number>\d+)-of-(?P<count>\d+)(?P<digest>-[0-9a-f]+)?\.parquet")


def shards(folder: Path, names: tuple[str, ...]) -> list[Path]:
    """Return Parquet files of the first split among ``names`` that ``folder`` has, in order:
    ``train-00000-of-00002.parquet``, ``train.parquet``, ``train/0000.parquet``, there or in ``data/``.
    """
    for name in names:
        for place in (folder, folder / "data"):
            for pattern in (f"{name}-*.parquet", f"{name}.parquet*", f"{name}/*.parquet"):
                # The star after a whole name matches nothing more: glob gives links to nothing for patterns only.
                files = sorted(p for p in place.glob(pattern) if p.name[0] != "." and p.suffix == ".parquet")
                if files:
                    return files
    return []


def check_shards(files: Sequence[Path]) -> None:
    """Check that all files of a split are there, as ``-of-00002`` in their names says, each of them once.

    Raises ValidationError that names those that are missing, are links to nothing or belong to another set.
    """
    for file in files:
        check_file(file)
    shards = [(file, match) for file in files if (match := SHARD.fullmatch(file.name))]
    if not shards:
        return
    if len(shards) < len(files):
        other = next(file for file in files if not SHARD.fullmatch(file.name))
        raise ValidationError(f"{shards[0][0].name} and {other.name} are of two sets", f"keep one in {other.parent}")
    first, match = shards[0]
    numbers: dict[int, Path] = {}
    for file, its in shards:
        if (its["name"], its["count"]) != (match["name"], match["count"]):
            raise ValidationError(f"{first.name} and {file.name} are of two sets", f"keep one in {file.parent}")
        if int(its["number"]) in numbers:
            other = numbers[int(its["number"])]
            raise ValidationError(f"{other.name} and {file.name} are the same part", f"keep one in {file.parent}")
        numbers[int(its["number"])] = file
    start = 0 if 0 in numbers or int(match["count"]) not in numbers else 1
    width = len(match["number"])
    missing = [
        f"{match['name']}{number:0{width}}-of-{match['count']}.parquet"
        for number in range(start, start + int(match["count"]))
        if number not in numbers
    ]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ValidationError(f"{first.parent} lacks {missing[0]}{more}", "fetch what is missing, or the folder again")


@dataclass(frozen=True)
class Table:
    """The rows of one or more Parquet files with the columns that hold image and label."""

    files: tuple[Path, ...]
    image_column: str | None = None
    label_column: str | None = None

    @cached_property
    def _schema(self) -> Any:
        return self._open(self.files[0]).schema_arrow

    @cached_property
    def _features(self) -> dict[str, Any]:
        """Return what the hub says of the columns; nothing where it says nothing."""
        try:
            features = json.loads(self._schema.metadata[b"huggingface"])["info"]["features"]
        except (KeyError, TypeError, ValueError, RecursionError):
            return {}
        return features if isinstance(features, dict) else {}

    @cached_property
    def image(self) -> str:
        """Name of the image column."""
        return self._choose("image", self.image_column, _holds_images, IMAGE_NAMES, "Image")

    @cached_property
    def label(self) -> str:
        """Name of the label column."""
        return self._choose("label", self.label_column, _holds_labels, LABEL_NAMES, "ClassLabel")

    def _choose(self, what: str, asked: str | None, fits: Any, usual: tuple[str, ...], feature: str) -> str:
        names: list[str] = list(self._schema.names)
        where = self.files[0].name
        candidates = [name for name in names if fits(self._schema.field(name).type)]
        if asked is not None:
            if asked not in names:
                raise UserError(f"{where} has no column {asked!r}", f"columns: {', '.join(names)}")
            if asked not in candidates:
                raise UserError(
                    f"column {asked!r} of {where} holds {self._schema.field(asked).type}, which cannot be the {what}",
                    f"columns that can: {', '.join(candidates) or 'none'}",
                )
            return asked
        known = [name for name in usual if name in candidates]
        marked = [n for n in candidates if isinstance(f := self._features.get(n), dict) and f.get("_type") == feature]
        if known:
            return known[0]
        for choice in (marked, candidates):
            if len(choice) == 1:
                return choice[0]
        if candidates:
            raise UserError(
                f"{where} has several columns that may be the {what}: {', '.join(candidates)}",
                f"choose one: {what}_column={candidates[0]}",
            )
        raise ValidationError(f"{where} has no column that can be the {what}", f"columns: {', '.join(names)}")

    @cached_property
    def _values(self) -> Any:
        """The label column of all files."""
        import pyarrow as pa

        columns = []
        for file in self.files:
            try:
                columns.append(self._open(file).read(columns=[self.label]).column(self.label))
            except (pa.ArrowException, KeyError, OSError) as error:
                raise _damaged(file, error) from error
            if columns[-1].null_count:
                raise ValidationError(f"{file.name} has rows without a label", "remove those rows")
            if columns[-1].type != columns[0].type:
                one, other = f"{columns[0].type} in {self.files[0].name}", f"{columns[-1].type} in {file.name}"
                raise ValidationError(f"column {self.label!r} is {one} but {other}", "write all files with one schema")
        return pa.chunked_array([chunk for column in columns for chunk in column.chunks], type=columns[0].type)

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """Return the names of the hub's metadata; else the sorted label strings; else ``class_0`` and so on."""
        feature = self._features.get(self.label)
        names = feature.get("names") if isinstance(feature, dict) else None
        if isinstance(names, list) and names:
            return tuple(map(str, names))
        if self._has_strings:
            return tuple(sorted(map(str, self._values.unique().to_pylist())))
        return numbered(count_classes([np.asarray(self._values.to_numpy(), dtype=np.int64)], self.files[0].name))

    @property
    def _has_strings(self) -> bool:
        return not _is_integer(self._values.type)

    def labels(self, class_names: tuple[str, ...]) -> Labels:
        """Return the label of every row; strings by their place in ``class_names``."""
        if not self._has_strings:
            return np.asarray(self._values.to_numpy(), dtype=np.int64)
        place = {name: label for label, name in enumerate(class_names)}
        texts = self._values.to_pylist()
        unknown = sorted({str(t) for t in texts} - set(place))
        if unknown:
            raise ValidationError(
                f"{self.files[0].name} has the class {unknown[0]!r}, which the training files lack",
                "both splits need the same classes",
            )
        return np.array([place[str(text)] for text in texts], dtype=np.int64)

    def pictures(self, rows: Rows) -> Iterator[Picture]:
        """Return the encoded images of ``rows``, which must ascend. Row groups without any of them are not read."""
        import pyarrow as pa

        start = 0
        wanted = iter(rows.tolist())
        row = next(wanted, None)
        for file in self.files:
            opened = self._open(file)
            if self.image not in opened.schema_arrow.names:
                raise ValidationError(f"{file.name} has no column {self.image!r}", "write all files with one schema")
            first = start
            for group in range(opened.num_row_groups):
                stop = start + opened.metadata.row_group(group).num_rows
                if row is None or row >= stop:
                    start = stop
                    continue
                try:
                    for batch in opened.iter_batches(BATCH, row_groups=[group], columns=[self.image]):
                        images = batch.column(0)
                        while row is not None and row < start + len(images):
                            where = f"row {row - first} of {file.name}"
                            yield Picture(where, _encoded(images[row - start].as_py(), where))
                            row = next(wanted, None)
                        start += len(images)
                except (pa.ArrowException, OSError) as error:
                    raise _damaged(file, error) from error

    def format(self) -> str:
        """Return the stored format of the first image: ``PNG``, or ``JPEG-75`` with its estimated quality."""
        from PIL import Image
        from PIL.JpegImagePlugin import JpegImageFile

        first = next(self.pictures(np.arange(1)), None)
        if first is None or isinstance(first.content, Path):
            return ""
        try:
            with Image.open(io.BytesIO(first.content)) as image:
                if isinstance(image, JpegImageFile):
                    return f"JPEG-{jpeg_quality(image.quantization)}"
                return image.format or ""
        except OSError:
            return ""  # decoding says what is wrong, and where

    @staticmethod
    def _open(file: Path) -> Any:
        import pyarrow as pa
        from pyarrow import parquet

        try:
            return parquet.ParquetFile(file)
        except (pa.ArrowException, OSError) as error:
            raise _damaged(file, error) from error


def _damaged(file: Path, error: Exception) -> UserError:
    reason = first_line(error)
    return ValidationError(f"cannot read {file}: {reason}", "it is damaged or not a Parquet file; fetch it again")


def _encoded(value: Any, where: str) -> bytes:
    content = value.get("bytes") if isinstance(value, dict) else value
    if not content:
        raise ValidationError(f"{where} holds no image bytes", "store the images inside the Parquet file")
    return bytes(content)


def _is_integer(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_integer(kind))


def _holds_labels(kind: Any) -> bool:
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    return bool(types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind))


def _holds_images(kind: Any) -> bool:
    from pyarrow import types

    if types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _holds_images(kind.field(index).type)
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


# fmt: off
_LUMINANCE_TABLE = np.array([  # ITU-T T.81, table K.1, which libjpeg scales by quality
    16, 11, 10, 16, 24, 40, 51, 61,
    12, 12, 14, 19, 26, 58, 60, 55,
    14, 13, 16, 24, 40, 57, 69, 56,
    14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77,
    24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101,
    72, 92, 95, 98, 112, 100, 103, 99,
])
# fmt: on


def jpeg_quality(tables: dict[int, list[int]]) -> int:
    """Return the libjpeg quality, 1 to 100, whose luminance table is nearest to the first of ``tables``."""
    table = np.sort(np.asarray(tables[min(tables)]))  # sorted, because decoders differ in the order of coefficients
    qualities = np.arange(1, 101)
    scale = np.where(qualities < 50, 5000 // qualities, 200 - 2 * qualities)
    scaled = np.clip((np.sort(_LUMINANCE_TABLE) * scale[:, None] + 50) // 100, 1, 255)
    return int(qualities[abs(scaled - table).sum(1).argmin()])
