"""How alike the features are that a cell's victim makes of its training images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ...keys import digest
from ...store.artifacts import read_json
from ...store.schema import json_text
from .base import Stores, Work
from .train import saved_state, train_victim
from .trained_artifact import TrainedArtifactStage


@dataclass(frozen=True)
class FeatureStage(TrainedArtifactStage):
    """Train a cell's victim, and keep how alike the features of its training images are."""

    kind = "features"
    keeps_failure = True

    @cached_property
    def key(self) -> str:
        return digest({"features": 1, "cell": self.cell.key})

    @property
    def label(self) -> str:
        return f"features {self.cell.id}"

    def fill(self, folder: Path, work: Work) -> None:
        from ...engine import features

        model, outcome, train = train_victim(self.cell, work, saved_state(self, work))
        within, between = features.cosines(model, train, work.env.device, self.cell.precision)
        found = {"label": self.label, "intra": within, "inter": between, "accuracy_last": outcome.accuracy_last}
        (folder / "features.json").write_text(json_text(found), encoding="utf-8")

    def measured(self, stores: Stores) -> Mapping[str, float] | None:
        if not self.exists(stores):
            return None
        found = read_json(self.folder(stores.artifacts) / "features.json")
        return {name: found[name] for name in ("intra", "inter")} | {"accuracy": found["accuracy_last"]}
