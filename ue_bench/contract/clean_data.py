"""Give countermeasures clean data: training images that the adversary owns unprotected, beside the protected set."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError

if TYPE_CHECKING:
    from .context import CleanDataAccess
    from .plugin import Countermeasure

L = TypeVar("L", bound="CleanDataAccess")


def check(countermeasure: Countermeasure, images: int) -> None:
    """Raise UserError when ``countermeasure`` needs more clean images than a training set of ``images`` has."""
    if countermeasure.clean_images > images:
        raise UserError(
            f"{countermeasure.selector} needs {countermeasure.clean_images:,} clean images, the training set has "
            f"{images:,}",
            "ask for fewer; 'ue-bench show' tells its parameters",
        )


def draw(labels: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """Return indices of ``count`` images in random order, the classes taking turns as long as they have any left.

    A smaller count draws the first of a larger one.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    sizes = np.bincount(labels)
    turn = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    place = rng.permutation(len(sizes))[labels[by_class]]  # of a class within a turn
    return by_class[np.lexsort((place, turn))[:count]].astype(np.int64)


def with_clean_data(ctx: L, countermeasure: Countermeasure) -> L:
    """Return ``ctx`` with as many of its clean images as ``countermeasure`` asks for, and their rows if it does."""
    count, clean, rows = countermeasure.clean_images, ctx.clean, ctx.rows
    if not countermeasure.needs_pairs and rows is not None:
        rows, ctx = None, replace(ctx, rows=None)
    if clean is None or count == len(clean):
        return ctx
    fewer = replace(clean, images=clean.images[:count], labels=clean.labels[:count])
    return replace(ctx, clean=fewer if count else None, rows=None if rows is None else rows[:count])
