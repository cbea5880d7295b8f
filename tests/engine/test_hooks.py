"""What a countermeasure may do to the network: choose an evaluation, and change weights after training."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import PrivateAttr
from sets import colours
from torch import Tensor, nn

from ue_bench.contract.combination import combine
from ue_bench.contract.context import TrainContext
from ue_bench.contract.imageset import ImageSet
from ue_bench.contract.plugin import Countermeasure
from ue_bench.contract.protocol import Protocol
from ue_bench.engine.loop import Outcome, Pixels, accuracy, train
from ue_bench.errors import UserError

from .test_train import RECIPE, longer, network, silent, weights

TEST = colours(30, 1)


def run(countermeasure: Countermeasure, recipe: Protocol = RECIPE, **given: Any) -> tuple[nn.Module, Outcome]:
    return train(network, colours(), TEST, recipe, countermeasure, "cpu", "fp32", 0, silent, **given)


def measured(model: nn.Module) -> float:
    return accuracy(model, Pixels(TEST, torch.device("cpu")), lambda: torch.autocast("cpu", enabled=False))


class Judge(Countermeasure):
    """Gives the evaluations scores from a list, and remembers the weights it judged."""

    scores: list[float]
    _judged: list[bytes] = PrivateAttr(default_factory=list)
    _contexts: list[TrainContext] = PrivateAttr(default_factory=list)

    def selection_score(self, model: nn.Module, ctx: TrainContext) -> float:
        model.train()  # either mode will do
        self._judged.append(weights(model))
        self._contexts.append(ctx)
        return self.scores[len(self._judged) - 1]


class Negated(Countermeasure):
    """Turns the last layer around after training."""

    def after_training(self, model: nn.Module, ctx: TrainContext) -> None:
        with torch.no_grad():
            for parameter in list(model.parameters())[-2:]:
                parameter.neg_()


class Blinded(Countermeasure):
    """Sets every weight to ``to`` after training."""

    to: float = 0.0

    def after_training(self, model: nn.Module, ctx: TrainContext) -> None:
        assert (ctx.epoch, ctx.epochs) == (3, 4)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(self.to)


@pytest.mark.parametrize(
    ("scores", "kept"),
    [([1, 5, 2, 3], 1), ([1, 2, 3, 4], 3), ([7, 7, 7, 7], 0), ([-9, -3, -5, -3], 1)],
)
def test_the_first_evaluation_with_the_highest_score_is_kept(scores: list[float], kept: int) -> None:
    judge = Judge(scores=scores)
    model, outcome = run(judge)
    assert len(judge._judged) == 4
    assert weights(model) == judge._judged[kept]
    assert outcome.accuracy_last == outcome.accuracy_test[kept] == measured(model)


def test_a_score_changes_nothing_of_the_training() -> None:
    judge = Judge(scores=[4, 3, 2, 1])
    _, outcome = run(judge)
    plain_model, plain = run(Countermeasure())
    assert (outcome.accuracy_test, outcome.loss_train) == (plain.accuracy_test, plain.loss_train)
    assert judge._judged[-1] == weights(plain_model)
    assert plain.accuracy_last == plain.accuracy_test[-1]


def test_scores_are_asked_for_where_the_curve_has_points() -> None:
    judge = Judge(scores=[1, 2])
    run(judge, longer(eval_every=3))
    assert [c.epoch for c in judge._contexts] == [2, 3]


def test_a_network_without_a_test_set_is_judged_too() -> None:
    judge = Judge(scores=[1, 9, 2, 3])
    model, outcome = train(network, colours(), None, RECIPE, judge, "cpu", "fp32", 0, silent)
    assert weights(model) == judge._judged[1]
    assert outcome.accuracy_last is None


@pytest.mark.parametrize("stopped_after", [1, 2, 3, 4])
def test_a_continued_run_remembers_what_it_keeps(stopped_after: int) -> None:
    states: list[dict[str, Any]] = []
    whole, outcome = run(Judge(scores=[1, 9, 2, 3]), save=lambda state: states.append(copy.deepcopy(state)))
    rest = Judge(scores=[1, 9, 2, 3][stopped_after:])
    continued, curve = run(rest, state=states[stopped_after - 1])
    assert len(rest._judged) == 4 - stopped_after
    assert weights(continued) == weights(whole)
    assert (curve.accuracy_last, curve.accuracy_test) == (outcome.accuracy_last, outcome.accuracy_test)


def test_what_finish_leaves_is_measured() -> None:
    long = longer(epochs=15)
    plain, curve = run(Countermeasure(), long)
    model, outcome = run(Negated(), long)
    weight, learnt = (list(net.parameters())[-2] for net in (model, plain))
    assert torch.equal(weight, -learnt)
    assert outcome.accuracy_last == measured(model) == 0
    assert outcome.accuracy_test == curve.accuracy_test
    assert curve.accuracy_last == curve.accuracy_test[-1] == 100


def test_parts_finish_in_the_order_they_are_written_after_the_choice() -> None:
    class Doubled(Countermeasure):
        _found: list[float] = PrivateAttr(default_factory=list)

        def after_training(self, model: nn.Module, ctx: TrainContext) -> None:
            with torch.no_grad():
                for parameter in model.parameters():
                    self._found.append(parameter.flatten()[0].item())
                    parameter.mul_(2)

    doubled = Doubled()
    model, _ = run(combine(combine(Blinded(to=3), doubled), Countermeasure()))
    assert set(doubled._found) == {3}
    assert all((p == 6).all() for p in model.parameters())
    judge = Judge(scores=[9, 1, 2, 3])
    chosen, _ = run(combine(Doubled(), judge))
    kept = np.frombuffer(judge._judged[0], dtype=np.float32)
    assert np.array_equal(np.frombuffer(weights(chosen), dtype=np.float32), 2 * kept)


def test_two_that_choose_cannot_be_combined() -> None:
    with pytest.raises(UserError, match="both choose which weights are kept"):
        combine(combine(Judge(scores=[1]), Countermeasure()), Judge(scores=[2]))


class Owner(Countermeasure):
    """Remembers how many clean images each method is lent."""

    count: int
    _lent: list[tuple[str, int]] = PrivateAttr(default_factory=list)

    @property
    def clean_images(self) -> int:
        return self.count

    def selection_score(self, model: nn.Module, ctx: TrainContext) -> float:
        self._lent.append(("selection_score", len(ctx.clean_data)))
        return 0.0

    def after_training(self, model: nn.Module, ctx: TrainContext) -> None:
        self._lent.append(("after_training", len(ctx.clean_data)))

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, ctx: TrainContext) -> Tensor:
        self._lent.append(("loss", len(ctx.clean_data)))
        return nn.functional.cross_entropy(model(x), y)


class Finisher(Countermeasure):
    count: int
    _lent: list[int] = PrivateAttr(default_factory=list)

    @property
    def clean_images(self) -> int:
        return self.count

    def after_training(self, model: nn.Module, ctx: TrainContext) -> None:
        self._lent.append(len(ctx.clean_data))


def test_clean_data_reach_every_method() -> None:
    clean = colours(9)
    owner, finisher = Owner(count=4), Finisher(count=9)
    run(combine(owner, finisher), longer(epochs=1), clean=clean)
    assert owner._lent == [("loss", 4)] * 2 + [("selection_score", 4), ("after_training", 4)]
    assert finisher._lent == [9]
    alone = Owner(count=9)
    run(alone, longer(epochs=1), clean=clean)
    assert {count for _, count in alone._lent} == {9}


def test_fewer_clean_images_are_the_first_of_them() -> None:
    clean = ImageSet(np.arange(9, dtype=np.uint8).repeat(192).reshape(9, 8, 8, 3), np.zeros(9, dtype=np.int64), ("a",))
    seen: list[int] = []

    class First(Finisher):
        def after_training(self, model: nn.Module, ctx: TrainContext) -> None:
            seen.extend(int(i) for i in ctx.clean_data.images[:, 0, 0, 0])

    run(combine(First(count=3), Finisher(count=9)), longer(epochs=1), clean=clean)
    assert seen == [0, 1, 2]
