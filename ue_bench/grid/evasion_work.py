"""Doing the work of one stage of evasion."""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..contract import clean_data
from ..contract.imageset import ImageSet
from ..seeds import derive
from ..store import perturbation, schema
from ..store.artifacts import ArtifactStore, load_images, save_images
from ..store.evasion import EvasionResult, EvasionStore
from .evasion_plan import ClassifierStage, EvadeStage, ProtectTestStage, PurifyTestStage
from .plan import EvasionStage
from .stages import Report, RunEnvironment, _context, _with_clean_data, environment

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .plan import Data


def execute(stage: EvasionStage, env: RunEnvironment, report: Report) -> None:
    """Compute ``stage`` and store what comes out. What exists already is left alone."""
    store = ArtifactStore(env.cache_dir)
    if isinstance(stage, ProtectTestStage):
        store.make(stage.kind, stage.key, lambda folder: _protect(stage, env, store, folder, report))
    elif isinstance(stage, PurifyTestStage):
        store.make(stage.kind, stage.key, lambda folder: _purify(stage, env, store, folder, report))
    elif isinstance(stage, ClassifierStage):
        _classifier(stage, env, store, report)
    elif isinstance(stage, EvadeStage) and not EvasionStore(env.out).has(stage.key):
        _evade(stage, env, store, report)


def _test_images(data: Data, images: int | None, store: ArtifactStore) -> ImageSet:
    """The test set, or some of it: the same images for every seed, in their order."""
    test = load_images(store.path("datasets", data.artifact) / "test")
    if images is None:
        return test
    where = np.sort(clean_data.draw(test.labels, images, derive(0, "test images")))
    return ImageSet(test.images[where], test.labels[where], test.class_names, test.source)


def _protect(stage: ProtectTestStage, env: RunEnvironment, store: ArtifactStore, folder: Path, report: Report) -> None:
    train = load_images(store.path("datasets", stage.data.artifact) / "train")
    test = _test_images(stage.data, stage.images, store)
    with _context(env, store, stage.seed, report, stage.precision, learn_from=train) as ctx:
        started = time.perf_counter()
        protected = stage.protector.protect(test, ctx)
        seconds = time.perf_counter() - started
        perturbation.check(stage.protector, test, protected)
        save_images(folder, protected)
    made = {"label": stage.label, "seconds": seconds}
    (folder / "protect.json").write_text(schema.json_text(made), encoding="utf-8")


def _purify(stage: PurifyTestStage, env: RunEnvironment, store: ArtifactStore, folder: Path, report: Report) -> None:
    protected = load_images(store.path("protected", stage.protect.key))
    with _context(env, store, stage.seed, report) as ctx:
        ctx = _with_clean_data(ctx, stage.countermeasure, stage.cell.own, store)
        save_images(folder, stage.countermeasure.purify(protected, ctx))


def _classifier(stage: ClassifierStage, env: RunEnvironment, store: ArtifactStore, report: Report) -> nn.Module:
    from .surrogates import surrogate

    train = load_images(store.path("datasets", stage.data.artifact) / "train")
    with _context(env, store, stage.seed, report, stage.precision) as ctx:
        return surrogate(ctx, train, stage.victim, stage.recipe, "vanilla")


def _evade(stage: EvadeStage, env: RunEnvironment, store: ArtifactStore, report: Report) -> None:
    import torch

    from ..engine import loop

    cell, treatment = stage.cell, stage.cell.countermeasure
    original = _test_images(cell.data, cell.images, store)
    model = _classifier(stage.classifier, env, store, report)
    with _context(env, store, stage.purify.seed, report) as ctx:
        if store.has("purified", stage.purify.key):
            shown = load_images(store.path("purified", stage.purify.key))
        else:
            shown = load_images(store.path("protected", stage.protect.key))
            if treatment.overrides("purify"):
                shown = treatment.purify(shown, _with_clean_data(ctx, treatment, cell.own, store))
        likeness = perturbation.measure(original, shown, "none")
        generator = torch.Generator(env.device).manual_seed(derive(cell.seed, "evasion"))

        def augment(x: Tensor) -> Tensor:
            blind = torch.zeros(len(x), dtype=torch.int64, device=x.device)
            return treatment.augment(x, blind, generator)[0]

        accuracy = loop.accuracy(
            model,
            loop.Pixels(shown, torch.device(env.device)),
            replace(ctx, precision=cell.precision).autocast,
            augment if treatment.overrides("augment") else None,
        )
    result = EvasionResult(
        key=cell.key,
        id=cell.id,
        dataset=cell.data.info,
        images=len(original),
        protector=cell.protector.selector,
        countermeasure=treatment.selector,
        victim=cell.victim.selector,
        protocol=cell.protocol.name,
        protocol_version=cell.protocol.version,
        seed=cell.seed,
        transfer=cell.transfer,
        precision=cell.precision,
        accuracy=accuracy,
        psnr=likeness.psnr,
        ssim=likeness.ssim,
        classifier=checksum(model),
        environment=environment(env),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    EvasionStore(env.out).write(result)


def checksum(network: nn.Module) -> str:
    """SHA-256 (first 16 digits) of the weights, by which a network is known."""
    found = hashlib.sha256()
    for value in network.state_dict().values():
        found.update(value.cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]
