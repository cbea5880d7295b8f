"""Images of three classes that a small network tells apart after seconds of training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

VICTIM = "resnet9[width=4]"
SETTING = [
    *("-D", "npz[path=stripes.npz]", "-V", VICTIM, "--protocol", "micro"),
    *("--devices", "cpu", "--precision", "fp32", "--out", "out"),
]  # fmt: skip


def stripes(count: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Gray noise with brighter stripes, of which a class has its own period."""
    rng, labels = np.random.default_rng(seed), np.sort(np.arange(count) % 3)
    images = rng.integers(80, 150, (count, 16, 16, 3))
    images += ((np.arange(16)[None] // (labels[:, None] + 1)) % 2 * 30)[:, None, :, None]
    return images.astype(np.uint8), labels.astype(np.int64)


def write_stripes(path: Path) -> None:
    (x_train, y_train), (x_test, y_test) = stripes(384, 0), stripes(30, 1)
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
