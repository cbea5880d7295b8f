"""Cells: one number to measure each, as plain data. Nothing is computed here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..contract import clean_data
from ..contract.combination import parts
from ..contract.plugin import Countermeasure, Dataset, Protector, Victim
from ..contract.protocol import Protocol
from ..errors import UserError
from ..keys import digest
from ..store.schema import DatasetInfo

ENGINE_REVISION = 1  # raise when a change of the training loop, or of a default of protocols, moves results


def protocol_identity(recipe: Protocol) -> dict[str, Any]:
    """Return what of a recipe can change a number.

    Defaults belong to ENGINE_REVISION, so that a new field leaves old results valid.
    """
    return recipe.model_dump(mode="json", exclude={"summary", "source", "overrides"}, exclude_defaults=True)


def epochs(recipe: Protocol, images: int) -> float:
    """Return the passes of ``recipe`` over a training set of so many images."""
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
            self.data.info.selector,
            self.protector.selector + ("" if self.fraction == 1 else f"@{self.fraction:g}"),
            self.countermeasure.selector,
            self.victim.selector,
            self.protocol.name,
            f"s{self.seed}",
        ]
        return "/".join(fields)

    def identity(self) -> dict[str, Any]:
        """Return everything that can change the number, as plain data."""
        return {
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

    @cached_property
    def key(self) -> str:
        """Digest of ``identity()``."""
        return digest(self.identity())


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
    """Return the whole grid, in the order in which a reader expects its rows.

    Raises UserError when a countermeasure needs more clean images than there are, or ``fraction`` has more digits than
    a result keeps, which would name another cell.
    """
    if fraction != float(kept := f"{fraction:.6g}"):
        raise UserError(f"the fraction {fraction!r} has more than six digits", f"give {kept}")
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
