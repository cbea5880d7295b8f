"""Cells: one number to measure each, as plain data. Nothing is computed here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import Any, overload

from ..contract import clean_data
from ..contract.combination import has, parts, with_parameters
from ..contract.plugin import Countermeasure, Dataset, Protector, Victim
from ..contract.protocol import Protocol
from ..errors import UserError
from ..keys import digest_text
from ..store.requests import Wanted
from ..store.schema import DatasetInfo, cell_id
from .shared import Shared, Spelled, joined, spell

ENGINE_REVISION = 1  # raise when a change of the training loop, or of a default of protocols, moves results


def protocol_identity(recipe: Protocol) -> dict[str, Any]:
    """Return what of a recipe can change a number.

    Defaults belong to ENGINE_REVISION, so that a new field leaves old results valid.
    """
    return recipe.model_dump(mode="json", exclude={"summary", "source", "overrides"}, exclude_defaults=True)


def protected_images(fraction: float, images: int) -> int:
    """Return how many of ``images`` a share of them is: the floor, also where 0.29 * 100 is 28.999..."""
    return int(fraction * images + 1e-9)


def epochs(recipe: Protocol, images: int) -> float:
    """Return the passes of ``recipe`` over a training set of so many images."""
    return recipe.passes(images)


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
    shared: Shared = field(default_factory=Shared, compare=False, repr=False, kw_only=True)

    @property
    def recipe(self) -> Protocol:
        """The protocol as it applies under this countermeasure and to this victim."""
        axes = self.protocol, self.countermeasure, self.victim
        return self.shared.once("recipe", axes, (), self._recipe)

    def _recipe(self) -> Protocol:
        names = [c.name for c in parts(self.countermeasure)]
        return self.protocol.under(names, self.victim.optimizer(), self.victim.name)

    @property
    def applied(self) -> Countermeasure:
        """The countermeasure with the parameters that the protocol has for it."""
        axes = self.protocol, self.countermeasure
        return self.shared.once(
            "applied", axes, (), lambda: with_parameters(self.countermeasure, self.protocol.overrides)
        )

    @cached_property
    def id(self) -> str:
        """Readable name; only parameters that differ from their defaults are shown."""
        protector, countermeasure, victim = map(
            self.shared.selector, (self.protector, self.countermeasure, self.victim)
        )
        return cell_id(
            self.data.info.selector, protector, countermeasure, victim, self.protocol.name, self.seed, self.fraction
        )

    def _spelled(self) -> dict[str, Spelled]:
        """Return the fields of ``identity()``."""
        shared = self.shared
        axes = self.protocol, self.countermeasure, self.victim
        return {
            "engine": shared.scalar(ENGINE_REVISION),
            "train": shared.scalar(self.data.train_fingerprint),
            "test": shared.scalar(self.data.test_fingerprint),
            "protector": shared.identity(self.protector),
            "countermeasure": shared.identity(self.applied),
            "victim": shared.identity(self.victim),
            "protocol": shared.once("protocol", axes, (), lambda: spell(protocol_identity(self.recipe))),
            "seed": shared.scalar(self.seed),
            "fraction": shared.scalar(self.fraction),
            "precision": shared.scalar(self.precision),
        }

    def identity(self) -> dict[str, Any]:
        """Return everything that can change the number, as plain data."""
        return {name: deepcopy(one.value) for name, one in self._spelled().items()}

    @property
    def key(self) -> str:
        """Digest of ``identity()``."""
        kept = self.__dict__.get("_key")
        if kept is None:  # not a cached property: until Python 3.12 each takes a lock
            before, between, after = self._text()
            text = f"{before}{self.shared.identity(self.protector).text}{between}{self.seed}{after}"
            kept = self.__dict__["_key"] = digest_text(text)
        return kept

    def _text(self) -> tuple[str, str, str]:
        """Return the canonical JSON of ``identity()`` before, between and after the protector and the seed."""
        return self.shared.once(type(self), self._rest(), self._values(), self._around)

    def _rest(self) -> tuple[Any, ...]:
        """Return the axes beside protector and seed that are known by identity."""
        return self.data, self.countermeasure, self.victim, self.protocol

    def _values(self) -> tuple[Any, ...]:
        """Return the axes beside protector and seed that are known by value."""
        return self.fraction, self.precision

    def _around(self) -> tuple[str, str, str]:
        """Return what ``_text`` keeps."""
        fields = {name: one.text for name, one in self._spelled().items()}
        fields |= {"protector": "\0", "seed": "\0"}  # which is in no JSON
        before, between, after = joined(fields).split("\0")
        return before, between, after


class Cells(Sequence[Cell]):
    """The whole grid, in the order in which a reader expects its rows. A cell is there while somebody holds it."""

    def __init__(
        self,
        data: Data,
        protectors: Sequence[Protector],
        countermeasures: Sequence[Countermeasure],
        victims: Sequence[Victim],
        protocol: Protocol,
        seeds: Sequence[int],
        fraction: float,
        precision: str,
    ) -> None:
        self.data, self.protocol, self.fraction, self.precision = data, protocol, fraction, precision
        self.axes = protectors, victims, seeds, countermeasures  # the last one changes first
        self.shared = Shared()

    def wanted(self) -> Wanted:
        """Return what a results folder keeps of this grid."""
        protectors, victims, seeds, countermeasures = self.axes
        selectors = [[self.shared.selector(p) for p in axis] for axis in (protectors, countermeasures, victims)]
        info = self.data.info
        return Wanted(
            dataset=info.selector, fingerprint=info.fingerprint, protectors=selectors[0], countermeasures=selectors[1],
            victims=selectors[2], protocol=self.protocol.name, seeds=seeds, fraction=self.fraction,
            precision=self.precision,
        )  # fmt: skip

    def __len__(self) -> int:
        return math.prod(map(len, self.axes))

    def _cell(self, protector: Protector, victim: Victim, seed: int, countermeasure: Countermeasure) -> Cell:
        return Cell(
            self.data, protector, countermeasure, victim, self.protocol, seed, self.fraction, self.precision,
            shared=self.shared,
        )  # fmt: skip

    def __iter__(self) -> Iterator[Cell]:
        protectors, victims, seeds, countermeasures = self.axes
        if not protectors:
            return
        # Keys are computed here, from what rows and columns have in common: cell by cell it takes a plan twice as long.
        columns = [[(c, self._cell(protectors[0], v, 0, c)._text()) for c in countermeasures] for v in victims]
        for protector, (victim, column), seed in product(protectors, zip(victims, columns, strict=True), seeds):
            identity = self.shared.identity(protector).text
            for countermeasure, (before, between, after) in column:
                cell = self._cell(protector, victim, seed, countermeasure)
                cell.__dict__["_key"] = digest_text(f"{before}{identity}{between}{seed}{after}")
                yield cell

    @overload
    def __getitem__(self, index: int) -> Cell: ...
    @overload
    def __getitem__(self, index: slice) -> list[Cell]: ...
    def __getitem__(self, index: int | slice) -> Cell | list[Cell]:
        places = range(len(self))[index]
        if isinstance(places, range):
            return [self[place] for place in places]
        chosen: list[Any] = []
        for axis in reversed(self.axes):
            places, here = divmod(places, len(axis))
            chosen.append(axis[here])
        return self._cell(*reversed(chosen))


def cells(
    data: Data,
    protectors: Iterable[Protector],
    countermeasures: Iterable[Countermeasure],
    victims: Iterable[Victim],
    protocol: Protocol,
    seeds: Iterable[int],
    fraction: float,
    precision: str,
) -> Cells:
    """Return the whole grid, in the order in which a reader expects its rows.

    Raises UserError when a countermeasure needs more clean images than there are, or asks a protector that answers no
    queries, or acts in a training that a victim does not have; or when ``fraction`` has more digits than a result
    keeps, which would name another cell, or is above 0 and protects no image.
    """
    if fraction != float(kept := f"{fraction:.6g}"):
        raise UserError(f"the fraction {fraction!r} has more than six digits", f"give {kept}")
    images = data.info.train
    if fraction > 0 and not protected_images(fraction, images):
        raise UserError(
            f"a fraction of {fraction:g} of {images:,} images protects none",
            f"give {math.ceil(1e6 / images) / 1e6:g} or more",
        )
    rows, columns, networks = list(protectors), list(countermeasures), list(victims)
    for countermeasure in columns:
        applied = with_parameters(countermeasure, protocol.overrides)
        clean_data.check(applied, data.info.train)
        for protector in rows if applied.queries else ():
            clean_data.check_queries(applied, protector)
    for victim in networks:
        if not victim.trained_by_protocol:
            _check_stored_images_alone(victim, columns)
    return Cells(data, rows, columns, networks, protocol, list(seeds), fraction, precision)


def _check_stored_images_alone(victim: Victim, countermeasures: Sequence[Countermeasure]) -> None:
    """Raise UserError when a countermeasure acts in the training that ``victim`` does not have."""
    for countermeasure in countermeasures:
        acting = [m for m in ("augment", "loss", "selection_score", "after_training") if has(countermeasure, m)]
        if acting:
            raise UserError(
                f"{countermeasure.selector} acts in training, and no protocol trains {victim.selector}",
                "choose countermeasures on stored images, or another victim",
            )
