"""The two trainings of D-VAE, and what they do to images.

Images are on the [0, 1] scale, N x 3 x H x W. What is random is drawn for a stage and a step, or for a stage and an
image, so that the state of a training is its network, its optimizer and the number of its steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ue_bench.api import (
    Context,
    DivergenceCheck,
    ImageSet,
    check_finite,
    derive,
    load_checkpoint,
    save_checkpoint,
)

from .dvae_network import Disentangler, Parts, loss

WEIGHT, STRICT = 0.01, 0.5  # of the rate in the loss; the second where LOW nats or fewer are free
LOW = 0.99
FREE = 11, 60  # in so many of so many epochs, the first ones, the size of perturbations does not count
LARGEST = 0.002  # mean square that a perturbation may have for nothing
CLIP = 5.0  # largest gradient norm of a step
SAVE_EVERY = 200  # steps; the end of a training is saved too
REPORT_EVERY = 10


class Purifier:
    """Purifies a set; ``folder`` holds what it has learned, so that a killed run can continue.

    ``wide`` is how many images are purified at once, which moves no number.
    """

    def __init__(
        self,
        ctx: Context,
        folder: Path,
        epochs: int,
        batch: int,
        width: int,
        latent: int,
        learning_rate: float,
        labels: bool,
        wide: int,
    ) -> None:
        self.ctx, self.folder, self.epochs, self.batch = ctx, folder, epochs, batch
        self.width, self.latent, self.learning_rate = width, latent, learning_rate
        self.labels, self.wide = labels, wide

    def run(self, data: ImageSet, first_rate: float, rate: float) -> ImageSet:
        """Return ``data`` without its perturbations, after both stages."""
        first = self.trained("first", data, first_rate)
        half = self.changed("first", data, lambda x, where: self.without(first, "first", data, x, where))
        second = self.trained("second", half, rate)

        def reconstructed(x: Tensor, where: slice) -> Tensor:
            rest = self.without(second, "second", half, x, where)
            return self.seen(second, "reconstruct", half, rest, where).reconstruction

        return self.changed("second", half, reconstructed)

    def trained(self, stage: str, data: ImageSet, rate: float) -> Disentangler:
        """Train the network of a stage on ``data`` with so many nats a position free; return it in eval mode.

        Raises Diverged with the step when a loss or a weight is not finite.
        """
        network = self.network(stage, data)
        optimizer = torch.optim.Adam(network.parameters(), self.learning_rate)
        batch = min(self.batch, len(data))
        per_epoch = len(data) // batch
        steps, done = self.epochs * per_epoch, 0
        state = self.folder / f"{stage}.pt"
        if (stored := load_checkpoint(state, self.ctx.device)) is not None:
            network.load_state_dict(stored["network"])
            optimizer.load_state_dict(stored["optimizer"])
            done = stored["steps"]
        divergence = DivergenceCheck(steps, f"the {stage} stage of d-vae")
        while done < steps:
            epoch, place = divmod(done, per_epoch)
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate * (1 + math.cos(math.pi * epoch / self.epochs)) / 2
            order = self.ctx.rng(stage, "order", epoch).permutation(len(data))
            rows = np.sort(order[place * batch : (place + 1) * batch])
            noise = torch.randn(
                (batch, self.latent, *network.small),
                generator=self.ctx.generator(stage, "noise", done),
                device=self.ctx.device,
            )
            step_loss = self.step(network, optimizer, data, rows, noise, rate, epoch)
            done += 1
            divergence.add(step_loss)
            if done % REPORT_EVERY == 0 or done == steps:
                self.ctx.report(done, steps, f"d-vae, {stage} training, loss {float(step_loss):.4f}")
            if done % SAVE_EVERY == 0 or done == steps:
                divergence.check(done, network)
                parts = {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
                save_checkpoint(state, {**parts, "steps": done})
        return network.eval().requires_grad_(False)

    def step(
        self,
        network: Disentangler,
        optimizer: torch.optim.Optimizer,
        data: ImageSet,
        rows: NDArray[np.int64],
        noise: Tensor,
        rate: float,
        epoch: int,
    ) -> Tensor:
        """Take one training step on images ``rows`` of ``data``; return the loss before it."""
        x = self.images(data.images[rows])
        parts = network(x, self.owners(data, rows), noise)
        free = epoch * FREE[1] < self.epochs * FREE[0]
        step_loss = loss(parts, x, STRICT if rate <= LOW else WEIGHT, rate, None if free else LARGEST)
        optimizer.zero_grad(set_to_none=True)
        step_loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), CLIP)
        optimizer.step()
        return step_loss.detach()

    def network(self, stage: str, data: ImageSet) -> Disentangler:
        """Return an untrained network, its weights drawn from the seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(self.ctx.seed, stage, "weights"))
            network = Disentangler(data.num_classes if self.labels else 1, data.size, self.width, self.latent)
        return network.to(self.ctx.device).to(memory_format=torch.channels_last).train()

    def changed(self, stage: str, data: ImageSet, change: Callable[[Tensor, slice], Tensor]) -> ImageSet:
        """Return ``data`` with ``change(x, where)`` applied to batches, rounded."""

        @torch.no_grad()
        def apply(images: NDArray[np.uint8], where: slice) -> NDArray[np.uint8]:
            changed = change(self.images(images), where)
            check_finite(changed, f"image of the {stage} stage of d-vae")
            levels = (changed * 255).round().clamp(0, 255).to(torch.uint8)
            return levels.permute(0, 2, 3, 1).cpu().numpy()

        return self.ctx.map_images(data, apply, f"d-vae, {stage} pass", self.wide)

    def without(self, network: Disentangler, stage: str, data: ImageSet, x: Tensor, where: slice) -> Tensor:
        """Return images ``x`` without their perturbations, in [0, 1]."""
        return (x - self.seen(network, stage, data, x, where).perturbation).clamp(0, 1)

    def seen(self, network: Disentangler, use: str, data: ImageSet, x: Tensor, where: slice) -> Parts:
        """Return what the network makes of ``x``, images ``where`` of ``data``; each has own noise in each ``use``."""
        rows = np.arange(where.start, where.stop)
        shape = self.latent, *network.small
        drawn = [self.ctx.rng(use, "sample", row).standard_normal(shape, np.float32) for row in rows.tolist()]
        noise = torch.from_numpy(np.stack(drawn)).to(self.ctx.device)
        parts: Parts = network(x, self.owners(data, rows), noise)
        return parts

    def owners(self, data: ImageSet, rows: NDArray[np.int64]) -> Tensor:
        """Return the indices of the embeddings that the images of these rows get."""
        labels = data.labels[rows] if self.labels else np.zeros(len(rows), np.int64)
        return torch.tensor(labels, device=self.ctx.device)

    def images(self, images: NDArray[np.uint8]) -> Tensor:
        return torch.tensor(images).to(self.ctx.device).permute(0, 3, 1, 2).float().div_(255)
