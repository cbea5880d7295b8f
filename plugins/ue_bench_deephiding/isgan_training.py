"""Training of ISGAN: its losses, and the loop against its critic (Zhang, Dong and Liu, 2018)."""

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

from .isgan import Critic, Isgan, luminance, ms_ssim, ssim
from .recipe import Recipe
from .training import Covers, Validated, hider_log

LEARNING_RATE = 1e-4  # ISGAN, Adam
ALPHA, BETA, GAMMA = 0.5, 0.3, 0.85  # ISGAN: SSIM against MS-SSIM, the squared error, revealing against hiding
OMEGA_CRITIC = 1e-3  # re-implementations of ISGAN


@dataclass
class IsganLosses:
    """Terms of the loss for one batch without the critic's, and the mean squared errors of both outputs."""

    total: Tensor
    hide: Tensor
    reveal: Tensor
    mse: Tensor
    mse_reveal: Tensor


def dissimilarity(a: Tensor, b: Tensor) -> Tensor:
    """Return ISGAN's loss between two batches of luminance, N x 1 x H x W in [0, 1]: 0 if they are equal."""
    similar = ALPHA * ssim(a, b).mean() + (1 - ALPHA) * ms_ssim(a, b).mean()
    return 1 - similar + BETA * F.mse_loss(a, b)


def isgan_losses(cover: Tensor, secret: Tensor, stego: Tensor, revealed: Tensor) -> IsganLosses:
    """Return the losses of luminances, all N x 1 x H x W in [0, 1], float32 and no autocast.

    ``mse`` is also that of the images in colour: a change of luminance adds the same to red, green and blue.
    """
    hide, reveal = dissimilarity(cover, stego), dissimilarity(secret, revealed)
    return IsganLosses(hide + GAMMA * reveal, hide, reveal, F.mse_loss(stego, cover), F.mse_loss(revealed, secret))


def train_isgan(
    network: Isgan,
    covers: Covers,
    bank: NDArray[np.uint8],
    recipe: Recipe,
    device: str = "cpu",
    amp: bool = False,
    on_step: Callable[[int, dict[str, float]], None] | None = None,
    state: dict[str, Any] | None = None,
    save: Callable[[dict[str, Any]], None] | None = None,
) -> tuple[dict[str, Tensor], list[Validated]]:
    """Train ``network`` and return its best weights, running statistics among them, and the validation curve.

    The contract of ``train_hider``: ``bank`` is uint8, classes x images x size x size x 3, and a cover of class y hides
    a random image of ``bank[y]``; ``amp`` is bfloat16 autocast; ``on_step`` receives the number of steps done, the loss
    and the gradient norm of ``network``; ``save`` is offered the whole state at every validation, and a ``state`` it
    was given continues that run exactly. Of ``recipe`` it uses steps, stop_after, batch, size, clip, validate_every
    and seed.

    A step moves the network, then its critic, each from the gradient at the same stego images. The critic starts
    afresh from ``recipe.seed`` and is not returned. The best weights are those with the lowest loss on fixed
    validation batches, in eval mode and without the critic's term: the critic moves, so its opinions at different
    steps do not compare. ``psnr_reveal`` is against the gray hidden image.

    Raises Diverged when more than one step in ten (and ten more) or a weight is not finite, ValidationError when the
    best stego images are under 20 dB.
    """
    critic = Critic(recipe.seed)
    models = nn.ModuleList([network, critic]).to(device)
    models.to(memory_format=torch.channels_last)
    optimizer, critic_optimizer = (torch.optim.Adam(model.parameters(), LEARNING_RATE) for model in models)
    hidden_bank = torch.from_numpy(bank).permute(0, 1, 4, 2, 3)
    device_type = torch.device(device).type

    def batch(rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        x, _, labels = covers.draw(recipe.batch, rng)
        h = hidden_bank[labels, rng.integers(bank.shape[1], size=recipe.batch)].float() / 255
        return luminance(x).to(device), luminance(h).to(device)

    def losses(cover: Tensor, secret: Tensor) -> tuple[Tensor, IsganLosses]:
        with torch.autocast(device_type, torch.bfloat16, enabled=amp):
            stego = network.encoder(cover, secret)
            revealed = network.decoder(stego)
        return stego, isgan_losses(cover, secret, stego, revealed)

    def opinions(cover: Tensor, stego: Tensor) -> tuple[Tensor, Tensor]:
        # Both in one batch, or batch normalisation would hide from the critic how they differ.
        with torch.autocast(device_type, torch.bfloat16, enabled=amp):
            of_cover, of_stego = critic(torch.cat([cover, stego])).float().chunk(2)
        return of_cover, of_stego

    validation = [batch(np.random.default_rng([recipe.seed, 1, i])) for i in range(4)]

    def validate() -> Validated:
        network.eval()
        with torch.no_grad():
            batch_losses = [losses(*one)[1] for one in validation]
        mean = {
            f.name: float(torch.stack([getattr(one, f.name) for one in batch_losses]).mean())
            for f in fields(IsganLosses)
        }
        mean["psnr"] = -10 * math.log10(max(mean["mse"], 1e-12))
        mean["psnr_reveal"] = -10 * math.log10(max(mean.pop("mse_reveal"), 1e-12))
        return mean

    log = hider_log(network, "look at the training images", "train for more steps")
    first = 0
    if state is not None:
        models.load_state_dict(state["models"])
        optimizer.load_state_dict(state["optimizer"])
        critic_optimizer.load_state_dict(state["critic_optimizer"])
        first = state["step"]
        log.resume(state)

    for step in range(first, recipe.last_step):
        models.train()
        statistics = [buffer.clone() for buffer in models.buffers()]
        cover, secret = batch(np.random.default_rng([recipe.seed, 0, step]))
        stego, terms = losses(cover, secret)
        # Cross-entropies: softplus(x) is that of a logit x that should say no, softplus(-x) of one that should say yes.
        _, of_stego = opinions(cover, stego)
        loss = terms.total + OMEGA_CRITIC * F.softplus(of_stego).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = float(nn.utils.clip_grad_norm_(network.parameters(), recipe.clip or math.inf))
        of_cover, of_stego = opinions(cover, stego.detach())
        critic_optimizer.zero_grad(set_to_none=True)  # the loss above has left its gradient in the critic, too
        (F.softplus(of_cover) + F.softplus(-of_stego)).mean().backward()
        critic_norm = float(nn.utils.clip_grad_norm_(critic.parameters(), recipe.clip or math.inf))
        if math.isfinite(norm + critic_norm):
            optimizer.step()
            critic_optimizer.step()
        else:
            # What was not finite is in the running statistics by now, and would never leave them.
            for buffer, before in zip(models.buffers(), statistics, strict=True):
                buffer.copy_(before)
            log.skip(step)
        if on_step:
            on_step(step + 1, {"loss": float(loss.detach()), "norm": norm})
        if (step + 1) % recipe.validate_every == 0 or step + 1 == recipe.last_step:
            log.add(step, validate())
            if save:
                save(
                    {"models": models.state_dict(), "optimizer": optimizer.state_dict(),
                     "critic_optimizer": critic_optimizer.state_dict(), "step": step + 1, **log.state()},
                )  # fmt: skip
    return log.result()
