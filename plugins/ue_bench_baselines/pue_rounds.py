"""The rounds of PUE: those of EM, with a network whose weights are never quite what they are."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from ue_bench.api import Context, ImageSet

from .em_rounds import CLIP, MinMin
from .pgd import descend


class Disturbed(MinMin):
    """Both players of EM; every pass is one of a network with normal noise on its weights.

    ``deviations`` are those of that noise: each gets a step of its own, on gradients of so many draws.
    """

    def __init__(
        self,
        data: ImageSet,
        ctx: Context,
        deviations: list[float],
        train_draws: int,
        noise_draws: int,
        **rules: Any,
    ) -> None:
        super().__init__(data, ctx, **rules)
        self.deviations, self.train_draws, self.noise_draws = deviations, train_draws, noise_draws

    def learn(self, x: Tensor, y: Tensor) -> Tensor:
        """Take one training step for each deviation; return the mean of all losses.

        A step goes along the sum of its draws' gradients over the number of all draws, of every deviation: a mean times
        its own share of the batch. After each draw what is summed so far is cut to a norm of ``CLIP``.
        """
        total = x.new_zeros(())
        terms = len(self.deviations) * self.train_draws
        for number, deviation in enumerate(self.deviations):
            self.optimizer.zero_grad(set_to_none=True)
            for draw in range(self.train_draws):  # those of deviation 0 too: each moves the running statistics
                logits = self.passed(x, deviation, "train", self.trained, number, draw)
                # The weights' noise is a constant, so gradients at noisy weights are gradients of the weights.
                loss = F.cross_entropy(logits, y) / terms
                loss.backward()
                nn.utils.clip_grad_norm_(self.network.parameters(), CLIP)
                total += loss.detach()
            self.optimizer.step()
        return total

    def stepped(self, x: Tensor, noise: Tensor, y: Tensor, batch: int = 0) -> Tensor:
        """Return the noise of images ``x`` after its steps, of which there is one for each deviation."""
        count = len(self.deviations)

        def objective(p: Tensor, t: int) -> Tensor:
            deviation = self.deviations[t % count]
            draws = self.noise_draws if deviation else 1
            losses = x.new_zeros(len(x))
            for draw in range(draws):
                logits = self.passed(p, deviation, "perturb", self.rounds, batch, t, draw)
                losses = losses + F.cross_entropy(logits, y, reduction="none") / draws
            return losses

        return descend(x, noise, objective, self.eps, self.step, self.steps * count)[0]

    def passed(self, x: Tensor, deviation: float, *axes: object) -> Tensor:
        """Return logits, float32, of ``x`` from the network with noise of this deviation, drawn for ``axes``."""
        weights: dict[str, Tensor] = dict(self.network.named_parameters())
        if deviation:
            generator = self.ctx.generator(*axes)
            weights = {
                name: weight + deviation * torch.randn(weight.shape, generator=generator, device=weight.device)
                for name, weight in weights.items()
            }
        with self.ctx.autocast():
            logits: Tensor = functional_call(self.network, weights, x)
        return logits.float()
