"""Protected images, or perturbations, that were made elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ue_bench.api import (
    Context,
    ImageSet,
    InputPath,
    Protector,
    Ratio,
    Stored,
    ValidationError,
    open_noise,
    open_stored,
)

from .quantise import budget, whole_levels

ORDER_SAMPLE = 500  # images whose place is checked
OTHERS = 3  # other clean images that each of them is compared with
DARK = 64  # images without a value as high may be a perturbation without negative values
BATCH_VALUES = 2**25  # of noise that is added at a time

Bytes = NDArray[np.uint8]


class Precomputed(Protector):
    """Someone else's protected images, measured like any other protector's.

    ``path`` is one of
    - a folder with one 8-bit RGB or gray PNG file an image, in natural order of their names (2 before 10); JPEG files
      are read where there are no PNG files;
    - a folder with one such folder a class. Files whose numbers are unique over all folders are read in the order of
      these numbers, where that gives every class of the dataset a folder; else the k-th file of a class, by the number
      in its name or by its path, is the k-th image of that class in the dataset. Where both may be meant, the order is
      taken whose images resemble the clean ones more often. Classes are told by the names of the folders, or by the
      order of these;
    - a ``.npy``, ``.npz``, ``.safetensors`` or ``.pt`` file; all but the second may be larger than memory. Where a file
      has several arrays, the images are the one called images, data, arr_0 or x.

    Arrays are N x H x W x 3, N x 3 x H x W, or gray with one channel or none; uint8 in 0..255 or float in [0, 1].
    Floats are rounded to the nearest gray level, halves up; those of bfloat16 have 8 significant bits, so that bright
    ones may be one level off. Images must be those of the training split, in dataset order: labels are taken from the
    dataset. Hidden files are left out. Pickles are not opened.

    With ``content=noise`` the file holds a perturbation instead, one an image in dataset order or one a class: signed
    integers in levels of -255..255, or floats in [-1, 1]. It is added to the clean images; the sum is clipped to 0..255
    and then rounded to the nearest level, halves up. Its order cannot be checked: a perturbation resembles no image.

    Raises UserError for a file of another kind, and ValidationError when it is not whole, when count, size or type
    differ from the clean set's, when an image exceeds ``linf``, or when fewer than half of a sample of images resemble
    their own clean image more than others of their class, which says that the order is another.
    """

    name: ClassVar[str] = "precomputed"
    changes_images: ClassVar[bool] = False  # what is in the file was someone else's decision

    path: InputPath = Field(description="folder of PNG files, or .npy, .npz, .safetensors or .pt file")
    content: Literal["images", "noise"] = Field(
        "images", description="what it holds: protected images, or noise to add to the clean ones"
    )
    linf: Annotated[Ratio, Field(gt=0, le=1)] | None = Field(
        None, description="Linf bound to hold the images to; null: none is declared"
    )

    @property
    def budget(self) -> str:
        return "none" if self.linf is None else budget("linf", self.linf)

    def protect(self, data: ImageSet, ctx: Context) -> ImageSet:
        read = self._noise(data) if self.content == "noise" else self._images(data)

        def change(clean: Bytes, where: slice) -> Bytes:
            images = read(clean, where)
            if self.linf is not None:
                self._check_bound(images, clean, where)
            return images

        batch = max(1, min(250, BATCH_VALUES // int(np.prod(data.images.shape[1:]))))
        return ctx.map_images(data, change, f"reading {self.path.name}", batch=batch)

    def _images(self, data: ImageSet) -> Callable[[Bytes, slice], Bytes]:
        stored = open_stored(self.path, data.size, like=data)
        label = self.path.name
        stored.read(slice(0, 16))  # values of another kind say more than a count that is wrong because of it
        hint = "give one image for every training image, in dataset order"
        if stored.shape[0] == data.num_classes:
            hint += "; a perturbation for every class is added with content=noise"
        self._check_shape(stored.shape, data, (len(data),), hint)
        if stored.orders:
            stored = max(map(stored.taken, stored.orders), key=lambda images: count_nearest(images, data)[0])
        check_order(stored, data, label)
        return lambda clean, where: stored.read(where)

    def _noise(self, data: ImageSet) -> Callable[[Bytes, slice], Bytes]:
        noise = open_noise(self.path, data.size)
        self._check_shape(
            noise.shape, data, (len(data), data.num_classes), "give one perturbation an image, or one a class"
        )

        # Where there are as many classes as images, one an image is meant.
        of_class = None if noise.shape[0] == len(data) else noise.read(slice(0, data.num_classes))

        def add(clean: Bytes, where: slice) -> Bytes:
            levels = noise.read(where) if of_class is None else of_class[data.labels[where]]
            return (np.clip(clean + levels, 0, 255) + 0.5).astype(np.uint8)

        return add

    def _check_shape(self, shape: tuple[int, ...], data: ImageSet, counts: tuple[int, ...], hint: str) -> None:
        label = self.path.name
        if shape[0] not in counts:
            raise ValidationError(f"{label} has {shape[0]} images, but the dataset has {len(data)}", hint)
        if shape[1:] != data.images.shape[1:]:
            raise ValidationError(
                f"{label} has images of shape {shape[1:]}, but the dataset's are {data.images.shape[1:]}",
                "export them at the size of the dataset",
            )

    def _check_bound(self, images: Bytes, clean: Bytes, where: slice) -> None:
        assert self.linf is not None
        changes = np.abs(images.astype(np.int16) - clean).max(axis=(1, 2, 3))
        if changes.max() > whole_levels(self.linf):
            worst = int(changes.argmax())
            raise ValidationError(
                f"{self.path.name}: image {where.start + worst} differs by {changes[worst]}/255 from the clean one, "
                f"more than {self.budget}",
                "declare the budget the images were made with, or none",
            )


def check_order(stored: Stored, data: ImageSet, label: str) -> None:
    """Check that stored images resemble their own clean image more than others of the same class.

    A right order gives nearly 1 for the fraction that does, a wrong one 1 / (1 + OTHERS). Raises ValidationError
    below one half.
    """
    nearest, count = count_nearest(stored, data)
    if nearest * 2 < count:
        hint = "store the images in dataset order; PNG files are sorted by the numbers in their names"
        if stored.read(slice(0, 16)).max() < DARK:
            hint = "if it is a perturbation, have it added to the images with content=noise"
        raise ValidationError(
            f"{label}: the order does not match the dataset: {nearest} of {count} images "
            "are nearest to their own clean image",
            hint,
        )


def count_nearest(stored: Stored, data: ImageSet) -> tuple[int, int]:
    """Return how many of a sample of images are nearest to their own clean image, and how many there are."""
    sample = np.unique(np.linspace(0, len(data) - 1, min(ORDER_SAMPLE, len(data))).astype(np.int64))
    sample = sample[np.argsort(data.labels[sample], kind="stable")]
    nearest = 0
    for place, index in enumerate(sample.tolist()):
        image = stored.read(slice(index, index + 1))[0]
        others = [int(sample[(place + step) % len(sample)]) for step in range(1, OTHERS + 1)]
        error = _squared_error(image, data.images[index])
        nearest += error <= min(_squared_error(image, data.images[other]) for other in others)
    return nearest, len(sample)


def _squared_error(a: Bytes, b: Bytes) -> int:
    difference = a.astype(np.int32) - b
    return int(np.square(difference).sum(dtype=np.int64))
