"""The game of REM: a network that learns under attack, and noise that makes this easy.

Noise and images are on the [0, 1] scale, N x 3 x H x W; what the network is given is transformed and less 0.5.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ue_bench.api import Context, DivergenceCheck, ImageSet, load_checkpoint, save_checkpoint

from .pgd import to_unit

RATE = 0.1
SAVE_EVERY = 50  # training steps
HALF = 0.5  # bounds of what the network is given

Uniform = Callable[..., Tensor]
"""``uniform(*shape)``: numbers in [0, 1) for each of N images, N x shape."""


def own_draws(ctx: Context, where: slice) -> Uniform:
    """Return a function that draws uniform numbers for images ``where``: an image's own, whatever its batch."""
    generators = [ctx.rng("noise", index) for index in range(where.start, where.stop)]

    def uniform(*shape: int) -> Tensor:
        return torch.from_numpy(np.stack([rng.random(shape, dtype=np.float32) for rng in generators])).to(ctx.device)

    return uniform


def batch_draws(ctx: Context, count: int, *axes: object) -> Uniform:
    """Return a function that draws uniform numbers for ``count`` images that are always together."""
    generator = ctx.generator(*axes)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator, device=ctx.device)

    return uniform


def pictures(uniform: Uniform, count: int, size: tuple[int, int]) -> Tensor:
    """Draw ``count`` pictures of random numbers in [-1, 1) for each of N images, one image's after the other."""
    drawn = uniform(count, *size, 3).flatten(0, 1).permute(0, 3, 1, 2)  # channels last in memory, as images are
    return 2 * drawn - 1


@dataclass(frozen=True)
class Crops:
    """Transforms of M images: mirrored where ``mirrored`` says so, then ``rows`` and ``columns`` cut off at the start.

    All M; whole pixels, negative where zeros come in, so that ``out[r, c] = in[r + rows, c + columns]``.
    """

    rows: Tensor
    columns: Tensor
    mirrored: Tensor

    @classmethod
    def draw(cls, uniform: Uniform, count: int, pad: int) -> Crops:
        """Draw ``count`` windows for each of N images that ``pad`` zeros frame, one image's after the other."""
        drawn = uniform(count, 3).flatten(0, 1)
        offsets = (drawn[:, :2] * (2 * pad + 1)).long() - pad
        return cls(offsets[:, 0], offsets[:, 1], drawn[:, 2] < 0.5)

    def cut(self, x: Tensor) -> Tensor:
        """Transform images."""
        height, width = x.shape[2:]
        rows = _counted(height, x) + self.rows[:, None]
        columns = _counted(width, x) + self.columns[:, None]
        return _picked(x, rows, torch.where(self.mirrored[:, None], width - 1 - columns, columns))

    def pull_back(self, gradients: Tensor) -> Tensor:
        """Turn gradients of ``cut(x)`` into those of ``x``, whose every pixel is in the result once or not at all."""
        height, width = gradients.shape[2:]
        columns = _counted(width, gradients)
        columns = torch.where(self.mirrored[:, None], width - 1 - columns, columns) - self.columns[:, None]
        return _picked(gradients, _counted(height, gradients) - self.rows[:, None], columns)


def _counted(length: int, like: Tensor) -> Tensor:
    return torch.arange(length, device=like.device)


def _picked(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Pick of each image M x 3 x H x W its ``rows`` (M x H) and ``columns`` (M x W); zeros where these are outside."""
    framed = F.pad(x, (1, 1, 1, 1)).permute(0, 2, 3, 1)
    rows, columns = rows.clamp(-1, x.shape[2]) + 1, columns.clamp(-1, x.shape[3]) + 1
    return framed[_counted(len(x), x)[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


class RobustMinMin:
    """The network, how far it is trained, and how noise is made for it."""

    def __init__(
        self,
        data: ImageSet,
        ctx: Context,
        network: nn.Module,
        eps: float,
        step: float,
        steps: int,
        adv_eps: float,
        adv_step: float,
        adv_steps: int,
        inner_steps: int,
        eot: int,
        pad: int,
        train_steps: int,
        batch: int,
        decay: int,
    ) -> None:
        self.data, self.ctx, self.network = data, ctx, network
        self.eps, self.step, self.steps = eps, step, steps
        self.adv_eps, self.adv_step, self.adv_steps = adv_eps, adv_step, adv_steps
        self.inner_steps, self.eot, self.pad = inner_steps, eot, pad
        self.train_steps, self.batch, self.decay = train_steps, min(batch, len(data)), decay
        self.labels = torch.tensor(data.labels, device=ctx.device)
        self.optimizer = torch.optim.SGD(network.parameters(), RATE, momentum=0.9, weight_decay=5e-4)
        self.trained = 0  # training steps so far
        self.hold()

    def play(self, state: Path) -> None:
        """Train to the end; the file ``state`` holds the last training step that was saved.

        Raises Diverged with the step when a loss or a weight is not finite.
        """
        divergence = DivergenceCheck(self.train_steps, "the network at play")
        if (stored := load_checkpoint(state, self.ctx.device)) is not None:
            self.resume(stored)
        while self.trained < self.train_steps:
            self.ctx.report(self.trained, self.train_steps, "train")
            divergence.add(self.train())
            self.trained += 1
            if self.trained % SAVE_EVERY == 0 or self.trained == self.train_steps:
                divergence.check(self.trained, self.network)
                save_checkpoint(state, self.state())

    def state(self) -> dict[str, Any]:
        return {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict(),
                "trained": self.trained}  # fmt: skip

    def resume(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.trained = state["trained"]

    def hold(self) -> None:
        """Hold the network still for noise and adversary: it learns nothing, and images do not depend on each other."""
        self.network.eval().requires_grad_(False)

    def train(self) -> Tensor:
        """Take one step of adversarial training on images with the noise made for them; return its loss."""
        rows = self.next_batch()
        x, y = to_unit(self.data.images[rows], self.ctx.device), self.labels[rows]
        uniform = batch_draws(self.ctx, len(rows), "step", self.trained)
        noise = (self.perturb(x, y, uniform) * 255).round() / 255
        crops = Crops.draw(uniform, 1, self.pad)
        seen = (crops.cut(x + noise) - HALF).clamp_(-HALF, HALF)
        seen = self.attacked(seen, y, pictures(uniform, 1, self.data.size), self.adv_steps)
        self.network.train().requires_grad_(True)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        with self.ctx.autocast():
            logits = self.network(seen)
        self.optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(logits.float(), y)
        loss.backward()
        self.optimizer.step()
        self.hold()
        return loss

    def rate(self) -> float:
        """Return the learning rate of the next step."""
        return RATE * 0.1 ** (self.trained // self.decay)

    def next_batch(self) -> NDArray[np.int64]:
        """Return rows of the next batch: all of one size, in an order that is drawn for each pass."""
        epoch, place = divmod(self.trained, len(self.data) // self.batch)
        order = self.ctx.rng("order", epoch).permutation(len(self.data))
        return np.sort(order[place * self.batch : (place + 1) * self.batch])

    def perturb(self, x: Tensor, y: Tensor, uniform: Uniform) -> Tensor:
        """Make noise for images ``x``, N x 3 x H x W in [0, 1], from a random start: within eps, not cut to [0, 1].

        Where image and noise leave the box the gradient is zero, and the noise stays what it is.
        """
        noise = self.eps * pictures(uniform, 1, self.data.size)
        labels = y.repeat_interleave(self.eot)
        for _ in range(self.steps):
            noisy = x + noise
            crops = Crops.draw(uniform, self.eot, self.pad)
            seen = crops.cut(noisy.clamp(0, 1).repeat_interleave(self.eot, 0)) - HALF
            seen = self.attacked(seen, labels, pictures(uniform, self.eot, self.data.size), self.inner_steps)
            gradients = crops.pull_back(self.gradient(seen, labels)).view(len(x), self.eot, *x.shape[1:]).sum(1)
            gradients *= (noisy >= 0) & (noisy <= 1)
            noise = noise.sub_(gradients.sign(), alpha=self.step).clamp_(-self.eps, self.eps)
        return noise

    def attacked(self, seen: Tensor, y: Tensor, start: Tensor, steps: int) -> Tensor:
        """Attack ``seen`` images: within ``adv_eps`` of them and within the box; ``start`` is within [-1, 1].

        Without ``steps`` they are where the start has put them.
        """
        if not self.adv_eps:
            return seen
        low, high = (seen - self.adv_eps).clamp_(min=-HALF), (seen + self.adv_eps).clamp_(max=HALF)
        worst = (seen + self.adv_eps * start).clamp_(low, high)
        for _ in range(steps):
            worst = worst.detach().add(self.gradient(worst, y).sign_(), alpha=self.adv_step).clamp_(low, high)
        return worst

    def gradient(self, seen: Tensor, y: Tensor) -> Tensor:
        """Return the gradient of each image's own loss by what the network is given."""
        seen = seen.detach().requires_grad_()
        with self.ctx.autocast():
            logits = self.network(seen)
        # A sum, not a mean: an image's gradient must not depend on how many others are in its batch.
        [gradient] = torch.autograd.grad(F.cross_entropy(logits.float(), y, reduction="sum"), seen)
        return gradient
