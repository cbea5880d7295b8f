"""Hidden images: where they come from, and how they are brought to the size of the covers.

A bank is uint8, classes x images a class x H x W x 3.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ue_bench.api import ImageSet, UserError

from .shapes import semantic_image

Bank = NDArray[np.uint8]
SOURCE_SIZE = 64  # procedural images are drawn at least this large and reduced with antialiasing
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"}


def resized(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Centre square of ``image`` (H x W x 3) at ``size``, bicubic with antialiasing."""
    from PIL import Image

    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = Image.fromarray(image[top : top + side, left : left + side])
    if square.size != (size[1], size[0]):
        square = square.resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return np.asarray(square)


def procedural(classes: int, images: int, size: tuple[int, int], seed: int) -> Bank:
    """One silhouette a class, texture and colour by image."""
    drawn = max(SOURCE_SIZE, *size)
    rows = [[resized(semantic_image(c, j, drawn, seed), size) for j in range(images)] for c in range(classes)]
    return np.array(rows)


def next_class(data: ImageSet, images: int, rng: np.random.Generator) -> Bank:
    """Clean images of the class after, in label order: the paper's ablation (Table D)."""
    rows = []
    for label in range(data.num_classes):
        own = np.flatnonzero(data.labels == (label + 1) % data.num_classes)
        if len(own) == 0:
            name = data.class_names[(label + 1) % data.num_classes]
            raise UserError(f"class {name!r} has no image to hide", "use hidden=procedural")
        rows.append(data.images[rng.choice(own, images, replace=len(own) < images)])
    return np.array(rows)


def natural(path: Path, classes: int, images: int, size: tuple[int, int], rng: np.random.Generator) -> Bank:
    """Images of ``path`` (a folder of images, or Parquet files), each used once, dealt out at random.

    Raises UserError when there are too few.
    """
    found = list(_read_all(path))
    if len(found) < classes * images:
        raise UserError(
            f"{path} holds {len(found)} images, but {classes} classes x {images} are to be hidden",
            "give more images or a smaller bank",
        )
    dealt = rng.permutation(len(found))[: classes * images]
    flat = np.array([resized(found[i], size) for i in dealt])
    return flat.reshape(classes, images, *size, 3)


def folder(path: Path, class_names: Iterable[str], images: int, size: tuple[int, int]) -> Bank:
    """The first images of ``path/<class name>/``, by name. Raises UserError when a class has too few."""
    rows = []
    for name in class_names:
        own = sorted(p for p in (path / name).glob("*") if p.suffix.lower() in SUFFIXES)
        if len(own) < images:
            raise UserError(f"{path / name} holds {len(own)} images, {images} are needed", "give more or a smaller bank")
        rows.append([resized(_decode(p, p.read_bytes()), size) for p in own[:images]])
    return np.array(rows)


def _read_all(path: Path) -> Iterator[NDArray[np.uint8]]:
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    for file in files:
        if file.suffix.lower() in SUFFIXES:
            yield _decode(file, file.read_bytes())
        elif file.suffix.lower() == ".parquet":
            yield from _read_parquet(file)


def _read_parquet(file: Path) -> Iterator[NDArray[np.uint8]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.ParquetFile(file)
    for field in table.schema_arrow:
        if pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0:
            break
    else:
        raise UserError(f"{file} has no image column", "expected a struct with a field 'bytes'")
    for batch in table.iter_batches(columns=[field.name]):
        for row, value in enumerate(batch.column(0).field("bytes").to_pylist()):
            yield _decode(f"{file} row {row}", value)


def _decode(name: object, content: bytes) -> NDArray[np.uint8]:
    from PIL import Image

    try:
        return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{name} is not a readable image", "remove it") from error
