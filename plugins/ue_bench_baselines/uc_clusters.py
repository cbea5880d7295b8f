"""The two stages of UC: clusters of features, and for each of them one noise that leads to the next.

Images are on the [0, 1] scale, N x 3 x H x W, brought to the side that the feature network takes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ue_bench.api import Context, DivergenceCheck, ImageSet, derive, load_checkpoint, save_checkpoint

from .pgd import to_unit
from .uc_generator import Generator

LEAST_RATE = 1e-6
Embed = Callable[[Tensor], Tensor]


def enlarged(images: NDArray[np.uint8], side: int, device: str) -> Tensor:
    """Bring bytes to where their shorter side is 8/7 of ``side``: 256 for 224."""
    x = to_unit(images, device)
    scale = round(side * 8 / 7) / min(x.shape[2:])
    size = [max(side, round(length * scale)) for length in x.shape[2:]]
    return F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)


def middle(x: Tensor, side: int) -> Tensor:
    """Cut the middle square out of images."""
    top, left = ((length - side) // 2 for length in x.shape[2:])
    return x[:, :, top : top + side, left : left + side]


def cropped(x: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Cut a random square out of each image and mirror half of them."""
    n, _, height, width = x.shape
    drawn = torch.rand(3, n, generator=generator, device=x.device)
    rows = (drawn[0] * (height - side + 1)).long()[:, None] + torch.arange(side, device=x.device)
    columns = (drawn[1] * (width - side + 1)).long()[:, None] + torch.arange(side, device=x.device)
    columns = torch.where(drawn[2, :, None] < 0.5, columns.flip(1), columns)
    places = torch.arange(n, device=x.device)[:, None, None]
    return x.permute(0, 2, 3, 1)[places, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


@torch.no_grad()
def features(embed: Embed, data: ImageSet, side: int, ctx: Context, batch: int) -> NDArray[np.float32]:
    """Return what the network sees in the middle of every image, N x D."""
    seen = [
        embed(middle(enlarged(data.images[start : start + batch], side, ctx.device), side)).cpu().numpy()
        for start in ctx.progress(range(0, len(data), batch), "features")
    ]
    return np.concatenate(seen)


def cluster_centres(points: NDArray[np.float32], clusters: int, seed: int) -> NDArray[np.float32]:
    """Return centres by k-means, K x D: ``clusters``, or as many as there are distinct points."""
    from sklearn.cluster import KMeans

    count = min(clusters, len(np.unique(points, axis=0)))
    centres: NDArray[np.float32] = (
        KMeans(count, random_state=derive(seed, "clusters") % 2**32).fit(points).cluster_centers_
    )
    return centres.astype(np.float32)


def nearest(points: NDArray[np.float32], centres: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the index of the centre that is nearest to each point."""
    x, c = points.astype(np.float64), centres.astype(np.float64)
    found: NDArray[np.int64] = ((c**2).sum(1) - 2 * x @ c.T).argmin(1)
    return found


class ClusterNoise:
    """The noise of one cluster, as a generator makes it from numbers drawn once; learnt on all images."""

    def __init__(
        self, data: ImageSet, ctx: Context, embed: Embed, wanted: Tensor, number: int, side: int, width: int, eps: float
    ) -> None:
        self.data, self.ctx, self.embed, self.number, self.side, self.eps = data, ctx, embed, number, side, eps
        self.wanted = wanted.softmax(0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(ctx.seed, "generator", number))
            self.generator = Generator(width).to(ctx.device)
        drawn = ctx.generator("input", number)
        self.input = torch.rand(1, 3, side, side, generator=drawn, device=ctx.device)
        self.epoch = 0

    def noise(self) -> Tensor:
        """Make the noise, 1 x 3 x side x side within ``eps``, in training mode: of a batch of one."""
        with self.ctx.autocast():
            made: Tensor = self.generator.train()(self.input)
        return made.float().clamp(-self.eps, self.eps)

    def learn(self, state: Path, epochs: int, batch: int, rate: float) -> Tensor:
        """Train to the end; the file ``state`` holds the last ended epoch. Returns the noise. Raises Diverged."""
        adam = torch.optim.Adam(self.generator.parameters(), rate, weight_decay=5e-4)
        starts = range(0, len(self.data), batch)
        total = epochs * len(starts)
        divergence = DivergenceCheck(total, f"the noise of cluster {self.number}")
        if (stored := load_checkpoint(state, self.ctx.device)) is not None:
            self.generator.load_state_dict(stored["generator"])
            adam.load_state_dict(stored["adam"])
            self.epoch = stored["epoch"]
        while self.epoch < epochs:
            self.ctx.report(self.epoch, epochs, f"noise of cluster {self.number}")
            for place, start in enumerate(starts):
                share = (self.epoch * len(starts) + place) / total
                adam.param_groups[0]["lr"] = LEAST_RATE + (rate - LEAST_RATE) * (1 + math.cos(math.pi * share)) / 2
                loss = self.loss(self.data.images[start : start + batch], place)
                adam.zero_grad(set_to_none=True)
                loss.backward()
                adam.step()
                divergence.add(loss)
            self.epoch += 1
            divergence.check(self.epoch * len(starts), self.generator)
            save_checkpoint(state, self.state() | {"adam": adam.state_dict()})
        with torch.no_grad():
            return self.noise()[0]

    def state(self) -> dict[str, Any]:
        return {"generator": self.generator.state_dict(), "epoch": self.epoch}

    def loss(self, images: NDArray[np.uint8], place: int) -> Tensor:
        """Return how far the features of noisy images are from the wanted centre: a divergence of two softmaxes."""
        drawn = self.ctx.generator("crop", self.number, self.epoch, place)
        x = cropped(enlarged(images, self.side, self.ctx.device), self.side, drawn)
        seen = self.embed((x + self.noise()).clamp(0, 1)).log_softmax(1)
        return F.kl_div(seen, self.wanted.expand_as(seen), reduction="batchmean")
