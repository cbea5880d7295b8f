"""Train a classifier of bare pixels, linear or with one hidden layer, on stored images."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ue_bench.api import DivergenceCheck, ImageSet, TrainContext, derive, load_checkpoint, save_checkpoint

from .adversarial import AdversarialTraining

MOMENTUM, DECAY = 0.9, 5e-4
FACTOR = 0.1  # of the learning rate at each milestone


@dataclass(frozen=True)
class PixelRecipe:
    """How the classifier is built and trained."""

    epochs: int
    width: int  # of the hidden layer; 0 for none
    learning_rate: float = 0.01
    batch: int = 128
    milestones: tuple[float, ...] = (0.75, 0.9)  # of the epochs
    crop: int = 0  # pixels of black around an image out of which a window is cut; mirrored too, where there are any
    eps: float = 0.0  # radius of PGD, ten steps of a quarter of it from the image itself; 0 for plain training
    seed: int = 0

    def rate(self, epoch: int) -> float:
        """Return the learning rate of ``epoch``, from 0."""
        return self.learning_rate * FACTOR ** sum(epoch >= self.epochs * mark for mark in self.milestones)


def attack(eps: float, part: int) -> AdversarialTraining:
    """Return PGD without a random start: ten steps of ``eps / part``."""
    return AdversarialTraining(eps=eps, step_size=eps / part, steps=10, start="none")


def context(device: str, seed: int = 0) -> TrainContext:
    return TrainContext(torch.Generator(device).manual_seed(seed), 0, 1, nullcontext)


def network(size: tuple[int, int], classes: int, width: int, seed: int) -> nn.Sequential:
    """Build the classifier for N x 3 x H x W."""
    pixels = 3 * size[0] * size[1]
    with torch.random.fork_rng(devices=[]):  # layers are initialised from the global generator
        torch.manual_seed(derive(seed, "weights"))
        hidden = [nn.Linear(pixels, width), nn.ReLU()] if width else []
        return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(width or pixels, classes))


def unit(images: Any, device: str) -> Tensor:
    """Convert N x H x W x 3 levels to N x 3 x H x W in [0, 1]."""
    return torch.tensor(images, device=device).permute(0, 3, 1, 2).float().div_(255)


def cropped(x: Tensor, pad: int, generator: torch.Generator) -> Tensor:
    """Cut a window of the old size out of each image in a frame of ``pad`` black pixels, and mirror half of them."""
    count, _, height, width = x.shape
    on: dict[str, Any] = {"device": x.device, "generator": generator}
    top, left = torch.randint(2 * pad + 1, (count, 1), **on), torch.randint(2 * pad + 1, (count, 1), **on)
    columns = left + torch.arange(width, device=x.device)
    columns = torch.where(torch.rand(count, 1, **on) < 0.5, columns.flip(1), columns)
    rows = top + torch.arange(height, device=x.device)
    which = torch.arange(count, device=x.device)[:, None, None]
    return F.pad(x, (pad,) * 4).permute(0, 2, 3, 1)[which, rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)


def fit(
    data: ImageSet,
    recipe: PixelRecipe,
    device: str,
    state: Path,
    report: Callable[[float, float, str], None],
    text: str,
) -> nn.Sequential:
    """Train on ``data``; return the classifier in eval mode, frozen.

    The file ``state`` holds the last epoch that ended, from which a run that was killed goes on to the same weights;
    the caller removes it. Raises Diverged with the step when a loss or a weight is not finite.
    """
    model = network(data.size, data.num_classes, recipe.width, recipe.seed).to(device)
    optimizer = torch.optim.SGD(model.parameters(), recipe.learning_rate, MOMENTUM, weight_decay=DECAY)
    batch = min(recipe.batch, len(data))
    starts, done = range(0, len(data) - batch + 1, batch), 0
    settings = {"data": data.fingerprint, "recipe": asdict(recipe)}
    if (stored := load_checkpoint(state, device)) is not None and stored["settings"] == settings:
        model.load_state_dict(stored["network"])
        optimizer.load_state_dict(stored["optimizer"])
        done = stored["epochs"]
    labels = torch.tensor(data.labels, device=device)
    divergence = DivergenceCheck(recipe.epochs * len(starts), "classifier of pixels")
    for epoch in range(done, recipe.epochs):
        report(epoch, recipe.epochs, text)
        random = torch.Generator("cpu").manual_seed(derive(recipe.seed, "epoch", epoch))
        ctx = context(device, derive(recipe.seed, "crops", epoch))
        order = torch.randperm(len(data), generator=random).numpy()
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate(epoch)
        for start in starts:
            where = order[start : start + batch]
            x, y = unit(data.images[where], device), labels[where]
            if recipe.crop:
                x = cropped(x, recipe.crop, ctx.generator)
            loss = attack(recipe.eps, 4).loss(model, x, y, ctx) if recipe.eps else F.cross_entropy(model(x), y)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            divergence.add(loss.detach())
        divergence.check((epoch + 1) * len(starts), model)
        parts = {"network": model.state_dict(), "optimizer": optimizer.state_dict()}
        save_checkpoint(state, {"settings": settings, "epochs": epoch + 1, **parts})
    return model.eval().requires_grad_(False)
