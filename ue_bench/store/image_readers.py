"""Images that were stored elsewhere: arrays in files, or numbered PNG files."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError, ValidationError

NAMES = ("images", "data", "arr_0", "x", "x_train")  # looked for in this order in files of several arrays
LABELS = ("labels", "targets", "y", "y_train")


@dataclass(frozen=True)
class Stored:
    """Images in a file: their shape N x H x W x 3, and ``read``, which gives a slice of them as bytes.

    ``labels`` are those that lie beside them, one an image, if there are any.
    """

    shape: tuple[int, ...]
    read: Callable[[slice], NDArray[np.uint8]]
    labels: NDArray[np.int64] | None = None


def open_stored(path: Path, size: tuple[int, int] | None = None) -> Stored:
    """The images at ``path``, a file or a folder of PNG files. Raises UserError when it has no known format.

    ``size`` is that of the images to expect, which tells where channels are; without it, an axis of 3 does.
    """
    openers = {".npy": _open_npy, ".npz": _open_npz, ".safetensors": _open_safetensors}
    if path.is_dir():
        return _open_folder(path)
    if not path.is_file():
        raise UserError(f"no file or folder at {path}", "check the path")
    if path.suffix.lower() not in openers:
        raise UserError(f"{path.name} has no known format", f"use a folder of PNG files, {', '.join(openers)}")
    try:
        shape, read, labels = openers[path.suffix.lower()](path)
    except UserError:
        raise
    except Exception as error:  # readers raise ValueError, OSError, EOFError, BadZipFile, SafetensorError, ...
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"cannot read {path.name}: {reason}", "check that the file is whole") from error
    images = _as_images(shape, read, size, path.name)
    return images if labels is None or labels.shape != shape[:1] else replace(images, labels=labels)


def _as_images(
    shape: tuple[int, ...], read: Callable[[slice], NDArray[Any]], size: tuple[int, int] | None, label: str
) -> Stored:
    """A stored array seen as bytes N x H x W x 3."""
    if size is None:
        if len(shape) != 4 or 3 not in (shape[1], shape[3]):
            raise ValidationError(f"{label} holds an array of shape {shape}", "images are N x H x W x 3")
        size = (shape[1], shape[2]) if shape[3] == 3 else (shape[2], shape[3])
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
            levels = np.clip(values.astype(np.float64) * 255, 0, 255) + 0.5  # halves go up
            values = levels.astype(np.uint8)
        return values.transpose(0, 2, 3, 1) if channels_first else values

    return Stored((shape[0], *size, 3) if channels_first else shape, read_bytes)


Opened = tuple[tuple[int, ...], Callable[[slice], NDArray[Any]], NDArray[np.int64] | None]


def _open_npy(path: Path) -> Opened:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    return array.shape, lambda where: np.asarray(array[where]), None


def _open_npz(path: Path) -> Opened:
    with np.load(path, allow_pickle=False) as archive:
        array = archive[_pick(archive.files, path)]
        labels = _labels(archive.files, archive.__getitem__)
    return array.shape, lambda where: array[where], labels


def _open_safetensors(path: Path) -> Opened:
    from safetensors import safe_open

    file: Any = safe_open(path, framework="numpy")
    names = list(file.keys())
    tensor = file.get_slice(_pick(names, path))
    labels = _labels(names, file.get_tensor)
    return tuple(tensor.get_shape()), lambda where: tensor[where.start : where.stop], labels


def _pick(names: list[str], path: Path) -> str:
    """The name of the array that holds the images."""
    for name in names if len(names) == 1 else NAMES:
        if name in names:
            return name
    raise UserError(f"{path.name} has arrays {', '.join(names) or 'none'}", f"call the images {' or '.join(NAMES)}")


def _labels(names: list[str], read: Callable[[str], NDArray[Any]]) -> NDArray[np.int64] | None:
    """The class numbers beside the images, if there are any that can be read."""
    for name in LABELS:
        if name in names:
            with contextlib.suppress(ValueError):  # Python objects
                values = read(name)
                if values.ndim == 1 and values.dtype.kind in "iu":
                    return values.astype(np.int64)
    return None


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
