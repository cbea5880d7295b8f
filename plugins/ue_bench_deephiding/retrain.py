"""Training a hiding network from images, and writing it to a file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from ue_bench.api import Context, EnvironmentProblem, ImageSet

from .hinet import HidingNetwork
from .training import Covers, Recipe, train_hider

if TYPE_CHECKING:
    from .protector import DeepHiding

EXTRACTOR_EPOCHS = 6
TRAINING_BANK = 100  # hidden images a class during training (paper)


def fit(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    bank: NDArray[np.uint8],
    recipe: Recipe,
    device: str,
    amp: bool,
    report: Callable[[float, float, str], None],
    checkpoint: Path | None = None,
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Extractor, then hider: the best weights and a record of the run (curve, recipe, extractor checksum).

    Continues from ``checkpoint`` when that folder holds the state of the same run that was killed.
    """
    try:
        from .extractor import checksum, train_extractor

        covers = Covers(images, labels, recipe.size)
        report(0, recipe.steps, "train feature extractor")
        extractor = train_extractor(covers, len(bank), EXTRACTOR_EPOCHS, recipe.seed, amp)
    except (ImportError, RuntimeError) as error:
        if "torchvision" not in str(error):
            raise
        raise EnvironmentProblem(
            "training a hiding network needs torchvision, which does not work here", "see 'ue-bench doctor'"
        ) from error
    extractor = extractor.to(device=device, memory_format=torch.channels_last)
    state_file = checkpoint / "state.pt" if checkpoint else None
    state = torch.load(state_file, map_location=device) if state_file and state_file.exists() else None

    def save(step: int, state: dict[str, Any]) -> None:
        if state_file:
            torch.save(state, state_file.with_suffix(".new"))
            state_file.with_suffix(".new").replace(state_file)

    weights, curve = train_hider(
        HidingNetwork(seed=recipe.seed),
        covers,
        bank,
        recipe,
        device,
        extractor,
        amp,
        on_step=lambda step, now: report(step, recipe.steps, f"train hider, loss {now['loss']:.4f}"),
        state=state,
        save=save,
    )
    return weights, {"curve": curve, "extractor": checksum(extractor)}


def train_on(protector: DeepHiding, data: ImageSet, ctx: Context, key: Any, target: Path) -> None:
    """Train on the clean set that is to be protected, with a bank of the protector's own kind."""
    from .writing import write_network

    size = min(data.size) // 2 * 2
    many = protector.model_copy(update={"mode": "sample", "bank_size": TRAINING_BANK})
    bank = many.bank(data, (size, size), ctx)
    recipe = Recipe(steps=protector.train_steps, size=size, seed=ctx.seed % 2**31)
    checkpoint = ctx.checkpoint_dir(key)
    amp = ctx.device.startswith("cuda")
    weights, record = fit(data.images, data.labels, bank, recipe, ctx.device, amp, ctx.report, checkpoint)
    write_network(target / "hider.safetensors", weights)
    (target / "hider.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    shutil.rmtree(checkpoint)
