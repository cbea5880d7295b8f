"""Multinomial logistic regression on fixed features, solved to its only minimum."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ue_bench.api import Diverged

STEPS = 500  # of L-BFGS, at most
HISTORY = 10
GRADIENT = 1e-10  # largest entry of the gradient at which the search ends
SLACK = 1e-6  # above the loss of guessing


@dataclass(frozen=True)
class Solution:
    """A linear layer for standardised features, C x D and C, and what features are standardised by, D each."""

    weight: Tensor
    bias: Tensor
    mean: Tensor
    deviation: Tensor
    objective: float

    def folded(self) -> tuple[Tensor, Tensor]:
        """Return weight and bias of the same layer for features as they are."""
        weight = self.weight / self.deviation
        return weight, self.bias - weight @ self.mean


def solve(
    features: Tensor, labels: Tensor, classes: int, penalty: float, start: tuple[Tensor, Tensor] | None = None
) -> Solution:
    """Minimise the mean cross-entropy plus ``penalty / 2 * |W|^2`` over linear layers on standardised features.

    ``features`` are N x D, ``labels`` N. All images count in every step, in float64: L-BFGS with a strong Wolfe line
    search, without a penalty on the bias. The minimum is the only one as to the weights, wherever the search starts:
    at zero, or at ``start``, weight and bias for standardised features. Raises Diverged when what comes out is not
    finite, or worse than guessing.
    """
    x = features.double()
    mean, deviation = x.mean(0), x.std(0, correction=0)
    deviation = torch.where(deviation > 0, deviation, torch.ones_like(deviation))
    x = (x - mean) / deviation
    if start is None:
        start = x.new_zeros(classes, x.shape[1]), x.new_zeros(classes)
    weight, bias = (value.detach().to(x).clone().requires_grad_() for value in start)
    search = torch.optim.LBFGS(
        [weight, bias], lr=1, max_iter=STEPS, max_eval=2 * STEPS, history_size=HISTORY, tolerance_grad=GRADIENT,
        tolerance_change=0, line_search_fn="strong_wolfe",
    )  # fmt: skip

    def objective() -> Tensor:
        value: Tensor = F.cross_entropy(x @ weight.T + bias, labels) + penalty / 2 * weight.square().sum()
        return value

    def closure() -> Tensor:
        search.zero_grad()
        value = objective()
        value.backward()
        return value

    with torch.enable_grad():
        search.step(closure)
    with torch.no_grad():
        final = float(objective())
    if not final <= math.log(classes) + SLACK:  # also where it is not a number
        raise Diverged("linear layer", hint="features that are not finite, or a penalty out of range")
    return Solution(weight.detach(), bias.detach(), mean, deviation, final)
