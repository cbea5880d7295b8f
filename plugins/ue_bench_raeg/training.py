"""Training of the generator: images, validation and the loop."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ue_bench.api import ImageSet, TrainingLog, UserError

from . import discriminator as patches
from .attacks import quantise
from .generator import TwoWay, frozen, pad
from .jpeg import simulate
from .losses import Features, Losses, discriminator_loss, generator_losses, transform
from .recipe import Recipe
from .targets import Ensemble

Validated = dict[str, float]
VALIDATION_BATCH = 64


class Batches:
    """A set without the images that choose the weights, in batches; every pass in an order of its own.

    ``validation`` images, at most half of the set, drawn once, are never in a batch. Images that do not fill a last
    batch wait for another pass.
    """

    def __init__(self, data: ImageSet, batch: int, validation: int, flip: bool, seed: int) -> None:
        order = np.random.default_rng([seed, 1]).permutation(len(data))
        held = min(validation, len(data) // 2)
        if not held:
            raise UserError("a generator cannot be trained on one image", "give it more")
        self.data, self.held, self.training_rows = data, np.sort(order[:held]), np.sort(order[held:])
        self.size, self.flip, self.seed = min(batch, len(self.training_rows)), flip, seed

    @property
    def per_pass(self) -> int:
        return len(self.training_rows) // self.size

    def take(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Return images in [0, 1], N x 3 x H x W, and labels."""
        x = torch.from_numpy(self.data.images[rows]).permute(0, 3, 1, 2).float() / 255
        return x, torch.from_numpy(self.data.labels[rows])

    def draw(self, step: int) -> tuple[Tensor, Tensor]:
        """Return the batch of ``step``, from 0."""
        turn, place = divmod(step, self.per_pass)
        order = np.random.default_rng([self.seed, 2, turn]).permutation(self.training_rows)
        x, y = self.take(order[place * self.size : (place + 1) * self.size])
        if self.flip:
            mirrored = np.random.default_rng([self.seed, 3, step]).random(len(x)) < 0.5
            x = torch.where(torch.from_numpy(mirrored)[:, None, None, None], x.flip(-1), x)
        return x, y


def train(
    network: TwoWay,
    batches: Batches,
    targets: Ensemble,
    features: Features | None,
    recipe: Recipe,
    device: str = "cpu",
    amp: bool = False,
    on_step: Callable[[int, dict[str, float]], None] | None = None,
    state: dict[str, Any] | None = None,
    save: Callable[[dict[str, Any]], None] | None = None,
) -> tuple[dict[str, Tensor], list[Validated]]:
    """Train ``network``; its best weights, for a network without spectral norm, and the validation curve.

    Adam for generator and discriminator, a step of each a batch. The best weights are those with the lowest total loss
    on the images held out, under attacks that are always the same. ``amp`` runs layers in bfloat16; validation is in
    float32. ``on_step`` receives the number of steps done and the batch's losses. ``save`` is offered the whole state
    at every validation, and a ``state`` it was given continues that run exactly: every step draws from generators of
    its own.

    Raises Diverged when more than one step in ten (and ten more) or a weight is not finite, ValidationError when the
    best protected images are under 20 dB.
    """
    height, width = batches.data.size
    network.to(device)
    optimizer = torch.optim.Adam(network.parameters(), recipe.learning_rate)
    critic, critic_optimizer = None, None
    if recipe.gan != "off":
        critic = patches.build(recipe.gan_width, recipe.seed).to(device)
        critic_optimizer = torch.optim.Adam(critic.parameters(), recipe.gan_rate)
    seen = Ensemble([Cropped(n, height, width) for n in targets.networks], targets.joint)
    device_type = torch.device(device).type
    held = [batches.held[i : i + VALIDATION_BATCH] for i in range(0, len(batches.held), VALIDATION_BATCH)]

    def validate() -> Validated:
        sums: dict[str, float] = {}
        with torch.no_grad(), frozen(network), frozen(critic or nn.Identity()):
            for number, rows in enumerate(held):
                x, y = (t.to(device) for t in batches.take(rows))
                generator = torch.Generator().manual_seed(recipe.seed + number)
                measured = measure(network, pad(x), y, recipe, seen, features, critic, generator, (height, width))
                for name, value in measured.items():
                    sums[name] = sums.get(name, 0.0) + value * len(rows) / len(batches.held)
        for name in ("protected", "recovered"):
            sums[f"psnr_{name}"] = -10 * math.log10(max(sums.pop(f"mse_{name}"), 1e-12))
        return sums

    log = generator_log(network)
    first = 0
    if state is not None:
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        if critic is not None and critic_optimizer is not None:
            critic.load_state_dict(state["critic"])
            critic_optimizer.load_state_dict(state["critic_optimizer"])
        first = state["step"]
        log.resume(state)

    network.train()
    for step in range(first, recipe.steps):
        rate = fraction(recipe, step)
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * rate
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
        x, y = (t.to(device) for t in batches.draw(step))
        x = pad(x)
        with torch.autocast(device_type, torch.bfloat16, enabled=amp):
            images = transform(network, x, recipe, generator)
            terms = generator_losses(images, x, y, recipe, seen, features, critic)
        optimizer.zero_grad(set_to_none=True)
        terms.total.backward()
        norm = float(nn.utils.clip_grad_norm_(network.parameters(), recipe.clip or math.inf))
        now = {"loss": float(terms.total.detach()), "norm": norm}
        if math.isfinite(norm):
            optimizer.step()
            if critic is not None and critic_optimizer is not None:
                for group in critic_optimizer.param_groups:
                    group["lr"] = recipe.gan_rate * rate
                with torch.autocast(device_type, torch.bfloat16, enabled=amp):
                    judged = discriminator_loss(critic, x, images.published, recipe)
                critic_optimizer.zero_grad(set_to_none=True)
                judged.backward()
                critic_optimizer.step()
        else:
            log.skip(step)
        if on_step:
            on_step(step + 1, now)
        if (step + 1) % recipe.validate_every == 0 or step + 1 == recipe.steps:
            log.add(step, validate())
            if save:
                save({
                    "network": network.state_dict(), "optimizer": optimizer.state_dict(),
                    "critic": critic.state_dict() if critic is not None else None,
                    "critic_optimizer": critic_optimizer.state_dict() if critic_optimizer is not None else None,
                    "step": step + 1, **log.state(),
                })  # fmt: skip
    return log.result()


class Cropped(nn.Module):
    """A classifier that sees images without the rows and columns that only the generator needs."""

    def __init__(self, network: nn.Module, height: int, width: int) -> None:
        super().__init__()
        self.network, self.height, self.width = network, height, width

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x[..., : self.height, : self.width])
        return logits


def measure(
    network: TwoWay,
    x: Tensor,
    y: Tensor,
    recipe: Recipe,
    targets: Ensemble,
    features: Features | None,
    critic: nn.Module | None,
    generator: torch.Generator,
    size: tuple[int, int],
) -> Validated:
    """Measure losses of a batch, errors of its 8-bit images, the share of clipped values, and the targets' accuracies.

    ``accuracy_jpeg`` is after JPEG 50 with true rounding, ``accuracy_attacked`` after an attack of the training.
    """
    images = transform(network, x, recipe, generator)
    losses = generator_losses(images, x, y, recipe, targets, features, critic)
    height, width = size
    recovered = quantise(network.inverse(images.published))
    shown = {
        "clean": x, "protected": images.published, "attacked": images.attacked, "recovered": recovered,
        "jpeg": quantise(simulate(images.published, "rounding", 50)),
    }  # fmt: skip
    measured = {f.name: float(getattr(losses, f.name)) for f in fields(Losses)}
    for name in ("protected", "recovered"):
        measured[f"mse_{name}"] = float((shown[name] - x)[..., :height, :width].square().mean())
    measured["clipped"] = float((images.protected != images.protected.clamp(0, 1)).float().mean())
    return measured | {f"accuracy_{name}": float(targets.accuracies(z, y).mean()) for name, z in shown.items()}


def generator_log(network: TwoWay) -> TrainingLog:
    """Return the log of a training that begins; its weights are for a network without spectral norm."""
    return TrainingLog(
        network, "generator", "protected images", "psnr_protected", network.plain_weights,
        "try a lower learning_rate or clamp", "train for more steps, or with a lower gamma",
    )  # fmt: skip


def fraction(recipe: Recipe, step: int) -> float:
    """Return what is left of the learning rate at ``step`` (from 0): all, or after 50 steps half a cosine to 0.1."""
    if recipe.schedule == "constant":
        return 1.0
    return min(1.0, (step + 1) / 50) * (0.1 + 0.9 * (1 + math.cos(math.pi * step / recipe.steps)) / 2)
