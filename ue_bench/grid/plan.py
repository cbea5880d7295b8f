"""From selectors to cells, from cells to stages. Everything here is plain data; nothing is computed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from ..contract import clean_data
from ..contract.combination import parts, purifiers
from ..contract.plugin import Countermeasure, Dataset, Protector, Victim
from ..contract.protocol import Protocol
from ..keys import digest
from ..seeds import derive
from ..store.schema import DatasetInfo

ENGINE_REVISION = 1  # raise when a change of the training loop, or of a default of protocols, moves results


def protocol_identity(recipe: Protocol) -> dict[str, Any]:
    """What of a recipe can change a number. Defaults belong to ENGINE_REVISION: a new field costs no result."""
    return recipe.model_dump(mode="json", exclude={"summary", "source", "overrides"}, exclude_defaults=True)


def epochs(recipe: Protocol, images: int) -> float:
    """Passes over a set of so many images."""
    batch = min(recipe.batch, images)
    return recipe.length(images // batch) * batch / images


@dataclass(frozen=True)
class Data:
    """A stored dataset: where it lies and what it is."""

    plugin: Dataset
    artifact: str  # key of kind "datasets"
    info: DatasetInfo
    train_fingerprint: str
    test_fingerprint: str


@dataclass(frozen=True)
class Cell:
    """One number to measure, and everything that can change it."""

    data: Data
    protector: Protector
    countermeasure: Countermeasure
    victim: Victim
    protocol: Protocol
    seed: int
    fraction: float
    precision: str

    @property
    def recipe(self) -> Protocol:
        """The protocol as it applies under this countermeasure and to this victim."""
        return self.protocol.under([c.name for c in parts(self.countermeasure)], self.victim.optimizer())

    @cached_property
    def id(self) -> str:
        """Readable name; only parameters that differ from their defaults are shown."""
        fields = [
            self.data.plugin.selector,
            self.protector.selector + ("" if self.fraction == 1 else f"@{self.fraction:g}"),
            self.countermeasure.selector,
            self.victim.selector,
            self.protocol.name,
            f"s{self.seed}",
        ]
        return "/".join(fields)

    @cached_property
    def key(self) -> str:
        """Digest of everything that can change the number."""
        return digest(
            {
                "engine": ENGINE_REVISION,
                "train": self.data.train_fingerprint,
                "test": self.data.test_fingerprint,
                "protector": self.protector.identity(),
                "countermeasure": self.countermeasure.identity(),
                "victim": self.victim.identity(),
                "protocol": protocol_identity(self.recipe),
                "seed": self.seed,
                "fraction": self.fraction,
                "precision": self.precision,
            }
        )


@dataclass(frozen=True)
class ProtectStage:
    """Protect a training set. Shared by all cells with that set, protector and seed."""

    data: Data
    protector: Protector
    seed: int
    precision: str  # of networks, where the protector uses any

    kind = "protected"

    @cached_property
    def key(self) -> str:
        networks = {"precision": self.precision} if self.protector.uses_networks else {}
        return digest(
            {
                "train": self.data.train_fingerprint,
                "protector": self.protector.identity(),
                "seed": self.stage_seed,
                **networks,
            }
        )

    @property
    def stage_seed(self) -> int:
        return derive(self.seed, "protect")

    @property
    def label(self) -> str:
        return f"protect {self.data.plugin.selector}/{self.protector.selector}/s{self.seed}"


@dataclass(frozen=True)
class PurifyStage:
    """Clean a protected set where that is dear enough to be kept."""

    protect: ProtectStage
    fraction: float
    countermeasure: Countermeasure

    kind = "purified"

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


@dataclass(frozen=True)
class TrainStage:
    """Train and evaluate: the stage that yields a cell's result."""

    cell: Cell

    kind = "result"

    @property
    def protect(self) -> ProtectStage:
        return ProtectStage(self.cell.data, self.cell.protector, self.cell.seed, self.cell.precision)

    @property
    def purify(self) -> PurifyStage:
        return PurifyStage(self.protect, self.cell.fraction, self.cell.countermeasure)

    @property
    def key(self) -> str:
        return self.cell.key

    @property
    def label(self) -> str:
        return self.cell.id


@dataclass(frozen=True)
class FeatureStage(TrainStage):
    """Train a cell's victim, and keep how alike the features of its training images are."""

    kind = "features"

    @property
    def key(self) -> str:
        return digest({"features": 1, "cell": self.cell.key})

    @property
    def label(self) -> str:
        return f"features {self.cell.id}"


@dataclass(frozen=True)
class EvasionStage:
    """A stage of :mod:`ue_bench.evasion`."""

    kind: ClassVar[str] = ""

    @property
    def key(self) -> str:
        raise NotImplementedError

    @property
    def label(self) -> str:
        raise NotImplementedError


Stage = ProtectStage | PurifyStage | TrainStage | EvasionStage


@dataclass(frozen=True)
class Planned:
    """A stage to compute, the stages it waits for, and its expected share of the work (arbitrary unit)."""

    stage: Stage
    needs: tuple[str, ...]
    weight: float


def cells(
    data: Data,
    protectors: Iterable[Protector],
    countermeasures: Iterable[Countermeasure],
    victims: Iterable[Victim],
    protocol: Protocol,
    seeds: Iterable[int],
    fraction: float,
    precision: str,
) -> list[Cell]:
    """The whole grid, in the order in which a reader expects its rows.

    Raises UserError when a countermeasure needs more clean images than there are.
    """
    countermeasures, victims, seeds = list(countermeasures), list(victims), list(seeds)
    for countermeasure in countermeasures:
        clean_data.check(countermeasure, data.info.train)
    return [
        Cell(data, protector, countermeasure, victim, protocol, seed, fraction, precision)
        for protector in protectors
        for victim in victims
        for seed in seeds
        for countermeasure in countermeasures
    ]


def _weight(stage: ProtectStage, cell: Cell) -> float:
    """Of protection, where 1 is a plain training run of ``cell``."""
    images = stage.data.info.train
    cost = stage.protector.cost(images)
    if cost is None:
        return 0.5
    return max(0.5, cost.passes / epochs(cell.recipe, images))


def stages(wanted: Iterable[Cell], exists: Any, last: type[TrainStage] = TrainStage) -> list[Planned]:
    """Stages that the cells need and that ``exists(kind, key)`` does not find, in an order that can be run.

    ``last`` is what is wanted of a cell: its result, or its features.
    """
    planned: dict[str, Planned] = {}

    def add(stage: Stage, needs: list[Stage], weight: float) -> None:
        if stage.key not in planned and not exists(stage.kind, stage.key):
            waits = tuple(n.key for n in needs if n.key in planned)
            planned[stage.key] = Planned(stage, waits, weight)

    for cell in wanted:
        train = last(cell)
        if exists(train.kind, train.key):
            continue
        add(train.protect, [], _weight(train.protect, cell))
        needs: list[Stage] = [train.protect]
        if any(p.cache_purified for p in purifiers(cell.countermeasure)):
            add(train.purify, [train.protect], 0.2)
            needs.append(train.purify)
        before = cell.victim.cost(cell.data.info.train)
        pretraining = before.passes / epochs(cell.recipe, cell.data.info.train) if before else 0.0
        add(train, needs, cell.countermeasure.passes + pretraining)
    return list(planned.values())
