"""Trainings that diverge have no accuracy, and those that end at chance say so."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import PrivateAttr
from sets import colours
from torch import Tensor, nn
from toys import noting

from ue_bench.contract.context import TrainContext
from ue_bench.contract.imageset import ImageSet
from ue_bench.contract.plugin import Countermeasure
from ue_bench.engine import loop
from ue_bench.engine.divergence import DivergenceCheck, check_finite, not_finite
from ue_bench.engine.loop import Outcome, Pixels, above_chance, accuracy, curve_above_chance, train
from ue_bench.errors import Diverged, UserError

from .test_train import RECIPE, Blinds, longer, network, silent, weights

STEPS = 8  # of RECIPE: 40 images in batches of 16, 4 epochs


def run(
    countermeasure: Countermeasure | None = None,
    build: Callable[[], nn.Module] = network,
    precision: str = "fp32",
    data: ImageSet | None = None,
    test: bool = True,
    **recipe: Any,
) -> tuple[nn.Module, Outcome]:
    return train(
        build, data or colours(), colours(30, 1) if test else None, longer(**recipe),
        countermeasure or Countermeasure(), "cpu", precision, 0, silent,
    )  # fmt: skip


class Breaks(nn.Module):
    """A network that is sound up to a step of training; ``how`` says what happens then."""

    def __init__(self, how: str, at: int) -> None:
        super().__init__()
        self.how, self.at, self.steps = how, at, 0
        self.layer = nn.Linear(3, 3)
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layer(x.mean((2, 3)))
        if not self.training:
            return found * torch.inf if self.how == "evaluation" and self.steps >= self.at else found
        self.steps += 1
        if self.steps != self.at or self.how == "evaluation":
            return found
        if self.how == "loss":
            return found + torch.nan
        if self.how == "gradient":
            return found + (self.layer.weight.sum() * 0).sqrt()  # zero, with a gradient of 0 times infinity
        assert isinstance(self.mean, Tensor)
        self.mean.fill_(torch.inf)
        return found


@pytest.mark.parametrize("test", [True, False])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    ("how", "at", "what", "step"),
    [
        ("loss", 1, "loss", 1),
        ("loss", 5, "loss", 5),
        ("gradient", 2, "weight network.layer.weight", 2),  # the last step of an epoch
        ("gradient", 3, "loss", 4),
        ("gradient", 8, "weight network.layer.weight", 8),
        ("statistic", 5, "weight network.mean", 6),
        ("evaluation", 8, "output of the network", 8),
    ],
)
def test_what_is_not_finite_is_named_with_its_step(
    how: str, at: int, what: str, step: int, precision: str, test: bool
) -> None:
    with pytest.raises(Diverged) as caught:
        run(build=lambda: Breaks(how, at), precision=precision, test=test)
    assert (caught.value.what, caught.value.step, caught.value.steps) == (what, step, STEPS)
    assert f"at step {step} of {STEPS}: {what} not finite" in str(caught.value)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_rate_that_is_far_too_high_is_no_protection(precision: str) -> None:
    with pytest.raises(Diverged, match="diverged at step"):
        run(precision=precision, learning_rate=1e30)


class Procedure(Countermeasure):
    """A procedure whose loss is not a number in its fifth step."""

    _taken: list[int] = PrivateAttr(default_factory=list)

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, ctx: TrainContext) -> Tensor:
        self._taken.append(1)
        found = nn.functional.cross_entropy(model(x), y)
        return found / 0 if len(self._taken) == 5 else found


def test_the_loss_of_a_procedure_counts_alike() -> None:
    with pytest.raises(Diverged) as caught:
        run(Procedure())
    assert (caught.value.what, caught.value.step) == ("loss", 5)


class Scores(Countermeasure):
    name = "scores"

    def selection_score(self, model: nn.Module, ctx: TrainContext) -> float:
        return float("nan") if ctx.epoch == 1 else 0.0


def test_a_score_that_is_no_number_chooses_nothing() -> None:
    with pytest.raises(Diverged) as caught:
        run(Scores())
    assert (caught.value.what, caught.value.step) == ("score of scores", 4)


class Ruins(Countermeasure):
    def after_training(self, model: nn.Module, ctx: TrainContext) -> None:
        with torch.no_grad():
            next(model.parameters()).fill_(torch.inf)


@pytest.mark.parametrize("test", [True, False])
def test_a_network_that_was_ruined_after_training_is_not_measured(test: bool) -> None:
    with pytest.raises(Diverged, match=r"at step 8 of 8: weight network\.0\.weight not finite"):
        run(Ruins(), test=test)


def test_no_state_of_a_diverged_epoch_is_saved() -> None:
    saved: list[int] = []
    with pytest.raises(Diverged):
        train(
            lambda: Breaks("loss", 5), colours(), None, RECIPE, Countermeasure(), "cpu", "fp32", 0, silent, None,
            lambda state: saved.append(state["epoch"]),
        )  # fmt: skip
    assert saved == [1, 2]


def test_outputs_that_are_not_finite_are_no_guesses() -> None:
    class Infinite(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean((2, 3)) / 0

    with pytest.raises(Diverged, match="output of the network not finite"):
        accuracy(Infinite(), Pixels(colours(), torch.device("cpu")), lambda: torch.autocast("cpu", enabled=False))


def test_looking_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    looked, curve = run(build=lambda: nn.Sequential(nn.BatchNorm2d(3), network()))
    monkeypatch.setattr(DivergenceCheck, "add", lambda *_: None)
    monkeypatch.setattr(DivergenceCheck, "check", lambda *_: None)
    monkeypatch.setattr(loop, "curve_above_chance", lambda *_: True)
    blind, other = run(build=lambda: nn.Sequential(nn.BatchNorm2d(3), network()))
    assert weights(looked) == weights(blind)
    assert (curve.accuracy_test, curve.loss_train) == (other.accuracy_test, other.loss_train)


def test_no_step_looks_at_its_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor without data cannot be waited for."""
    check = DivergenceCheck(10)
    check.add(torch.zeros((), device="meta"))

    looks: list[Tensor] = []
    monkeypatch.setattr(loop, "curve_above_chance", lambda *_: True)
    monkeypatch.setattr(torch, "isfinite", noting(looks, torch.isfinite))
    counts = []
    for batch in (40, 4):
        looks.clear()
        run(batch=batch)
        counts.append(len(looks))
    assert counts[0] == counts[1]


def test_a_check_goes_on_where_the_last_one_ended() -> None:
    check = DivergenceCheck(6, "the critic", "clip")
    for value in (1.0, 2.0):
        check.add(torch.tensor(value))
    check.check(2, nn.Linear(1, 1))
    for value in (1.0, torch.inf, torch.nan):
        check.add(torch.tensor(value))
    with pytest.raises(Diverged, match=r"^diverged at step 4 of 6: loss of the critic not finite \(clip\)$"):
        check.check(5)


def test_whole_numbers_are_no_weights_that_could_diverge() -> None:
    assert not_finite(nn.BatchNorm1d(2)) == ""
    assert not_finite(nn.ReLU()) == ""
    with torch.no_grad():
        layer = nn.Linear(2, 2)
        layer.bias[1] = torch.nan
    assert not_finite(nn.Sequential(nn.ReLU(), layer)) == "1.bias"


def test_values_are_checked_before_they_become_bytes() -> None:
    check_finite(torch.ones(2), "image")
    with pytest.raises(Diverged, match=r"^diverged: image not finite"):
        check_finite(torch.tensor([1.0, torch.nan]), "image")


def test_the_error_travels_between_processes() -> None:
    error = Diverged("loss", 312, 1248, "clip")
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, UserError)
    assert isinstance(copy, Diverged)
    assert (copy.what, copy.step, copy.steps, copy.hint, str(copy)) == ("loss", 312, 1248, "clip", str(error))
    assert str(error) == "diverged at step 312 of 1248: loss not finite (clip)"
    assert (copy.kind, UserError("no").kind, copy.exit_code) == ("diverged", "error", 4)


# What was learned


class Plain(Countermeasure):
    """Plain training as a procedure, which leaves no accuracy on training batches."""

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, ctx: TrainContext) -> Tensor:
        return nn.functional.cross_entropy(model(x), y)


class Nothing(Countermeasure):
    def loss(self, model: nn.Module, x: Tensor, y: Tensor, ctx: TrainContext) -> Tensor:
        logits: Tensor = model(x)
        return 0 * logits.sum()


class Forgets(Countermeasure):
    def after_training(self, model: nn.Module, ctx: TrainContext) -> None:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()


@pytest.mark.parametrize(
    ("countermeasure", "learned"), [(Countermeasure(), True), (Plain(), True), (Blinds(), False), (Nothing(), False)]
)
@pytest.mark.parametrize("test", [True, False])
def test_a_training_says_whether_it_learned_its_images(
    countermeasure: Countermeasure, learned: bool, test: bool
) -> None:
    assert run(countermeasure, epochs=25, data=colours(160), test=test)[1].learned is learned


def test_the_network_as_it_is_handed_over_is_asked_where_no_batch_was_counted() -> None:
    class Both(Plain, Forgets):
        pass

    assert not run(Both(), epochs=25, data=colours(160))[1].learned


def test_at_most_a_sample_of_the_images_is_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[ImageSet] = []
    known = loop.accuracy

    def watched(model: nn.Module, pixels: Pixels, *more: Any) -> float:
        asked.append(pixels.data)
        return known(model, pixels, *more)

    monkeypatch.setattr(loop, "accuracy", watched)
    monkeypatch.setattr(loop, "SAMPLE", 30)
    data = colours(120)
    run(Plain(), data=data, epochs=1)
    [_, sample] = asked
    assert len(sample) == 30
    places = [next(i for i in range(120) if np.array_equal(data.images[i], image)) for image in sample.images]
    assert places == sorted(set(places))
    assert sample.labels.tolist() == data.labels[places].tolist()


@pytest.mark.parametrize(
    ("accuracy", "classes", "images", "above"),
    [
        (10.0, [100] * 10, 1000, False),
        (12.8, [100] * 10, 1000, False),  # three errors of 0.95
        (12.9, [100] * 10, 1000, True),
        (12.9, [100] * 10, 100, False),
        (80.0, [800, 100, 100], 1000, False),  # the largest class, always
        (84.0, [800, 100, 100], 1000, True),
        (0.0, [100] * 10, 1000, False),
        (100.0, [100], 100, False),  # of one class nothing can be learned
    ],
)
def test_chance_is_the_largest_class_and_three_standard_errors(
    accuracy: float, classes: list[int], images: int, above: bool
) -> None:
    labels = np.repeat(np.arange(len(classes)), classes)
    assert above_chance(accuracy, labels, images) is above


def test_the_curve_counts_each_image_once() -> None:
    labels = np.repeat(np.arange(10), 10)
    curve: dict[str, Any] = {"accuracy_test": [0.0, 0.0], "loss_train": [0.0, 0.0]}
    assert not curve_above_chance(Outcome(epochs=[1, 9], accuracy_train=[99.0, 15.0], **curve), labels)
    assert curve_above_chance(Outcome(epochs=[1, 9], accuracy_train=[0.0, 20.0], **curve), labels)
    assert not curve_above_chance(Outcome(epochs=[1, 1.1], accuracy_train=[0.0, 20.0], **curve), labels)
    assert not curve_above_chance(Outcome(epochs=[1, 9], accuracy_train=[99.0, None], **curve), labels)
    assert not curve_above_chance(Outcome(), labels)
