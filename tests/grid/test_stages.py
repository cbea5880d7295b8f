from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from toys import (
    Brighter,
    Clean,
    Doubler,
    Files,
    Halver,
    Linear,
    Plain,
    Toy,
    planned,
    random_set,
    toy_cell,
    write_set,
)

from ue_bench.contract.combination import combine
from ue_bench.contract.context import Context
from ue_bench.contract.imageset import ImageSet
from ue_bench.engine import loop
from ue_bench.errors import UserError, ValidationError
from ue_bench.grid.cell import Cell, Data
from ue_bench.grid.data import stored_dataset as dataset
from ue_bench.grid.environment import RunEnvironment
from ue_bench.grid.stages.base import Work
from ue_bench.grid.stages.train import TrainStage
from ue_bench.store.artifacts import ArtifactStore, load_images, read_json
from ue_bench.store.results import ResultStore

TRAIN, TEST = random_set(10, seed=1), random_set(4, seed=2)


def silent(done: float, total: float, text: str) -> None:
    """Nobody listens."""


@pytest.fixture(autouse=True)
def no_loads() -> None:
    Files.loads.clear()


@pytest.fixture
def data(env: RunEnvironment) -> Data:
    write_set(env.data_dir, TRAIN, TEST)
    return dataset(Files(), env, silent)


def test_images_that_are_too_large_are_refused_before_work_begins(
    data: Data, env: RunEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Toy, "largest_image", 8 * 8 - 1)
    monkeypatch.setattr(Toy, "protect", lambda *asked: pytest.fail("began"))
    protect = TrainStage(toy_cell(data=data, protector=Toy())).protect

    with pytest.raises(UserError, match=r"takes images of up to 6\.3e-05 megapixels, not 8x8"):
        protect.run(Work(env))


class TestDataset:
    def test_says_what_it_is(self, data: Data) -> None:
        assert (data.info.train, data.info.test, data.info.classes) == (10, 4, 2)
        assert (data.info.height, data.info.width, data.info.source) == (8, 8, "toy set")
        assert data.train_fingerprint == TRAIN.fingerprint
        assert data.test_fingerprint == TEST.fingerprint

    def test_is_loaded_once(self, data: Data, env: RunEnvironment) -> None:
        assert dataset(Files(), env, silent) == data
        assert Files.loads == ["train", "test"]

    def test_is_loaded_again_when_its_file_changes(self, data: Data, env: RunEnvironment) -> None:
        write_set(env.data_dir, random_set(10, seed=9), TEST)
        os.utime(env.data_dir / "set.npz", (1, 1))  # whatever the resolution of the clock
        changed = dataset(Files(), env, silent)
        assert len(Files.loads) == 4
        assert changed.train_fingerprint != data.train_fingerprint
        assert changed.test_fingerprint == data.test_fingerprint

    def test_is_the_same_from_other_folders(self, data: Data, env: RunEnvironment, tmp_path: Path) -> None:
        moved = replace(env, data_dir=tmp_path / "elsewhere", cache_dir=tmp_path / "another cache")
        shutil.copytree(env.data_dir, moved.data_dir)
        found = dataset(Files(), moved, silent)
        assert found == data
        assert toy_cell(data=found).key == toy_cell(data=data).key

    @pytest.mark.parametrize(
        ("train", "test", "reason"),
        [
            (TRAIN, ImageSet(TEST.images, TEST.labels, ("a", "z")), "different classes: b, z"),
            (TRAIN, ImageSet(TEST.images, TEST.labels, ("b", "a")), "same classes in another order"),
            (TRAIN, random_set(4, size=9), r"training images of files are \(8, 8\), test images \(9, 9\)"),
            (TRAIN, random_set(0), "10 training and 0 test images"),
        ],
        ids=["classes", "order", "size", "empty"],
    )
    def test_sets_that_do_not_fit_are_refused(
        self, env: RunEnvironment, train: ImageSet, test: ImageSet, reason: str
    ) -> None:
        write_set(env.data_dir, train, test)
        with pytest.raises(ValidationError, match=reason):
            dataset(Files(), env, silent)
        assert not list((env.cache_dir / "datasets").iterdir())


class Trained:
    """What the training loop was given, in place of training."""

    train: ImageSet
    test: ImageSet
    clean: ImageSet | None
    last: float = 60.0
    model: torch.nn.Module


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Trained:
    seen = Trained()

    def remember(
        build: Any, train: ImageSet, test: ImageSet, *rest: Any, clean: ImageSet | None
    ) -> tuple[torch.nn.Module, loop.Outcome]:
        seen.clean = clean
        seen.train = ImageSet(np.array(train.images), train.labels, train.class_names)
        seen.test = ImageSet(np.array(test.images), test.labels, test.class_names)
        seen.model = build()
        return seen.model, loop.Outcome(
            [1, 2, 3], [50.0, 70.0, 60.0], [40.0, 50.0, 55.5], [2.0, 1.0, 0.5], 1.5, 100.0, seen.last
        )

    monkeypatch.setattr(loop, "train", remember)
    return seen


def compute(cell: Cell, env: RunEnvironment) -> None:
    store = ArtifactStore(env.cache_dir)
    for one in planned([TrainStage(cell)], lambda kind, key: kind != "result" and store.has(kind, key)):
        one.stage.run(Work(env))


def test_a_cell_trains_on_protected_and_is_measured_on_clean_images(
    data: Data, env: RunEnvironment, trained: Trained
) -> None:
    compute(toy_cell(data=data, protector=Toy(count=5), countermeasure=Plain()), env)
    assert np.array_equal(trained.train.images, TRAIN.images + 5)
    assert np.array_equal(trained.train.labels, TRAIN.labels)
    assert np.array_equal(trained.test.images, TEST.images)


@pytest.mark.parametrize(
    ("countermeasure", "train", "test"),
    [
        (Brighter(by=3), TRAIN.images + 3, TEST.images),
        (Brighter(by=3, apply_to_test=True), TRAIN.images + 3, TEST.images + 3),
        (Doubler(), TRAIN.images * 2, TEST.images),
        (combine(Doubler(apply_to_test=True), Brighter(by=3)), TRAIN.images * 2 + 3, TEST.images * 2),
        (combine(Brighter(by=3), Doubler(apply_to_test=True)), (TRAIN.images + 3) * 2, TEST.images * 2),
        (Halver(), TRAIN.images, TEST.images),
    ],
    ids=lambda c: getattr(c, "selector", ""),
)
def test_purifiers_change_training_images_and_test_images_only_if_asked(
    data: Data, env: RunEnvironment, trained: Trained, countermeasure: Any, train: Any, test: Any
) -> None:
    compute(toy_cell(data=data, protector=Clean(), countermeasure=countermeasure), env)
    assert np.array_equal(trained.train.images, train)
    assert np.array_equal(trained.test.images, test)


@pytest.mark.parametrize("countermeasure", [Plain(), Doubler()])
@pytest.mark.parametrize(("fraction", "count"), [(0.0, 0), (0.35, 3), (0.5, 5), (0.99, 9), (1.0, 10)])
def test_a_fraction_of_the_images_is_protected(
    data: Data, env: RunEnvironment, trained: Trained, fraction: float, count: int, countermeasure: Any
) -> None:
    cell = toy_cell(data=data, protector=Toy(count=5), fraction=fraction, countermeasure=countermeasure)
    compute(cell, env)
    factor = 2 if countermeasure == Doubler() else 1
    changed = (trained.train.images != TRAIN.images * factor).any(axis=(1, 2, 3))
    assert changed.sum() == count
    assert np.array_equal(trained.train.images[changed], (TRAIN.images[changed] + 5) * factor)


def test_a_larger_fraction_protects_the_same_images_and_more(data: Data, env: RunEnvironment, trained: Trained) -> None:
    def protected(**changes: Any) -> set[int]:
        compute(toy_cell(data=data, protector=Toy(count=5), countermeasure=Plain(), **changes), env)
        return set(np.flatnonzero((trained.train.images != TRAIN.images).any(axis=(1, 2, 3))).tolist())

    assert protected(fraction=0.3) < protected(fraction=0.6)
    assert protected(fraction=0.5) != protected(fraction=0.5, seed=1)


def test_the_result_says_what_and_how_much(data: Data, env: RunEnvironment, trained: Trained) -> None:
    cell = toy_cell(data=data, protector=Toy(count=5), countermeasure=Brighter(by=3), seed=7)
    compute(cell, env)
    [result] = ResultStore(env.out).results()
    assert (result.key, result.id, result.seed) == (cell.key, cell.id, 7)
    assert (result.protector, result.countermeasure, result.victim) == ("toy[count=5]", "brighter[by=3]", "linear")
    assert (result.protocol, result.protocol_version, result.precision) == ("toy", 1, "fp32")
    assert (result.metrics.accuracy_last, result.metrics.accuracy_peak, result.metrics.peak_epoch) == (60, 70, 2)
    assert (result.metrics.accuracy_train, result.metrics.loss_train) == (55.5, 0.5)
    assert (result.budget.linf_max, result.budget.declared) == (5, "none")
    assert result.cost.train_seconds == 1.5
    assert result.cost.peak_memory_mb > 1
    assert result.environment.torch == torch.__version__
    curve = json.loads((env.out / "curves" / f"{cell.key}.json").read_text(encoding="utf-8"))
    assert curve["accuracy_test"] == [50, 70, 60]


@pytest.mark.parametrize(("last", "peak"), [(40.0, (70, 2)), (70.0, (70, 2)), (80.0, (80, 3))])
def test_a_network_that_is_changed_after_training_may_be_the_peak(
    data: Data, env: RunEnvironment, trained: Trained, last: float, peak: tuple[float, float]
) -> None:
    trained.last = last
    compute(toy_cell(data=data), env)
    [result] = ResultStore(env.out).results()
    assert result.metrics.accuracy_last == last
    assert (result.metrics.accuracy_peak, result.metrics.peak_epoch) == peak


class Learner(Linear):
    """Learns weights from the images alone, and remembers what it was given."""

    name: ClassVar[str] = "learner"
    given: ClassVar[list[tuple[ImageSet, Context]]] = []

    weight: str = "1.weight"

    def pretrain(self, data: ImageSet, ctx: Context) -> dict[str, torch.Tensor]:
        self.given.append((ImageSet(np.array(data.images), data.labels, data.class_names), ctx))
        return {self.weight: torch.full((2, 192), float(data.images.mean()))}


class TestPretraining:
    @pytest.fixture(autouse=True)
    def nothing_given(self) -> None:
        Learner.given.clear()

    def test_gets_the_images_of_the_training_and_gives_the_network_its_weights(
        self, data: Data, env: RunEnvironment, trained: Trained
    ) -> None:
        cell = toy_cell(data=data, protector=Toy(count=5), countermeasure=Brighter(by=3), victim=Learner())
        compute(cell, env)
        [(images, _)] = Learner.given
        assert np.array_equal(images.images, TRAIN.images + 8)
        weights = trained.model.state_dict()
        assert (weights["1.weight"] == float((TRAIN.images + 8).mean())).all()
        assert weights["1.bias"].std() > 0  # fresh

    def test_has_a_seed_of_its_own_and_no_clean_data(self, data: Data, env: RunEnvironment, trained: Trained) -> None:
        class Owner(Plain):
            @property
            def clean_images(self) -> int:
                return 4

        for changes in ({}, {"protector": Clean()}, {"seed": 1}, {"countermeasure": Owner()}, {"precision": "bf16"}):
            compute(toy_cell(data=data, victim=Learner(), **changes), env)
        seeds = [ctx.seed for _, ctx in Learner.given]
        assert seeds[0] == seeds[1] == seeds[3] == seeds[4] != seeds[2]
        assert {ctx.clean for _, ctx in Learner.given} == {None}
        assert [ctx.precision for _, ctx in Learner.given] == ["fp32"] * 4 + ["bf16"]

    def test_weights_of_nothing_are_an_error(self, data: Data, env: RunEnvironment, trained: Trained) -> None:
        with pytest.raises(
            ValueError, match=r"learner\[weight=nowhere\] learnt nowhere, which its network does not have"
        ):
            compute(toy_cell(data=data, victim=Learner(weight="nowhere")), env)


def test_results_name_no_folder_and_no_machine(data: Data, env: RunEnvironment, trained: Trained) -> None:
    compute(toy_cell(data=data), env)
    [path] = (env.out / "results").rglob("*.json")
    text = path.read_text(encoding="utf-8")
    assert str(env.out.parent) not in text
    assert os.uname().nodename not in text


def test_a_protected_set_is_made_once_and_kept(data: Data, env: RunEnvironment, trained: Trained) -> None:
    cell = toy_cell(data=data, protector=Toy(count=5))
    compute(cell, env)
    stage = TrainStage(cell).protect
    folder = env.cache_dir / "protected" / stage.key
    before = folder.stat().st_mtime_ns
    stage.run(Work(env))
    compute(toy_cell(data=data, protector=Toy(count=5), countermeasure=Plain()), env)
    assert folder.stat().st_mtime_ns == before
    assert len(list((env.cache_dir / "protected").iterdir())) == 1
    assert read_json(folder / "protect.json")["budget"]["linf_max"] == 5
    assert np.array_equal(load_images(folder).images, TRAIN.images + 5)


def test_a_protector_that_breaks_the_rules_leaves_nothing(data: Data, env: RunEnvironment) -> None:
    class Relabels(Clean):
        def protect(self, data: ImageSet, ctx: Context) -> ImageSet:
            return ImageSet(data.images, 1 - data.labels, data.class_names)

    with pytest.raises(ValidationError, match="changed labels"):
        compute(toy_cell(data=data, protector=Relabels()), env)
    assert list((env.cache_dir / "protected").iterdir()) == []
    assert list((env.cache_dir / "scratch").iterdir()) == []


def test_a_protector_may_return_a_view_of_the_stored_images(data: Data, env: RunEnvironment, trained: Trained) -> None:
    class Mirrors(Clean):
        def protect(self, data: ImageSet, ctx: Context) -> ImageSet:
            return data.with_images(data.images[:, :, ::-1])

    compute(toy_cell(data=data, protector=Mirrors(), countermeasure=Plain()), env)
    assert np.array_equal(trained.train.images, TRAIN.images[:, :, ::-1])
