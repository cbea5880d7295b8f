"""Stages of evasion: a classifier, protected test images, and what the one makes of the other."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from ...catalogue.registry import registry
from ...contract import clean_data
from ...contract.imageset import ImageSet
from ...contract.plugin import Countermeasure, NetworkCost, Protector, Victim, check_size
from ...contract.protocol import Protocol
from ...keys import digest
from ...seeds import derive
from ...store import perturbation
from ...store.artifacts import ArtifactStore, load_images, save_images
from ...store.evasion import EvasionResult
from ...store.schema import json_text
from ..cell import Data, epochs
from ..data import stored_split
from ..evasion import REVISION, EvasionCell
from ..shared import Shared, digest_spelled, spell
from ..surrogates import artifact, surrogate
from .base import ArtifactStage, Stage, StageCost, Stores, Work
from .protect import LEAST_PASSES, ProtectStage
from .purify import PurifyStage, is_cached, spell_purifiers
from .queries import with_clean_data

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class ClassifierStage(Stage):
    """Train a classifier on clean images. It is kept where surrogates are, and is one of them if a protector asks."""

    data: Data
    victim: Victim
    recipe: Protocol
    seed: int
    precision: str

    kind = "plugin"

    @classmethod
    def of(cls, cell: EvasionCell) -> ClassifierStage:
        """Return the stage that trains the classifier of ``cell``."""
        return cell.shared.once(
            "classifier",
            (cell.data, cell.victim, cell.protocol),
            (cell.seed, cell.transfer, cell.precision),
            lambda: cls(cell.data, cell.victim, cell.recipe, cls._seed(cell), cell.precision),
        )

    @staticmethod
    def _seed(cell: EvasionCell) -> int:
        return derive(cell.seed, "transfer") if cell.transfer else ProtectStage.of(cell).stage_seed

    @cached_property
    def key(self) -> str:
        plain = cast(Countermeasure, registry().one("countermeasure", "@plain"))
        return digest(artifact(self.data.train_fingerprint, self.victim, self.recipe, plain, self.seed, self.precision))

    @property
    def label(self) -> str:
        return f"train {self.data.info.selector}/{self.victim.selector} on clean images"

    def cost(self) -> StageCost:
        images = self.data.info.train
        victim = self.victim.selector
        return StageCost(images, (NetworkCost(victim, epochs(self.recipe, images)),), subjects=(victim,))

    def exists(self, stores: Stores) -> bool:
        return stores.artifacts.has(self.kind, self.key)

    def run(self, work: Work) -> None:
        self.network(work)

    def network(self, work: Work) -> nn.Module:
        """Return the classifier, trained if it is not stored yet."""
        train = stored_split(work.artifacts, self.data, "train")
        with work.context(self.seed, self.precision) as ctx:
            return surrogate(ctx, train, self.victim, self.recipe, "@plain")


@dataclass(frozen=True)
class ProtectTestStage(ArtifactStage):
    """Protect test images, with what the protector learns from the training images.

    ``classifier`` is one that a protector which attacks networks may ask for: whoever is first would train it.
    """

    data: Data
    protector: Protector
    seed: int  # of the stage
    precision: str
    images: int | None
    classifier: ClassifierStage | None = field(default=None, compare=False, repr=False)
    shared: Shared = field(default_factory=Shared, compare=False, repr=False, kw_only=True)

    kind = "protected"

    @classmethod
    def of(cls, cell: EvasionCell) -> ProtectTestStage:
        """Return the stage that protects the test images of ``cell``."""
        training = ProtectStage.of(cell)
        classifier = ClassifierStage.of(cell) if cell.protector.uses_networks else None
        return cell.shared.once(
            "protect test images",
            (training, classifier),
            (cell.images,),
            lambda: cls(
                cell.data, cell.protector, training.stage_seed, cell.precision, cell.images, classifier,
                shared=cell.shared,
            ),
        )  # fmt: skip

    @cached_property
    def key(self) -> str:
        shared = self.shared
        networks = {"precision": shared.scalar(self.precision)} if self.protector.uses_networks else {}
        return digest_spelled(
            {
                "evasion": shared.scalar(REVISION),
                "train": shared.scalar(self.data.train_fingerprint),
                "test": shared.scalar(self.data.test_fingerprint),
                "images": shared.scalar(self.images),
                "protector": shared.identity(self.protector),
                "seed": spell(self.seed),
                **networks,
            }
        )

    @property
    def label(self) -> str:
        return f"protect test images of {self.data.info.selector}/{self.protector.selector}"

    def needs(self) -> Sequence[Stage]:
        return (self.classifier,) if self.classifier else ()

    def cost(self) -> StageCost:
        images = self.data.info.train
        network = self.protector.cost(images)
        networks, other = ((network,), 0.0) if network else ((), LEAST_PASSES)
        return StageCost(images, networks, other, (f"{self.protector.selector} on test images",))

    def fill(self, folder: Path, work: Work) -> None:
        train = stored_split(work.artifacts, self.data, "train")
        test = chosen_test_images(self.data, self.images, work.artifacts)
        check_size(self.protector, test.size)
        perturbation.check_classes(self.protector, train.labels.tolist())
        with work.context(self.seed, self.precision, learn_from=train) as ctx:
            started = time.perf_counter()
            protected = self.protector.protect(test, ctx)
            seconds = time.perf_counter() - started
            perturbation.check(self.protector, test, protected)
            save_images(folder, protected)
        made = {"label": self.label, "seconds": seconds}
        (folder / "protect.json").write_text(json_text(made), encoding="utf-8")


@dataclass(frozen=True)
class PurifyTestStage(ArtifactStage):
    """Purify protected test images where that takes long enough to be kept."""

    protect: ProtectTestStage
    countermeasure: Countermeasure
    cell: EvasionCell = field(compare=False)  # one of those that share it

    kind = "purified"

    @classmethod
    def of(cls, cell: EvasionCell) -> PurifyTestStage:
        """Return the stage that purifies the test images of ``cell``."""
        protect, countermeasure = ProtectTestStage.of(cell), cell.countermeasure
        return cell.shared.once(
            "purify test images", (protect, countermeasure), (cell.seed,), lambda: cls(protect, countermeasure, cell)
        )

    @property
    def seed(self) -> int:
        return derive(self.cell.seed, "purify")

    @cached_property
    def key(self) -> str:
        return digest_spelled(
            {
                "protected": spell(self.protect.key),
                "purifiers": spell_purifiers(self.protect.shared, self.countermeasure),
                "seed": spell(self.seed),
            }
        )

    @property
    def label(self) -> str:
        return f"purify {self.protect.label.removeprefix('protect ')}/{self.countermeasure.selector}"

    def needs(self) -> Sequence[Stage]:
        return (self.protect,)

    def cost(self) -> StageCost:
        subject = f"{self.countermeasure.selector} on test images"
        return StageCost(self.protect.data.info.train, other=0.5, subjects=(subject,))

    def fill(self, folder: Path, work: Work) -> None:
        protected = load_images(self.protect.folder(work.artifacts))
        with work.context(self.seed) as ctx:
            ctx = with_clean_data(ProtectStage.of(self.cell), ctx, self.countermeasure, work.artifacts)
            save_images(folder, self.countermeasure.purify(protected, ctx))


@dataclass(frozen=True)
class EvadeStage(Stage):
    """Show a classifier the processed test images: the stage that yields the result of a cell of evasion."""

    cell: EvasionCell

    kind = "evasion"
    keeps_failure = True
    stored_in = "out"

    @property
    def classifier(self) -> ClassifierStage:
        """The stage that trains the classifier."""
        return ClassifierStage.of(self.cell)

    @property
    def protect(self) -> ProtectTestStage:
        """The stage that protects the test images."""
        return ProtectTestStage.of(self.cell)

    @property
    def purify(self) -> PurifyTestStage:
        """The stage that purifies them, needed where the countermeasure keeps what it purified."""
        return PurifyTestStage.of(self.cell)

    @property
    def key(self) -> str:
        return self.cell.key

    @property
    def label(self) -> str:
        return self.cell.id

    def needs(self) -> Sequence[Stage]:
        needed: list[Stage] = [self.classifier, self.protect]
        return [*needed, self.purify] if PurifyStage.needed(self.cell) else needed

    def cost(self) -> StageCost:
        victim, countermeasure = self.cell.victim.selector, self.cell.countermeasure.selector
        return StageCost(self.cell.data.info.train, other=0.5, subjects=(f"{victim} under {countermeasure}", victim))

    def exists(self, stores: Stores) -> bool:
        return self.key in stores.evaded

    def is_stored(self, stores: Stores) -> bool:
        return stores.evasion.has(self.key)

    def measured(self, stores: Stores) -> Mapping[str, float] | None:
        result = stores.evaded.get(self.key)
        if result is None:
            return None
        psnr = float("inf") if result.psnr is None else result.psnr  # nothing was lost
        return {"accuracy": result.accuracy, "psnr": psnr, "ssim": result.ssim}

    def run(self, work: Work) -> None:
        if work.stores.evasion.has(self.key):
            return
        import torch

        from ...engine import loop

        cell, countermeasure = self.cell, self.cell.countermeasure
        original = chosen_test_images(cell.data, cell.images, work.artifacts)
        model = self.classifier.network(work)
        with work.context(self.purify.seed) as ctx:
            if is_cached(countermeasure):
                shown = load_images(self.purify.folder(work.artifacts))
            else:
                shown = load_images(self.protect.folder(work.artifacts))
                if countermeasure.overrides("purify"):
                    ready = with_clean_data(ProtectStage.of(cell), ctx, countermeasure, work.artifacts)
                    shown = countermeasure.purify(shown, ready)
            likeness = perturbation.measure(original, shown, "none")
            generator = torch.Generator(work.env.device).manual_seed(derive(cell.seed, "evasion"))

            def augment(x: Tensor) -> Tensor:
                blind = torch.zeros(len(x), dtype=torch.int64, device=x.device)
                return countermeasure.augment(x, blind, generator)[0]

            accuracy = loop.accuracy(
                model,
                loop.Pixels(shown, torch.device(work.env.device)),
                replace(ctx, precision=cell.precision).autocast,
                augment if countermeasure.overrides("augment") else None,
            )
        result = EvasionResult(
            key=cell.key,
            cell=cell.identity(),
            id=cell.id,
            dataset=cell.data.info,
            images=len(original),
            protector=cell.protector.selector,
            countermeasure=countermeasure.selector,
            victim=cell.victim.selector,
            protocol=cell.protocol.name,
            protocol_version=cell.protocol.version,
            seed=cell.seed,
            transfer=cell.transfer,
            precision=cell.precision,
            accuracy=accuracy,
            psnr=likeness.psnr,
            ssim=likeness.ssim,
            classifier=checksum(model),
            environment=work.env.record(),
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        work.check_lease()
        work.stores.evasion.write(result)


def chosen_test_images(data: Data, images: int | None, store: ArtifactStore) -> ImageSet:
    """Open the test set, or some of it: the same images for every seed, in their order."""
    test = stored_split(store, data, "test")
    if images is None:
        return test
    where = np.sort(clean_data.draw(test.labels, images, derive(0, "test images")))
    return ImageSet(test.images[where], test.labels[where], test.class_names, test.source)


def checksum(network: nn.Module) -> str:
    """Return the SHA-256 (first 16 digits) of the weights, by which a network is known."""
    weights = hashlib.sha256()
    for value in network.state_dict().values():
        weights.update(value.cpu().contiguous().numpy().tobytes())
    return weights.hexdigest()[:16]
