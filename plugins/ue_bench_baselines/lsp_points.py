"""Where LSP's perturbations come from: clouds of points, one around a corner of a hypercube for each class.

There are two ways to draw them. ``sampled`` is that of the release, scikit-learn's generator, in a space of one
dimension for each patch and channel; its square matrices are drawn a few rows at a time, so that they are never in
memory. ``Cloud`` is for what that cannot do: it knows the class's corner at any place of an image of any size, and
needs memory for a few rows of patches only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ue_bench.api import derive

Floats = NDArray[np.float32]

BLOCK_VALUES = 2**23  # of a square matrix in memory at once: 64 MiB
DRAWN_VALUES = 2**20  # of a point in memory at once
SIDE = 4  # of the grid that corners are drawn on: patches along a side of 32 pixels
SPREAD = math.sqrt(SIDE * SIDE * 3 / 3)  # deviation of a coordinate there: of a sum of 48 normals times uniforms
TRIES = 10_000  # draws of one class's corner


class _Matrix:
    """``factor * U + shift`` for a square matrix U of uniform numbers, which ``np.dot`` draws as it goes along."""

    __array_ufunc__ = None  # NumPy's numbers leave the arithmetic to this class

    def __init__(self, source: _Sampler, side: int, factor: float = 1.0, shift: float = 0.0) -> None:
        self.source, self.side, self.factor, self.shift = source, side, factor, shift

    def __rmul__(self, number: float) -> _Matrix:
        return _Matrix(self.source, self.side, number * self.factor, number * self.shift)

    def __sub__(self, number: float) -> _Matrix:
        return _Matrix(self.source, self.side, self.factor, self.shift - number)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if function is not np.dot or kwargs or args[1] is not self:
            return NotImplemented
        left: NDArray[np.float64] = args[0]
        total = np.zeros((len(left), self.side))
        step = max(1, BLOCK_VALUES // self.side)
        for first in range(0, self.side, step):
            block = self.source.random_sample((min(step, self.side - first), self.side))
            block *= self.factor
            block += self.shift
            total += left[:, first : first + len(block)] @ block
        return total


class _Sampler(np.random.RandomState):
    """NumPy's legacy generator, whose square matrices of uniform numbers are drawn when they are used."""

    def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
        if (low, high) == (0, 1) and isinstance(size, tuple) and len(size) == 2 and size[0] == size[1]:
            return _Matrix(self, size[0])
        return super().uniform(low, high, size)


def sampled(classes: int, features: int, count: int, class_sep: float, seed: int) -> tuple[Floats, NDArray[np.int64]]:
    """Return ``count`` points of scikit-learn's generator, count x features, and the class of each.

    Bit for bit what it gives without this module's matrices where one fits in a block, that is up to 2,896 features.
    """
    from sklearn.datasets import make_classification

    points, owners = make_classification(
        n_samples=count,
        n_features=features,
        n_informative=features,
        n_redundant=0,
        n_repeated=0,
        n_classes=classes,
        n_clusters_per_class=1,
        flip_y=0,
        class_sep=class_sep,
        random_state=_Sampler(seed),
    )
    return points.astype(np.float32), owners


class Cloud:
    """Points for images of ``rows`` x ``columns`` patches, drawn a few rows of patches at a time.

    A class's corner lies on a grid of 4 x 4 places and 3 channels over the image, whatever its size: a patch takes the
    coordinate of the place its centre is at, and a normal number of deviation 4 of its own is added. Classes that are
    told apart at one size are therefore told apart by the same weights at any other.
    """

    def __init__(self, seed: int, classes: int, grid: tuple[int, int], class_sep: float) -> None:
        self.seed, self.grid = seed, grid
        signs = corners(classes, seed)
        self.rows, self.columns = places(grid[0]), places(grid[1])
        shown = signs[:, np.unique(self.rows)][:, :, np.unique(self.columns)]
        self.separates = len({corner.tobytes() for corner in shown}) == classes
        self.corners = (signs.astype(np.float32) * 2 - 1) * np.float32(class_sep)

    def blocks(self, label: int, *axes: object) -> Iterator[tuple[int, Floats]]:
        """Yield the point of class ``label`` that ``axes`` name: a row, and values of rows x columns x 3 from there."""
        rng = np.random.default_rng(derive(self.seed, "point", *axes))
        rows, columns = self.grid
        step = max(1, DRAWN_VALUES // (columns * 3))
        for first in range(0, rows, step):
            values = rng.standard_normal((min(step, rows - first), columns, 3), dtype=np.float32)
            values *= np.float32(SPREAD)
            values += self.corners[label][self.rows[first : first + len(values)]][:, self.columns]
            yield first, values


def places(count: int) -> NDArray[np.int64]:
    """Return for each of ``count`` patches along a side the place that its centre is at, 0..3."""
    centres: NDArray[np.int64] = (2 * np.arange(count) + 1) * SIDE // (2 * count)
    return centres


def corners(classes: int, seed: int) -> NDArray[np.bool_]:
    """Return corners that are all different, classes x 4 x 4 x 3.

    Also different are the parts that images of fewer patches a side show, where there are enough corners for that.
    """
    rng = np.random.default_rng(derive(seed, "corners"))
    sides = [places(count) for count in range(1, SIDE + 1)]
    shown = [np.ix_(a, b) for a in sides for b in sides if 3 * len(a) * len(b) >= math.log2(max(classes, 1))]
    taken: list[set[bytes]] = [set() for _ in shown]
    chosen = np.empty((classes, SIDE, SIDE, 3), dtype=np.bool_)
    for corner in chosen:
        for _ in range(TRIES):
            corner[:] = rng.integers(0, 2, corner.shape, dtype=np.uint8)
            parts = [corner[part].tobytes() for part in shown]
            if not any(part in known for part, known in zip(parts, taken, strict=True)):
                break
        for part, known in zip(parts, taken, strict=True):
            known.add(part)
    return chosen
