"""Doing the work of one stage of evasion."""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .. import budget, clean
from ..imageset import ImageSet
from ..plan import EvasionStage
from ..seeds import derive
from ..stages import Report, Workplace, _context, _with_clean_data, environment
from ..store import schema
from ..store.artifacts import ArtifactStore, load_images, save_images
from ..store.evasion import EvasionResult, EvasionStore
from .plan import ClassifierStage, EvadeStage, ProtectTestStage, PurifyTestStage

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..plan import Data


def execute(stage: EvasionStage, place: Workplace, report: Report) -> None:
    """Compute ``stage`` and store what comes out. What exists already is left alone."""
    store = ArtifactStore(place.cache_dir)
    if isinstance(stage, ProtectTestStage):
        store.make(stage.kind, stage.key, lambda folder: _protect(stage, place, store, folder, report))
    elif isinstance(stage, PurifyTestStage):
        store.make(stage.kind, stage.key, lambda folder: _purify(stage, place, store, folder, report))
    elif isinstance(stage, ClassifierStage):
        _classifier(stage, place, store, report)
    elif isinstance(stage, EvadeStage) and not EvasionStore(place.out).has(stage.key):
        _evade(stage, place, store, report)


def _test_images(data: Data, images: int | None, store: ArtifactStore) -> ImageSet:
    """The test set, or some of it: the same images for every seed, in their order."""
    test = load_images(store.path("datasets", data.artifact) / "test")
    if images is None:
        return test
    where = np.sort(clean.draw(test.labels, images, derive(0, "test images")))
    return ImageSet(test.images[where], test.labels[where], test.class_names, test.source)


def _protect(stage: ProtectTestStage, place: Workplace, store: ArtifactStore, folder: Path, report: Report) -> None:
    train = load_images(store.path("datasets", stage.data.artifact) / "train")
    test = _test_images(stage.data, stage.images, store)
    with _context(place, store, stage.seed, report, stage.precision, learn_from=train) as ctx:
        started = time.perf_counter()
        protected = stage.protector.protect(test, ctx)
        seconds = time.perf_counter() - started
        budget.check(stage.protector, test, protected)
        save_images(folder, protected)
    made = {"label": stage.label, "seconds": seconds}
    (folder / "protect.json").write_text(schema.json_text(made), encoding="utf-8")


def _purify(stage: PurifyTestStage, place: Workplace, store: ArtifactStore, folder: Path, report: Report) -> None:
    protected = load_images(store.path("protected", stage.protect.key))
    with _context(place, store, stage.seed, report) as ctx:
        ctx = _with_clean_data(ctx, stage.countermeasure, stage.cell.own, store)
        save_images(folder, stage.countermeasure.purify(protected, ctx))


def _classifier(stage: ClassifierStage, place: Workplace, store: ArtifactStore, report: Report) -> nn.Module:
    from ..surrogates import surrogate

    train = load_images(store.path("datasets", stage.data.artifact) / "train")
    with _context(place, store, stage.seed, report, stage.precision) as ctx:
        return surrogate(ctx, train, stage.victim, stage.recipe, "vanilla")


def _evade(stage: EvadeStage, place: Workplace, store: ArtifactStore, report: Report) -> None:
    import torch

    from ..engine import loop

    cell, treatment = stage.cell, stage.cell.countermeasure
    original = _test_images(cell.data, cell.images, store)
    model = _classifier(stage.classifier, place, store, report)
    with _context(place, store, stage.purify.seed, report) as ctx:
        if store.has("purified", stage.purify.key):
            shown = load_images(store.path("purified", stage.purify.key))
        else:
            shown = load_images(store.path("protected", stage.protect.key))
            if treatment.overrides("purify"):
                shown = treatment.purify(shown, _with_clean_data(ctx, treatment, cell.own, store))
        likeness = budget.measure(original, shown, "none")
        generator = torch.Generator(place.device).manual_seed(derive(cell.seed, "evasion"))

        def augment(x: Tensor) -> Tensor:
            blind = torch.zeros(len(x), dtype=torch.int64, device=x.device)
            return treatment.augment(x, blind, generator)[0]

        accuracy = loop.accuracy(
            model,
            loop.Pixels(shown, torch.device(place.device)),
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
        environment=environment(place),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    EvasionStore(place.out).write(result)


def checksum(network: nn.Module) -> str:
    """SHA-256 (first 16 digits) of the weights, by which a network is known."""
    found = hashlib.sha256()
    for value in network.state_dict().values():
        found.update(value.cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]
