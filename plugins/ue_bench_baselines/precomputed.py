"""Protected images that were made elsewhere."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ue_bench.api import Context, ImageSet, InputPath, Protector, Ratio, UserError, ValidationError

from .quantise import budget, quantise, whole_levels

NAMES = ("images", "data", "arr_0", "x")  # looked for in this order in files of several arrays
ORDER_SAMPLE = 500  # images whose place is checked
STRANGERS = 3  # other clean images that each of them is compared with


class Precomputed(Protector):
    """Someone else's protected images, measured like any other protector's.

    ``path`` is one of
    - a folder with one 8-bit RGB PNG file an image and no sub-folders, in natural order of their names (2 before 10);
    - an ``.npz``, ``.npy`` or ``.safetensors`` file; the latter two may be larger than memory. Where a file has several
      arrays, the images are the one called images, data, arr_0 or x.

    Arrays are N x H x W x 3 or N x 3 x H x W, uint8 in 0..255 or float in [0, 1]; floats are rounded to the nearest
    grey level. Images must be those of the training split, in dataset order: labels are taken from the dataset.

    Raises UserError when the file cannot be read, and ValidationError when count, size or type differ from the clean
    set's, when an image exceeds ``linf``, or when fewer than half of a sample of images resemble their own clean image
    more than others of their class, which says that the order is another.
    """

    name: ClassVar[str] = "precomputed"

    path: InputPath = Field(description="folder of PNG files, or .npz, .npy or .safetensors file")
    linf: Annotated[Ratio, Field(gt=0, le=1)] | None = Field(
        None, description="Linf bound to hold the images to; null: none is declared"
    )

    @property
    def budget(self) -> str:
        return "none" if self.linf is None else budget("linf", self.linf)

    def protect(self, data: ImageSet, ctx: Context) -> ImageSet:
        stored = open_stored(self.path, data.size)
        label = self.path.name
        if stored.shape[0] != len(data):
            raise ValidationError(
                f"{label} has {stored.shape[0]} images, but the dataset has {len(data)}",
                "give one image for every training image, in dataset order",
            )
        if stored.shape[1:] != data.images.shape[1:]:
            raise ValidationError(
                f"{label} has images of shape {stored.shape[1:]}, but the dataset's are {data.images.shape[1:]}",
                "export them at the size of the dataset",
            )
        check_order(stored, data, label)

        def change(clean: NDArray[np.uint8], where: slice) -> NDArray[np.uint8]:
            images = stored.read(where)
            if self.linf is not None:
                self._check_bound(images, clean, where)
            return images

        return ctx.map_images(data, change, f"reading {label}", batch=250)

    def _check_bound(self, images: NDArray[np.uint8], clean: NDArray[np.uint8], where: slice) -> None:
        assert self.linf is not None
        changes = np.abs(images.astype(np.int16) - clean).max(axis=(1, 2, 3))
        if changes.max() > whole_levels(self.linf):
            worst = int(changes.argmax())
            raise ValidationError(
                f"{self.path.name}: image {where.start + worst} differs by {changes[worst]}/255 from the clean one, "
                f"more than {self.budget}",
                "declare the budget the images were made with, or none",
            )


@dataclass(frozen=True)
class Stored:
    """Images in a file: their shape N x H x W x 3, and ``read``, which gives a slice of them as bytes."""

    shape: tuple[int, ...]
    read: Callable[[slice], NDArray[np.uint8]]


def open_stored(path: Path, size: tuple[int, int]) -> Stored:
    """The images at ``path``, expected at ``size``. Raises UserError when there is nothing of a known format."""
    openers = {".npy": _open_npy, ".npz": _open_npz, ".safetensors": _open_safetensors}
    if path.is_dir():
        return _open_folder(path)
    if not path.is_file():
        raise UserError(f"no file or folder at {path}", "check the path")
    if path.suffix.lower() not in openers:
        raise UserError(f"{path.name} has no known format", f"use a folder of PNG files, {', '.join(openers)}")
    try:
        shape, read = openers[path.suffix.lower()](path)
    except UserError:
        raise
    except Exception as error:  # readers raise ValueError, OSError, EOFError, BadZipFile, SafetensorError, ...
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"cannot read {path.name}: {reason}", "check that the file is whole") from error
    return _as_images(shape, read, size, path.name)


def _as_images(
    shape: tuple[int, ...], read: Callable[[slice], NDArray[Any]], size: tuple[int, int], label: str
) -> Stored:
    """A stored array seen as bytes N x H x W x 3."""
    channels_first = shape[1:] == (3, *size) and shape[1:] != (*size, 3)

    def read_bytes(where: slice) -> NDArray[np.uint8]:
        values = read(where)
        if values.dtype != np.uint8:
            if not np.issubdtype(values.dtype, np.floating):
                raise ValidationError(f"{label} holds {values.dtype} values", "store uint8, or floats in [0, 1]")
            if not (values.min() >= -1e-6 and values.max() <= 1 + 1e-6):  # written so that NaN is refused
                raise ValidationError(
                    f"{label} holds floats from {values.min():g} to {values.max():g}",
                    "store floats in [0, 1], or uint8",
                )
            values = quantise(values.astype(np.float64) * 255)
        return values.transpose(0, 2, 3, 1) if channels_first else values

    return Stored((shape[0], *size, 3) if channels_first else shape, read_bytes)


Opened = tuple[tuple[int, ...], Callable[[slice], NDArray[Any]]]


def _open_npy(path: Path) -> Opened:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    return array.shape, lambda where: np.asarray(array[where])


def _open_npz(path: Path) -> Opened:
    with np.load(path, allow_pickle=False) as archive:
        array = archive[_pick(archive.files, path)]
    return array.shape, lambda where: array[where]


def _open_safetensors(path: Path) -> Opened:
    from safetensors import safe_open

    file: Any = safe_open(path, framework="numpy")
    tensor = file.get_slice(_pick(list(file.keys()), path))
    return tuple(tensor.get_shape()), lambda where: tensor[where.start : where.stop]


def _pick(names: list[str], path: Path) -> str:
    """The name of the array that holds the images."""
    for name in names if len(names) == 1 else NAMES:
        if name in names:
            return name
    raise UserError(f"{path.name} has arrays {', '.join(names) or 'none'}", f"call the images {' or '.join(NAMES)}")


def natural_key(path: Path) -> list[str | int]:
    """Sort key by which ``2.png`` comes before ``10.png``."""
    return [int(part) if part.isdigit() else part for part in re.split(r"([0-9]+)", path.name)]


def _open_folder(folder: Path) -> Stored:
    paths = sorted((p for p in folder.iterdir() if p.suffix.lower() == ".png"), key=natural_key)
    if not paths:
        raise UserError(
            f"no PNG files directly in {folder.name}", "put one PNG file an image there, without sub-folders"
        )
    shape = _read_png(paths[0]).shape

    def read(where: slice) -> NDArray[np.uint8]:
        images = [_read_png(path) for path in paths[where]]
        for path, image in zip(paths[where], images, strict=True):
            if image.shape != shape:
                raise ValidationError(
                    f"{folder.name}/{path.name} is {image.shape[0]} x {image.shape[1]} pixels, "
                    f"but the first image is {shape[0]} x {shape[1]}",
                    "export all images at one size",
                )
        return np.stack(images)

    return Stored((len(paths), *shape), read)


def _read_png(path: Path) -> NDArray[np.uint8]:
    from PIL import Image

    label = f"{path.parent.name}/{path.name}"
    try:
        with Image.open(path) as image:
            if image.mode != "RGB":
                raise ValidationError(f"{label} is of mode {image.mode}, not RGB", "export 8-bit RGB")
            return np.asarray(image)
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's ways of saying that a file is broken
        raise UserError(f"cannot read {label}: {error}", "check that the file is whole") from error


def check_order(stored: Stored, data: ImageSet, label: str) -> None:
    """Whether stored images resemble their own clean image more than others of the same class.

    A right order gives nearly 1 for the fraction that does, a wrong one 1 / (1 + STRANGERS). Raises ValidationError
    below one half.
    """
    sample = np.unique(np.linspace(0, len(data) - 1, min(ORDER_SAMPLE, len(data))).astype(np.int64))
    sample = sample[np.argsort(data.labels[sample], kind="stable")]
    nearest = 0
    for place, index in enumerate(sample.tolist()):
        image = stored.read(slice(index, index + 1))[0]
        strangers = [int(sample[(place + step) % len(sample)]) for step in range(1, STRANGERS + 1)]
        own = _squared_error(image, data.images[index])
        nearest += own <= min(_squared_error(image, data.images[other]) for other in strangers)
    if nearest * 2 < len(sample):
        raise ValidationError(
            f"{label}: the order does not match the dataset: {nearest} of {len(sample)} images "
            "are nearest to their own clean image",
            "store the images in dataset order; PNG files are sorted by the numbers in their names",
        )


def _squared_error(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> int:
    difference = a.astype(np.int32) - b
    return int(np.square(difference).sum(dtype=np.int64))
