"""Labelled images as plain data."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ValidationError

CHUNK_BYTES = 32 * 2**20  # large sets are read, written and hashed in pieces of about this size


def release(array: NDArray[np.uint8]) -> None:
    """Drop the resident pages of a memory-mapped array, so that a pass over it does not count as memory."""
    base: Any = array
    while isinstance(base, np.ndarray):
        mapped = getattr(base, "_mmap", None)
        if mapped is not None:
            # A copy-on-write map ("c") would lose what was written to it.
            if hasattr(mmap, "MADV_DONTNEED") and getattr(base, "mode", "c") != "c":
                mapped.madvise(mmap.MADV_DONTNEED)
            return
        base = base.base


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images in dataset order with their labels. Immutable; may be memory-mapped.

    ``images`` is uint8, N x H x W x 3 (RGB); ``labels`` int64 in 0..C-1; ``class_names`` has one name a class.
    ``source`` says in a few words where the pixels come from, for the head of a table.

    Raises ValidationError when shapes, types or labels do not fit together.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    source: str = ""

    def __post_init__(self) -> None:
        shape = self.images.shape
        if self.images.dtype != np.uint8 or len(shape) != 4 or shape[3] != 3:
            raise ValidationError(f"images must be uint8 N x H x W x 3, not {self.images.dtype} {shape}")
        labels = np.asarray(self.labels, dtype=np.int64)
        if labels.flags.writeable:
            labels = labels.view()  # the caller's array stays as it is
        if labels.shape != shape[:1]:
            raise ValidationError(f"{shape[0]} images with {labels.shape} labels")
        if len(labels) and (labels.min() < 0 or labels.max() >= len(self.class_names)):
            raise ValidationError(
                f"labels run from {labels.min()} to {labels.max()}, but there are {len(self.class_names)} classes"
            )
        images = self.images.view()
        for array in (images, labels):
            array.flags.writeable = False
        object.__setattr__(self, "images", images)
        object.__setattr__(self, "labels", labels)
        # NumPy's strings would write themselves otherwise in the fingerprint.
        object.__setattr__(self, "class_names", tuple(map(str, self.class_names)))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.images.shape[1], self.images.shape[2]

    def chunks(self, at_most: int | None = None) -> Iterator[slice]:
        """Yield consecutive slices of bounded size that cover the set; resident pages are dropped behind each."""
        per_image = max(1, int(np.prod(self.images.shape[1:])))
        step = max(1, min(at_most or len(self), CHUNK_BYTES // per_image))
        for start in range(0, len(self), step):
            yield slice(start, min(start + step, len(self)))
            release(self.images)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (first 32 digits) over shape, pixels, labels and class names."""
        digest = hashlib.sha256(repr((self.images.shape, self.class_names)).encode())
        for part in self.chunks():
            digest.update(np.ascontiguousarray(self.images[part]).data)
        digest.update(np.ascontiguousarray(self.labels).data)
        return digest.hexdigest()[:32]

    def first(self, count: int) -> ImageSet:
        """Return the first ``count`` images; all of them are the set itself."""
        if count >= len(self):
            return self
        return replace(self, images=self.images[:count], labels=self.labels[:count])

    def with_images(self, images: NDArray[np.uint8]) -> ImageSet:
        """Return the same labels with other pixels of the same shape."""
        if images.shape != self.images.shape:
            raise ValidationError(f"expected images of shape {self.images.shape}, got {images.shape}")
        return replace(self, images=images)
