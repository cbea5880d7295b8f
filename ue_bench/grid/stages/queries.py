"""What the adversary has beside the protected set: unprotected images, and what the owner's service makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...contract import clean_data
from ...contract.combination import parts
from ...contract.context import Context
from ...contract.imageset import ImageSet
from ...contract.plugin import Countermeasure
from ...keys import digest
from ...seeds import derive
from ...store import perturbation
from ...store.artifacts import ArtifactStore, load_images, save_images
from ..data import stored_split
from .base import ArtifactStage, Stage, StageCost, Work
from .protect import LEAST_PASSES, ProtectStage

CHUNK = 500
QUERY_REVISION = 1  # raise when a change moves answers; countermeasures that ask then need a new revision, too


@dataclass(frozen=True)
class QueryStage(ArtifactStage):
    """Protect the adversary's own images as the set was protected. ``images``: how many it has.

    They are rows of the training set, which the owner's set has too; whoever asks leaves them out of it.
    """

    protect: ProtectStage
    images: int

    kind = "protected"

    @classmethod
    def of(cls, protect: ProtectStage, countermeasure: Countermeasure) -> QueryStage:
        """Return the stage that answers the queries of ``countermeasure``."""
        shared, images = protect.shared, asked(countermeasure)
        return shared.once("query", (protect,), (images,), lambda: cls(protect, images))

    @cached_property
    def key(self) -> str:
        return digest({"query": QUERY_REVISION, "protected": self.protect.key, "images": self.images})

    @property
    def label(self) -> str:
        return f"query {self.protect.label.removeprefix('protect ')} with {self.images:,} images"

    def needs(self) -> Sequence[Stage]:
        return (self.protect,)  # networks that were trained for the set are kept

    def cost(self) -> StageCost:
        network = self.protect.protector.cost(self.images)  # more than it takes: what was trained is there
        networks, other = ((network,), 0.0) if network else ((), LEAST_PASSES)
        return StageCost(self.images, networks, other, (f"{self.protect.protector.selector} asked",))

    def fill(self, folder: Path, work: Work) -> None:
        protect = self.protect
        train = stored_split(work.artifacts, protect.data, "train")
        with work.context(protect.stage_seed, protect.precision, learn_from=train) as ctx:
            clean = owned(protect, self.images, train, ctx)[0]
            answers = protect.protector.protect(clean, ctx)
            perturbation.check(protect.protector, clean, answers)
            save_images(folder, answers)


def asked(countermeasure: Countermeasure) -> int:
    """Return with how many images ``countermeasure`` asks, or that of its parts which asks with most."""
    return max(part.clean_images for part in parts(countermeasure) if part.queries)


def query_stages(protect: ProtectStage, countermeasure: Countermeasure) -> tuple[QueryStage, ...]:
    """Return the stage that answers the queries of ``countermeasure``, if it has any."""
    return (QueryStage.of(protect, countermeasure),) if countermeasure.queries else ()


def owned(protect: ProtectStage, images: int, train: ImageSet, ctx: Context) -> tuple[ImageSet, NDArray[np.int64]]:
    """Return ``images`` of the clean training images, and their rows: the same ones against every protector."""
    rows = clean_data.draw(train.labels, images, derive(protect.seed, "clean images"))
    parts = (train.images[rows[start : start + CHUNK]] for start in range(0, len(rows), CHUNK))
    stored = ctx.store_images((len(rows), *train.images.shape[1:]), parts)
    return ImageSet(stored, train.labels[rows], train.class_names, train.source), rows


def with_clean_data(
    protect: ProtectStage, ctx: Context, countermeasure: Countermeasure, store: ArtifactStore
) -> Context:
    """Return ``ctx`` with what the adversary of ``countermeasure`` has beside the set that ``protect`` makes."""
    if not countermeasure.clean_images:
        return ctx
    train = stored_split(store, protect.data, "train")
    clean_data.check(countermeasure, len(train))
    clean, rows = owned(protect, countermeasure.clean_images, train, ctx)
    answers = [load_images(stage.folder(store)) for stage in query_stages(protect, countermeasure)]
    return replace(
        ctx,
        clean=clean,
        rows=rows if countermeasure.needs_pairs else None,
        queried=answers[0] if answers else None,
    )
