"""Networks that protectors attack: trained by the harness's own loop, once, and shared."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..atomic import load_checkpoint, save_checkpoint
from ..catalogue.registry import registry
from ..catalogue.selectors import parse
from ..contract.combination import purifiers
from ..contract.context import Context
from ..contract.imageset import ImageSet
from ..contract.inputs import name_and_digest
from ..contract.plugin import Countermeasure, Plugin, Protector, Victim
from ..contract.protocol import Protocol
from ..errors import UserError
from ..seeds import derive
from .cell import ENGINE_REVISION, protocol_identity

if TYPE_CHECKING:
    from torch import nn

LAST = "weights.pt"


class Surrogates:
    """Trains surrogates through the engine and keeps them in the store: what a context calls ``networks``."""

    def network(self, ctx: Context, data: ImageSet, victim: str) -> nn.Module:
        return network(ctx, data, victim)

    def surrogate(
        self, ctx: Context, data: ImageSet, victim: str, countermeasure: str, recipe: Mapping[str, Any]
    ) -> nn.Module:
        return surrogate(ctx, data, victim, _protocol(recipe), countermeasure)

    def checkpoints(
        self, ctx: Context, data: ImageSet, victim: str, countermeasure: str, recipe: Mapping[str, Any], count: int
    ) -> list[nn.Module]:
        return checkpoints(ctx, data, victim, _protocol(recipe), countermeasure, count)


def _protocol(recipe: Mapping[str, Any]) -> Protocol:
    """Return the recipe of a surrogate; its name and version are in the key of every trained one."""
    return Protocol(name="surrogate", version=1, summary="", source="", **recipe)


def network(ctx: Context, data: ImageSet, victim: str) -> nn.Module:
    """An untrained classifier for ``data``, its weights drawn from the seed of ``ctx``."""
    import torch

    net = cast(Victim, _one("victim", victim))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(ctx.seed, "initial weights"))
        built = net.build(data.num_classes, data.size)
    return built.to(ctx.device).to(memory_format=torch.channels_last)


def surrogate(ctx: Context, data: ImageSet, victim: str | Victim, recipe: Protocol, countermeasure: str) -> nn.Module:
    """A trained classifier of pixels in [0, 1], in eval mode and frozen, on the device of ``ctx``.

    One artifact for each data, victim, recipe, countermeasure, seed and precision, whoever asks for it. A training that
    was killed continues and ends with the same network. Raises UserError when ``victim`` or ``countermeasure`` is not
    one plugin, or the latter changes stored images.
    """
    [found] = _trained(ctx, data, victim, recipe, countermeasure, {})
    return found


def checkpoints(
    ctx: Context, data: ImageSet, victim: str, recipe: Protocol, countermeasure: str, count: int
) -> list[nn.Module]:
    """``count`` states of one such classifier, after equal numbers of its epochs; the last one is trained to the end.

    Raises UserError also when the recipe has fewer epochs than ``count``, or is given in steps.
    """
    epochs = recipe.epochs or 0
    if epochs < count:
        raise UserError(f"{count} states of a network that is trained for {epochs} epochs", "fewer states, more epochs")
    ends = [round(epochs * number / count) for number in range(1, count)]
    return _trained(ctx, data, victim, recipe, countermeasure, {end: f"epoch-{end}.pt" for end in ends})


def training_passes(countermeasure: str) -> float:
    """Network passes that training under ``countermeasure``, a selector, costs for each image it sees; 1 is plain."""
    passes: float = _one("countermeasure", countermeasure).passes
    return passes


def artifact(
    fingerprint: str, net: Victim, recipe: Protocol, training: Countermeasure, seed: int, precision: str
) -> dict[str, Any]:
    """Key of the artifact that holds ``net`` trained on the images with ``fingerprint``; ``recipe`` as it applies."""
    return {
        "surrogate": ENGINE_REVISION,
        "data": fingerprint,
        "victim": net.identity(),
        "recipe": protocol_identity(recipe),
        "countermeasure": training.identity(),
        "seed": seed,
        "precision": precision,
    }


def _trained(
    ctx: Context, data: ImageSet, victim: str | Victim, recipe: Protocol, countermeasure: str, early: dict[int, str]
) -> list[nn.Module]:
    """The network after the epochs ``early``, which names their files, and at its end."""
    import torch

    from ..engine import loop
    from ..engine.saving import SavedState

    net = victim if isinstance(victim, Victim) else cast(Victim, _one("victim", victim))
    training = cast(Countermeasure, _one("countermeasure", countermeasure))
    if any(purifiers(training)):
        raise UserError(f"{countermeasure} changes stored images", "a surrogate is trained on them as they are")
    if type(net).pretrain is not Victim.pretrain:
        raise UserError(f"{net.selector} learns something of its own first", "a surrogate learns by its recipe alone")
    if training.clean_images:
        raise UserError(f"{countermeasure} needs clean data beside the training set", "a surrogate has none")
    recipe = recipe.under([training.name], net.optimizer(), net.name)
    key = artifact(data.fingerprint, net, recipe, training, ctx.seed, ctx.precision)
    key |= {"after epochs": sorted(early)} if early else {}

    def build() -> nn.Module:
        return net.build(data.num_classes, data.size)

    def make(folder: Path) -> None:
        kept = ctx.checkpoint_dir(key)
        saved = SavedState(kept / "state.pt", ctx.device)

        def save(state: dict[str, Any]) -> None:
            if state["epoch"] in early and state["order"] is None:  # an epoch has just ended
                save_checkpoint(kept / early[state["epoch"]], state["model"])  # first: who continues must find it
            saved.offer(state)

        state = saved.load()
        passed = [kept / file for end, file in early.items() if state and end <= state["epoch"]]
        if any(load_checkpoint(file) is None for file in passed):
            state = None  # an earlier state is lost: only training from the start gives it again
        model, _ = loop.train(
            build, data, None, recipe, training, ctx.device, ctx.precision, ctx.seed,
            lambda done, total, text: ctx.report(done, total, f"surrogate, {text}"), state, save, saved.due,
        )  # fmt: skip
        torch.save(model.state_dict(), folder / LAST)
        for file in early.values():
            torch.save(load_checkpoint(kept / file), folder / file)
        shutil.rmtree(kept)

    folder = ctx.cached(key, make)
    found: list[nn.Module] = []
    for file in [*early.values(), LAST]:
        with torch.random.fork_rng(devices=[]):  # what build draws is overwritten
            model = loop.ShiftedInput.under(recipe, build())
        model.load_state_dict(torch.load(folder / file, map_location="cpu"))
        found.append(model.to(ctx.device).to(memory_format=torch.channels_last).eval().requires_grad_(False))
    return found


def check_surrogates(protectors: Iterable[Protector]) -> None:
    """Raise UserError where the selector of a network that one of ``protectors`` attacks names none that is here.

    Said before anything is computed: the stage that protects comes late in a long run.
    """
    for protector in protectors:
        if cost := protector.cost(1):
            _one("victim", cost.victim)


def _one(kind: str, selector: str) -> Any:
    found = registry().resolve(kind, selector)
    if len(found) != 1:
        raise UserError(f"{selector!r} is {len(found)} {kind}s", "a surrogate needs one")
    _refuse_folders(found[0], selector)
    return found[0]


def _refuse_folders(plugin: Plugin, selector: str) -> None:
    """Raise UserError where ``selector`` names a file otherwise than results do.

    Such a text is a parameter of another plugin, and stands in its key and in results as it is written: a name alone
    would leave the content out of the key, and a path would show folders.
    """
    parts = [part for term in parse(selector) for part in term.parts]
    written = [value for part in parts for values in part.parameters.values() for value in values]
    for value in plugin.changed().values():
        if isinstance(value, Path) and name_and_digest(value) not in written:
            raise UserError(
                f"{selector!r} in a parameter does not say which {value.name} it means",
                f"write {plugin.selector!r}, and run from the folder of that file",
            )
