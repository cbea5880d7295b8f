"""What the harness would hand over, for tests."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from toys import planned, toy_cell

from ue_bench.api import Countermeasure, ImageSet, TrainContext
from ue_bench.grid.stages.purify import PurifyStage
from ue_bench.grid.stages.train import TrainStage

Images = NDArray[np.uint8]
Purify = Callable[[Countermeasure, Images], Images]


def image_set(images: Images) -> ImageSet:
    return ImageSet(images, np.zeros(len(images), dtype=np.int64), ("only",))


def train_context(seed: int = 0) -> TrainContext:
    return TrainContext(generator=torch.Generator().manual_seed(seed), epoch=0, epochs=1, autocast=nullcontext)


def is_kept(countermeasure: Countermeasure) -> bool:
    """Return whether a grid keeps what ``countermeasure`` purifies, which is then a stage of its own."""
    steps = planned([TrainStage(toy_cell(countermeasure=countermeasure))])
    return any(isinstance(step.stage, PurifyStage) for step in steps)


def planes(*rows: list[int]) -> Images:
    """One image whose three channels all hold these rows."""
    return np.repeat(np.array([rows], dtype=np.uint8)[..., None], 3, axis=3)


def tiny_model(folder: Path, seed: int = 0, size: int | None = 8, dropout: float = 0.0, **scheduler: Any) -> Path:
    """A diffusers folder of a UNet with random weights, and of a scheduler with these arguments."""
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    outputs = 6 if scheduler.get("variance_type", "").startswith("learned") else 3
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DModel(
            sample_size=size, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4, out_channels=outputs,
            down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2, add_attention=False,
            dropout=dropout,
        )  # fmt: skip
    pipeline: Any = DDPMPipeline(unet=unet, scheduler=DDPMScheduler(**scheduler))
    pipeline.save_pretrained(folder)
    return folder


class Classifier(nn.Module):
    """A small network with batch normalisation and dropout that keeps what it was called with."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(32, 10),
        )
        self.calls: list[tuple[bool, Tensor]] = []
        self.learning: list[bool] = []

    def keep_all(self) -> None:
        """Turns dropout off."""
        for layer in self.layers:
            if isinstance(layer, nn.Dropout):
                layer.p = 0.0

    def forward(self, x: Tensor) -> Tensor:
        self.learning.append(any(parameter.requires_grad for parameter in self.parameters()))
        self.calls.append((self.training, x.detach().clone()))
        logits: Tensor = self.layers(x)
        return logits
