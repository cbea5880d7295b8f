"""Inputs of kernels, and training by a kernel in closed form, for the tests of NTGA and of its kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ue_bench.api import ImageSet
from ue_bench_baselines.ntk import RIDGE


def pixels(count: int, values: int = 12, seed: int = 0) -> Tensor:
    return torch.rand(count, values, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def one_hot(labels: list[int], classes: int) -> Tensor:
    return F.one_hot(torch.tensor(labels), classes).double()


def flat(data: ImageSet, rows: Any = slice(None)) -> tuple[Tensor, Tensor]:
    return torch.tensor(data.images[rows]).flatten(1).double() / 255, torch.tensor(data.labels[rows])


def with_ridge(kernel: Tensor) -> Tensor:
    return kernel + RIDGE * kernel.diagonal().mean() * torch.eye(len(kernel), dtype=kernel.dtype)


def trained_by_exponential(kernel: Tensor, targets: Tensor, time: float) -> Tensor:
    """The same integral as a corner of the exponential of a larger matrix."""
    n, classes = targets.shape
    above = torch.cat([-with_ridge(kernel), targets], dim=1) * (time / targets.numel())
    whole = torch.cat([above, torch.zeros(classes, n + classes, dtype=kernel.dtype)])
    corner: Tensor = torch.linalg.matrix_exp(whole)[:n, n:]
    return corner
