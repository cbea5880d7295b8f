"""Purifying a protected set, where that takes long enough to be kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ...contract.combination import purifiers
from ...contract.plugin import Countermeasure
from ...keys import digest
from ...seeds import derive
from ...store.artifacts import save_images
from ..cell import Cell
from .base import ArtifactStage, Cost, Stage, Work
from .protect import ProtectStage


def is_cached(countermeasure: Countermeasure) -> bool:
    """Return whether the sets that ``countermeasure`` purifies are kept in the store."""
    return any(part.cache_purified for part in purifiers(countermeasure))


@dataclass(frozen=True)
class PurifyStage(ArtifactStage):
    """Purify a protected set with the parts of a countermeasure that change stored images."""

    protect: ProtectStage
    fraction: float
    countermeasure: Countermeasure

    kind = "purified"

    @classmethod
    def of(cls, cell: Cell) -> PurifyStage:
        """Return the stage that purifies the training images of ``cell``."""
        return cls(ProtectStage.of(cell), cell.fraction, cell.countermeasure)

    @cached_property
    def key(self) -> str:
        return digest(
            {
                "protected": self.protect.key,
                "fraction": self.fraction,
                "purifiers": [p.identity() for p in purifiers(self.countermeasure)],
                "seed": self.stage_seed,
            }
        )

    @property
    def stage_seed(self) -> int:
        return derive(self.protect.seed, "purify")

    @property
    def label(self) -> str:
        return f"purify {self.protect.label.removeprefix('protect ')}/{self.countermeasure.selector}"

    def needs(self) -> Sequence[Stage]:
        return (self.protect,)

    def cost(self) -> Cost:
        return Cost(self.protect.data.info.train, other=1.0)

    def fill(self, folder: Path, work: Work) -> None:
        with work.context(self.stage_seed) as ctx:
            data = self.protect.training_images(self.fraction, work.artifacts, ctx)
            ctx = self.protect.with_clean_data(ctx, self.countermeasure, work.artifacts)
            save_images(folder, self.countermeasure.purify(data, ctx))
