"""An adversary that has its own images protected: who answers, with what, and what is kept of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import pytest
from toys import Clean, Files, Plain, Toy, planned, random_set, toy_cell, write_set

from ue_bench.contract.combination import combine
from ue_bench.contract.context import Context
from ue_bench.contract.imageset import ImageSet
from ue_bench.contract.plugin import Countermeasure, Protector
from ue_bench.errors import UserError
from ue_bench.grid.cell import Cell, Data, cells
from ue_bench.grid.data import stored_dataset as dataset
from ue_bench.grid.environment import RunEnvironment
from ue_bench.grid.stages.base import Work
from ue_bench.grid.stages.protect import ProtectStage
from ue_bench.grid.stages.queries import QueryStage
from ue_bench.grid.stages.train import TrainStage
from ue_bench.store.artifacts import ArtifactStore

TRAIN, TEST = random_set(30, seed=1, classes=3), random_set(6, seed=2, classes=3)


class Service(Protector):
    """Lays over every image the first one of its set with that label: another set, other images."""

    name: ClassVar[str] = "service"
    asked: ClassVar[list[int]] = []

    @property
    def answers_queries(self) -> bool:
        return True

    def protect(self, data: ImageSet, ctx: Context) -> ImageSet:
        self.asked.append(len(data))
        learnt = ctx.learning(data)[0]
        first = np.stack([learnt.images[np.flatnonzero(learnt.labels == label)[0]] for label in data.labels])
        return data.with_images(data.images // 2 + first // 2)


class Asks(Countermeasure):
    """Has its images protected, leaves them out of the set, and remembers what it was told."""

    name: ClassVar[str] = "asks"
    told: ClassVar[list[tuple[ImageSet, ImageSet]]] = []

    count: int = 6

    @property
    def clean_images(self) -> int:
        return self.count

    @property
    def needs_pairs(self) -> bool:
        return True

    @property
    def queries(self) -> bool:
        return True

    def purify(self, data: ImageSet, ctx: Context) -> ImageSet:
        clean, answers = (
            ImageSet(np.array(some.images), some.labels, some.class_names)
            for some in (ctx.clean_data, ctx.queried_data)
        )
        self.told.append((clean, answers))
        rest = np.setdiff1d(np.arange(len(data)), ctx.clean_rows)
        return ImageSet(data.images[rest], data.labels[rest], data.class_names)


class AsksOnce(Asks):
    name: ClassVar[str] = "asks-once"
    cache_purified: ClassVar[bool] = True


@pytest.fixture
def data(env: RunEnvironment) -> Data:
    write_set(env.data_dir, TRAIN, TEST)
    return dataset(Files(), env, lambda *_: None)


@pytest.fixture(autouse=True)
def nothing_told() -> Iterator[None]:
    Asks.told.clear()
    Service.asked.clear()
    yield
    Asks.told.clear()
    Service.asked.clear()


def compute(cell: Cell, env: RunEnvironment) -> list[str]:
    """Run ``cell`` through all its stages; return the kinds of those that were missing, in order."""
    store = ArtifactStore(env.cache_dir)
    missing = [
        p.stage for p in planned([TrainStage(cell)], lambda kind, key: kind != "result" and store.has(kind, key))
    ]
    for stage in missing:
        stage.run(Work(env))
    return [type(stage).__name__ for stage in missing]


@pytest.mark.parametrize("kind", [Asks, AsksOnce])
def test_answers_are_of_what_was_learnt_from_the_set(data: Data, env: RunEnvironment, kind: type[Asks]) -> None:
    done = compute(toy_cell(data=data, protector=Service(), countermeasure=kind()), env)
    assert done[:2] == ["ProtectStage", "QueryStage"]
    [(clean, answers)] = Asks.told
    first = np.stack([TRAIN.images[np.flatnonzero(TRAIN.labels == label)[0]] for label in clean.labels])
    assert np.array_equal(answers.images, clean.images // 2 + first // 2)
    assert np.array_equal(answers.labels, clean.labels)
    assert len({image.tobytes() for image in clean.images}) == 6


def test_it_is_asked_once(data: Data, env: RunEnvironment) -> None:
    compute(toy_cell(data=data, protector=Service(), countermeasure=Asks()), env)
    again = compute(toy_cell(data=data, protector=Service(), countermeasure=AsksOnce()), env)
    assert "QueryStage" not in again
    assert Service.asked == [30, 6]
    more = compute(toy_cell(data=data, protector=Service(), countermeasure=Asks(count=9)), env)
    assert "QueryStage" in more
    assert Service.asked == [30, 6, 9]


def test_parts_that_ask_say_with_how_many(data: Data, env: RunEnvironment) -> None:
    class Owns(Asks):
        name: ClassVar[str] = "owns"

        @property
        def needs_pairs(self) -> bool:
            return False

        @property
        def queries(self) -> bool:
            return False

        def purify(self, data: ImageSet, ctx: Context) -> ImageSet:
            assert ctx.queried is None
            return data

    compute(toy_cell(data=data, protector=Service(), countermeasure=combine(Asks(), Owns(count=9))), env)
    assert Service.asked == [30, 6]


def test_who_asks_must_know_what_to_leave_out(data: Data) -> None:
    class Wrong(Asks):
        name: ClassVar[str] = "wrong"

        @property
        def needs_pairs(self) -> bool:
            return False

    with pytest.raises(UserError, match="without saying which they are"):
        cells(data, [Service()], [Wrong()], [], toy_cell(data=data).protocol, [0], 1.0, "fp32")


def test_what_the_protocol_sets_counts(data: Data) -> None:
    """A protocol may have parameters for a countermeasure, and with them it may ask."""

    class Sometimes(Asks):
        name: ClassVar[str] = "sometimes"
        asking: bool = False

        @property
        def queries(self) -> bool:
            return self.asking

    protocol = toy_cell(data=data).protocol
    asking = protocol.model_copy(update={"overrides": {"sometimes": {"parameters": {"asking": True}}}})
    assert len(cells(data, [Clean()], [Sometimes()], [], protocol, [0], 1.0, "fp32")) == 0
    with pytest.raises(UserError, match="protects none beside its set"):
        cells(data, [Clean()], [Sometimes()], [], asking, [0], 1.0, "fp32")


def test_another_seed_asks_with_other_images(data: Data) -> None:
    keys = {
        QueryStage.of(ProtectStage.of(toy_cell(data=data, protector=Service(), seed=seed)), Asks(count=count)).key
        for seed in (0, 1)
        for count in (6, 9)
    }
    assert len(keys) == 4


def test_who_does_not_answer_is_refused_before_anything_is_done(data: Data) -> None:
    with pytest.raises(UserError, match="protects none beside its set") as caught:
        cells(data, [Clean(), Toy()], [Plain(), Asks()], [], toy_cell(data=data).protocol, [0], 1.0, "fp32")
    assert "answer queries" in str(caught.value.hint)
    assert len(cells(data, [Service()], [Asks()], [], toy_cell(data=data).protocol, [0], 1.0, "fp32")) == 0
