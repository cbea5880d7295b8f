"""The game of GUE: a generator of noise that leads, and a classifier that answers it.

Images and noise are on the [0, 1] scale, N x 3 x H x W. What is random is drawn for a step by its number.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ue_bench.api import Context, DivergenceCheck, ImageSet, load_checkpoint, save_checkpoint

from .pgd import to_unit
from .unet import UNet

SAVE_EVERY = 50  # steps
TINY = 1e-8  # added to the squared norm that divides


def wrong_class_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean over images of the largest cross-entropy of a class that is not theirs: of the least likely."""
    own = F.one_hot(labels, logits.shape[1]).bool()
    return (logits.logsumexp(1) - logits.masked_fill(own, torch.inf).amin(1)).mean()


def multiplier(upper: Sequence[Tensor], lower: Sequence[Tensor], leader: Sequence[Tensor], eta: float) -> Tensor:
    """Return how much the lower problem's gap counts beside the upper objective, no less than 0.

    ``upper`` and ``lower`` are gradients by the classifier of objective and gap, ``leader`` that of the gap by the
    generator.
    """
    norm = sum_of_products(lower, lower) + sum_of_products(leader, leader)
    return ((eta * norm - sum_of_products(upper, lower)) / (norm + TINY)).clamp(min=0)


def sum_of_products(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """Return the inner product of two lists of tensors of the same shapes."""
    return torch.stack([(a * b).sum() for a, b in zip(first, second, strict=True)]).sum()


class Stackelberg:
    """Both players and how far they are. ``generator`` is phi of the paper, ``classifier`` theta.

    ``answering`` is a network like the classifier, whose weights are overwritten.
    """

    def __init__(
        self,
        data: ImageSet,
        ctx: Context,
        generator: UNet,
        classifier: nn.Module,
        answering: nn.Module,
        eps: float,
        epochs: int,
        batch: int,
        answers: int,
        answer_rate: float,
        rate: float,
        classifier_rate: float,
        eta: float,
    ) -> None:
        self.data, self.ctx, self.generator = data, ctx, generator
        self.classifier, self.answering = classifier.train(), answering.train()
        self.eps, self.answers, self.answer_rate = eps, answers, answer_rate
        self.rate, self.classifier_rate, self.eta = rate, classifier_rate, eta
        self.batch = min(batch, len(data))
        self.per_epoch = len(data) // self.batch
        self.steps = epochs * self.per_epoch
        self.labels = torch.tensor(data.labels, device=ctx.device)
        self.step = 0
        self.multiplier = 0.0  # of the last step, for progress

    def play(self, state: Path) -> None:
        """Play to the end; the file ``state`` holds the last step that was saved. Raises Diverged."""
        divergence = DivergenceCheck(self.steps, "the networks at play")
        if (stored := load_checkpoint(state, self.ctx.device)) is not None:
            self.generator.load_state_dict(stored["generator"])
            self.classifier.load_state_dict(stored["classifier"])
            self.step = stored["step"]
        while self.step < self.steps:
            self.ctx.report(self.step, self.steps, "steps of the game")
            divergence.add(self.train())
            self.step += 1
            if self.step % SAVE_EVERY == 0 or self.step == self.steps:
                divergence.check(self.step, self.generator, self.classifier)
                save_checkpoint(state, self.state())

    def state(self) -> dict[str, Any]:
        return {"generator": self.generator.state_dict(), "classifier": self.classifier.state_dict(),
                "step": self.step}  # fmt: skip

    def next_batch(self) -> NDArray[np.int64]:
        """Return rows of the next batch: all of one size, in an order that is drawn for each pass."""
        epoch, place = divmod(self.step, self.per_epoch)
        order = self.ctx.rng("order", epoch).permutation(len(self.data))
        return np.sort(order[place * self.batch : (place + 1) * self.batch])

    def train(self) -> Tensor:
        """Take one step of both players; return the sum of their losses."""
        rows = self.next_batch()
        x, y = to_unit(self.data.images[rows], self.ctx.device), self.labels[rows]
        noisy = protected(self.generator.train(), x, self.eps, self.ctx)
        answer = self.answer(noisy.detach(), y)
        theta, phi = list(self.classifier.parameters()), list(self.generator.parameters())
        objective = wrong_class_loss(self.logits(self.classifier, x), y)
        upper = torch.autograd.grad(objective, theta)
        # The answer is a constant: the gap has gradients by it through the noise alone.
        gap = F.cross_entropy(self.logits(self.classifier, noisy), y) - F.cross_entropy(self.logits(answer, noisy), y)
        gradients = torch.autograd.grad(gap, theta + phi)
        lower, leader = gradients[: len(theta)], gradients[len(theta) :]
        weight = multiplier(upper, lower, leader, self.eta)
        with torch.no_grad():
            for weights, gradient in zip(phi, leader, strict=True):
                weights.sub_(self.rate * weight * gradient)
            for weights, first, second in zip(theta, upper, lower, strict=True):
                weights.sub_(self.classifier_rate * (first + weight * second))
        return objective.detach() + gap.detach()

    def answer(self, noisy: Tensor, y: Tensor) -> nn.Module:
        """Return the classifier after ``answers`` steps of Adam on ``noisy`` images, frozen; itself stays as it is."""
        answer = self.answering.requires_grad_(True)
        answer.load_state_dict(self.classifier.state_dict())
        adam = torch.optim.Adam(answer.parameters(), self.answer_rate)
        for _ in range(self.answers):
            adam.zero_grad(set_to_none=True)
            F.cross_entropy(self.logits(answer, noisy), y).backward()
            adam.step()
        return answer.requires_grad_(False)

    def logits(self, network: nn.Module, x: Tensor) -> Tensor:
        with self.ctx.autocast():
            logits: Tensor = network(x)
        return logits.float()


def protected(generator: nn.Module, x: Tensor, eps: float, ctx: Context) -> Tensor:
    """Return images ``x`` with the generator's noise, within [0, 1]."""
    with ctx.autocast():
        noise: Tensor = generator(x)
    return (x + eps * noise.float()).clamp(0, 1)
