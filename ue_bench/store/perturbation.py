"""The perturbation as it is: measured on the stored 8-bit images, whatever a protector declares."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..contract.imageset import ImageSet, release
from ..errors import UserError, ValidationError
from .schema import Budget

if TYPE_CHECKING:
    from ..contract.plugin import Protector

Floats = NDArray[np.float32]


def ssim(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> Floats:
    """Structural similarity per image of two N x H x W x 3 arrays: 7 x 7 uniform window, mean over the channels.

    Wang et al. (2004) with its constants and unbiased covariances; borders where the window does not fit are left out.
    Images smaller than the window use the largest odd window that fits.
    """
    from scipy.ndimage import uniform_filter

    window = min(7, (min(a.shape[1:3]) - 1) // 2 * 2 + 1)
    edge = window // 2
    x, y = a.astype(np.float32), b.astype(np.float32)

    def mean(v: Floats) -> Floats:
        found: Floats = uniform_filter(v, (0, window, window, 0))
        return found[:, edge : v.shape[1] - edge, edge : v.shape[2] - edge]

    mx, my = mean(x), mean(y)
    unbiased = window**2 / max(1, window**2 - 1)
    vx, vy = (mean(x * x) - mx * mx) * unbiased, (mean(y * y) - my * my) * unbiased
    vxy = (mean(x * y) - mx * my) * unbiased
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    similarity = (2 * mx * my + c1) * (2 * vxy + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    per_image: Floats = similarity.mean(axis=(1, 2, 3))
    return per_image


@dataclass(frozen=True)
class Changes:
    """What was done to each of N images: Linf and L0 (changed pixels) in levels and pixels, L2 on the [0, 1] scale."""

    linf: NDArray[np.int16]
    l2: NDArray[np.float64]
    l0: NDArray[np.int64]
    ssim: Floats


class Measurement:
    """A perturbation measured batch by batch; batches may differ in size."""

    def __init__(self) -> None:
        self.images, self.values = 0, 0
        self.squares, self.over, self.worst = 0, 0, 0
        self.linf, self.l2, self.l0, self.similar = 0.0, 0.0, 0, 0.0

    def add(self, clean: NDArray[np.uint8], protected: NDArray[np.uint8]) -> Changes:
        """Take in images N x H x W x 3 and give what was done to each."""
        size = np.abs(protected.astype(np.int16) - clean)
        linf: NDArray[np.int16] = size.reshape(len(size), -1).max(axis=1)
        square = np.square(size, dtype=np.int32).reshape(len(size), -1).sum(axis=1, dtype=np.int64)
        l0: NDArray[np.int64] = (size.max(axis=3) > 0).sum(axis=(1, 2))
        similar = ssim(clean, protected)
        self.images, self.values = self.images + len(size), self.values + size.size
        self.linf += float(linf.sum())
        self.worst = max(self.worst, int(linf.max()))
        self.squares += int(square.sum())
        self.l2 += float(np.sqrt(square).sum()) / 255
        self.l0 += int(l0.sum())
        self.over += int((size > 8).sum())
        self.similar += float(similar.sum())
        return Changes(linf, np.sqrt(square) / 255, l0, similar)

    def result(self, declared: str) -> Budget:
        """All images so far, at least one; see :class:`ue_bench.store.schema.Budget` for units."""
        mse = self.squares / self.values
        return Budget(
            declared=declared,
            linf_mean=self.linf / self.images,
            linf_max=self.worst,
            rms=math.sqrt(mse),
            over_8=self.over / self.values,
            l2_mean=self.l2 / self.images,
            l0_mean=self.l0 / self.images,
            psnr=10 * math.log10(255**2 / mse) if mse else None,
            ssim=self.similar / self.images,
        )


def measure(clean: ImageSet, protected: ImageSet, declared: str) -> Budget:
    """Compare two sets image by image."""
    found = Measurement()
    for part in clean.chunks(at_most=1000):
        found.add(clean.images[part], protected.images[part])
        release(protected.images)
    return found.result(declared)


def check_classes(protector: Protector, labels: Iterable[Any]) -> None:
    """Raise UserError when ``labels`` are of too few classes: protection would leave their images as they are."""
    if len(set(labels)) < protector.classes_needed:
        count = {2: "two"}.get(protector.classes_needed, str(protector.classes_needed))
        raise UserError(
            f"{protector.name} needs images of {count} classes",
            "what tells classes apart moves them: add images of another class, or choose another protector",
        )


def unchanged(protector: Protector, measured: Budget) -> bool:
    """Return whether not a pixel of a set was changed by a protector that should have."""
    return protector.changes_images and measured.linf_max == 0


def check(protector: Protector, clean: ImageSet, protected: ImageSet) -> None:
    """Raise ValidationError when a protector changed the shape, labels or class names of a set.

    That it kept the order within a class is taken on trust.
    """
    if protected.images.shape != clean.images.shape:
        raise ValidationError(
            f"{protector.selector} returned images of shape {protected.images.shape}, not {clean.images.shape}",
            "a protector keeps number, size and order",
        )
    if not np.array_equal(protected.labels, clean.labels) or protected.class_names != clean.class_names:
        raise ValidationError(f"{protector.selector} changed labels", "protection is clean-label")
