"""Compare image sets before and after: their form, how much was changed, and whether their order was."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..contract.imageset import ImageSet
from .findings import Findings
from .pictures import likeness

SURE = 3.0  # standard errors
FEWEST = 8  # images that tell something about order


def check_set(findings: Findings, before: ImageSet, after: object) -> bool:
    """Check whether ``after`` has the number, size, type and labels of ``before``."""
    if not isinstance(after, ImageSet):
        return findings.check("images", False, f"returns {type(after).__name__}, not an ImageSet")
    number, (height, width) = len(before), before.size
    right = after.images.shape == before.images.shape
    wanted = f"{number} of {height} x {width} px"
    text = f"{wanted}, uint8, as given" if right else f"an array of shape {after.images.shape}, not {wanted}"
    images_kept = findings.check("images", right, text, shape=list(after.images.shape))
    kept = np.array_equal(before.labels, after.labels) and before.class_names == after.class_names
    findings.check("labels", kept, "kept, and their names" if kept else "changed")
    return images_kept and kept


def note_change(findings: Findings, before: NDArray[np.uint8], after: NDArray[np.uint8]) -> bool:
    """Note how much was changed, in levels of 255, and return whether anything was."""
    size = np.abs(after.astype(np.int16) - before)
    share, mean, most = 100 * float((size > 0).mean()), float(size.mean()), int(size.max())
    text = f"{share:.3g} % of values, by {mean:.3g} of 255 levels on average and {most} at most" if most else "no value"
    findings.note("changes", text, percent=share, mean=mean, max=most)
    return most > 0


def check_order(findings: Findings, before: NDArray[np.uint8], after: NDArray[np.uint8]) -> None:
    """Check whether images come back in the order they were given in, as far as likeness tells."""
    if len(before) < FEWEST:
        findings.note("order", f"{len(before)} images are too few to tell")
        return
    errors, mine = likeness(before, after)
    kept = errors > SURE
    than = "more" if kept else "no more"
    text = f"images are {than} like their own originals than like others; the own one is nearest for {100 * mine:.0f} %"
    findings.check("order", kept, text, percent=100 * mine)
