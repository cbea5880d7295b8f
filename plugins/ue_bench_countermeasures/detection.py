"""Detection of protected sets by simple networks, which learn shortcuts and little else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ue_bench.api import ImageSet, UserError, derive

from .pixel_classifier import PixelRecipe, fit, unit

HELD_OUT = 5  # one in so many
BATCH = 1000
MANY = 100  # classes, from which the milestones are earlier
CROP = 4


def passes(classes: int) -> int:
    """Return how often the authors' code goes over the images, of so many classes."""
    return 200 if classes >= MANY else 100


def detected(
    data: ImageSet,
    network: str,
    epochs: int,
    width: int,
    seed: int,
    device: str,
    folder: Path,
    report: Callable[[float, float, str], None],
) -> tuple[float, int]:
    """Return the accuracy, in percent, on a fifth of ``data`` of a classifier trained on the rest, and their number.

    ``network`` is ``linear`` or ``mlp`` with ``width`` hidden units, which sees random crops and mirror images. SGD at
    0.01 with momentum 0.9 and decay 5e-4, a tenth after 75 and 90 % of ``epochs``, after 30, 60 and 80 % at a hundred
    classes and more. Deviations from the authors' code: as many outputs as classes, where theirs has ten, and images
    of any size. Raises UserError when there are too few images, or one class.
    """
    order = np.random.default_rng(derive(seed, "held out")).permutation(len(data))
    held, rest = np.sort(order[: len(data) // HELD_OUT]), np.sort(order[len(data) // HELD_OUT :])
    if not len(held):
        raise UserError(f"{len(data)} images are too few to hold a fifth out", "give more")
    if len(np.unique(data.labels)) < 2:
        raise UserError("all images are of one class, which any classifier tells", "give two classes or more")
    many = (0.3, 0.6, 0.8)
    recipe = PixelRecipe(
        epochs, 0 if network == "linear" else width, crop=0 if network == "linear" else CROP, seed=seed
    )
    if data.num_classes >= MANY:
        recipe = replace(recipe, milestones=many)
    part = ImageSet(data.images[rest], data.labels[rest], data.class_names)
    model = fit(part, recipe, device, folder / "state.pt", report, f"detect: epochs of the {network} classifier")
    right = 0
    for start in range(0, len(held), BATCH):
        where = held[start : start + BATCH]
        guessed = model(unit(data.images[where], device)).argmax(1)
        right += int((guessed == torch.tensor(data.labels[where], device=device)).sum())
    return 100 * right / len(held), len(held)
