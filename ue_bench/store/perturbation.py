"""The perturbation as it is: measured on the stored 8-bit images, whatever a protector declares."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
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

WINDOW = 7
STRIPED_PIXELS = 2**20  # of an image that is compared at once
GROUP_PIXELS = 2**16  # of small images that are compared at once: what is computed of them stays in the cache


def ssim(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> Floats:
    """Structural similarity per image of two N x H x W x 3 arrays: 7 x 7 uniform window, mean over the channels.

    Wang et al. (2004) with its constants and unbiased covariances; borders where the window does not fit are left out.
    Images smaller than the window use the largest odd window that fits. Large images are taken a stripe at a time.
    """
    if a.shape[1] * a.shape[2] > STRIPED_PIXELS:
        return np.array([_striped_ssim(one, other) for one, other in zip(a, b, strict=True)], dtype=np.float32)
    step = max(1, GROUP_PIXELS // (a.shape[1] * a.shape[2]))
    per_image = np.empty(len(a), dtype=np.float32)
    for start in range(0, len(a), step):
        group = slice(start, start + step)
        per_image[group] = _similarity(a[group], b[group]).mean(axis=(1, 2, 3))
    return per_image


def _striped_ssim(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Structural similarity of two H x W x 3 images, by stripes that overlap by the rows a window needs."""
    height, width = a.shape[:2]
    overlap = min(WINDOW, (min(height, width) - 1) // 2 * 2 + 1) - 1
    total = 0.0
    for rows in _stripes(height - overlap, width):
        with_border = slice(rows.start, rows.stop + overlap)
        total += float(_similarity(a[None, with_border], b[None, with_border], overlap + 1).sum(dtype=np.float64))
        release(a)
        release(b)
    places: int = (height - overlap) * (width - overlap) * 3
    return total / places


def _stripes(height: int, width: int) -> Iterator[slice]:
    """Rows of an image, some at a time."""
    step = max(1, STRIPED_PIXELS // width)
    for top in range(0, height, step):
        yield slice(top, min(top + step, height))


def _similarity(a: NDArray[np.uint8], b: NDArray[np.uint8], window: int | None = None) -> Floats:
    """Structural similarity of two N x H x W x 3 arrays at every place where the window fits."""
    from scipy.ndimage import uniform_filter

    window = window or min(WINDOW, (min(a.shape[1:3]) - 1) // 2 * 2 + 1)
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
    similarity: NDArray[Any] = (2 * mx * my + c1) * (2 * vxy + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return similarity


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
        count, height, width = clean.shape[:3]
        if np.array_equal(clean, protected):  # what would come out below, in a hundredth of the time
            self.images, self.values = self.images + count, self.values + clean.size
            self.similar += count
            nothing = np.zeros(count, dtype=np.int64)
            return Changes(nothing.astype(np.int16), nothing.astype(np.float64), nothing, np.ones(count, np.float32))
        linf = np.zeros(count, dtype=np.int16)
        square, l0 = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
        for rows in _stripes(height, width):
            size = np.abs(protected[:, rows].astype(np.int16) - clean[:, rows])
            linf = np.maximum(linf, size.reshape(count, -1).max(axis=1))
            square += np.square(size, dtype=np.int32).reshape(count, -1).sum(axis=1, dtype=np.int64)
            l0 += (size.max(axis=3) > 0).sum(axis=(1, 2))
            self.over += int((size > 8).sum())
        similar = ssim(clean, protected)
        self.images, self.values = self.images + count, self.values + clean.size
        self.linf += float(linf.sum())
        self.worst = max(self.worst, int(linf.max()))
        self.squares += int(square.sum())
        self.l2 += float(np.sqrt(square).sum()) / 255
        self.l0 += int(l0.sum())
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
