"""How an evaluation is cut into batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

EVAL_BATCH = 1000
ONE_CORE_PARTS = 4  # of a batch on one core: what layers put out of all of it does not stay in the core's cache


def evaluation_batches(images: int, device: torch.device) -> Iterator[range]:
    """Give the positions of ``images`` images in batches of 1,000, and whole thousands on one core in four parts.

    An image's logits are the same to the bit in either. What is left over stays one batch: of one to three images a
    CPU takes other kernels, which round otherwise. Several threads share a batch, and are no faster with smaller ones.
    """
    import torch

    whole = images - images % EVAL_BATCH
    one_core = device.type == "cpu" and torch.get_num_threads() == 1
    step = EVAL_BATCH // ONE_CORE_PARTS if one_core else EVAL_BATCH
    for start in range(0, whole, step):
        yield range(start, start + step)
    if whole < images:
        yield range(whole, images)
