"""What is kept of a training beside its result: an artifact made of the trained network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..cell import Cell
from .base import ArtifactStage, Stage, StageCost, Work
from .train import saved_state, training_cost, training_needs


@dataclass(frozen=True)
class TrainedArtifactStage(ArtifactStage):
    """Train a cell's victim as its result does, and keep what ``fill`` makes of it."""

    cell: Cell

    def needs(self) -> Sequence[Stage]:
        return training_needs(self.cell)

    def cost(self) -> StageCost:
        return training_cost(self.cell)

    def run(self, work: Work) -> None:
        super().run(work)
        saved_state(self, work).remove()
