"""The rounds of AUE: a network that learns random views of noisy images, and noise that makes this easy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ue_bench.api import load_checkpoint, save_checkpoint

from .pgd import boxed, descend, to_levels, to_unit
from .view_training import ViewTraining
from .views import ViewDraws


class AugmentedMinMin:
    """Both players. ``noise`` is N x 3 x H x W on the [0, 1] scale and the device, and images with it are in [0, 1].

    ``wide`` is how many images are perturbed at once, which moves no number.
    """

    def __init__(self, training: ViewTraining, eps: float, step: float, steps: int, wide: int) -> None:
        self.training, self.eps, self.step, self.steps, self.wide = training, eps, step, steps, wide
        self.data, self.ctx = training.data, training.ctx
        self.noise = torch.zeros((len(self.data), 3, *self.data.size), device=self.ctx.device)
        self.noise = self.noise.to(memory_format=torch.channels_last)

    def play(self, state: Path) -> None:
        """Play all epochs; the file ``state`` holds the last ended one. Raises Diverged."""
        training = self.training
        if (stored := load_checkpoint(state, self.ctx.device)) is not None:
            training.resume(stored)
            self.noise = stored["noise"]
        while training.epoch < training.epochs:
            self.ctx.report(training.epoch, training.epochs, "epochs of network and noise")
            training.learn(self.noise)
            self.perturb()
            save_checkpoint(state, training.state() | {"noise": self.noise})
        self.ctx.report(training.epochs, training.epochs, "epochs of network and noise")

    def perturb(self) -> None:
        """Let every image's noise take its steps of the epoch that has ended."""
        for start in range(0, len(self.data), self.wide):
            where = slice(start, min(start + self.wide, len(self.data)))
            x = to_unit(self.data.images[where], self.ctx.device)
            self.noise[where] = self.stepped(x, where)

    def stepped(self, x: Tensor, where: slice) -> Tensor:
        """Return the noise of images ``x`` after its steps."""
        labels = self.training.labels[where]
        views = ViewDraws(self.ctx, where, self.steps, self.training.strength, self.training.epoch)

        def objective(p: Tensor, t: int) -> Tensor:
            with self.ctx.autocast():
                logits = self.training.network(views.viewed(p, t))
            return F.cross_entropy(logits.float(), labels, reduction="none")

        return boxed(x, descend(x, self.noise[where], objective, self.eps, self.step, self.steps)[0])

    def noise_of(self, where: slice) -> NDArray[np.float32]:
        """Return the noise of these rows in gray levels, N x H x W x 3."""
        return to_levels(self.noise[where])
