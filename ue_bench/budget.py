"""The perturbation as it is: measured on the stored 8-bit images, whatever a protector declares."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .errors import ValidationError
from .imageset import ImageSet, release
from .store.schema import Budget

if TYPE_CHECKING:
    from .base import Protector

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


def measure(clean: ImageSet, protected: ImageSet, declared: str) -> Budget:
    """Compare two sets image by image; see :class:`ue_bench.store.schema.Budget` for units."""
    linf, l2, l0, squares, over, similar, worst = 0.0, 0.0, 0, 0, 0, 0.0, 0
    for part in clean.chunks(at_most=1000):
        a, b = clean.images[part], protected.images[part]
        change = b.astype(np.int16) - a
        size = np.abs(change)
        per_image = size.reshape(len(a), -1)
        linf += float(per_image.max(axis=1).sum())
        worst = max(worst, int(size.max()))
        square = np.square(change, dtype=np.int32).reshape(len(a), -1).sum(axis=1, dtype=np.int64)
        squares += int(square.sum())
        l2 += float(np.sqrt(square).sum()) / 255
        l0 += int((size.max(axis=3) > 0).sum())
        over += int((size > 8).sum())
        similar += float(ssim(a, b).sum())
        release(protected.images)
    count, values = len(clean), clean.images.size
    mse = squares / values
    return Budget(
        declared=declared,
        linf_mean=linf / count,
        linf_max=worst,
        rms=math.sqrt(mse),
        over_8=over / values,
        l2_mean=l2 / count,
        l0_mean=l0 / count,
        psnr=10 * math.log10(255**2 / mse) if mse else None,
        ssim=similar / count,
    )


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
