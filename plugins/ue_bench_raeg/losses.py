"""The generator's losses (RAEG, equations 4 to 8), read consistently.

The paper mixes up names and signs; what follows from its text is: ``L_prt = |I - I_prt| + alpha L_per``,
``L_rev = |I - I_rec|``, ``L_cls = CE(f(I_rec)) - eps CE(f(I_prt or I_atk))``, and in all
``L = L_prt + beta L_rev + gamma L_cls + delta L_GAN``. Norms are means: with sums the classification would weigh
nothing.

Ours: protected images are clamped and rounded to 8 bits before anything but L_prt sees them, because in exact
arithmetic recovery would be perfect and its losses constant; attacked images count too; and values outside [0, 1],
which clamping makes irrecoverable, are penalised.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .attacks import attack, draw, quantise
from .discriminator import judgement
from .generator import TwoWay, same_weights
from .recipe import Recipe
from .targets import Ensemble, failure, success

Features = Callable[[Tensor], Tensor]


@dataclass
class Losses:
    """Terms for one batch, unweighted, and their weighted sum."""

    total: Tensor
    prt: Tensor
    per: Tensor
    rev: Tensor
    cls: Tensor
    gan: Tensor
    range: Tensor


@dataclass
class Images:
    """What became of one batch: protected, then that in 8 bits, attacked, recovered; the ends may leave [0, 1]."""

    protected: Tensor
    published: Tensor
    attacked: Tensor
    recovered: Tensor


def transform(network: TwoWay, x: Tensor, recipe: Recipe, generator: torch.Generator) -> Images:
    """Protect, round, attack and recover ``x`` with the same weights throughout."""
    with same_weights():
        protected = network(x)
        published = quantise(protected)
        attacked = attack(published, draw(recipe, generator), recipe, generator)
        hard = float(torch.rand((), generator=generator)) < recipe.rev_attacked_prob
        recovered = network.inverse(attacked if hard else published)
    return Images(protected, published, attacked, recovered)


def generator_losses(
    images: Images,
    x: Tensor,
    y: Tensor,
    recipe: Recipe,
    targets: Ensemble,
    features: Features | None,
    discriminator: nn.Module | None,
) -> Losses:
    """Return all terms for the originals ``x``, N x 3 x H x W in [0, 1], of classes ``y``.

    ``features`` and ``discriminator`` are None where the recipe has no such loss; those terms are then zero.
    """
    zero = x.new_zeros(())
    prt = (images.protected - x).abs().mean()
    rev = (images.recovered - x).abs().mean()
    outside = (torch.relu(-images.protected) + torch.relu(images.protected - 1)).mean()
    per = zero if features is None else (features(images.published) - features(x)).float().abs().mean()
    attacked = {"mean": [images.published, images.attacked], "off": [images.published], "only": [images.attacked]}
    wrong = attacked[recipe.cls_attacked]
    logits = targets.logits(torch.cat([images.recovered, *wrong]))
    good, bad = logits[:, : len(x)], logits[:, len(x) :]
    missed = failure(bad, y.repeat(len(wrong)), recipe.cls_form, recipe.cls_cap).mean()
    cls = success(good, y).mean() - recipe.eps * missed
    gan = zero
    if discriminator is not None and recipe.gan != "off":
        gan = judgement(discriminator(images.published).float(), False, recipe.gan)
    total = (
        prt + recipe.alpha * per + recipe.beta * rev + recipe.gamma * cls + recipe.delta * gan
        + recipe.range_weight * outside
    )  # fmt: skip
    return Losses(total, prt, per, rev, cls, gan, outside)


def discriminator_loss(discriminator: nn.Module, real: Tensor, generated: Tensor, recipe: Recipe) -> Tensor:
    """Compute equation 6 on logits: real images are real, protected ones generated."""
    assert recipe.gan != "off"
    logits = discriminator(torch.cat([real, generated.detach()])).float()
    one, other = logits.chunk(2)
    return (judgement(one, False, recipe.gan) + judgement(other, True, recipe.gan)) / 2
