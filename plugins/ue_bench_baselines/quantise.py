"""From float images to the 8-bit images that are published.

Releases round in different ways, which moves every perturbed value by up to one gray level; a protector names its rule.
All values here are in gray levels, 0..255.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ue_bench.api import Diverged

Rounding = Literal["round", "truncate", "integer"]


def quantise(values: NDArray[np.floating], rule: Literal["round", "truncate"] = "round") -> NDArray[np.uint8]:
    """Round float gray levels to bytes, clipped to 0..255.

    ``round`` takes halves up (TAP, EntF, AR); ``truncate`` cuts the fraction off (EM, LSP), half a level darker on
    average. Both return whole levels unchanged. Raises Diverged when a level is not finite: as a byte it would
    be any number.
    """
    if not np.isfinite(values).all():
        raise Diverged("gray level of a perturbed image", hint="look at the protector's surrogate and step length")
    clipped = np.clip(values, 0, 255)
    if rule == "round":
        clipped = clipped + 0.5
    levels: NDArray[np.uint8] = clipped.astype(np.uint8)  # not negative: the cast is the floor
    return levels


def perturb(
    images: NDArray[np.uint8], perturbation: NDArray[np.floating], rule: Rounding = "round"
) -> NDArray[np.uint8]:
    """Add ``perturbation`` in gray levels to ``images``, rounded to bytes.

    ``integer`` rounds the perturbation (halves to even, as ``torch.round`` does) before it is added (REM).
    """
    if rule == "integer":
        return quantise(images + np.rint(perturbation), "truncate")
    return quantise(images + perturbation, rule)


def keep_linf(images: NDArray[np.uint8], clean: NDArray[np.uint8], eps: float) -> NDArray[np.uint8]:
    """Move ``images`` back to within ``eps`` (on the [0, 1] scale) of ``clean``, by whole levels and none too many."""
    bound = whole_levels(eps)
    reference = clean.astype(np.int16)
    kept: NDArray[np.int16] = np.clip(images, np.maximum(reference - bound, 0), np.minimum(reference + bound, 255))
    return kept.astype(np.uint8)


def check_range(eps: float) -> None:
    """Raise ValueError for a bound on single values that is over 1, all that one can change; for a validator."""
    if eps > 1:
        raise ValueError(f"eps={eps} is over 1, all that a pixel can change")


def whole_levels(eps: float) -> int:
    """Return how many whole gray levels fit in ``eps``: 8 for 8/255."""
    return int(eps * 255 + 1e-6)


def budget(norm: str, eps: float) -> str:
    """Write a budget as the field does: ``linf 8/255``, ``l2 1.0``."""
    levels = eps * 255
    if eps < 1 and abs(levels - round(levels)) < 1e-6:
        return f"{norm} {round(levels)}/255"
    return f"{norm} {eps}"
