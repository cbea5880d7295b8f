"""A hiding network from images: the one way to train it, for ``retrain=true`` and for ``ue-bench deephiding train``."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ue_bench.api import (
    Context,
    ImageSet,
    UserError,
    best_validation,
    claim_checkpoint,
    describe_data,
    describe_environment,
    load_checkpoint,
    save_checkpoint,
)

from .extractor import checksum, imagenet_extractor, train_extractor, untrained_extractor
from .hinet import HidingNetwork
from .isgan import Isgan
from .isgan_training import train_isgan
from .networks import load_network
from .recipe import EPS, Recipe
from .training import Covers, train_hider
from .writing import write_hider

if TYPE_CHECKING:
    from .protector import DeepHiding

Report = Callable[[float, float, str], None]
TRAINING_BANK = 100  # hidden images a class during training (paper)


def fit(
    data: ImageSet,
    bank: NDArray[np.uint8],
    recipe: Recipe,
    device: str,
    amp: bool,
    checkpoint: Path,
    report: Report,
    start: Path | None = None,
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Train the extractor, then the hiding network; return the best weights, and a record of the run as plain data.

    ``start`` is a network to begin from, a file that this wrote; None: a fresh one.

    ``bank`` is uint8, classes x images x size x size x 3; ``amp`` is bfloat16 autocast. The folder ``checkpoint``
    holds the state of the run: a run that was killed continues there and ends with the same weights. A folder in
    which a run with other settings was begun is refused with UserError.

    Raises EnvironmentProblem when torchvision does not work, ValidationError when training fails, UserError when
    ``start`` is no such network.
    """
    settings: dict[str, Any] = {
        "data": describe_data(data),
        "bank": {"images_per_class": bank.shape[1], "checksum": hashlib.sha256(bank.tobytes()).hexdigest()[:16]},
        "recipe": asdict(recipe),
        "precision": "bf16" if amp else "fp32",
    }
    network: HidingNetwork | Isgan
    network = (
        Isgan(recipe.growth, recipe.seed)
        if recipe.hider == "isgan"
        else HidingNetwork(recipe.blocks, recipe.growth, recipe.seed)
    )
    if start is not None:
        _load_into(network, start)
        settings["start"] = _origin(start)
    claim_checkpoint(checkpoint, settings)
    covers = Covers(data.images, data.labels, recipe.size)
    extractor, spent = None, 0.0
    if recipe.hider == "hinet" and recipe.omega_conc:
        extractor, spent = _extractor(covers, len(bank), recipe, device, amp, checkpoint / "extractor.pt", report)
    state_file = checkpoint / "hider.pt"
    state = load_checkpoint(state_file, device)
    started = time.monotonic() - (state["seconds"] if state else spent)

    def on_step(step: int, now: dict[str, float]) -> None:
        report(step, recipe.last_step, f"train hiding network, loss {now['loss']:.4f}")

    def save(state: dict[str, Any]) -> None:
        save_checkpoint(state_file, {**state, "seconds": time.monotonic() - started})

    if isinstance(network, Isgan):
        weights, curve = train_isgan(network, covers, bank, recipe, device, amp, on_step, state, save)
    else:
        weights, curve = train_hider(network, covers, bank, recipe, device, extractor, amp, on_step, state, save)
    best = best_validation(curve)
    achieved = {name: best[name] for name in ("step", "psnr", "psnr_reveal", "mse")}
    return weights, {
        **settings,
        "extractor": checksum(extractor) if extractor else None,
        "achieved": {**achieved, "mse_over_eps_squared": best["mse"] / EPS**2},
        "environment": describe_environment(device),
        "seconds": round(time.monotonic() - started, 1),
        "curve": curve,
    }


def _origin(start: Path) -> dict[str, Any]:
    """Return what is known of the network in the file ``start``: a checksum, and the record beside it."""
    record = start.with_suffix(".json")
    return {
        "checksum": hashlib.sha256(start.read_bytes()).hexdigest()[:16],
        "record": json.loads(record.read_text(encoding="utf-8")) if record.is_file() else None,
    }


def _load_into(network: nn.Module, start: Path) -> None:
    """Load the weights in ``start`` into ``network``. Raises UserError when they are of another one."""
    loaded = load_network(start)
    try:
        network.load_state_dict(loaded.state_dict())
    except RuntimeError as error:
        raise UserError(f"{start} is a hiding network of another kind or size", "give its --hider") from error


def train_on(protector: DeepHiding, data: ImageSet, ctx: Context, key: Any, target: Path) -> None:
    """Train on the clean set that is to be protected, with a bank of the protector's own kind, into ``target``."""
    side = min(data.size) // 2 * 2
    recipe = protector.recipe(side, ctx.seed % 2**31)
    bank = protector.training_bank(data, TRAINING_BANK, (side, side), ctx)
    checkpoint = ctx.checkpoint_dir(key)
    amp = ctx.precision == "bf16"
    weights, record = fit(data, bank, recipe, ctx.device, amp, checkpoint, ctx.report, protector.origin)
    write_hider(target / "hider.safetensors", weights, recipe, record)
    shutil.rmtree(checkpoint)


def _extractor(
    covers: Covers, num_classes: int, recipe: Recipe, device: str, amp: bool, file: Path, report: Report
) -> tuple[nn.Module, float]:
    """Return the extractor and the seconds its training took, from ``file`` when it was finished before."""
    if recipe.extractor == "imagenet":
        return imagenet_extractor().to(device).to(memory_format=torch.channels_last), 0.0
    saved = load_checkpoint(file, device)
    if saved:
        extractor: nn.Module = untrained_extractor()
        extractor.load_state_dict(saved["weights"])
    else:
        started = time.monotonic()
        extractor = train_extractor(
            covers,
            num_classes,
            recipe.extractor_epochs,
            recipe.seed,
            amp,
            device,
            lambda step, steps, loss: report(step, steps, f"train feature extractor, loss {loss:.4f}"),
        )
        saved = {"weights": extractor.state_dict(), "seconds": time.monotonic() - started}
        save_checkpoint(file, saved)
    return extractor.to(device).to(memory_format=torch.channels_last), saved["seconds"]
