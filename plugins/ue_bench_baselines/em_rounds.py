"""The rounds of EM: a network that learns, and noise that makes it easy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ue_bench.api import Context, DivergenceCheck, ImageSet, load_checkpoint, save_checkpoint

from .pgd import descend, to_levels, to_unit

SHARE = 0.2  # of the set that class-wise noise is fitted to
CLIP = 5.0  # largest gradient norm of a training step


class MinMin:
    """Both players and whose turn it is.

    ``noise`` is N x 3 x H x W, or classes x 3 x H x W, on the [0, 1] scale and the device. ``wide`` is how many images
    are perturbed at once, which moves no number for samples.
    """

    def __init__(
        self,
        data: ImageSet,
        ctx: Context,
        network: nn.Module,
        by_class: bool,
        eps: float,
        step: float,
        steps: int,
        train_steps: int,
        batch: int,
        wide: int,
    ) -> None:
        self.data, self.ctx, self.network, self.by_class = data, ctx, network, by_class
        self.eps, self.step, self.steps, self.train_steps = eps, step, steps, train_steps
        self.batch, self.wide = min(batch, len(data)), wide
        self.labels = torch.tensor(data.labels, device=ctx.device)
        owners = data.num_classes if by_class else len(data)
        self.noise = torch.zeros((owners, 3, *data.size), device=ctx.device).to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, weight_decay=5e-4)
        self.divergence = DivergenceCheck(train_steps, "the network at play")
        self.rounds = 0
        self.trained = 0  # training steps so far
        self.error = 1.0

    def play(self, state: Path, stop_error: float, max_rounds: int) -> None:
        """Play rounds until the network errs on at most ``stop_error``; the file ``state`` holds the last ended one.

        Raises Diverged with the training step when a loss or a weight is not finite.
        """
        if (stored := load_checkpoint(state, self.ctx.device)) is not None:
            self.resume(stored)
        self.divergence.steps = max_rounds * self.train_steps
        while self.error > stop_error and self.rounds < max_rounds:
            self.train()
            self.divergence.check(self.trained, self.network)
            (self.perturb_classes if self.by_class else self.perturb_images)()
            self.rounds += 1
            self.error = self.measure()
            self.ctx.report(self.rounds, max_rounds, f"rounds, error {self.error:.1%}")
            save_checkpoint(state, self.state())

    def state(self) -> dict[str, Any]:
        return {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict(), "noise": self.noise,
                "rounds": self.rounds, "trained": self.trained, "error": self.error}  # fmt: skip

    def resume(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.noise, self.rounds, self.trained = state["noise"], state["rounds"], state["trained"]
        self.error = state["error"]

    def train(self) -> None:
        """Train the network for its turn, on noisy images that may leave [0, 1]."""
        self.network.train().requires_grad_(True)
        for _ in range(self.train_steps):
            rows = self.next_batch()
            x, y = self.images(rows), self.labels[rows]
            self.divergence.add(self.learn(x + self.noise[self.owner(rows)], y))
            self.trained += 1
        self.network.eval().requires_grad_(False)

    def learn(self, x: Tensor, y: Tensor) -> Tensor:
        """Take one training step of the network; return its loss."""
        with self.ctx.autocast():
            logits = self.network(x)
        loss = F.cross_entropy(logits.float(), y)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), CLIP)
        self.optimizer.step()
        return loss

    def next_batch(self) -> NDArray[np.int64]:
        """Return rows of the next batch: in order, the last one smaller; for classes shuffled, and all of one size."""
        if not self.by_class:
            count = -(-len(self.data) // self.batch)
            first = self.trained % count * self.batch
            return np.arange(first, min(first + self.batch, len(self.data)))
        count = len(self.data) // self.batch
        epoch, place = divmod(self.trained, count)
        order = self.ctx.rng("order", epoch).permutation(len(self.data))
        return np.sort(order[place * self.batch : (place + 1) * self.batch])

    def perturb_images(self) -> None:
        """Optimise noise that is an image's own, from where it is."""
        for start in range(0, len(self.data), self.wide):
            where = slice(start, min(start + self.wide, len(self.data)))
            x = self.images(where)
            self.noise[where] = self.stepped(x, self.noise[where], self.labels[where])
            self.ctx.report(start, len(self.data), f"round {self.rounds + 1}, error {self.error:.1%}")

    def perturb_classes(self) -> None:
        """Optimise a class's noise: after each batch it is the mean over the class's images in it."""
        rows = self.fifth()
        order = self.ctx.rng("fifth", self.rounds).permutation(len(rows))
        size = min(self.batch, len(rows))
        for start in range(0, len(rows) // size * size, size):
            chosen = np.sort(rows[order[start : start + size]])
            x, y = self.images(chosen), self.labels[chosen]
            moved = self.stepped(x, self.noise[y], y, start)
            for label in np.unique(self.data.labels[chosen]).tolist():
                self.noise[label] = moved[y == label].mean(0).clamp_(-self.eps, self.eps)

    def fifth(self) -> NDArray[np.int64]:
        """Return rows of the stratified fifth: the same in every round, and at least one image of every class."""
        rng = self.ctx.rng("stratified")
        rows_by_class = (rng.permutation(np.flatnonzero(self.data.labels == k)) for k in np.unique(self.data.labels))
        return np.sort(np.concatenate([rows[: max(1, round(SHARE * len(rows)))] for rows in rows_by_class]))

    def stepped(self, x: Tensor, noise: Tensor, y: Tensor, batch: int = 0) -> Tensor:
        """Return the noise of images ``x`` after its steps; ``batch`` tells a class's batches of a round apart."""

        def objective(p: Tensor, _: int) -> Tensor:
            with self.ctx.autocast():
                logits = self.network(p)
            return F.cross_entropy(logits.float(), y, reduction="none")

        return descend(x, noise, objective, self.eps, self.step, self.steps)[0]

    @torch.no_grad()
    def measure(self) -> float:
        """Return the share of noisy images, not cut to [0, 1], that the network gets wrong: of all, or of the fifth."""
        rows = self.fifth() if self.by_class else np.arange(len(self.data))
        wrong = 0
        for start in range(0, len(rows), self.wide):
            part = rows[start : start + self.wide]
            with self.ctx.autocast():
                guessed = self.network(self.images(part) + self.noise[self.owner(part)]).argmax(1)
            wrong += int((guessed != self.labels[part]).sum())
        return wrong / len(rows)

    def noise_of(self, where: slice) -> NDArray[np.float32]:
        """Return the noise of these rows in gray levels, N x H x W x 3."""
        return to_levels(self.noise[self.owner(np.arange(where.start, where.stop))])

    def owner(self, rows: NDArray[np.int64]) -> Tensor:
        """Return the indices of the noise that the images of these rows have: their own, or their class's."""
        return self.labels[rows] if self.by_class else torch.from_numpy(rows).to(self.ctx.device)

    def images(self, rows: NDArray[np.int64] | slice) -> Tensor:
        return to_unit(self.data.images[rows], self.ctx.device)
