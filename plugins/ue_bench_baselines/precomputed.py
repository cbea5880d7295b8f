"""Protected images that were made elsewhere."""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ue_bench.api import Context, ImageSet, InputPath, Protector, Ratio, Stored, ValidationError, open_stored

from .quantise import budget, whole_levels

ORDER_SAMPLE = 500  # images whose place is checked
STRANGERS = 3  # other clean images that each of them is compared with


class Precomputed(Protector):
    """Someone else's protected images, measured like any other protector's.

    ``path`` is one of
    - a folder with one 8-bit RGB PNG file an image and no sub-folders, in natural order of their names (2 before 10);
    - an ``.npz``, ``.npy`` or ``.safetensors`` file; the latter two may be larger than memory. Where a file has several
      arrays, the images are the one called images, data, arr_0 or x.

    Arrays are N x H x W x 3 or N x 3 x H x W, uint8 in 0..255 or float in [0, 1]; floats are rounded to the nearest
    gray level. Images must be those of the training split, in dataset order: labels are taken from the dataset.

    Raises UserError when the file cannot be read, and ValidationError when count, size or type differ from the clean
    set's, when an image exceeds ``linf``, or when fewer than half of a sample of images resemble their own clean image
    more than others of their class, which says that the order is another.
    """

    name: ClassVar[str] = "precomputed"
    changes_images: ClassVar[bool] = False  # what is in the file was someone else's decision

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
