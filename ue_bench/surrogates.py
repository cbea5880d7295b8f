"""Networks that protectors attack: trained by the harness's own loop, once, and shared."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from .base import Countermeasure, Victim
from .combine import purifiers
from .context import Context
from .engine.protocol import Protocol
from .errors import UserError
from .imageset import ImageSet
from .plan import ENGINE_REVISION, protocol_identity
from .registry import registry
from .seeds import derive

if TYPE_CHECKING:
    from torch import nn


def network(ctx: Context, data: ImageSet, victim: str) -> nn.Module:
    """An untrained classifier for ``data``, its weights drawn from the seed of ``ctx``."""
    import torch

    net = cast(Victim, _one("victim", victim))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(ctx.seed, "initial weights"))
        built = net.build(data.num_classes, data.size)
    return built.to(ctx.device).to(memory_format=torch.channels_last)


def surrogate(ctx: Context, data: ImageSet, victim: str, recipe: Protocol, countermeasure: str) -> nn.Module:
    """A trained classifier of pixels in [0, 1], in eval mode and frozen, on the device of ``ctx``.

    One artifact for each data, victim, recipe, countermeasure, seed and precision, whoever asks for it. A training that
    was killed continues with its next epoch and ends with the same network. Raises UserError when ``victim`` or
    ``countermeasure`` is not one plugin, or the latter changes stored images.
    """
    import torch

    from .engine import loop

    net, training = cast(Victim, _one("victim", victim)), cast(Countermeasure, _one("countermeasure", countermeasure))
    if any(purifiers(training)):
        raise UserError(f"{countermeasure} changes stored images", "a surrogate is trained on them as they are")
    recipe = recipe.under([training.name], net.optimiser())
    key = {
        "surrogate": ENGINE_REVISION,
        "data": data.fingerprint,
        "victim": net.identity(),
        "recipe": protocol_identity(recipe),
        "countermeasure": training.identity(),
        "seed": ctx.seed,
        "precision": ctx.precision,
    }

    def build() -> nn.Module:
        return net.build(data.num_classes, data.size)

    def make(folder: Path) -> None:
        unfinished = ctx.checkpoint_dir(key) / "state.pt"

        def save(state: dict[str, Any]) -> None:
            fresh = unfinished.with_suffix(".new")
            torch.save(state, fresh)
            fresh.replace(unfinished)

        state = torch.load(unfinished, map_location=ctx.device) if unfinished.exists() else None
        model, _ = loop.train(
            build, data, None, recipe, training, ctx.device, ctx.precision, ctx.seed,
            lambda done, total, text: ctx.report(done, total, f"{text} surrogate"), state, save,
        )  # fmt: skip
        torch.save(model.state_dict(), folder / "weights.pt")
        shutil.rmtree(unfinished.parent)

    with torch.random.fork_rng(devices=[]):  # what build draws is overwritten
        model = loop.Victim(build(), recipe.shift)
    model.load_state_dict(torch.load(ctx.cached(key, make) / "weights.pt", map_location="cpu"))
    return model.to(ctx.device).to(memory_format=torch.channels_last).eval().requires_grad_(False)


def _one(kind: str, selector: str) -> Any:
    found = registry().resolve(kind, selector)
    if len(found) != 1:
        raise UserError(f"{selector!r} is {len(found)} {kind}s", "a surrogate needs one")
    return found[0]
