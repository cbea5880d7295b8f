"""Projected gradient descent on images, as every protector with a surrogate does it.

A surrogate is frozen and in eval mode, so what happens to an image depends on that image alone: batches may have any
size. Perturbations stay in float32 on the device; only layers run in the context's precision.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ue_bench.api import Context, ImageSet, load_arrays, save_arrays

Arrays = dict[str, NDArray[Any]]


def to_unit(images: NDArray[np.uint8], device: str) -> Tensor:
    """Convert N x H x W x 3 bytes to N x 3 x H x W in [0, 1], channels last in memory."""
    return torch.tensor(images).to(device).permute(0, 3, 1, 2).float().div_(255)


def to_levels(perturbation: Tensor) -> NDArray[np.float32]:
    """Convert N x 3 x H x W on the [0, 1] scale to N x H x W x 3 in gray levels."""
    levels: NDArray[np.float32] = (perturbation * 255).permute(0, 2, 3, 1).cpu().numpy()
    return levels


def boxed(x: Tensor, perturbation: Tensor) -> Tensor:
    """Cut ``perturbation`` so that ``x + perturbation`` is within [0, 1]."""
    return (x + perturbation).clamp_(0, 1).sub_(x)


def descend(
    x: Tensor,
    start: Tensor,
    objective: Callable[[Tensor, int], Tensor],
    eps: float,
    step: float,
    steps: int,
) -> tuple[Tensor, Tensor]:
    """Take ``steps`` signed gradient steps from ``x + start`` that lower ``objective``, within ``eps`` in Linf.

    ``x`` N x 3 x H x W in [0, 1]; ``objective(p, t)`` gives one loss an image for images ``p`` in [0, 1] at step ``t``.
    Gradients are taken at images within [0, 1]. Returns the perturbation as it is within ``eps`` but before its last
    cut to [0, 1] (``boxed`` does that), and the losses before the last step.
    """
    perturbation = start
    losses = x.new_zeros(len(x))
    for t in range(steps):
        p = (x + boxed(x, perturbation)).requires_grad_()
        losses = objective(p, t)
        # A sum, not a mean: an image's step must not depend on how many others are in its batch.
        [gradient] = torch.autograd.grad(losses.sum(), p)
        perturbation = (p.detach() - x).sub_(gradient.sign(), alpha=step).clamp_(-eps, eps)
        losses = losses.detach()
    return perturbation, losses


def resumable(
    ctx: Context,
    key: Any,
    part: str,
    data: ImageSet,
    batch: int,
    text: str,
    compute: Callable[[Tensor, slice], Arrays],
) -> Iterator[tuple[slice, Arrays]]:
    """Yield ``compute(x, where)`` of consecutive batches of ``data``, each kept in ``ctx.checkpoint_dir(key)``.

    ``x`` is in [0, 1] on the device. A process that was killed finds the batches it had finished under the same ``key``
    (plain data: everything that shapes them) and ``part``, a file name. Whoever is done removes the folder.
    """
    folder = ctx.checkpoint_dir(key) / part
    folder.mkdir(exist_ok=True)
    starts = list(range(0, len(data), batch))
    for start in ctx.progress(starts, text):
        where = slice(start, min(start + batch, len(data)))
        file = folder / f"{start}-{where.stop}.npz"
        arrays = load_arrays(file)
        if arrays is None:
            arrays = compute(to_unit(data.images[where], ctx.device), where)
            save_arrays(file, arrays)
        yield where, arrays


def protect_in_batches(
    data: ImageSet, ctx: Context, key: Any, batch: int, text: str, craft: Callable[[Tensor, slice], Arrays]
) -> ImageSet:
    """Return ``data`` with the ``images`` that ``craft(x, where)`` gives for each batch, as ``resumable`` calls it.

    ``ctx.checkpoint_dir(key)`` is removed at the end.
    """

    def chunks() -> Iterator[NDArray[np.uint8]]:
        for _, crafted in resumable(ctx, key, "images", data, batch, text, craft):
            yield crafted["images"]

    protected = data.with_images(ctx.store_images(data.images.shape, chunks()))
    shutil.rmtree(ctx.checkpoint_dir(key))
    return protected
