"""Countermeasures joined with ``+``: they act in the order they are written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from .base import Countermeasure, Plugin
from .errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from .context import Context, TrainContext
    from .imageset import ImageSet


class Combination(Countermeasure):
    """Several countermeasures in a row, none of them a training procedure."""

    name: ClassVar[str] = "+"
    members: tuple[Countermeasure, ...]

    @property
    def selector(self) -> str:
        return "+".join(m.selector for m in self.members)

    def identity(self) -> dict[str, Any]:
        return {"combination": [m.identity() for m in self.members]}

    @property
    def passes(self) -> float:
        return max(m.passes for m in self.members)

    def purify(self, data: ImageSet, ctx: Context) -> ImageSet:
        for member in purifiers(self):
            data = member.purify(data, ctx)
        return data

    def augment(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        for member in self.members:
            if member.overrides("augment"):
                x, y = member.augment(x, y, generator)
        return x, y


class CombinedProcedure(Combination):
    """Several countermeasures in a row, exactly one of them a training procedure."""

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, ctx: TrainContext) -> Tensor:
        [procedure] = [m for m in self.members if m.overrides("loss")]
        return procedure.loss(model, x, y, ctx)


def parts(countermeasure: Countermeasure) -> tuple[Countermeasure, ...]:
    """The members of a combination, or the countermeasure itself."""
    return countermeasure.members if isinstance(countermeasure, Combination) else (countermeasure,)


def purifiers(countermeasure: Countermeasure) -> list[Countermeasure]:
    """Members that change stored images, in order."""
    return [m for m in parts(countermeasure) if m.overrides("purify")]


def combine(first: Plugin, second: Plugin) -> Combination:
    """``first+second``. Raises UserError when both are training procedures."""
    assert isinstance(first, Countermeasure)
    assert isinstance(second, Countermeasure)
    members = parts(first) + parts(second)
    procedures = [m.selector for m in members if m.overrides("loss")]
    if len(procedures) > 1:
        raise UserError(f"{' and '.join(procedures)} are both training procedures", "combine at most one of them")
    return (CombinedProcedure if procedures else Combination)(members=members)
