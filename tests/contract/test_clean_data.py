from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toys import (
    PROTOCOL,
    Brighter,
    Clean,
    Files,
    Linear,
    Plain,
    Toy,
    planned,
    random_set,
    toy_cell,
    toy_data,
    write_set,
)

from ue_bench.contract import clean_data
from ue_bench.contract.combination import combine
from ue_bench.contract.context import Context, TrainContext
from ue_bench.contract.imageset import ImageSet
from ue_bench.contract.plugin import Countermeasure
from ue_bench.errors import UserError
from ue_bench.grid.cell import Cell, Data, cells
from ue_bench.grid.data import stored_dataset as dataset
from ue_bench.grid.environment import RunEnvironment
from ue_bench.grid.stages.base import Work
from ue_bench.grid.stages.train import TrainStage
from ue_bench.store.artifacts import ArtifactStore
from ue_bench.store.results import ResultStore

TRAIN, TEST = random_set(30, seed=1, classes=3), random_set(6, seed=2, classes=3)


def silent(done: float, total: float, text: str) -> None:
    """Nobody listens."""


class Owner(Countermeasure):
    """Remembers the clean images that every one of its methods is lent."""

    name: ClassVar[str] = "owner"
    lent: ClassVar[list[tuple[str, str, ImageSet]]] = []  # who, where, what

    count: int = 6

    @property
    def clean_images(self) -> int:
        return self.count

    def remember(self, where: str, ctx: Context | TrainContext) -> None:
        images = np.array(ctx.clean_data.images)
        self.lent.append((self.selector, where, ImageSet(images, ctx.clean_data.labels, ctx.clean_data.class_names)))

    def purify(self, data: ImageSet, ctx: Context) -> ImageSet:
        self.remember("purify", ctx)
        return data


class Dear(Owner):
    name: ClassVar[str] = "dear"
    cache_purified: ClassVar[bool] = True


class Trains(Owner):
    name: ClassVar[str] = "trains"

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, ctx: TrainContext) -> Tensor:
        self.remember("loss", ctx)
        return nn.functional.cross_entropy(model(x), y)


class Thoughtless(Countermeasure):
    """Uses clean data without asking for any."""

    name: ClassVar[str] = "thoughtless"

    def purify(self, data: ImageSet, ctx: Context) -> ImageSet:
        return ctx.clean_data


@pytest.fixture
def data(env: RunEnvironment) -> Data:
    write_set(env.data_dir, TRAIN, TEST)
    return dataset(Files(), env, silent)


@pytest.fixture(autouse=True)
def nothing_lent() -> Iterator[None]:
    Owner.lent.clear()
    yield
    Owner.lent.clear()


def compute(cell: Cell, env: RunEnvironment) -> list[tuple[str, str, ImageSet]]:
    """Run ``cell`` through all its stages, training included; what was lent on the way."""
    store = ArtifactStore(env.cache_dir)
    for one in planned([TrainStage(cell)], lambda kind, key: kind != "result" and store.has(kind, key)):
        one.stage.run(Work(env))
    found = list(Owner.lent)
    Owner.lent.clear()
    return found


def positions(images: ImageSet) -> list[int]:
    """Where in the unprotected training set the images are."""
    found = [np.flatnonzero((TRAIN.images == image).all(axis=(1, 2, 3))).tolist() for image in images.images]
    assert all(len(where) == 1 for where in found)
    assert np.array_equal(TRAIN.labels[np.ravel(found)], images.labels)
    return [where[0] for where in found]


@pytest.mark.parametrize("kind", [Owner, Dear])
def test_purify_gets_unprotected_training_images(data: Data, env: RunEnvironment, kind: type[Owner]) -> None:
    [(_, where, lent)] = compute(toy_cell(data=data, protector=Toy(count=5), countermeasure=kind(count=9)), env)
    assert where == "purify"
    assert len(set(positions(lent))) == 9
    assert np.bincount(lent.labels).tolist() == [3, 3, 3]
    assert lent.class_names == TRAIN.class_names
    assert len(ResultStore(env.out).results()) == 1


def test_they_are_the_same_against_every_protector_and_for_every_countermeasure(
    data: Data, env: RunEnvironment
) -> None:
    def drawn(**changes: Any) -> list[int]:
        [(*_, lent)] = compute(toy_cell(data=data, **changes), env)
        return positions(lent)

    first = drawn(protector=Toy(count=5), countermeasure=Owner(), fraction=0.5)
    assert drawn(protector=Clean(), countermeasure=Owner()) == first
    assert drawn(protector=Toy(count=5), countermeasure=Dear(), victim=Linear(width=2)) == first
    assert drawn(protector=Clean(), countermeasure=Owner(count=9))[:6] == first
    assert drawn(protector=Clean(), countermeasure=Owner(), seed=1) != first


def test_the_protected_versions_stay_in_the_training_set(data: Data, env: RunEnvironment) -> None:
    class Looks(Owner):
        seen: ClassVar[list[ImageSet]] = []

        def purify(self, data: ImageSet, ctx: Context) -> ImageSet:
            self.seen.append(ImageSet(np.array(data.images), data.labels, data.class_names))
            return data

    compute(toy_cell(data=data, protector=Toy(count=5), countermeasure=Looks()), env)
    assert np.array_equal(Looks.seen[0].images, TRAIN.images + 5)


def test_a_training_procedure_gets_them(data: Data, env: RunEnvironment) -> None:
    found = compute(toy_cell(data=data, protector=Toy(count=5), countermeasure=Trains()), env)
    in_loss = [lent for _, where, lent in found if where == "loss"]
    assert len(in_loss) == 14  # 30 images in batches of 4 for 2 epochs
    assert all(positions(lent) == positions(found[0][2]) for lent in in_loss)


def test_the_parts_of_a_combination_get_what_each_asks_for(data: Data, env: RunEnvironment) -> None:
    joined = combine(combine(Trains(count=3), Brighter()), combine(Owner(count=9), Plain()))
    assert joined.clean_images == 9
    found = compute(toy_cell(data=data, protector=Toy(count=5), countermeasure=joined), env)
    counts = {(who, where): len(lent) for who, where, lent in found}
    assert counts == {("trains[count=3]", "purify"): 3, ("owner[count=9]", "purify"): 9, ("trains[count=3]", "loss"): 3}
    assert positions(found[0][2]) == positions(found[1][2])[:3]


def test_parts_that_treat_test_images_get_what_each_asks_for(data: Data, env: RunEnvironment) -> None:
    class Both(Owner):
        apply_to_test: bool = True

    found = compute(toy_cell(data=data, countermeasure=combine(Both(count=3), Both(count=9))), env)
    assert [len(lent) for *_, lent in found] == [3, 9, 3, 9]  # training images, then test images


@pytest.mark.parametrize("countermeasure", [Thoughtless(), combine(Owner(), Thoughtless())])
def test_who_asks_for_none_gets_an_error(data: Data, env: RunEnvironment, countermeasure: Countermeasure) -> None:
    with pytest.raises(RuntimeError, match="no clean data here: a countermeasure says with clean_images how many"):
        compute(toy_cell(data=data, countermeasure=countermeasure), env)


def test_contexts_of_no_cell_have_none(tmp_path: Path) -> None:
    for ctx in (
        Context("cpu", 0, tmp_path, tmp_path, tmp_path),
        TrainContext(torch.Generator(), 0, 1, torch.no_grad),
    ):
        with pytest.raises(RuntimeError, match="no clean data here"):
            _ = ctx.clean_data


def test_more_than_there_are_is_a_user_error_before_anything_runs(data: Data, env: RunEnvironment) -> None:
    grid = (data, [Toy()], [Plain(), Owner(count=31)], [Linear()], PROTOCOL, [0], 1.0, "fp32")
    with pytest.raises(UserError, match=r"owner\[count=31\] needs 31 clean images, the training set has 30"):
        cells(*grid)
    with pytest.raises(UserError, match="needs 31 clean images"):
        compute(toy_cell(data=data, countermeasure=Owner(count=31)), env)


def test_a_surrogate_has_none(data: Data, env: RunEnvironment, monkeypatch: pytest.MonkeyPatch) -> None:
    from ue_bench.catalogue import registry
    from ue_bench.grid import surrogates

    def resolve(kind: str, selector: str) -> list[Any]:
        return [Linear() if kind == "victim" else OnlyLoss()]

    class OnlyLoss(Countermeasure):
        @property
        def clean_images(self) -> int:
            return 5

    monkeypatch.setattr(registry.registry(), "resolve", resolve)
    ctx = Context("cpu", 0, env.cache_dir, env.cache_dir, env.cache_dir)
    with pytest.raises(UserError, match="needs clean data"):
        surrogates.surrogate(ctx, TRAIN, "linear", PROTOCOL, "owner")


def test_other_cells_keep_their_keys() -> None:
    """Recorded before countermeasures could ask for clean data."""
    assert toy_cell(data=toy_data()).key == "33f9aae43caa8133907bb5ee368d11f0"


class TestDraw:
    labels = np.array([0] * 10 + [2] * 3 + [1] * 20)

    def test_classes_take_turns_while_they_last(self) -> None:
        counts = [
            np.bincount(self.labels[clean_data.draw(self.labels, n, 0)], minlength=3).tolist() for n in (9, 12, 33)
        ]
        assert counts == [[3, 3, 3], [4, 5, 3], [10, 20, 3]] or counts == [[3, 3, 3], [5, 4, 3], [10, 20, 3]]

    def test_no_image_comes_twice(self) -> None:
        assert sorted(clean_data.draw(self.labels, 33, 5).tolist()) == list(range(33))

    @pytest.mark.parametrize("count", [1, 4, 20, 32])
    def test_a_smaller_count_is_the_first_of_a_larger_one(self, count: int) -> None:
        whole = clean_data.draw(self.labels, 33, 0).tolist()
        assert clean_data.draw(self.labels, count, 0).tolist() == whole[:count]

    def test_every_image_may_come_first(self) -> None:
        labels = np.array([0, 0, 1, 1])
        assert {int(clean_data.draw(labels, 1, seed)[0]) for seed in range(40)} == {0, 1, 2, 3}
