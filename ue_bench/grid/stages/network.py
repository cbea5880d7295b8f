"""The trained victim of a cell, kept: what figures look into."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...contract.imageset import ImageSet
from ...keys import digest
from ...store.artifacts import load_images
from .base import Work
from .protect import ProtectStage
from .purify import PurifyStage
from .queries import with_clean_data
from .train import purified_images, saved_state, train_victim
from .trained_artifact import TrainedArtifactStage

if TYPE_CHECKING:
    from torch import nn

WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class NetworkStage(TrainedArtifactStage):
    """Train a cell's victim and keep its weights. It is the network that the cell's result is of."""

    kind = "networks"

    @cached_property
    def key(self) -> str:
        return digest({"network": 1, "cell": self.cell.key})

    @property
    def label(self) -> str:
        return f"network {self.cell.id}"

    def fill(self, folder: Path, work: Work) -> None:
        from safetensors.torch import save_file

        model, _, _ = train_victim(self.cell, work, saved_state(self, work))
        # Contiguous: the loop keeps weights of convolutions with channels last.
        weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
        save_file(weights, folder / WEIGHTS)

    def network(self, work: Work) -> nn.Module:
        """Return the stored network, of pixels in [0, 1], in eval mode and on the device of ``work``."""
        import torch
        from safetensors.torch import load_file

        from ...engine import loop

        data = self.cell.data.info
        with torch.random.fork_rng(devices=[]):  # what build draws is overwritten
            network = self.cell.victim.build(data.classes, (data.height, data.width))
        model = loop.ShiftedInput.under(self.cell.recipe, network)
        model.load_state_dict(load_file(self.folder(work.artifacts) / WEIGHTS))
        return model.to(work.env.device).eval()

    def protected(self, work: Work, index: int) -> NDArray[np.uint8]:
        """Return one training image as it was protected, before any countermeasure."""
        stored = load_images(ProtectStage.of(self.cell).folder(work.artifacts))
        return np.asarray(stored.images[index])

    def images(self, work: Work) -> ImageSet:
        """Return the images that the network was trained on: protected, and purified where that is done."""
        with work.context(PurifyStage.of(self.cell).stage_seed) as ctx:
            ctx = with_clean_data(ProtectStage.of(self.cell), ctx, self.cell.applied, work.artifacts)
            return purified_images(self.cell, work, ctx)
