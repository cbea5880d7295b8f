"""Training a victim on a protected set and measuring it: the stage that yields a cell's result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ...catalogue import protocols
from ...catalogue.data_files import OURS
from ...catalogue.registry import registry
from ...contract import clean_data
from ...contract.combination import parts, purifiers
from ...contract.context import Context
from ...contract.imageset import ImageSet
from ...contract.plugin import NetworkCost
from ...errors import Diverged
from ...seeds import derive
from ...store import schema
from ...store.artifacts import load_images, read_json
from ..cell import Cell, epochs
from ..data import stored_split
from .base import Stage, StageCost, Stores, Work
from .protect import ProtectStage
from .purify import PurifyStage, is_cached
from .queries import query_stages, with_clean_data

if TYPE_CHECKING:
    from torch import nn

    from ...engine import loop
    from ...engine.saving import SavedState


@dataclass(frozen=True)
class TrainStage(Stage):
    """Train and evaluate the victim of a cell."""

    cell: Cell

    kind = "result"
    keeps_failure = True
    stored_in = "out"

    @property
    def protect(self) -> ProtectStage:
        """The stage that protects the training images."""
        return ProtectStage.of(self.cell)

    @property
    def purify(self) -> PurifyStage:
        """The stage that purifies them, needed where the countermeasure keeps what it purified."""
        return PurifyStage.of(self.cell)

    @property
    def key(self) -> str:
        return self.cell.key

    @property
    def label(self) -> str:
        return self.cell.id

    def needs(self) -> Sequence[Stage]:
        return training_needs(self.cell)

    def cost(self) -> StageCost:
        return training_cost(self.cell)

    def exists(self, stores: Stores) -> bool:
        return self.key in stores.trained

    def is_stored(self, stores: Stores) -> bool:
        return stores.results.has(self.key)

    def measured(self, stores: Stores) -> Mapping[str, float] | None:
        result = stores.trained.get(self.key)
        if result is None:
            return None
        psnr = float("inf") if result.budget.psnr is None else result.budget.psnr  # nothing changed
        return {"accuracy": result.metrics.accuracy_last, "psnr": psnr, "ssim": result.budget.ssim}

    def run(self, work: Work) -> None:
        from ...engine import memory

        if work.stores.results.has(self.key):
            return
        memory.reset(work.env.device)
        saved = saved_state(self, work)
        _, outcome, _ = train_victim(self.cell, work, saved)
        peak = memory.peak_mb(work.env.device)
        work.check_lease()
        work.stores.results.write(*_records(self.cell, outcome, peak, work))
        saved.remove()


def training_needs(cell: Cell) -> Sequence[Stage]:
    """Return the stages that yield the images which the victim of ``cell`` is trained on."""
    protect = ProtectStage.of(cell)
    purify = (PurifyStage.of(cell),) if PurifyStage.needed(cell) else ()
    return (protect, *query_stages(protect, cell.applied), *purify)


def training_cost(cell: Cell) -> StageCost:
    """Return the expected work of training the victim of ``cell``."""
    axes = cell.protocol, cell.countermeasure, cell.victim
    return cell.shared.once("cost of training", axes, (cell.data.info.train,), lambda: _training_cost(cell))


def _training_cost(cell: Cell) -> StageCost:
    images = cell.data.info.train
    passes = cell.applied.passes * epochs(cell.recipe, images) if cell.victim.trained_by_protocol else 0.0
    before = cell.victim.cost(images)
    networks = (NetworkCost(cell.victim.selector, passes), *([before] if before else []))
    victim, countermeasure = cell.victim.selector, cell.countermeasure.selector
    return StageCost(images, networks, subjects=(f"{victim} under {countermeasure}", victim))


def saved_state(stage: Stage, work: Work) -> SavedState:
    """Return where the training of ``stage`` keeps its state until the outcome of the stage is stored."""
    from ...engine.saving import SavedState

    return SavedState(work.artifacts.path("unfinished", stage.key) / "state.pt", work.env.device)


def train_victim(cell: Cell, work: Work, saved: SavedState) -> tuple[nn.Module, loop.Outcome, ImageSet]:
    """Train the victim of ``cell``; return it, how its training went, and the images it was trained on.

    A training that was killed continues from ``saved``; whoever stores the outcome removes it. One that diverged would
    do so again, and leaves nothing to continue from.
    """
    from ...engine import loop, measure

    protect, purify, countermeasure = ProtectStage.of(cell), PurifyStage.of(cell), cell.applied
    with work.context(purify.stage_seed) as ctx:
        test = stored_split(work.artifacts, cell.data, "test")
        ctx = with_clean_data(protect, ctx, countermeasure, work.artifacts)
        train = purified_images(cell, work, ctx)
        for purifier in purifiers(countermeasure):
            if getattr(purifier, "apply_to_test", False):
                test = purifier.purify(test, clean_data.with_clean_data(ctx, purifier))
        alone = replace(
            ctx, seed=derive(cell.seed, "pretrain"), precision=cell.precision, clean=None, rows=None, queried=None
        )
        pretrained = cell.victim.pretrain(train, alone)

        def build() -> nn.Module:
            network = cell.victim.build(train.num_classes, train.size)
            unknown = network.load_state_dict(pretrained, strict=False).unexpected_keys
            if unknown:
                raise ValueError(f"{cell.victim.selector} learnt {unknown[0]}, which its network does not have")
            return network

        if not cell.victim.trained_by_protocol:
            shift, seed = cell.recipe.shift, derive(cell.seed, "train")
            model, outcome = measure.measure(build, train, test, shift, work.env.device, cell.precision, seed)
            return model, outcome, train
        try:
            model, outcome = loop.train(
                build,
                train,
                test,
                cell.recipe,
                countermeasure,
                work.env.device,
                cell.precision,
                derive(cell.seed, "train"),
                work.report,
                saved.load(),
                saved.offer,
                saved.due,
                clean=ctx.clean,
            )
        except Diverged:
            saved.remove()
            raise
    return model, outcome, train


def purified_images(cell: Cell, work: Work, ctx: Context) -> ImageSet:
    """Return the images that the victim of ``cell`` is trained on, which the stages that it needs have stored.

    ``ctx`` has the seed of purification, and the clean data that the countermeasure needs.
    """
    countermeasure = cell.applied
    if is_cached(countermeasure):
        train = load_images(PurifyStage.of(cell).folder(work.artifacts))
    else:
        train = ProtectStage.of(cell).training_images(cell.fraction, work.artifacts, ctx)
        if countermeasure.overrides("purify"):
            train = countermeasure.purify(train, ctx)
    return train.first(cell.recipe.images(len(train)))


def _distributions(cell: Cell) -> dict[str, str]:
    """Return the distributions, with versions, of plugins in the cell that do not come with ue-bench."""
    plugins = [cell.protector, *parts(cell.countermeasure), cell.victim]
    found = {f"{plugin.kind}/{plugin.name}": registry().distribution(plugin.kind, plugin.name) for plugin in plugins}
    return {name: distribution for name, distribution in found.items() if distribution not in ("", OURS)}


def _records(cell: Cell, outcome: loop.Outcome, peak_mb: float, work: Work) -> tuple[schema.Result, schema.Curve]:
    """Return what is stored of a finished training."""
    last = outcome.accuracy_last
    assert last is not None  # there is a test set
    # A network that is changed after training may come to more than any point of the curve.
    points = [*zip(outcome.accuracy_test, outcome.epochs, strict=True), (last, outcome.epochs[-1])]
    peak_accuracy, peak_epoch = max(points, key=lambda point: point[0])  # the first of equals
    made = read_json(ProtectStage.of(cell).folder(work.artifacts) / "protect.json")
    result = schema.Result(
        key=cell.key,
        cell=cell.identity(),
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
            learned=outcome.learned,
        ),
        budget=schema.Budget(**made["budget"]),
        cost=schema.Cost(
            protect_seconds=made["seconds"],
            train_seconds=outcome.train_seconds,
            images_per_second=outcome.images_per_second,
            peak_memory_mb=peak_mb,
            packed=work.packed,
            eager=outcome.eager,
        ),
        environment=work.env.record(),
        attempts=work.attempt,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        protocol_digest=protocols.content_digest(cell.protocol),
        distributions=_distributions(cell) or None,
    )
    curve = schema.Curve(
        key=cell.key,
        epoch=outcome.epochs,
        accuracy_test=outcome.accuracy_test,
        accuracy_train=outcome.accuracy_train,
        loss_train=outcome.loss_train,
    )
    return result, curve
