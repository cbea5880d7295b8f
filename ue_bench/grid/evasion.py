"""Cells of evasion: classifiers that were trained on clean images are shown protected test images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..catalogue.registry import registry
from ..contract.combination import has, parts
from ..contract.plugin import Victim
from ..contract.protocol import Protocol
from ..errors import UserError
from .cell import ENGINE_REVISION, Cell, protocol_identity
from .shared import Spelled, spell

REVISION = 2  # raise when a change moves results of evasion alone


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
        """Return the cell of evasion with the choices of ``cell``.

        Raises UserError when they have no meaning for a trained network.
        """
        countermeasure, test = cell.countermeasure, cell.data.info.test
        trains = any(has(countermeasure, method) for method in ("loss", "selection_score", "after_training"))
        if trains or any(part.uses_labels for part in parts(countermeasure)):
            raise UserError(
                f"{countermeasure.selector} trains networks or reads labels: it does nothing for a trained classifier",
                "choose what changes images alone; 'ue-bench list countermeasures' names sets of them",
            )
        if countermeasure.needs_pairs:
            raise UserError(
                f"{countermeasure.selector} goes by rows of the training set: test images have none there",
                "choose what changes images alone; 'ue-bench list countermeasures' names sets of them",
            )
        if type(cell.victim).pretrain is not Victim.pretrain:
            raise UserError(f"{cell.victim.selector} learns something of its own first", "choose another classifier")
        if images is not None and images > test:
            raise UserError(f"{images:,} test images are wanted, there are {test:,}", "ask for fewer")
        chosen = None if images == test else images
        return cls(
            cell.data, cell.protector, countermeasure, cell.victim, cell.protocol, cell.seed, 1.0, cell.precision,
            chosen, transfer, shared=cell.shared,
        )  # fmt: skip

    def _recipe(self) -> Protocol:
        """Return how the classifier is trained, under the name that surrogates have: it is the same network."""
        named = self.protocol.model_copy(update={"name": "surrogate", "version": 1, "eval_every": 1})
        return named.under([registry().one("countermeasure", "@plain").name], self.victim.optimizer(), self.victim.name)

    @property
    def recipe(self) -> Protocol:
        return self.shared.once("surrogate recipe", (self.protocol, self.victim), (), self._recipe)

    @cached_property
    def id(self) -> str:
        selector = self.shared.selector
        fields = [
            self.data.info.selector + ("" if self.images is None else f"@{self.images}"),
            selector(self.protector),
            selector(self.countermeasure),
            selector(self.victim),
            self.protocol.name,
            f"s{self.seed}",
            "transfer" if self.transfer else "evasion",
        ]
        return "/".join(fields)

    def _values(self) -> tuple[Any, ...]:
        return self.precision, self.images, self.transfer

    def _spelled(self) -> dict[str, Spelled]:
        shared = self.shared
        axes = self.protocol, self.victim
        return {
            "evasion": shared.scalar(REVISION),
            "engine": shared.scalar(ENGINE_REVISION),
            "train": shared.scalar(self.data.train_fingerprint),
            "test": shared.scalar(self.data.test_fingerprint),
            "images": shared.scalar(self.images),
            "protector": shared.identity(self.protector),
            "countermeasure": shared.identity(self.countermeasure),
            "victim": shared.identity(self.victim),
            "recipe": shared.once("surrogate protocol", axes, (), lambda: spell(protocol_identity(self.recipe))),
            "transfer": shared.scalar(self.transfer),
            "seed": shared.scalar(self.seed),
            "precision": shared.scalar(self.precision),
        }
