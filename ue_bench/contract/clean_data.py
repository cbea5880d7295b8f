"""Give countermeasures clean data: training images that the adversary owns unprotected, beside the protected set."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError

if TYPE_CHECKING:
    from .context import CleanDataAccess
    from .imageset import ImageSet
    from .plugin import Countermeasure, Protector

L = TypeVar("L", bound="CleanDataAccess")


def check(countermeasure: Countermeasure, images: int) -> None:
    """Raise UserError when ``countermeasure`` needs more clean images than a training set of ``images`` has.

    Also when it asks for what it does not say that it has.
    """
    if countermeasure.queries and not (countermeasure.needs_pairs and countermeasure.clean_images):
        raise UserError(
            f"{countermeasure.selector} has images protected without saying which they are",
            "'queries' goes with 'clean_images', and with 'needs_pairs', to leave them out of the set",
        )
    if countermeasure.clean_images > images:
        raise UserError(
            f"{countermeasure.selector} needs {countermeasure.clean_images:,} clean images, the training set has "
            f"{images:,}",
            "ask for fewer; 'ue-bench show' tells its parameters",
        )


def check_queries(countermeasure: Countermeasure, protector: Protector) -> None:
    """Raise UserError when ``countermeasure`` asks what ``protector`` makes of images, and it answers no queries."""
    if countermeasure.queries and not protector.answers_queries:
        raise UserError(
            f"{countermeasure.selector} has images of its own protected, and {protector.selector} protects none beside "
            "its set",
            "leave one of them out; 'ue-bench list protectors --json' says which answer queries",
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
    """Return ``ctx`` with as many of its clean images as ``countermeasure`` asks for.

    Their rows and what the owner's service makes of them are there if it asks for them.
    """
    count = countermeasure.clean_images
    rows = ctx.rows if countermeasure.needs_pairs else None
    return replace(
        ctx,
        clean=_first(ctx.clean, count),
        rows=None if rows is None else rows[:count],
        queried=_first(ctx.queried, count) if countermeasure.queries else None,
    )


def _first(data: ImageSet | None, count: int) -> ImageSet | None:
    return data if data is None or count == len(data) else data.first(count) if count else None
