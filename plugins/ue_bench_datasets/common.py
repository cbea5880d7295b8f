"""What all stored datasets share: choosing rows, decoding pictures, one size, and the checks on labels."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ue_bench.api import Context, Dataset, UserError, ValidationError, check_file, derive

if TYPE_CHECKING:
    from PIL import Image

T = TypeVar("T")
Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]
Rows = NDArray[np.intp]

SPLITS = ("train", "test")
CHUNK_BYTES = 32 * 2**20  # decoded pictures held at a time
FEW_CLASSES = 1000  # can be named before it is known which of them have images


class Picture(NamedTuple):
    """An encoded picture: where it came from, for messages, and its file or bytes."""

    where: str
    content: Path | bytes


class StoredDataset(Dataset):
    """A dataset that is read, not made; its parameters choose a part of it and a size."""

    limit_per_class: int | None = Field(
        None, ge=1, description="training images per class, the first ones in dataset order; all by default"
    )
    test_limit_per_class: int | None = Field(None, ge=1, description="test images per class, likewise")
    size: int | None = Field(
        None,
        ge=4,
        le=4096,
        description="side in pixels: the shorter side is resized (Lanczos, antialiased), then the centre is cropped; "
        "images of that size already are left untouched",
    )

    def limit(self, split: str) -> int | None:
        return self.limit_per_class if split == "train" else self.test_limit_per_class


class HeldOut(StoredDataset):
    """A dataset whose test images may be a share of the training images, chosen class by class."""

    test_fraction: float | None = Field(
        None, gt=0, lt=1, description="share of every class held out for testing, in place of a test split"
    )
    split_seed: int = Field(0, ge=0, description="seed of the choice of held-out images")

    def held_out(self, split: str, labels: Labels, class_names: Sequence[str], where: str) -> Rows:
        """Return rows of ``split`` when there is one set of rows for both."""
        if self.test_fraction is None:
            if split == "test":
                raise UserError(f"{where} has no test images", f"hold a share out: {self.name}[...,test_fraction=0.2]")
            return np.arange(len(labels))
        in_test = np.zeros(len(labels), dtype=bool)
        for label, name in enumerate(class_names):
            rows = np.flatnonzero(labels == label)
            if len(rows) < 2:
                raise ValidationError(
                    f"class {name!r} of {where} has {len(rows)} images, too few to hold one out for testing",
                    "add images to that class or remove it",
                )
            count = min(max(round(len(rows) * self.test_fraction), 1), len(rows) - 1)
            rng = np.random.default_rng(derive(self.split_seed, "held out", label))
            in_test[rng.permutation(rows)[:count]] = True
        return np.flatnonzero(in_test == (split == "test"))


def check_split(split: str) -> None:
    if split not in SPLITS:
        raise UserError(f"no split {split!r}", "splits are train and test")


def check_labels(labels: Labels, class_names: Sequence[str], where: str) -> None:
    """Check that every label names a class and every class has an image."""
    if not class_names:
        raise ValidationError(f"{where} has no images", "add some")
    if len(labels) and labels.min() < 0:
        raise ValidationError(f"{where} has the label {labels.min()}", "unlabelled images cannot be used; remove them")
    if len(labels) and labels.max() >= len(class_names):
        raise ValidationError(
            f"{where} has the label {labels.max()}, but there are {len(class_names)} classes",
            f"labels must lie in 0..{len(class_names) - 1}",
        )
    counts = np.bincount(labels, minlength=len(class_names))
    if not counts.all():
        empty = int(np.argmin(counts > 0))
        raise ValidationError(f"class {class_names[empty]!r} has no image in {where}", "add images or remove the class")


def check_same_classes(train: Sequence[str], test: Sequence[str], where: str) -> None:
    """Check that training and test images are of the same classes in the same order."""
    if tuple(train) == tuple(test):
        return
    for one, other, here, there in ((train, test, "train", "test"), (test, train, "test", "train")):
        missing = [name for name in one if name not in other]
        if missing:
            raise ValidationError(
                f"class {missing[0]!r} of {where} is in {here} but not in {there}",
                "both splits need the same classes",
            )
    raise ValidationError(f"{where} has its classes in another order in test than in train", "give both the same order")


def numbered(count: int) -> tuple[str, ...]:
    """Return names for classes that have none."""
    return tuple(f"class_{label}" for label in range(count))


def count_classes(labels: Iterable[Labels], where: str) -> int:
    """Return how many classes there are, counted from 0 to the highest of ``labels``, which are those of all splits.

    Raises ValidationError for a label far above the number of images: the names alone might fill the memory.
    """
    labels = list(labels)
    highest = max(int(values.max(initial=-1)) for values in labels)
    images = sum(map(len, labels))
    if highest >= max(images, FEW_CLASSES):
        raise ValidationError(f"{where} has the label {highest}, but only {images} images", "count classes from 0")
    return highest + 1


def first_per_class(labels: Labels, limit: int | None) -> Rows:
    """Return rows of the first ``limit`` images of every class, in dataset order."""
    if limit is None:
        return np.arange(len(labels))
    by_class = np.argsort(labels, kind="stable")
    grouped = labels[by_class]
    rank = np.arange(len(labels)) - np.searchsorted(grouped, grouped)
    return np.sort(by_class[rank < limit])


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert to 8-bit RGB, upright: EXIF orientation applied, transparency laid on white, 16 bits scaled down to 8."""
    from PIL import Image, ImageOps

    if image.mode == "RGB" and "transparency" not in image.info and not image.getexif():
        return image
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, dtype=np.float64)
        # I;16 is 16 bits; I is either, by its values; F is taken to hold 0..255.
        wide = image.mode.startswith("I;16") or (image.mode == "I" and values.max(initial=0) > 255)
        image = Image.fromarray(np.clip(np.rint(values / 257 if wide else values), 0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def fit(image: Image.Image, size: int | None) -> Image.Image:
    """Return ``image`` as a square of ``size`` pixels."""
    from PIL import Image

    width, height = image.size
    if size is None or (width, height) == (size, size):
        return image
    scale = size / min(width, height)
    width, height = max(size, round(width * scale)), max(size, round(height * scale))
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))


def decode(picture: Picture, size: int | None = None) -> Pixels:
    """Decode a picture to H x W x 3. Raises ValidationError that names it when it is damaged."""
    from PIL import Image

    content = io.BytesIO(picture.content) if isinstance(picture.content, bytes) else picture.content
    try:
        with Image.open(content) as image:
            return np.asarray(fit(to_rgb(image), size))
    except Exception as error:  # Pillow's decoders raise whatever damaged data leads them to
        if isinstance(picture.content, Path):
            check_file(picture.content)
        reason = str(error).strip().splitlines()
        text = "not an image" if "cannot identify" in str(error) else (reason[0] if reason else type(error).__name__)
        raise ValidationError(f"cannot decode {picture.where}: {text}", "replace or remove it") from error


def store_pictures(pictures: Iterable[Picture], count: int, size: int | None, ctx: Context, text: str) -> Pixels:
    """Decode ``count`` pictures and write them to disk piece by piece.

    Raises UserError that names two pictures when their sizes differ and no ``size`` was asked for.
    """
    pictures = iter(ctx.progress(pictures, text, count))
    first = next(pictures)
    with warnings.catch_warnings(), ThreadPoolExecutor(_cores()) as pool:
        warnings.simplefilter("ignore")  # Pillow warns about odd metadata, which does not concern the pixels
        shape = decode(first, size).shape

        def checked(picture: Picture) -> Pixels:
            pixels = decode(picture, size)
            if pixels.shape != shape:
                one, other = f"{first.where} is {_across(shape)}", f"{picture.where} is {_across(pixels.shape)}"
                raise UserError(f"images differ in size: {one}, {other}", "choose one size, such as size=64")
            return pixels

        def chunks() -> Iterator[Pixels]:
            for batch in batched(chain([first], pictures), max(1, CHUNK_BYTES // int(np.prod(shape)))):
                # Small pictures decode faster than a thread is told to: hand out several at a time.
                share = max(1, min(64, 2**21 // int(np.prod(shape))))
                parts = pool.map(lambda part: [checked(p) for p in part], list(batched(batch, share)))
                yield np.stack([pixels for part in parts for pixels in part])

        return ctx.store_images((count, *shape), chunks())


def store_arrays(arrays: Iterable[Pixels], count: int, size: int | None, ctx: Context, text: str) -> Pixels:
    """Write ``count`` RGB images that come in arrays N x H x W x 3, resized where ``size`` asks for it."""
    parts = iter(arrays)
    head = next(parts)
    side = head.shape[1:3] if size is None else (size, size)

    def chunks() -> Iterator[Pixels]:
        done = 0
        for part in chain([head], parts):
            ctx.report(done, count, text)
            if len(part):  # a limit may leave nothing of a part
                yield resized(part, size)
            done += len(part)
        ctx.report(count, count, text)

    return ctx.store_images((count, *side, 3), chunks())


def rgb(images: Pixels) -> Pixels:
    """Return N x H x W x 3 of images that are gray, with one channel or none, or have their channels first."""
    if images.ndim == 3:
        images = images[..., None]
    elif images.shape[3] not in (1, 3):
        images = images.transpose(0, 2, 3, 1)
    return np.broadcast_to(images, (*images.shape[:3], 3))


def chosen(pieces: Iterator[Pixels], rows: Rows) -> Iterator[Pixels]:
    """Yield the images at ``rows``, which ascend, out of consecutive pieces."""
    start = 0
    for piece in pieces:
        here = rows[(rows >= start) & (rows < start + len(piece))] - start
        start += len(piece)
        yield piece[here]


def resized(images: Pixels, size: int | None) -> Pixels:
    """Return ``images`` as squares of ``size`` pixels."""
    from PIL import Image

    if size is None or images.shape[1:3] == (size, size):
        return images
    return np.stack([np.asarray(fit(Image.fromarray(image), size)) for image in images])


def batched(items: Iterable[T], count: int) -> Iterator[list[T]]:
    """Yield lists of ``count`` items, the last one shorter."""
    remaining = iter(items)
    while batch := list(islice(remaining, count)):
        yield batch


def _cores() -> int:
    """Return the cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _across(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"
