"""Cells and stages of evasion. Everything here is plain data; nothing is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import cast

from ..catalogue.registry import registry
from ..contract.combination import has, parts, purifiers
from ..contract.plugin import Countermeasure, Protector, Victim
from ..contract.protocol import Protocol
from ..errors import UserError
from ..keys import digest
from ..seeds import derive
from .plan import (
    ENGINE_REVISION,
    Cell,
    Data,
    EvasionStage,
    Planned,
    ProtectStage,
    TrainStage,
    epochs,
    protocol_identity,
)

REVISION = 1  # raise when a change moves results of evasion alone


@dataclass(frozen=True)
class EvasionCell(Cell):
    """A classifier trained on clean images, and test images that were protected and then processed.

    ``countermeasure`` acts on the test images. ``images`` of them, balanced over classes; None for all. ``transfer``
    gives the classifier a seed of its own. Without it, one that a protector attacks is the same network, if victim,
    recipe and precision are the same too: that is the white-box setting.
    """

    images: int | None = None
    transfer: bool = False

    @classmethod
    def of(cls, cell: Cell, images: int | None, transfer: bool) -> EvasionCell:
        """The choices of ``cell``. Raises UserError when they have no meaning for a trained network."""
        treatment, test = cell.countermeasure, cell.data.info.test
        trains = any(has(treatment, method) for method in ("loss", "selection_score", "after_training"))
        if trains or any(part.uses_labels for part in parts(treatment)):
            raise UserError(
                f"{treatment.selector} trains networks or reads labels: it does nothing for a trained classifier",
                "choose what changes images alone, such as @raeg",
            )
        if type(cell.victim).pretrain is not Victim.pretrain:
            raise UserError(f"{cell.victim.selector} learns without labels first", "choose another classifier")
        if images is not None and images > test:
            raise UserError(f"{images:,} test images are wanted, there are {test:,}", "ask for fewer")
        chosen = None if images == test else images
        return cls(
            cell.data, cell.protector, treatment, cell.victim, cell.protocol, cell.seed, 1.0, cell.precision,
            chosen, transfer,
        )  # fmt: skip

    @property
    def recipe(self) -> Protocol:
        """How the classifier is trained, under the name that surrogates have, so that it is the same network."""
        named = self.protocol.model_copy(update={"name": "surrogate", "version": 1, "eval_every": 1})
        return named.under(["vanilla"], self.victim.optimizer())

    @cached_property
    def id(self) -> str:
        fields = [
            self.data.plugin.selector + ("" if self.images is None else f"@{self.images}"),
            self.protector.selector,
            self.countermeasure.selector,
            self.victim.selector,
            self.protocol.name,
            f"s{self.seed}",
            "transfer" if self.transfer else "evasion",
        ]
        return "/".join(fields)

    @cached_property
    def key(self) -> str:
        return digest(
            {
                "evasion": REVISION,
                "engine": ENGINE_REVISION,
                "train": self.data.train_fingerprint,
                "test": self.data.test_fingerprint,
                "images": self.images,
                "protector": self.protector.identity(),
                "countermeasure": self.countermeasure.identity(),
                "victim": self.victim.identity(),
                "recipe": protocol_identity(self.recipe),
                "transfer": self.transfer,
                "seed": self.seed,
                "precision": self.precision,
            }
        )

    @property
    def own(self) -> ProtectStage:
        """The stage that protects the training images of the same choices."""
        return TrainStage(self).protect


@dataclass(frozen=True)
class ClassifierStage(EvasionStage):
    """Train a classifier on clean images. It is kept where surrogates are, and is one of them if a protector asks."""

    data: Data
    victim: Victim
    recipe: Protocol
    seed: int
    precision: str

    kind = "plugin"

    @property
    def key(self) -> str:
        from .surrogates import artifact

        plain = cast(Countermeasure, registry().create("countermeasure", "vanilla", {}))
        return digest(artifact(self.data.train_fingerprint, self.victim, self.recipe, plain, self.seed, self.precision))

    @property
    def label(self) -> str:
        return f"train {self.data.plugin.selector}/{self.victim.selector} on clean images"


@dataclass(frozen=True)
class ProtectTestStage(EvasionStage):
    """Protect test images, with what the protector learns from the training images."""

    data: Data
    protector: Protector
    seed: int  # of the stage
    precision: str
    images: int | None

    kind = "protected"

    @property
    def key(self) -> str:
        networks = {"precision": self.precision} if self.protector.uses_networks else {}
        return digest(
            {
                "evasion": REVISION,
                "train": self.data.train_fingerprint,
                "test": self.data.test_fingerprint,
                "images": self.images,
                "protector": self.protector.identity(),
                "seed": self.seed,
                **networks,
            }
        )

    @property
    def label(self) -> str:
        return f"protect test images of {self.data.plugin.selector}/{self.protector.selector}"


@dataclass(frozen=True)
class PurifyTestStage(EvasionStage):
    """Process protected test images where that is dear enough to be kept."""

    protect: ProtectTestStage
    countermeasure: Countermeasure
    cell: EvasionCell  # one of those that share it

    kind = "purified"

    @property
    def seed(self) -> int:
        return derive(self.cell.seed, "purify")

    @property
    def key(self) -> str:
        return digest(
            {
                "protected": self.protect.key,
                "purifiers": [p.identity() for p in purifiers(self.countermeasure)],
                "seed": self.seed,
            }
        )

    @property
    def label(self) -> str:
        return f"purify {self.protect.label.removeprefix('protect ')}/{self.countermeasure.selector}"


@dataclass(frozen=True)
class EvadeStage(EvasionStage):
    """Show a classifier the processed images: the stage that yields a cell's result."""

    cell: EvasionCell

    kind = "evasion"

    @property
    def classifier(self) -> ClassifierStage:
        cell = self.cell
        seed = derive(cell.seed, "transfer") if cell.transfer else cell.own.stage_seed
        return ClassifierStage(cell.data, cell.victim, cell.recipe, seed, cell.precision)

    @property
    def protect(self) -> ProtectTestStage:
        cell = self.cell
        return ProtectTestStage(cell.data, cell.protector, cell.own.stage_seed, cell.precision, cell.images)

    @property
    def purify(self) -> PurifyTestStage:
        return PurifyTestStage(self.protect, self.cell.countermeasure, self.cell)

    @property
    def key(self) -> str:
        return self.cell.key

    @property
    def label(self) -> str:
        return self.cell.id


def stages(wanted: Iterable[EvasionCell], exists: Callable[[str, str], bool]) -> list[Planned]:
    """Stages that the cells need and that ``exists(kind, key)`` does not find, in an order that can be run."""
    planned: dict[str, Planned] = {}

    def add(stage: EvasionStage, needs: list[EvasionStage], weight: float) -> None:
        if stage.key not in planned and not exists(stage.kind, stage.key):
            waits = tuple(n.key for n in needs if n.key in planned)
            planned[stage.key] = Planned(stage, waits, weight)

    for cell in wanted:
        evade = EvadeStage(cell)
        if exists(evade.kind, evade.key):
            continue
        images = cell.data.info.train
        cost = cell.protector.cost(images)
        add(evade.classifier, [], 1.0)
        # A protector that attacks this classifier would train it too, or wait for who does.
        first: list[EvasionStage] = [evade.classifier] if cell.protector.uses_networks else []
        add(evade.protect, first, max(0.1, cost.passes / epochs(cell.recipe, images)) if cost else 0.1)
        needs: list[EvasionStage] = [evade.classifier, evade.protect]
        if any(p.cache_purified for p in purifiers(cell.countermeasure)):
            add(evade.purify, [evade.protect], 0.05)
            needs.append(evade.purify)
        add(evade, needs, 0.05)
    return list(planned.values())
