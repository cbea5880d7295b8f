"""A network that learns random views of images, for AUE with noise that changes, for AAP of clean ones."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ue_bench.api import Context, DivergenceCheck, ImageSet

from .pgd import to_unit
from .views import COLOURS, NUMBERS, viewed

LEAST_RATE = 1e-6


class ViewTraining:
    """The network and how far it is.

    SGD with momentum 0.9 and a weight decay of 1e-4, in shuffled batches with a smaller last one. The rate rises to
    ``rate`` over ``warm_up`` epochs and falls by a cosine to 1e-6, epoch by epoch. Images are pixels in [0, 1]. Between
    epochs the network is in eval mode and frozen.
    """

    def __init__(
        self,
        data: ImageSet,
        ctx: Context,
        network: nn.Module,
        strength: float,
        epochs: int,
        warm_up: int,
        batch: int,
        rate: float,
    ) -> None:
        self.data, self.ctx, self.network, self.strength = data, ctx, network, strength
        self.epochs, self.warm_up, self.batch, self.rate = epochs, warm_up, batch, rate
        self.labels = torch.tensor(data.labels, device=ctx.device)
        self.optimizer = torch.optim.SGD(network.parameters(), rate, momentum=0.9, weight_decay=1e-4)
        self.per_epoch = -(-len(data) // batch)
        self.divergence = DivergenceCheck(epochs * self.per_epoch, "the surrogate")
        self.epoch = 0
        network.eval().requires_grad_(False)

    def state(self) -> dict[str, Any]:
        return {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict(), "epoch": self.epoch}

    def resume(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch = state["epoch"]

    def current_rate(self) -> float:
        """Return the learning rate of the next epoch."""
        if self.epoch < self.warm_up:
            return self.rate * (self.epoch + 1) / self.warm_up
        share = (self.epoch - self.warm_up) / (self.epochs - self.warm_up)
        return LEAST_RATE + (self.rate - LEAST_RATE) * (1 + math.cos(math.pi * share)) / 2

    def learn(self, noise: Tensor | None = None) -> None:
        """Train for one epoch, on images with their ``noise``, N x 3 x H x W. Raises Diverged."""
        self.network.train().requires_grad_(True)
        for group in self.optimizer.param_groups:
            group["lr"] = self.current_rate()
        order = self.ctx.rng("order", self.epoch).permutation(len(self.data))
        for number in range(self.per_epoch):
            rows = np.sort(order[number * self.batch : (number + 1) * self.batch])
            x = to_unit(self.data.images[rows], self.ctx.device)
            if noise is not None:
                x = x + noise[torch.from_numpy(rows).to(self.ctx.device)]
            self.divergence.add(self.step(self.viewed(x, number), self.labels[rows]))
        self.epoch += 1
        self.divergence.check(self.epoch * self.per_epoch, self.network)
        self.network.eval().requires_grad_(False)

    def viewed(self, x: Tensor, number: int) -> Tensor:
        """Show a batch, the ``number``-th of its epoch, in random views."""
        generator = self.ctx.generator("training view", self.epoch, number)
        order = self.ctx.rng("training colours", self.epoch, number).permutation(len(COLOURS)).tolist()
        drawn = torch.rand(len(x), NUMBERS, generator=generator, device=self.ctx.device)
        return viewed(x, drawn, order, self.strength)

    def step(self, x: Tensor, y: Tensor) -> Tensor:
        """Take one training step; return its loss."""
        with self.ctx.autocast():
            logits = self.network(x)
        loss = F.cross_entropy(logits.float(), y)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss
