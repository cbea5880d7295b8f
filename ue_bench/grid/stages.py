"""Doing the work of one stage, in whatever process it was sent to."""

from __future__ import annotations

import contextlib
import platform
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import __version__, machine
from ..catalogue.registry import registry
from ..contract import clean_data
from ..contract.combination import purifiers
from ..contract.context import Context
from ..contract.imageset import ImageSet
from ..contract.plugin import Countermeasure, Dataset
from ..errors import ValidationError
from ..keys import digest
from ..seeds import derive
from ..store import perturbation, schema
from ..store.artifacts import ArtifactStore, load_images, read_json, save_images
from ..store.results import ResultStore
from .plan import Data, EvasionStage, FeatureStage, ProtectStage, PurifyStage, Stage, TrainStage

if TYPE_CHECKING:
    from torch import nn

    from ..engine import loop

Report = Callable[[float, float, str], None]


@dataclass(frozen=True)
class RunEnvironment:
    """Where a stage finds and puts things, and what it runs on."""

    cache_dir: Path
    data_dir: Path
    out: Path
    device: str = "cpu"
    threads: int = 1


def execute(stage: Stage, env: RunEnvironment, report: Report, attempt: int = 1) -> None:
    """Compute ``stage`` and store what comes out. What exists already is left alone, even if its maker died since."""
    store = ArtifactStore(env.cache_dir)
    if isinstance(stage, ProtectStage):
        store.make(stage.kind, stage.key, lambda folder: _protect(stage, env, store, folder, report))
    elif isinstance(stage, PurifyStage):
        store.make(stage.kind, stage.key, lambda folder: _purify(stage, env, store, folder, report))
    elif isinstance(stage, EvasionStage):
        from . import evasion_work

        evasion_work.execute(stage, env, report)
    elif isinstance(stage, FeatureStage):
        store.make(stage.kind, stage.key, lambda folder: _features(stage, env, store, folder, report))
    elif not ResultStore(env.out).has(stage.key):
        _train(stage, env, store, report, attempt)


@contextlib.contextmanager
def _context(
    env: RunEnvironment,
    store: ArtifactStore,
    seed: int,
    report: Report,
    precision: str = "fp32",
    learn_from: ImageSet | None = None,
) -> Iterator[Context]:
    def open_dataset(selector: str, split: str) -> ImageSet:
        [plugin] = registry().resolve("dataset", selector)
        assert isinstance(plugin, Dataset)
        return load_images(store.path("datasets", dataset(plugin, env, report).artifact) / split)

    with store.scratch() as scratch:
        yield Context(
            env.device, seed, scratch, store.root, env.data_dir, report, open_dataset, precision,
            learn_from=learn_from,
        )  # fmt: skip


def dataset(plugin: Dataset, env: RunEnvironment, report: Report) -> Data:
    """``plugin`` as a stored, memory-mapped set; loaded only if its files or parameters changed.

    Raises ValidationError when training and test set do not fit together, or one of them is empty.
    """
    store = ArtifactStore(env.cache_dir)
    parameters = plugin.identity()
    stamps = [_stamp(path) for path in plugin.files(env.data_dir)]
    key = digest({"dataset": parameters, "files": stamps})

    def fill(folder: Path) -> None:
        with _context(env, store, 0, report) as ctx:
            train, test = plugin.load("train", ctx), plugin.load("test", ctx)
            if train.class_names != test.class_names:
                odd = sorted(set(train.class_names) ^ set(test.class_names))
                how = f"different classes: {', '.join(odd[:5])}" if odd else "the same classes in another order"
                raise ValidationError(
                    f"training and test set of {plugin.selector} have {how}",
                    "both need the same class names in the same order",
                )
            if train.size != test.size:
                raise ValidationError(
                    f"training images of {plugin.selector} are {train.size}, test images {test.size}",
                    "bring them to one size with size=...",
                )
            if not len(train) or not len(test):
                raise ValidationError(
                    f"{plugin.selector} has {len(train)} training and {len(test)} test images", "both need some"
                )
            save_images(folder / "train", train)
            save_images(folder / "test", test)

    folder = store.make("datasets", key, fill)
    train, test = load_images(folder / "train"), load_images(folder / "test")
    info = schema.DatasetInfo(
        selector=plugin.selector,
        source=train.source or plugin.name,
        train=len(train),
        test=len(test),
        classes=train.num_classes,
        height=train.size[0],
        width=train.size[1],
        fingerprint=digest([train.fingerprint, test.fingerprint])[:16],
    )
    return Data(plugin, key, info, train.fingerprint, test.fingerprint)


def _stamp(path: Path) -> Any:
    """What tells that a file or folder changed, without reading it."""
    if path.is_dir():
        return [path.name, [_stamp(p) for p in sorted(path.iterdir())]]
    status = path.stat()
    return [path.name, status.st_size, status.st_mtime_ns]


def _protect(stage: ProtectStage, env: RunEnvironment, store: ArtifactStore, folder: Path, report: Report) -> None:
    clean = load_images(store.path("datasets", stage.data.artifact) / "train")
    with _context(env, store, stage.stage_seed, report, stage.precision) as ctx:
        started = time.perf_counter()
        protected = stage.protector.protect(clean, ctx)
        seconds = time.perf_counter() - started
        perturbation.check(stage.protector, clean, protected)
        save_images(folder, protected)
        measured = perturbation.measure(clean, protected, stage.protector.budget)
    made = {"label": stage.label, "seconds": seconds, "budget": measured.model_dump()}
    (folder / "protect.json").write_text(schema.json_text(made), encoding="utf-8")


def _purify(stage: PurifyStage, env: RunEnvironment, store: ArtifactStore, folder: Path, report: Report) -> None:
    with _context(env, store, stage.stage_seed, report) as ctx:
        data = _training_images(stage.protect, stage.fraction, store, ctx)
        ctx = _with_clean_data(ctx, stage.countermeasure, stage.protect, store)
        save_images(folder, stage.countermeasure.purify(data, ctx))


def _training_images(stage: ProtectStage, fraction: float, store: ArtifactStore, ctx: Context) -> ImageSet:
    """The protected set, or a mixture in which a seeded choice of ``1 - fraction`` stays as it was."""
    protected = load_images(store.path(stage.kind, stage.key))
    if fraction == 1:
        return protected
    clean = load_images(store.path("datasets", stage.data.artifact) / "train")
    order = np.random.default_rng(derive(stage.seed, "fraction")).permutation(len(clean))
    keep = np.zeros(len(clean), dtype=bool)
    keep[order[: int(fraction * len(clean) + 1e-9)]] = True  # the floor, also where 0.29 * 100 is 28.999...

    def mix(images: np.ndarray[Any, Any], where: slice) -> np.ndarray[Any, Any]:
        return np.where(keep[where, None, None, None], protected.images[where], images)

    return ctx.map_images(clean, mix, "mix")


def _with_clean_data(
    ctx: Context, countermeasure: Countermeasure, protect: ProtectStage, store: ArtifactStore
) -> Context:
    """``ctx`` with the unprotected training images that the thief must own: the same ones against every protector."""
    if not countermeasure.clean_images:
        return ctx
    train = load_images(store.path("datasets", protect.data.artifact) / "train")
    clean_data.check(countermeasure, len(train))
    where = clean_data.draw(train.labels, countermeasure.clean_images, derive(protect.seed, "clean images"))
    parts = (train.images[where[start : start + 500]] for start in range(0, len(where), 500))
    images = ctx.store_images((len(where), *train.images.shape[1:]), parts)
    return replace(ctx, clean=ImageSet(images, train.labels[where], train.class_names, train.source))


def _fit(
    stage: TrainStage, env: RunEnvironment, store: ArtifactStore, report: Report
) -> tuple[nn.Module, loop.Outcome, ImageSet]:
    """The cell's victim, how its training went, and the images it was trained on."""
    from ..engine import loop

    cell = stage.cell
    folder = store.path("datasets", cell.data.artifact)
    with _context(env, store, stage.purify.stage_seed, report) as ctx:
        test = load_images(folder / "test")
        ctx = _with_clean_data(ctx, cell.countermeasure, stage.protect, store)
        if store.has("purified", stage.purify.key):
            train = load_images(store.path("purified", stage.purify.key))
        else:
            train = _training_images(stage.protect, cell.fraction, store, ctx)
            if cell.countermeasure.overrides("purify"):
                train = cell.countermeasure.purify(train, ctx)
        for purifier in purifiers(cell.countermeasure):
            if getattr(purifier, "apply_to_test", False):
                test = purifier.purify(test, clean_data.with_clean_data(ctx, purifier))
        alone = replace(ctx, seed=derive(cell.seed, "pretrain"), precision=cell.precision, clean=None)
        learnt = cell.victim.pretrain(train, alone)

        def build() -> nn.Module:
            network = cell.victim.build(train.num_classes, train.size)
            unknown = network.load_state_dict(learnt, strict=False).unexpected_keys
            if unknown:
                raise ValueError(f"{cell.victim.selector} learnt {unknown[0]}, which its network does not have")
            return network

        model, outcome = loop.train(
            build,
            train,
            test,
            cell.recipe,
            cell.countermeasure,
            env.device,
            cell.precision,
            derive(cell.seed, "train"),
            report,
            clean=ctx.clean,
        )
    return model, outcome, train


def _features(stage: FeatureStage, env: RunEnvironment, store: ArtifactStore, folder: Path, report: Report) -> None:
    from ..engine import features

    model, outcome, train = _fit(stage, env, store, report)
    within, between = features.cosines(model, train, env.device, stage.cell.precision)
    found = {"label": stage.label, "intra": within, "inter": between, "accuracy_last": outcome.accuracy_last}
    (folder / "features.json").write_text(schema.json_text(found), encoding="utf-8")


def environment(env: RunEnvironment) -> schema.Environment:
    """What work at ``place`` runs on."""
    import torch

    return schema.Environment(
        ue_bench=__version__,
        commit=_commit(),
        python=platform.python_version(),
        torch=torch.__version__,
        device=machine.label(env.device),
        threads=env.threads,
    )


def _train(stage: TrainStage, env: RunEnvironment, store: ArtifactStore, report: Report, attempt: int) -> None:
    from ..engine import memory

    cell = stage.cell
    memory.reset(env.device)
    _, outcome, _ = _fit(stage, env, store, report)
    peak = memory.peak_mb(env.device)
    last = outcome.accuracy_last
    assert last is not None  # there is a test set
    # A network that is changed after training may come to more than any point of the curve.
    points = [*zip(outcome.accuracy_test, outcome.epochs, strict=True), (last, outcome.epochs[-1])]
    peak_accuracy, peak_epoch = max(points, key=lambda point: point[0])  # the first of equals
    made = read_json(store.path("protected", stage.protect.key) / "protect.json")
    result = schema.Result(
        key=cell.key,
        id=cell.id,
        dataset=cell.data.info,
        protector=cell.protector.selector,
        countermeasure=cell.countermeasure.selector,
        victim=cell.victim.selector,
        protocol=cell.protocol.name,
        protocol_version=cell.protocol.version,
        seed=cell.seed,
        fraction=cell.fraction,
        precision=cell.precision,
        metrics=schema.Metrics(
            accuracy_last=last,
            accuracy_peak=peak_accuracy,
            peak_epoch=peak_epoch,
            accuracy_train=outcome.accuracy_train[-1],
            loss_train=outcome.loss_train[-1],
        ),
        budget=schema.Budget(**made["budget"]),
        cost=schema.Cost(
            protect_seconds=made["seconds"],
            train_seconds=outcome.train_seconds,
            images_per_second=outcome.images_per_second,
            peak_memory_mb=peak,
        ),
        environment=environment(env),
        attempts=attempt,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    curve = schema.Curve(
        key=cell.key,
        epoch=outcome.epochs,
        accuracy_test=outcome.accuracy_test,
        accuracy_train=outcome.accuracy_train,
        loss_train=outcome.loss_train,
    )
    ResultStore(env.out).write(result, curve)


@cache
def _commit() -> str:
    """Commit of the source tree this runs from, ``+`` when it was changed; empty for an installed copy."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return ""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        described = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty=+", "--abbrev=10", "--match=none"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
        return described.stdout.strip()
    return ""
