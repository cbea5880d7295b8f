"""Protecting a training set, and what the stages after it take from there."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ...contract.context import Context
from ...contract.imageset import ImageSet
from ...contract.plugin import Protector, check_size
from ...seeds import derive
from ...store import perturbation
from ...store.artifacts import ArtifactStore, load_images
from ...store.artifacts import save_images as save
from ...store.schema import json_text
from ..cell import Cell, Data, protected_images
from ..data import stored_split
from ..shared import Shared, digest_spelled, spell
from .base import ArtifactStage, StageCost, Work

LEAST_PASSES = 2.0  # over the set, that protection without networks counts for in the order of work


@dataclass(frozen=True)
class ProtectStage(ArtifactStage):
    """Protect a training set. Shared by all cells with that set, protector and seed."""

    data: Data
    protector: Protector
    seed: int
    precision: str  # of networks, where the protector uses any
    shared: Shared = field(default_factory=Shared, compare=False, repr=False, kw_only=True)

    kind = "protected"

    @classmethod
    def of(cls, cell: Cell) -> ProtectStage:
        """Return the stage that protects the training images of ``cell``."""
        shared = cell.shared
        return shared.once(
            "protect",
            (cell.data, cell.protector),
            (cell.seed, cell.precision),
            lambda: cls(cell.data, cell.protector, cell.seed, cell.precision, shared=shared),
        )

    @cached_property
    def key(self) -> str:
        shared = self.shared
        networks = {"precision": shared.scalar(self.precision)} if self.protector.uses_networks else {}
        return digest_spelled(
            {
                "train": shared.scalar(self.data.train_fingerprint),
                "protector": shared.identity(self.protector),
                "seed": spell(self.stage_seed),
                **networks,
            }
        )

    @property
    def stage_seed(self) -> int:
        return derive(self.seed, "protect")

    @property
    def label(self) -> str:
        return f"protect {self.data.info.selector}/{self.shared.selector(self.protector)}/s{self.seed}"

    def cost(self) -> StageCost:
        images = self.data.info.train
        network = self.protector.cost(images)
        networks, other = ((network,), 0.0) if network else ((), LEAST_PASSES)
        return StageCost(images, networks, other, (self.shared.selector(self.protector),))

    def try_on(self, few: ImageSet, ctx: Context) -> bool:
        perturbation.measure(few, self.protector.protect(few, ctx), self.protector.budget)
        return True

    def fill(self, folder: Path, work: Work) -> None:
        clean = stored_split(work.artifacts, self.data, "train")
        check_size(self.protector, clean.size)
        perturbation.check_classes(self.protector, clean.labels.tolist())
        with work.context(self.stage_seed, self.precision) as ctx:
            started = time.perf_counter()
            protected = self.protector.protect(clean, ctx)
            seconds = time.perf_counter() - started
            perturbation.check(self.protector, clean, protected)
            save(folder, protected)
            measured = perturbation.measure(clean, protected, self.protector.budget)
        made = {"label": self.label, "seconds": seconds, "budget": measured.model_dump()}
        (folder / "protect.json").write_text(json_text(made), encoding="utf-8")

    def training_images(self, fraction: float, store: ArtifactStore, ctx: Context) -> ImageSet:
        """Open the protected set, or a mixture in which a seeded choice of ``1 - fraction`` stays as it was."""
        protected = load_images(self.folder(store))
        if fraction == 1:
            return protected
        clean = stored_split(store, self.data, "train")
        order = np.random.default_rng(derive(self.seed, "fraction")).permutation(len(clean))
        keep = np.zeros(len(clean), dtype=bool)
        keep[order[: protected_images(fraction, len(clean))]] = True

        def mix(images: np.ndarray[Any, Any], where: slice) -> np.ndarray[Any, Any]:
            return np.where(keep[where, None, None, None], protected.images[where], images)

        return ctx.map_images(clean, mix, "mix")
