"""Stages without networks are tried on a few images, on a clock that only their work moves."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from toys import Brighter, Toy, toy_cell, toy_data

from ue_bench.contract.context import Context
from ue_bench.contract.imageset import ImageSet
from ue_bench.errors import EnvironmentProblem
from ue_bench.grid import prediction, trial
from ue_bench.grid.environment import RunEnvironment
from ue_bench.grid.stages.base import Stage
from ue_bench.grid.stages.protect import ProtectStage
from ue_bench.grid.stages.purify import PurifyStage
from ue_bench.grid.stages.train import TrainStage

IMAGES, CLASSES = 4000, 10
Try = Callable[[Stage], float | None]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    return clock


@pytest.fixture
def attempt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Try:
    labels = np.arange(IMAGES) % CLASSES
    train = ImageSet(np.zeros((IMAGES, 8, 8, 3), np.uint8), labels, tuple("abcdefghij"))
    monkeypatch.setattr(trial, "stored_split", lambda store, data, split: train)
    env = RunEnvironment(tmp_path / "cache", tmp_path, tmp_path)
    return lambda stage: trial.seconds(stage, toy_data(), env)


class Timed(Toy):
    """Takes ``each`` seconds an image, ``whole`` for the set, ``once`` for an artifact and ``first`` for imports."""

    each: float = 0.01
    once: float = 0.0
    whole: float = 0.0
    first: float = 0.0
    clock: ClassVar[Clock]
    seen: ClassVar[list[int]] = []

    def protect(self, data: ImageSet, ctx: Context) -> ImageSet:
        assert set(data.labels) == set(range(CLASSES))
        self.clock.now += self.whole + (self.first if not self.seen else 0.0)
        self.seen.append(len(data))

        def make(folder: Path) -> None:
            self.clock.now += self.once
            (folder / "file").touch()

        assert (ctx.cached("what is learnt", make) / "file").exists()
        for _ in ctx.progress(range(len(data)), "protect"):
            self.clock.now += self.each
        return data


def timed(clock: Clock, **fields: Any) -> ProtectStage:
    Timed.clock, Timed.seen = clock, []
    return ProtectStage.of(toy_cell(protector=Timed(**fields)))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"each": 0.01}, IMAGES * 0.01),
        ({"each": 0.0001}, IMAGES * 0.0001),
        ({"each": 0.01, "once": 0.7}, IMAGES * 0.01 + 0.7),
        ({"each": 0.01, "first": 1.5}, IMAGES * 0.01),
        ({"each": 0.01, "whole": 0.5}, IMAGES * 0.01 + 0.5),
        ({"each": 1.5}, IMAGES * 1.5),  # it ends in the midst of them
    ],
    ids=["slow", "quick", "something is made once", "imports", "something is done once", "very slow"],
)
def test_time_is_in_proportion_to_the_images(
    clock: Clock, attempt: Try, fields: dict[str, float], expected: float
) -> None:
    assert attempt(timed(clock, **fields)) == pytest.approx(expected, rel=0.01)
    assert clock.now < 15


def test_quick_work_is_tried_on_more_images(clock: Clock, attempt: Try) -> None:
    attempt(timed(clock, each=0.0001))
    assert Timed.seen == [32, 32, 128, 512, 2048]


def test_purification_can_be_tried_and_training_cannot(attempt: Try) -> None:
    cell = toy_cell(countermeasure=Brighter())
    assert isinstance(attempt(PurifyStage.of(cell)), float)
    assert attempt(TrainStage(cell)) is None


def test_what_needs_more_than_images_is_unknown(attempt: Try) -> None:
    class Reader(Toy):
        def protect(self, data: ImageSet, ctx: Context) -> ImageSet:
            return ctx.dataset("another one")

    assert attempt(ProtectStage.of(toy_cell(protector=Reader()))) is None


def test_training_that_does_not_end_says_nothing_of_images(clock: Clock, attempt: Try) -> None:
    class Learner(Timed):
        def protect(self, data: ImageSet, ctx: Context) -> ImageSet:
            def learn(folder: Path) -> None:
                for _ in ctx.progress(range(300), "train"):
                    self.clock.now += 1.6

            ctx.cached("a network", learn)
            return super().protect(data, ctx)

    Timed.clock, Timed.seen = clock, []
    assert attempt(ProtectStage.of(toy_cell(protector=Learner()))) is None
    assert clock.now < 15


def test_trials_end_when_their_time_is_used_up(clock: Clock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tried: list[Stage] = []

    def seconds(stage: Stage, data: Any, env: Any) -> float:
        tried.append(stage)
        clock.now += 10.0
        return 1.0

    monkeypatch.setattr(trial, "seconds", seconds)
    env = RunEnvironment(tmp_path, tmp_path, tmp_path)
    grid: Any = SimpleNamespace(env=env, data=toy_data(), precision="fp32", place="here")
    predictor = prediction.Predictor(grid)
    found = [predictor.seconds(ProtectStage.of(toy_cell(protector=Toy(count=n)))) for n in (1, 2, 3, 1)]
    assert found == [1.0, 1.0, None, 1.0]
    assert len(tried) == 2


def test_networks_whose_weights_are_not_here_tell_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def no_weights(*_: Any) -> float:
        raise EnvironmentProblem("weights cannot be downloaded", "put them there")

    monkeypatch.setattr(prediction, "network_seconds", no_weights)
    grid: Any = SimpleNamespace(
        env=RunEnvironment(tmp_path, tmp_path, tmp_path), data=toy_data(), precision="fp32", place="here"
    )
    assert prediction.Predictor(grid).seconds(TrainStage(toy_cell())) is None
