"""Training of the hiding network: losses, covers and the loop (Deep Hiding, equations 5 to 8)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ue_bench.api import TrainingLog

from .hinet import HidingNetwork, haar, inverse_haar
from .recipe import EPS, Recipe

Validated = dict[str, float]
PER_CLASS = 4  # covers a class in a batch under sampler=pk
IDLE = 20  # steps without any gradient after which training ends


@dataclass
class Losses:
    """Terms of equation 8 for one batch, and the achieved mean squared error."""

    total: Tensor
    hide: Tensor
    freq: Tensor
    reveal: Tensor
    conc: Tensor
    mse: Tensor


def concentration(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Compute equation 7 in linear time: the sum over ordered same-class pairs of one minus the cosine.

    ``features`` N x D, any scale; a zero row counts as orthogonal to all. Equal to the double loop.
    """
    unit = F.normalize(features, dim=1, eps=1e-8)
    sums = unit.new_zeros(num_classes, unit.shape[1]).index_add(0, labels, unit)
    norms = unit.new_zeros(num_classes).index_add(0, labels, unit.square().sum(1))
    counts = unit.new_zeros(num_classes).index_add(0, labels, torch.ones_like(unit[:, 0]))
    return (counts * (counts - 1) - (sums.square().sum(1) - norms)).sum()


def extractor_input(perturbation: Tensor, kind: str) -> Tensor:
    """Return what the extractor sees of a perturbation (N x 3 x H x W, about +-0.1).

    ``raw``: as it is. ``scaled``: eps takes it to the ends of [0, 1]. ``imagenet``: that, normalised with the channel
    means and deviations of ImageNet.
    """
    if kind == "raw":
        return perturbation
    scaled = 0.5 + perturbation / (2 * EPS)
    if kind == "scaled":
        return scaled
    mean, deviation = perturbation.new_tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
    normalised: Tensor = (scaled - mean) / deviation
    return normalised


def hiding_losses(
    network: HidingNetwork,
    cover: Tensor,
    hidden: Tensor,
    labels: Tensor,
    recipe: Recipe,
    generator: torch.Generator,
    extractor: nn.Module | None,
    num_classes: int,
) -> Losses:
    """Compute equations 5 to 8 with mean reductions.

    Means, not HiNet's sums: equation 5 compares the error with eps squared, and with sums that floor would sit at
    96 dB. ``extractor`` maps perturbations (N x 3 x H x W, see ``extractor_input``) to last-convolution features, or is
    None for no concentration term.
    """
    z_cover = haar(cover)
    z, residual = network(z_cover, haar(hidden))
    stego = inverse_haar(z)
    noise = torch.randn(residual.shape, generator=generator, device=residual.device)
    revealed = inverse_haar(network.inverse(z, noise.to(residual.dtype))[1])

    mse = F.mse_loss(stego, cover)
    if recipe.per_image:
        hide = (stego - cover).square().flatten(1).mean(1).clamp(min=EPS**2).mean()
    else:
        hide = mse.clamp(min=EPS**2)
    freq = F.mse_loss(z[:, :3], z_cover[:, :3])
    reveal = F.mse_loss(revealed, hidden)
    conc = mse.new_zeros(())
    if extractor is not None and mse.detach().sqrt() > recipe.lfc_warmup_rms:
        features = extractor(extractor_input(stego - cover, recipe.lfc_input))
        conc = concentration(features.flatten(1).float(), labels, num_classes)
        if recipe.lfc_pairs == "unordered":
            conc = conc / 2
    total = hide + recipe.omega_freq * freq + recipe.omega_reveal * reveal + recipe.omega_conc * conc
    return Losses(total, hide, freq, reveal, conc, mse)


class Covers:
    """Random square crops of a uint8 set (N x H x W x 3), flipped both ways and brought to ``size``.

    The side of the crops is drawn between ``size`` and the shorter side of the images; smaller images are enlarged.
    """

    def __init__(self, images: NDArray[np.uint8], labels: NDArray[np.int64], size: int) -> None:
        self.images, self.labels, self.size = images, labels, size

    def draw(
        self, count: int, rng: np.random.Generator, sampler: str = "uniform"
    ) -> tuple[Tensor, Tensor, NDArray[np.int64]]:
        """Draw ``count`` crops in [0, 1], their labels, and the labels as an array.

        ``uniform`` draws images, ``pk`` classes that have any, and ``PER_CLASS`` images of each.
        """
        height, width = self.images.shape[1:3]
        # One side per batch, so that the whole batch is resized in one call.
        side = int(rng.integers(min(self.size, height, width), min(height, width) + 1))
        picked = rng.integers(len(self.images), size=count) if sampler == "uniform" else self._by_class(count, rng)
        tops, lefts = rng.integers(height - side + 1, size=count), rng.integers(width - side + 1, size=count)
        crops = np.stack(
            [self.images[i, t : t + side, u : u + side] for i, t, u in zip(picked, tops, lefts, strict=True)]
        )
        flip_rows, flip_columns = rng.random(count) < 0.5, rng.random(count) < 0.5
        crops[flip_rows] = crops[flip_rows, ::-1]
        crops[flip_columns] = crops[flip_columns, :, ::-1]
        x = torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255
        if side != self.size:
            x = F.interpolate(x, (self.size, self.size), mode="bilinear", antialias=True)
        labels = self.labels[picked]
        return x, torch.from_numpy(labels), labels

    def _by_class(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        groups = -(-count // PER_CLASS)
        present = np.unique(self.labels)
        chosen = rng.choice(present, groups, replace=len(present) < groups)
        picked = np.concatenate([rng.choice(np.flatnonzero(self.labels == label), PER_CLASS) for label in chosen])
        return picked[:count]


def train_hider(
    network: HidingNetwork,
    covers: Covers,
    bank: NDArray[np.uint8],
    recipe: Recipe,
    device: str = "cpu",
    extractor: nn.Module | None = None,
    amp: bool = False,
    on_step: Callable[[int, dict[str, float]], None] | None = None,
    state: dict[str, Any] | None = None,
    save: Callable[[dict[str, Any]], None] | None = None,
) -> tuple[dict[str, Tensor], list[Validated]]:
    """Train ``network`` and return its best weights and the validation curve.

    ``bank`` is uint8, classes x images x size x size x 3: a cover of class y hides a random image of ``bank[y]``.
    The best weights are those with the lowest total loss on fixed validation batches. ``amp`` is bfloat16 autocast.
    ``on_step`` receives the number of steps done, the loss and the gradient norm. ``save`` is offered the whole state
    at every validation, and a ``state`` it was given continues that run exactly: every step draws from generators of
    its own.

    Training ends early when no parameter has had a gradient for 20 steps: the hiding loss alone is flat where the
    network starts, at the identity.

    Raises Diverged when more than one step in ten (and ten more) or a weight is not finite, ValidationError when the
    best stego images are under 20 dB.
    """
    network.to(device).to(memory_format=torch.channels_last)
    network.recompute = recipe.recompute
    optimizer = torch.optim.Adam(
        network.parameters(), recipe.learning_rate, recipe.betas, recipe.adam_eps, recipe.weight_decay
    )
    hidden_bank = torch.from_numpy(bank).permute(0, 1, 4, 2, 3)
    device_type = torch.device(device).type

    def batch(rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        x, y, labels = covers.draw(recipe.batch, rng, recipe.sampler)
        h = hidden_bank[labels, rng.integers(bank.shape[1], size=recipe.batch)].float() / 255
        layout = torch.channels_last
        return x.to(device, memory_format=layout), h.to(device, memory_format=layout), y.to(device)

    def losses(x: Tensor, h: Tensor, y: Tensor, generator: torch.Generator) -> Losses:
        with torch.autocast(device_type, torch.bfloat16, enabled=amp):
            return hiding_losses(network, x, h, y, recipe, generator, extractor, len(bank))

    validation = [batch(np.random.default_rng([recipe.seed, 1, i])) for i in range(4)]

    def validate() -> Validated:
        network.eval()
        generator = torch.Generator(device).manual_seed(recipe.seed)
        with torch.no_grad():
            batch_losses = [losses(*one, generator) for one in validation]
        mean = {
            f.name: float(torch.stack([getattr(one, f.name) for one in batch_losses]).mean()) for f in fields(Losses)
        }
        mean["psnr"] = -10 * math.log10(max(mean["mse"], 1e-12))
        mean["psnr_reveal"] = -10 * math.log10(max(mean["reveal"], 1e-12))
        return mean

    log = hider_log(network, "try a lower learning rate", "train for more steps, or with a lower learning rate")
    first, idle = 0, 0
    if state is not None:
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
        log.resume(state)

    for step in range(first, recipe.last_step):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step)
        network.train()
        generator = torch.Generator(device).manual_seed(recipe.seed * 1_000_003 + step)
        terms = losses(*batch(np.random.default_rng([recipe.seed, 0, step])), generator)
        optimizer.zero_grad(set_to_none=True)
        terms.total.backward()
        norm = float(nn.utils.clip_grad_norm_(network.parameters(), recipe.clip or math.inf))
        if math.isfinite(norm):
            optimizer.step()
        else:
            log.skip(step)
        idle = idle + 1 if norm == 0 else 0
        last = idle == IDLE or step + 1 == recipe.last_step
        if on_step:
            on_step(step + 1, {"loss": float(terms.total.detach()), "norm": norm})
        if (step + 1) % recipe.validate_every == 0 or last:
            log.add(step, validate())
            if save:
                save(
                    {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1,
                     **log.state()},
                )  # fmt: skip
        if last:
            break
    return log.result()


def hider_log(network: nn.Module, unstable_hint: str, weak_hint: str) -> TrainingLog:
    """Return the log of the training of a hiding network of either kind, which begins."""

    def weights() -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in network.state_dict().items()}

    return TrainingLog(network, "hiding network", "stego images", "psnr", weights, unstable_hint, weak_hint)


def learning_rate(recipe: Recipe, step: int) -> float:
    """Return the rate of ``step``, counted from 0: constant, or a warm-up of 50 steps and a half cosine to a tenth."""
    if recipe.schedule == "constant":
        return recipe.learning_rate
    warm = min(1.0, (step + 1) / 50)
    decay = 0.1 + 0.9 * (1 + math.cos(math.pi * step / recipe.steps)) / 2
    return recipe.learning_rate * warm * decay
