"""Purifying a protected set, where that takes long enough to be kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ...contract.combination import purifiers
from ...contract.context import Context
from ...contract.imageset import ImageSet
from ...contract.plugin import Countermeasure
from ...seeds import derive
from ...store.artifacts import save_images
from ..cell import Cell
from ..shared import Shared, Spelled, digest_spelled, spell
from .base import ArtifactStage, Stage, StageCost, Work
from .protect import ProtectStage
from .queries import QUERY_REVISION, query_stages, with_clean_data


def is_cached(countermeasure: Countermeasure) -> bool:
    """Return whether the sets that ``countermeasure`` purifies are kept in the store."""
    return any(part.cache_purified for part in purifiers(countermeasure))


def spell_purifiers(shared: Shared, countermeasure: Countermeasure) -> Spelled:
    """Return the identities of the parts of ``countermeasure`` that change stored images."""
    return shared.once(
        "purifiers", (countermeasure,), (), lambda: spell([p.identity() for p in purifiers(countermeasure)])
    )


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
        protect, countermeasure = ProtectStage.of(cell), cell.applied
        return cell.shared.once(
            "purify",
            (protect, countermeasure),
            (cell.fraction,),
            lambda: cls(protect, cell.fraction, countermeasure),
        )

    @classmethod
    def needed(cls, cell: Cell) -> bool:
        """Return whether the victim of ``cell`` is trained on images that this stage keeps."""
        countermeasure = cell.applied
        return cell.shared.once("is cached", (countermeasure,), (), lambda: is_cached(countermeasure))

    @cached_property
    def key(self) -> str:
        shared, protected = self.protect.shared, self.protect
        seed = shared.once("purify seed", (), (protected.seed,), lambda: spell(self.stage_seed))
        asked = {"queries": shared.scalar(QUERY_REVISION)} if self.countermeasure.queries else {}
        return digest_spelled(
            {
                **asked,
                "protected": shared.once("protected", (protected,), (), lambda: spell(protected.key)),
                "fraction": shared.scalar(self.fraction),
                "purifiers": spell_purifiers(shared, self.countermeasure),
                "seed": seed,
            }
        )

    @property
    def stage_seed(self) -> int:
        return derive(self.protect.seed, "purify")

    @property
    def label(self) -> str:
        return f"purify {self.protect.label.removeprefix('protect ')}/{self._selector}"

    @property
    def _selector(self) -> str:
        return self.protect.shared.selector(self.countermeasure)

    def needs(self) -> Sequence[Stage]:
        return (self.protect, *query_stages(self.protect, self.countermeasure))

    def cost(self) -> StageCost:
        return StageCost(self.protect.data.info.train, other=1.0, subjects=(self._selector,))

    def try_on(self, few: ImageSet, ctx: Context) -> bool:
        self.countermeasure.purify(few, ctx)
        return True

    def fill(self, folder: Path, work: Work) -> None:
        with work.context(self.stage_seed) as ctx:
            data = self.protect.training_images(self.fraction, work.artifacts, ctx)
            ctx = with_clean_data(self.protect, ctx, self.countermeasure, work.artifacts)
            save_images(folder, self.countermeasure.purify(data, ctx))
