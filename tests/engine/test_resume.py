"""A training that is killed anywhere and continued ends as if it had not been stopped, to the bit."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from sets import colours
from torch import nn

from ue_bench.atomic import load_checkpoint, save_checkpoint
from ue_bench.catalogue.registry import registry
from ue_bench.contract.plugin import Countermeasure
from ue_bench.contract.protocol import Protocol
from ue_bench.engine import saving
from ue_bench.engine.loop import Outcome, train
from ue_bench.engine.saving import SavedState
from ue_bench.errors import Diverged

from .test_train import longer, silent, weights

CLEAN = colours(20, 2)


class Killed(BaseException):
    """Stands for a signal."""


def network() -> nn.Module:
    """With statistics and random numbers of its own, which have to be continued too."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.3), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(8, 3),
    )  # fmt: skip


def countermeasure(selector: str) -> Countermeasure:
    [found] = registry().resolve("countermeasure", selector)
    assert isinstance(found, Countermeasure)
    return found


class Training:
    """One training, which can be run with a state and be killed after any of its steps."""

    def __init__(self, selector: str = "vanilla", precision: str = "fp32", **recipe: Any) -> None:
        self.countermeasure, self.precision = countermeasure(selector), precision
        self.recipe: Protocol = longer(**recipe)
        self.steps = 0  # done, over all runs

    def run(
        self,
        state: dict[str, Any] | None = None,
        save: Callable[[dict[str, Any]], None] | None = None,
        due: Callable[[], bool] | None = None,
    ) -> tuple[nn.Module, Outcome]:
        return train(
            network, colours(), colours(30, 1), self.recipe, self.countermeasure, "cpu", self.precision, 0, silent,
            state, save, due, clean=CLEAN if self.countermeasure.clean_images else None,
        )  # fmt: skip

    def killed_after(self, step: int, file: Path) -> None:
        """Continue from ``file``, and be killed right after ``step`` steps in all, with the state of then in it."""

        def due() -> bool:
            self.steps += 1
            return self.steps == step

        def save(state: dict[str, Any]) -> None:
            if self.steps == step and state["order"] is not None:
                save_checkpoint(file, state)
                raise Killed

        with pytest.raises(Killed):
            self.run(load_checkpoint(file), save, due)


def curve(outcome: Outcome) -> dict[str, Any]:
    return {name: value for name, value in asdict(outcome).items() if "second" not in name}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "selector",
    ["vanilla", "at[steps=2]", "cutmix", "gaussian-noise", "early-stopping[clean=20]",
     "deep-feature-reweighting[clean=20]"],
)  # fmt: skip
def test_killed_after_random_steps(selector: str, precision: str, tmp_path: Path) -> None:
    """Two steps an epoch, 12 epochs; the last step of an epoch has still to be evaluated."""
    recipe: dict[str, Any] = {"epochs": 12, "eval_every": 2}
    whole, expected = Training(selector, precision, **recipe).run()
    training = Training(selector, precision, **recipe)
    for step in sorted(random.Random(f"{selector} {precision}").sample(range(1, 25), 5)):
        training.killed_after(step, tmp_path / "state.pt")
    model, outcome = training.run(load_checkpoint(tmp_path / "state.pt"))
    assert weights(model) == weights(whole)
    assert curve(outcome) == curve(expected)


@pytest.mark.parametrize("step", range(1, 8))
@pytest.mark.parametrize(
    "recipe",
    [
        {"crop": "resized"},
        {"optimizer": "adamw"},
        {"epochs": None, "steps": 7},
        {"schedule": "onecycle", "clip": 0.1},
        {"drop_last": False, "rotation": 20.0, "rate_changes": "epoch"},
    ],
    ids=str,
)
def test_killed_after_every_step(recipe: dict[str, Any], step: int, tmp_path: Path) -> None:
    whole, expected = Training(**recipe).run()
    training = Training(**recipe)
    training.killed_after(step, tmp_path / "state.pt")
    model, outcome = training.run(load_checkpoint(tmp_path / "state.pt"))
    assert weights(model) == weights(whole)
    assert curve(outcome) == curve(expected)


def test_steps_that_were_done_are_not_done_again(tmp_path: Path) -> None:
    training = Training()
    training.killed_after(5, tmp_path / "state.pt")
    asked: list[bool] = []

    def due() -> bool:
        asked.append(False)
        return False

    training.run(load_checkpoint(tmp_path / "state.pt"), lambda state: None, due)
    assert len(asked) == 3  # of eight


def test_seconds_before_a_kill_count(tmp_path: Path) -> None:
    training = Training()
    training.killed_after(5, tmp_path / "state.pt")
    state = load_checkpoint(tmp_path / "state.pt")
    assert state is not None
    state["outcome"]["train_seconds"] = 1000.0
    outcome = training.run(state)[1]
    assert 1000 < outcome.train_seconds < 1100
    assert outcome.images_per_second < 1


def test_a_network_that_draws_has_the_numbers_of_its_seed() -> None:
    """Dropout draws from torch's own generator, whose state must not matter and must stay as it was."""
    torch.manual_seed(1)
    first = weights(Training().run()[0])
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert weights(Training().run()[0]) == first
    assert torch.equal(torch.get_rng_state(), before)


def test_one_that_diverges_says_the_same_step_after_a_kill(tmp_path: Path) -> None:
    """Losses since the last look at them are part of the state."""
    recipe: dict[str, Any] = {"learning_rate": 1e30, "batch": 8}  # five steps an epoch
    with pytest.raises(Diverged) as expected:
        Training(**recipe).run()
    training = Training(**recipe)
    training.killed_after(4, tmp_path / "state.pt")
    with pytest.raises(Diverged) as found:
        training.run(load_checkpoint(tmp_path / "state.pt"))
    assert str(found.value) == str(expected.value)
    assert (found.value.step or 9) < 4


@pytest.mark.parametrize("change", ["version", "name", "shape"])
def test_a_state_of_other_code_is_not_continued(change: str, tmp_path: Path) -> None:
    training = Training()
    training.killed_after(3, tmp_path / "state.pt")
    state = load_checkpoint(tmp_path / "state.pt")
    assert state is not None
    if change == "version":
        del state["version"]
    elif change == "name":
        state["model"]["network.renamed"] = state["model"].pop("network.6.bias")
    else:
        state["model"]["network.6.bias"] = torch.zeros(4)
    assert weights(training.run(state)[0]) == weights(Training().run()[0])


class TestSavedState:
    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        now = [0.0]
        monkeypatch.setattr(saving, "monotonic", lambda: now[0])
        return now

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        return tmp_path / "unfinished" / "key" / "state.pt"

    def test_nothing_is_written_before_it_is_time(self, clock: list[float], file: Path) -> None:
        saved = SavedState(file, "cpu")
        for clock[0] in (0.0, saving.SAVE_EVERY - 1):
            assert not saved.due()
            saved.offer({"step": 1})
        assert saved.load() is None
        saved.remove()
        assert not file.parent.exists()

    def test_states_are_apart(self, clock: list[float], file: Path) -> None:
        saved, kept = SavedState(file, "cpu"), []
        for step in range(100):
            clock[0] = 10.0 * step
            saved.offer({"step": step})
            kept.append((saved.load() or {"step": None})["step"])
        assert sorted({step for step in kept if step is not None}) == [18, 36, 54, 72, 90]
        saved.remove()
        assert not file.parent.exists()

    def test_where_saving_is_slow_it_is_rare(
        self, clock: list[float], file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def slow(path: Path, state: object) -> None:
            clock[0] += 60

        monkeypatch.setattr(saving, "save_checkpoint", slow)
        saved = SavedState(file, "cpu")
        clock[0] = saving.SAVE_EVERY
        saved.offer({})
        ended = clock[0]
        clock[0] = ended + 60 / saving.SHARE - 1
        assert not saved.due()
        clock[0] += 1
        assert saved.due()

    def test_a_full_disk_costs_the_state_and_not_the_training(
        self, clock: list[float], file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        saved = SavedState(file, "cpu")
        clock[0] = saving.SAVE_EVERY
        saved.offer({"step": 1})

        def full(path: Path, state: object) -> None:
            raise OSError(28, os.strerror(28))

        monkeypatch.setattr(saving, "save_checkpoint", full)
        clock[0] *= 2
        saved.offer({"step": 2})
        assert "the state of a training is not kept" in caplog.text
        assert os.strerror(28) in caplog.text
        assert not saved.due()
        assert saved.load() == {"step": 1}
