"""Contrastive training of an encoder: SimCLR."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ue_bench.api import Context, DivergenceCheck, ImageSet

from .views import view

PROJECTION = 128  # numbers that two views are compared by
MOMENTUM, WEIGHT_DECAY = 0.9, 1e-4  # APBench's
LOWEST = 1e-3  # of the peak rate, at the end; APBench's


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Compute the NT-Xent loss of N x D projections of two views (Chen et al., 2020, equation 1).

    Every one of the 2N rows has to find the other view of its image among the 2N - 1 other rows, by cosine.
    """
    rows = F.normalize(torch.cat([first, second]).float(), dim=1)
    logits = (rows @ rows.T / temperature).fill_diagonal_(-torch.inf)
    partner = torch.arange(len(rows), device=rows.device).roll(len(first))
    return F.cross_entropy(logits, partner)


def rate(step: int, total: int, peak: float) -> float:
    """Return the learning rate of ``step`` (from 0): half a cosine from the peak to a thousandth of it."""
    return peak * (LOWEST + (1 - LOWEST) * (1 + math.cos(math.pi * step / total)) / 2)


def train_encoder(
    encoder: Callable[[], tuple[nn.Module, int]],
    data: ImageSet,
    epochs: int,
    batch: int,
    learning_rate: float,
    temperature: float,
    area: float,
    ctx: Context,
    state: dict[str, Any] | None = None,
    save: Callable[[dict[str, Any]], None] | None = None,
) -> nn.Module:
    """Train what ``encoder`` gives on ``data`` without its labels. The encoder comes with the width of its features.

    Two views of every image of a batch go through the encoder and a projection of two layers, which is thrown away
    afterwards; SGD. ``save`` is offered the whole state after every epoch; given as ``state``, it continues that run
    and ends with the same encoder.

    Raises Diverged with the step when a loss or a weight is not finite.
    """
    on = torch.device(ctx.device)
    initial = ctx.generator("initial weights").initial_seed()
    with torch.random.fork_rng(devices=[on] if on.type == "cuda" else []):
        torch.manual_seed(initial)
        features, width = encoder()
        projection = nn.Sequential(nn.Linear(width, width), nn.ReLU(inplace=True), nn.Linear(width, PROJECTION))
    model = nn.Sequential(features, projection).to(on).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(model.parameters(), learning_rate, MOMENTUM, weight_decay=WEIGHT_DECAY)
    shuffling, viewing = ctx.generator("order of images"), ctx.generator("views")
    batch = min(batch, len(data))
    steps = len(data) // batch  # an epoch; the last, smaller batch is dropped
    first = 0
    if state is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        for generator, drawn in zip((shuffling, viewing), state["generators"], strict=True):
            generator.set_state(drawn.cpu())
        first = state["epoch"]
    divergence = DivergenceCheck(epochs * steps, "SimCLR")
    for epoch in range(first, epochs):
        order = torch.randperm(len(data), device=on, generator=shuffling)
        for number in range(steps):
            step = epoch * steps + number
            optimizer.param_groups[0]["lr"] = rate(step, epochs * steps, learning_rate)
            where = order[number * batch : (number + 1) * batch].cpu().numpy()
            x = torch.from_numpy(data.images[where]).to(on).permute(0, 3, 1, 2).float().div_(255)
            with torch.no_grad():
                views = torch.cat([view(x, area, viewing), view(x, area, viewing)])
            with ctx.autocast():
                projected = model(views.contiguous(memory_format=torch.channels_last))
            loss = nt_xent(projected[:batch], projected[batch:], temperature)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            divergence.add(loss)
            if (step + 1) % 10 == 0 or step + 1 == epochs * steps:
                ctx.report(step + 1, epochs * steps, "train without labels")
        divergence.check((epoch + 1) * steps, model)
        if save is not None:
            save(
                {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch + 1,
                 "generators": [generator.get_state() for generator in (shuffling, viewing)]},
            )  # fmt: skip
    return features
