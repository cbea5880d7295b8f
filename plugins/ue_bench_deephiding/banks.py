"""Hidden images: where they come from, and how they are brought to the size of the covers.

A bank is uint8, classes x images a class x H x W x 3.
"""

from __future__ import annotations

import io
import math
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ue_bench.api import ImageSet, UserError, visible_files

from .shapes import semantic_image

Bank = NDArray[np.uint8]
SOURCE_SIZE = 64  # procedural images are drawn at least this large and reduced with antialiasing
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"}


class Picture(NamedTuple):
    """An encoded image: what it is called in messages, and its file or its bytes."""

    name: str
    content: Path | bytes


def resized(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the largest centre part of ``image`` (H x W x 3) with the shape of ``size``, bicubic with antialiasing."""
    from PIL import Image

    height, width = image.shape[:2]
    scale = min(height / size[0], width / size[1])
    rows, columns = min(height, max(1, round(size[0] * scale))), min(width, max(1, round(size[1] * scale)))
    top, left = (height - rows) // 2, (width - columns) // 2
    part = Image.fromarray(image[top : top + rows, left : left + columns])
    if part.size != (size[1], size[0]):
        part = part.resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return np.asarray(part)


def empty(classes: int, images: int, size: tuple[int, int]) -> Bank:
    return np.empty((classes, images, *size, 3), np.uint8)


def procedural(classes: int, images: int, size: tuple[int, int], seed: int, distinct: bool = True) -> Bank:
    """Draw one scene of silhouettes a class; hue, light and texture by image (see ``shapes``)."""
    bank = empty(classes, images, size)
    drawn = max(SOURCE_SIZE, *size)
    for label, index in np.ndindex(classes, images):
        bank[label, index] = resized(semantic_image(label, index, drawn, seed, distinct), size)
    return bank


class Drawn:
    """The bank of ``procedural``, of which every image is drawn when it is asked for: large ones would fill memory.

    Indexed by labels and numbers of images, as an array is.
    """

    def __init__(self, classes: int, images: int, size: tuple[int, int], seed: int, distinct: bool = True) -> None:
        self.shape = (classes, images, *size, 3)
        self.seed, self.distinct = seed, distinct

    @property
    def nbytes(self) -> int:
        """Return how many bytes all of it would take."""
        return math.prod(self.shape)

    def __getitem__(self, where: tuple[NDArray[np.integer], NDArray[np.integer]]) -> Bank:
        size = self.shape[2], self.shape[3]
        drawn = max(SOURCE_SIZE, *size)
        scenes = (semantic_image(int(a), int(b), drawn, self.seed, self.distinct) for a, b in zip(*where, strict=True))
        return np.stack([resized(scene, size) for scene in scenes])


def next_class(data: ImageSet, images: int, size: tuple[int, int], rng: np.random.Generator) -> Bank:
    """Take clean images of the class after, in label order: the paper's ablation (Table D).

    No image twice in a class unless it has too few. Raises UserError when a class has none.
    """
    bank = empty(data.num_classes, images, size)
    for label in range(data.num_classes):
        source = (label + 1) % data.num_classes
        candidates = np.flatnonzero(data.labels == source)
        if len(candidates) == 0:
            raise UserError(f"class {data.class_names[source]!r} has no image to hide", "use hidden=procedural")
        for index, row in enumerate(rng.choice(candidates, images, replace=len(candidates) < images)):
            bank[label, index] = resized(data.images[row], size)
    return bank


def natural(path: Path, classes: int, images: int, size: tuple[int, int], rng: np.random.Generator) -> Bank:
    """Deal the images of ``path`` (a folder of images, or Parquet files) out at random, each used once.

    Raises UserError when there are too few, or one that is needed cannot be read.
    """
    photos = pictures(path)
    if len(photos) < classes * images:
        raise UserError(
            f"{path} holds {len(photos)} images, but {classes} classes x {images} are to be hidden",
            "give more images or a smaller bank",
        )
    bank = empty(classes, images, size)
    dealt = rng.permutation(len(photos))[: classes * images].reshape(classes, images)
    for label, index in np.ndindex(classes, images):
        bank[label, index] = resized(decode(photos[dealt[label, index]]), size)
    return bank


def random_natural(path: Path, classes: int, images: int, size: tuple[int, int], rng: np.random.Generator) -> Bank:
    """Take the same ``images`` images of ``path`` for every class: what is hidden says nothing about it (Table D).

    A read-only view. Raises UserError when there are too few, or one that is needed cannot be read.
    """
    shared = natural(path, 1, images, size, rng)[0]
    return np.broadcast_to(shared, (classes, *shared.shape))


def logo(path: Path, classes: int, size: tuple[int, int]) -> Bank:
    """Take the one image at ``path`` for every class. A read-only view. Raises UserError when it cannot be read."""
    if not path.is_file():
        raise UserError(f"hidden=logo needs one image file, {path} is not one", "name it with hidden_images=FILE")
    one = resized(decode(Picture(str(path), path)), size)
    return np.broadcast_to(one, (classes, 1, *one.shape))


def folder(path: Path, class_names: tuple[str, ...], images: int, size: tuple[int, int]) -> Bank:
    """Take the first images of ``path/<class name>/``, or of ``path/<label>/`` where there is none, by name.

    Raises UserError when a class has too few, or one that is needed cannot be read.
    """
    bank = empty(len(class_names), images, size)
    for label, name in enumerate(class_names):
        class_pictures = pictures_of_class(path, name, label)
        if len(class_pictures) < images:
            raise UserError(
                f"{path / name} holds {len(class_pictures)} images, {images} are needed", "give more or a smaller bank"
            )
        for index in range(images):
            bank[label, index] = resized(decode(class_pictures[index]), size)
    return bank


def pictures(path: Path) -> list[Picture]:
    """List all images at ``path``, a file or a folder with whatever is below it, in the order of their names."""
    files = [path] if path.is_file() else _visible(path, {*SUFFIXES, ".parquet"})
    listed: list[Picture] = []
    for file in files:
        if file.suffix.lower() in SUFFIXES:
            listed.append(Picture(str(file), file))
        elif file.suffix.lower() == ".parquet":
            listed += _rows(file)
    return listed


def image_files(path: Path) -> list[Path]:
    """List ``path`` itself, or all image files below it, ordered by name. Raises UserError without ``path``."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"no file or folder {path}")
    return _visible(path, SUFFIXES)


def pictures_of_class(path: Path, name: str, label: int) -> list[Picture]:
    """List the images in ``path/name``, or in ``path/label`` where there is no such folder, by name."""
    class_folder = path / name if (path / name).is_dir() else path / str(label)
    return [Picture(str(p), p) for p in _visible(class_folder, SUFFIXES, below=False)]


def _visible(folder: Path, suffixes: Collection[str], below: bool = True) -> list[Path]:
    """List files with these suffixes in a folder that may not be there, in the order of their paths."""
    return sorted(visible_files(folder, suffixes, below)) if folder.is_dir() else []


def _rows(file: Path) -> Iterator[Picture]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(file)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{file} is not a readable Parquet file", "remove it, or fetch it again") from error
    for field in table.schema_arrow:
        if pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0:
            break
    else:
        raise UserError(f"{file} has no image column", "expected a struct with a field 'bytes'")
    number = 0
    for batch in table.iter_batches(columns=[field.name]):
        for value in batch.column(0).field("bytes").to_pylist():
            yield Picture(f"{file} row {number}", value or b"")
            number += 1


def decode(picture: Picture, blend: bool = True) -> NDArray[np.uint8]:
    """Decode to H x W x 3; what is transparent is white, or with ``blend=False`` has the colour that the file gives it.

    Raises UserError when ``picture`` is not a readable image, or has more than 8 bits a channel.
    """
    from PIL import Image

    content = picture.content
    try:
        encoded = content if isinstance(content, bytes) else content.read_bytes()
        with Image.open(io.BytesIO(encoded)) as image:
            deep = image.mode[0] in "IF"
            if "A" in image.mode or "transparency" in image.info:
                layer = image.convert("RGBA")
                if not blend:
                    return np.asarray(layer.convert("RGB"))
                return np.asarray(Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB"))
            pixels = np.asarray(image.convert("RGB"))
    except Exception as error:  # Pillow's decoders raise whatever damaged data leads them to
        raise UserError(f"{picture.name} is not a readable image", "remove it") from error
    if deep:  # Pillow would clip them
        raise UserError(f"{picture.name} has more than 8 bits a channel", "save it with 8")
    return pixels
