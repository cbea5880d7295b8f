"""A generator from images: the one way to train it, for the protector and for ``ue-bench raeg train``."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

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

from .discriminator import SMALLEST
from .encoder_decoder import create
from .generator import padded
from .keys import write_generator
from .losses import Features
from .recipe import Recipe
from .targets import Ensemble, Pooled, checksum, imagenet_features
from .training import Batches, train

if TYPE_CHECKING:
    from .protector import Raeg

FILE = "generator.safetensors"
OWN_FEATURES = "vgg16"  # the victim whose features perceptual=own takes


def fit(
    protector: Raeg, data: ImageSet, ctx: Context, checkpoint: Path
) -> tuple[dict[str, torch.Tensor], Recipe, dict[str, Any]]:
    """Train targets, then the generator, on the clean set ``data``; return best weights, recipe and a record.

    The folder ``checkpoint`` holds the state of the run: one that was killed continues there and ends with the same
    weights. A folder in which a run with other settings was begun is refused with UserError.

    Raises EnvironmentProblem when ImageNet weights are asked for and cannot be had, ValidationError when training
    fails, UserError when a target is not one victim.
    """
    recipe = protector.recipe(len(data), ctx.seed % 2**31)
    targets = protector.target_names
    settings: dict[str, Any] = {
        "data": describe_data(data),
        "targets": targets,
        "targets_recipe": protector.targets_recipe,
        "recipe": asdict(recipe),
        "precision": ctx.precision,
    }
    settings = json.loads(json.dumps(settings, allow_nan=False))  # tuples are lists in the record
    if recipe.gan != "off" and min(padded(side) for side in data.size) < SMALLEST:
        raise UserError(f"images of {data.size[0]} x {data.size[1]} are too small for the discriminator", "use gan=off")
    claim_checkpoint(checkpoint, settings)
    started = time.monotonic()
    # Before the targets, which take long: this may fail at once.
    features = perceptual_features(protector, recipe, data, ctx)
    networks = [ctx.surrogate(data, name, **protector.targets_recipe) for name in targets]
    spent = time.monotonic() - started
    state_file = checkpoint / "generator.pt"
    state = load_checkpoint(state_file, ctx.device)
    started = time.monotonic() - (state["seconds"] if state else spent)

    def on_step(step: int, now: dict[str, float]) -> None:
        ctx.report(step, recipe.steps, f"train generator, loss {now['loss']:.4f}")

    def keep(state: dict[str, Any]) -> None:
        save_checkpoint(state_file, {**state, "seconds": time.monotonic() - started})

    network = create(recipe.network, seed=recipe.seed)
    batches = Batches(data, recipe.batch, recipe.validation, recipe.flip, recipe.seed)
    weights, curve = train(
        network, batches, Ensemble(networks, recipe.joint), features, recipe,
        ctx.device, ctx.precision == "bf16", on_step, state, keep,
    )  # fmt: skip
    record = {
        **settings,
        "target_checksums": [checksum(n) for n in networks],
        "checksum": weights_checksum(weights),
        "achieved": best_validation(curve),
        "environment": describe_environment(ctx.device),
        "seconds": round(time.monotonic() - started, 1),
        "curve": curve,
    }
    return weights, recipe, record


def train_on(protector: Raeg, data: ImageSet, ctx: Context, key: Any, target: Path) -> None:
    """Train on the set that is to be protected, into the folder ``target``."""
    checkpoint = ctx.checkpoint_dir(key)
    weights, recipe, record = fit(protector, data, ctx, checkpoint)
    write_generator(target / FILE, weights, recipe.network, record)
    shutil.rmtree(checkpoint)


def perceptual_features(protector: Raeg, recipe: Recipe, data: ImageSet, ctx: Context) -> Features | None:
    """Return what the perceptual loss compares, if there is one."""
    if recipe.perceptual == "off":
        return None
    if recipe.perceptual == "imagenet":
        return imagenet_features().to(ctx.device)
    return Pooled(ctx.surrogate(data, OWN_FEATURES, **protector.targets_recipe))


def weights_checksum(weights: dict[str, torch.Tensor]) -> str:
    """Return the SHA-256 (first 16 digits) of the weights in half precision, as they are stored, ordered by name."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode() + weights[name].cpu().half().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
