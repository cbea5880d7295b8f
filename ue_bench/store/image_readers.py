"""Images and perturbations that were stored elsewhere: arrays in files, numbered images, or one folder a class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..catalogue.selectors import write_text
from ..errors import UserError, ValidationError
from ..files import absent
from . import image_folders
from .array_files import open_array
from .image_folders import FolderListing, Order

if TYPE_CHECKING:
    from ..contract.imageset import ImageSet

# Looked for in this order in files of several arrays. What is called noise is opened as images too: its values are
# better than its name at telling what to do with it.
_IMAGES, _NOISE = ("images", "data", "arr_0", "x", "x_train"), ("noise", "perturbation", "perturbations", "delta")
NAMES, NOISE_NAMES = (*_IMAGES, *_NOISE), (*_NOISE, *_IMAGES)


@dataclass(frozen=True)
class Stored:
    """Images in a file: their shape N x H x W x 3, and ``read``, which gives a slice of them as bytes.

    ``labels`` are those that lie beside them, one an image, if there are any. ``orders`` are the orders in which they
    may belong to a dataset, where names do not tell which.
    """

    shape: tuple[int, ...]
    read: Callable[[slice], NDArray[np.uint8]]
    labels: NDArray[np.int64] | None = None
    orders: tuple[Order, ...] = ()

    def taken(self, order: Order) -> Stored:
        """Return the images at the places that ``order`` has, as images of their own."""

        def read(where: slice) -> NDArray[np.uint8]:
            return np.concatenate([self.read(slice(place, place + 1)) for place in order[where].tolist()])

        return Stored((len(order), *self.shape[1:]), read, None if self.labels is None else self.labels[order])


@dataclass(frozen=True)
class StoredNoise:
    """A perturbation in a file: its shape N x H x W x 3, and ``read``, which gives a slice of it in levels of 255."""

    shape: tuple[int, ...]
    read: Callable[[slice], NDArray[np.float64]]


def open_stored(path: Path, size: tuple[int, int] | None = None, like: ImageSet | None = None) -> Stored:
    """Open the images at ``path``, a file or a folder of PNG (or JPEG) files.

    ``size`` is that of the images to expect, which tells where channels are; without it, an axis of 3 or 1 does. Images
    of one channel become gray RGB. With ``like``, a dataset that they belong to, a folder may hold one folder a class,
    and ``orders`` says in which orders the files may be meant.

    Raises UserError when it has no known format, ValidationError when it is not whole or holds something else.
    """
    if path.is_dir():
        return _open_folder(path, like)
    if not path.is_file():
        raise absent(path)
    array = open_array(path, NAMES)
    shape, rgb = _layout(array.shape, size, path.name)

    def read(where: slice) -> NDArray[np.uint8]:
        return rgb(_as_bytes(array.read(where), path))

    return Stored(shape, read, array.labels)


def open_noise(path: Path, size: tuple[int, int] | None = None) -> StoredNoise:
    """Open the perturbation in the file ``path``: signed integers in levels of -255..255, or floats in [-1, 1].

    ``size`` is as in ``open_stored``. Raises UserError when it has no known format, ValidationError when it is not
    whole or cannot be a perturbation.
    """
    if path.is_dir():
        raise UserError(
            f"{path.name} is a folder of images, not a perturbation", "give a file, or leave content=noise out"
        )
    if not path.is_file():
        raise absent(path)
    array = open_array(path, NOISE_NAMES)
    shape, rgb = _layout(array.shape, size, path.name)

    def read(where: slice) -> NDArray[np.float64]:
        return rgb(_as_levels(array.read(where), path))

    return StoredNoise(shape, read)


def _layout(
    shape: tuple[int, ...], size: tuple[int, int] | None, label: str
) -> tuple[tuple[int, ...], Callable[[NDArray[Any]], NDArray[Any]]]:
    """Return the shape of a stored array as N x H x W x 3, and what brings pieces of it into that form.

    An array that does not have images of ``size`` stays as it is, for the caller to compare.
    """
    if size is None:
        size = _size(shape, label)
    inner = shape[1:]
    if inner == (*size, 3):
        return shape, lambda values: values
    if inner == (3, *size):
        return (shape[0], *size, 3), lambda values: values.transpose(0, 2, 3, 1)
    if inner in ((*size, 1), (1, *size), size):
        return (shape[0], *size, 3), lambda values: values.reshape(-1, *size, 1).repeat(3, axis=3)
    return shape, lambda values: values


def _size(shape: tuple[int, ...], label: str) -> tuple[int, int]:
    """Return height and width of the images in an array, as the place of its channels tells."""
    for channels in (3, 1):
        if len(shape) == 4 and shape[3] == channels:
            return shape[1], shape[2]
        if len(shape) == 4 and shape[1] == channels:
            return shape[2], shape[3]
    if len(shape) == 3 and shape[2] != 3:
        return shape[1], shape[2]
    raise ValidationError(f"{label} holds an array of shape {shape}", "images are N x H x W x 3")


def _as_bytes(values: NDArray[Any], path: Path) -> NDArray[np.uint8]:
    """Return pixels as bytes; floats in [0, 1] are rounded to the nearest level, halves up."""
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind == "i":
        raise _no_images(f"{path.name} holds {values.dtype} values", bool(values.min(initial=0) < 0), path)
    if values.dtype.kind != "f":
        raise ValidationError(f"{path.name} holds {values.dtype} values", "store uint8, or floats in [0, 1]")
    low, high = values.min(initial=np.inf), values.max(initial=-np.inf)
    if low < -1e-6 and high < np.inf:
        raise _no_images(f"{path.name} holds floats from {low:g} to {high:g}", bool(max(-low, high) < 0.5), path)
    if not (low >= -1e-6 and high <= 1 + 1e-6):  # written so that NaN is refused
        raise ValidationError(f"{path.name} holds floats from {low:g} to {high:g}", "store floats in [0, 1], or uint8")
    return (np.clip(values.astype(np.float64) * 255, 0, 255) + 0.5).astype(np.uint8)


def _no_images(what: str, certain: bool, path: Path) -> ValidationError:
    """Return the error for values that are, or may be, a perturbation."""
    add = f"have it added to the images with precomputed[path={write_text(str(path))},content=noise]"
    kinds = "images are uint8, or floats in [0, 1]"
    if certain:
        return ValidationError(f"{what}: a perturbation, not images", f"{add}; {kinds}")
    return ValidationError(f"{what}, which images do not have", f"{kinds}; if it is a perturbation, {add}")


def _as_levels(values: NDArray[Any], path: Path) -> NDArray[np.float64]:
    """Return a perturbation in levels of 0..255."""
    if values.dtype.kind not in "if":
        raise ValidationError(
            f"{path.name} holds {values.dtype} values, which cannot be a perturbation",
            "store signed integers, or floats in [-1, 1]; for images leave content=noise out",
        )
    bound = 255 if values.dtype.kind == "i" else 1
    low, high = values.min(initial=0), values.max(initial=0)
    if not (low >= -bound and high <= bound):  # written so that NaN is refused
        raise ValidationError(
            f"{path.name} holds a perturbation from {low:g} to {high:g}",
            "store floats in [-1, 1], where 1 is 255 levels, or signed integers in -255..255",
        )
    return values.astype(np.float64) * (255 / bound)


def _open_folder(folder: Path, like: ImageSet | None) -> Stored:
    listing = image_folders.list_folder(folder) if like is None else image_folders.list_class_folders(folder)
    shape = image_folders.read_image(listing.files[0]).shape

    def read(where: slice) -> NDArray[np.uint8]:
        return np.stack([_checked(path) for path in listing.files[where]])

    def _checked(path: Path) -> NDArray[np.uint8]:
        image = image_folders.read_image(path)
        if image.shape != shape:
            raise ValidationError(
                f"{path.parent.name}/{path.name} is {image.shape[0]} x {image.shape[1]} pixels, "
                f"but the first image is {shape[0]} x {shape[1]}",
                "export all images at one size",
            )
        return image

    stored = Stored((len(listing.files), *shape), read)
    if like is None or not listing.class_names:
        return stored
    return replace(stored, labels=listing.labels, orders=_orders(listing, like))


def _orders(listing: FolderListing, like: ImageSet) -> tuple[Order, ...]:
    return tuple(image_folders.orders(listing, like.labels, like.class_names))
