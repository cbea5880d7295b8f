"""Join countermeasures with ``+``: they act in the order they are written."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from ..errors import UserError
from .clean_data import with_clean_data
from .plugin import Countermeasure, Plugin
from .protocol import PARAMETERS

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from .context import Context, TrainContext
    from .imageset import ImageSet


class Combination(Countermeasure):
    """Several countermeasures in a row, none of them a training procedure."""

    name: ClassVar[str] = "+"
    members: tuple[Countermeasure, ...] = Field(description="the countermeasures, in the order in which they act")

    @property
    def selector(self) -> str:
        return "+".join(m.selector for m in self.members)

    def identity(self) -> dict[str, Any]:
        return {"combination": [m.identity() for m in self.members]}

    @property
    def passes(self) -> float:
        return max(m.passes for m in self.members)

    @property
    def clean_images(self) -> int:
        return max(m.clean_images for m in self.members)  # each member has the first of the same ones

    @property
    def needs_pairs(self) -> bool:
        return any(m.needs_pairs for m in self.members)

    @property
    def queries(self) -> bool:
        return any(m.queries for m in self.members)

    def purify(self, data: ImageSet, ctx: Context) -> ImageSet:
        for member in purifiers(self):
            data = member.purify(data, with_clean_data(ctx, member))
        return data

    def augment(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        for member in self.members:
            if member.overrides("augment"):
                x, y = member.augment(x, y, generator)
        return x, y

    def phase(self, epoch: int, epochs: int) -> Hashable:
        return tuple(m.phase(epoch, epochs) for m in self.members)

    def selection_score(self, model: nn.Module, ctx: TrainContext) -> float:
        [judge] = [m for m in self.members if m.overrides("selection_score")]
        return judge.selection_score(model, with_clean_data(ctx, judge))

    def after_training(self, model: nn.Module, ctx: TrainContext) -> None:
        for member in self.members:
            if member.overrides("after_training"):
                member.after_training(model, with_clean_data(ctx, member))


class CombinedProcedure(Combination):
    """Several countermeasures in a row, exactly one of them a training procedure."""

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, ctx: TrainContext) -> Tensor:
        [procedure] = [m for m in self.members if m.overrides("loss")]
        return procedure.loss(model, x, y, with_clean_data(ctx, procedure))


def parts(countermeasure: Countermeasure) -> tuple[Countermeasure, ...]:
    """Return the members of a combination, or the countermeasure itself."""
    return countermeasure.members if isinstance(countermeasure, Combination) else (countermeasure,)


def with_parameters(countermeasure: Countermeasure, overrides: Mapping[str, Mapping[str, Any]]) -> Countermeasure:
    """Return ``countermeasure`` with the parameters that a protocol's ``overrides`` name for it or for its members.

    They take the place of defaults: a parameter with another value stays. Raises pydantic's ValidationError for values
    that cannot be.
    """
    members = [
        _with_parameters(part, overrides.get(part.name, {}).get(PARAMETERS, {})) for part in parts(countermeasure)
    ]
    if all(new is old for new, old in zip(members, parts(countermeasure), strict=True)):
        return countermeasure
    if not isinstance(countermeasure, Combination):
        return members[0]
    return type(countermeasure)(members=tuple(members))


def _with_parameters(part: Countermeasure, parameters: Mapping[str, Any]) -> Countermeasure:
    changed = part.changed()
    if parameters.keys() <= changed.keys():
        return part
    return type(part).model_validate({**parameters, **changed})


def purifiers(countermeasure: Countermeasure) -> list[Countermeasure]:
    """Return the members that change stored images, in order."""
    return [m for m in parts(countermeasure) if m.overrides("purify")]


def not_replayable(countermeasure: Countermeasure) -> list[Countermeasure]:
    """Return the members that act on batches and must not be recorded."""
    acting = [m for m in parts(countermeasure) if m.overrides("augment") or m.overrides("loss")]
    return [m for m in acting if not m.replayable]


def has(countermeasure: Countermeasure, method: str) -> bool:
    """Return whether a part of ``countermeasure`` has its own ``method``."""
    return any(part.overrides(method) for part in parts(countermeasure))


def combine(first: Plugin, second: Plugin) -> Combination:
    """Return ``first+second``.

    Raises UserError when both are training procedures, choose an evaluation, or go by rows of the training set, and
    when the set is changed before a part that compares it with answers to queries.
    """
    assert isinstance(first, Countermeasure)
    assert isinstance(second, Countermeasure)
    members = parts(first) + parts(second)
    for method, what in (
        ("loss", "are both training procedures"),
        ("selection_score", "both choose which weights are kept"),
    ):
        rivals = [m.selector for m in members if m.overrides(method)]
        if len(rivals) > 1:
            raise UserError(f"{' and '.join(rivals)} {what}", "combine at most one of them")
    paired = [m.selector for m in members if m.needs_pairs]
    if len(paired) > 1:  # the first may leave rows out
        raise UserError(f"{' and '.join(paired)} both go by rows of the training set", "combine at most one of them")
    asking = [i for i, m in enumerate(members) if m.queries]
    before = [m.selector for m in members[: asking[0]] if m.overrides("purify")] if asking else []
    if before:  # what it is answered would be of other images than the set
        raise UserError(
            f"{before[0]} changes the set, and not what {members[asking[0]].selector} is answered", "put it after that"
        )
    procedures = [m for m in members if m.overrides("loss")]
    return (CombinedProcedure if procedures else Combination)(members=members)
