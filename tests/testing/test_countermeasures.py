"""Countermeasures with one fault each, and those that have none."""

from __future__ import annotations

import random
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ue_bench.api import Context, Countermeasure, EnvironmentProblem, ImageSet, TrainContext, UserError
from ue_bench.contract.combination import combine
from ue_bench.testing import check_countermeasure, failures

from .helpers import broken, found


class Brighter(Countermeasure):
    name: ClassVar[str] = "brighter"

    def purify(self, data: ImageSet, ctx: Context) -> ImageSet:
        return data.with_images(np.minimum(data.images, 245) + np.uint8(10))


class Noisy(Countermeasure):
    name: ClassVar[str] = "noisy"

    def purify(self, data: ImageSet, ctx: Context) -> ImageSet:
        return data.with_images(data.images ^ ctx.rng("noise").integers(0, 4, data.images.shape, dtype=np.uint8))


class Turned(Countermeasure):
    """Gives every image its neighbour's place."""

    name: ClassVar[str] = "turned"

    def purify(self, data: ImageSet, ctx: Context) -> ImageSet:
        return data.with_images(np.roll(data.images, 1, axis=0))


class Relabelled(Countermeasure):
    name: ClassVar[str] = "relabelled"

    def purify(self, data: ImageSet, ctx: Context) -> ImageSet:
        return ImageSet(data.images, np.roll(data.labels, 1), data.class_names)


class Renamed(Countermeasure):
    name: ClassVar[str] = "renamed"

    def purify(self, data: ImageSet, ctx: Context) -> ImageSet:
        return ImageSet(data.images, data.labels, tuple(reversed(data.class_names)))


class Halved(Countermeasure):
    name: ClassVar[str] = "halved"

    def purify(self, data: ImageSet, ctx: Context) -> ImageSet:
        return ImageSet(data.images[:, ::2], data.labels, data.class_names)


class Bare(Countermeasure):
    name: ClassVar[str] = "bare"

    def purify(self, data: ImageSet, ctx: Context) -> Any:
        return data.images


class Unseeded(Countermeasure):
    name: ClassVar[str] = "unseeded"

    def purify(self, data: ImageSet, ctx: Context) -> ImageSet:
        return data.with_images(data.images ^ np.uint8(random.randrange(1, 250)))


class Kept(Countermeasure):
    """Random by way of something that it keeps in the artifacts."""

    name: ClassVar[str] = "kept"
    drawn: ClassVar[list[int]] = []

    def purify(self, data: ImageSet, ctx: Context) -> ImageSet:
        def make(folder: Any) -> None:
            self.drawn.append(len(self.drawn))
            (folder / "shift").write_text(str(len(self.drawn) % 200))

        shift = int((ctx.cached({"kept": 1}, make) / "shift").read_text())
        return data.with_images(data.images ^ np.uint8(shift))


class Peeping(Countermeasure):
    name: ClassVar[str] = "peeping"

    def purify(self, data: ImageSet, ctx: Context) -> ImageSet:
        return data.with_images(data.images ^ data.labels[:, None, None, None].astype(np.uint8))


class Falling(Countermeasure):
    name: ClassVar[str] = "falling"

    def purify(self, data: ImageSet, ctx: Context) -> ImageSet:
        raise ValueError("no such thing\nsecond line")


def test_a_deterministic_one(ctx: Context, data: ImageSet) -> None:
    findings = check_countermeasure(Brighter(), data, ctx)
    assert failures(findings) == []
    assert found(findings, "purify", "randomness").values == {"random": False}
    changes = found(findings, "purify", "changes").values
    assert changes["max"] == 10
    assert changes["percent"] > 90
    assert 9 < changes["mean"] <= 10
    assert found(findings, "purify", "order").values["percent"] == 100
    assert found(findings, "purify", "cost").values["milliseconds"] > 0
    assert "measured here (cpu, " in found(findings, "purify", "cost").text


def test_a_random_one(ctx: Context, data: ImageSet) -> None:
    findings = check_countermeasure(Noisy(), data, ctx)
    assert failures(findings) == []
    assert found(findings, "purify", "randomness").values == {"random": True}


@pytest.mark.parametrize(
    ("countermeasure", "faults"),
    [
        (Turned(), {"purify order"}),
        (Relabelled(), {"purify labels"}),
        (Renamed(), {"purify labels"}),
        (Halved(), {"purify images"}),
        (Bare(), {"purify images"}),
        (Unseeded(), {"purify seed", "purify generators"}),
        (Kept(), {"purify seed"}),
        (Peeping(), {"purify blind"}),
        (Falling(), {"purify runs"}),
    ],
    ids=lambda v: v.name if isinstance(v, Countermeasure) else "",
)
def test_faults_of_purify(countermeasure: Countermeasure, faults: set[str], ctx: Context, data: ImageSet) -> None:
    findings = check_countermeasure(countermeasure, data, ctx)
    assert broken(findings) == faults
    assert all("\n" not in line for line in failures(findings))


def test_changing_nothing_is_told(ctx: Context, data: ImageSet) -> None:
    class Idle(Brighter):
        identity_note: ClassVar[str] = "a kernel of one pixel"

        def purify(self, data: ImageSet, ctx: Context) -> ImageSet:
            return data.with_images(data.images.copy())

    findings = check_countermeasure(Idle(), data, ctx)
    assert found(findings, "purify", "changes").text == "no value"
    assert found(findings, "declares", "identity").text == "a kernel of one pixel"
    bare = check_countermeasure(Countermeasure(), data, ctx)
    assert "changes nothing" in found(bare, "declares", "methods").text
    assert len(bare) == 1


def test_what_the_user_can_mend_is_no_fault(ctx: Context, data: ImageSet) -> None:
    class Needy(Brighter):
        def purify(self, data: ImageSet, ctx: Context) -> ImageSet:
            raise EnvironmentProblem("needs a package", "pip install it")

    with pytest.raises(EnvironmentProblem):
        check_countermeasure(Needy(), data, ctx)


def test_clean_images_are_lent(ctx: Context, data: ImageSet) -> None:
    class Owner(Brighter):
        count: int = 5

        @property
        def clean_images(self) -> int:
            return self.count

        def purify(self, data: ImageSet, ctx: Context) -> ImageSet:
            assert len(ctx.clean_data) == self.count
            return super().purify(data, ctx)

    findings = check_countermeasure(Owner(), data, ctx, images=10)
    assert failures(findings) == []
    assert "needs 5 clean images" in found(findings, "declares", "methods").text
    with pytest.raises(UserError, match="25 clean images"):
        check_countermeasure(Owner(count=25), data, ctx)


class Fading(Countermeasure):
    name: ClassVar[str] = "fading"
    fault: str = ""

    def augment(self, x: Tensor, y: Tensor, generator: torch.Generator) -> Any:
        source = None if self.fault == "global" else generator
        shade = 0.5 + 0.5 * torch.rand(len(x), 1, 1, 1, generator=source)
        match self.fault:
            case "range":
                return x * shade + 0.3, y
            case "nan":
                return x / x.mean() * float("nan"), y
            case "half":
                return (x * shade).half(), y
            case "cropped":
                return (x * shade)[:, :, 1:], y
            case "order":
                return (x * shade).roll(1, 0), y
            case "relabelled":
                return x * shade, y.roll(1)
            case "classes":
                return x * shade, y + 100
            case "soft":
                return x * shade, F.one_hot(y).float()
            case "peeping":
                return x * shade * (1 - y[:, None, None, None] / 10), y
            case "one":
                return x * shade
        return x * shade, y


@pytest.mark.parametrize(
    ("fault", "faults"),
    [
        ("", set()),
        ("global", {"augment seed", "augment generators"}),
        ("range", {"augment range"}),
        ("nan", {"augment range"}),
        ("half", {"augment images"}),
        ("cropped", {"augment images"}),
        ("order", {"augment order"}),
        ("relabelled", {"augment clean-label"}),
        ("classes", {"augment labels"}),
        ("soft", {"augment labels"}),
        ("peeping", {"augment blind"}),
        ("one", {"augment images"}),
    ],
)
def test_faults_of_augment(fault: str, faults: set[str], ctx: Context, data: ImageSet) -> None:
    assert broken(check_countermeasure(Fading(fault=fault), data, ctx)) == faults


def test_labels_may_change_where_that_is_said(ctx: Context, data: ImageSet) -> None:
    class Said(Fading):
        uses_labels: ClassVar[bool] = True

    findings = check_countermeasure(Said(fault="relabelled"), data, ctx)
    assert failures(findings) == []
    assert found(findings, "augment", "clean-label").values["percent"] > 0


class Procedure(Countermeasure):
    name: ClassVar[str] = "procedure"
    fault: str = ""

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, ctx: TrainContext) -> Any:
        source = None if self.fault == "global" else ctx.generator
        x = (x + 0.1 * torch.rand(x.shape, generator=source)).clamp(0, 1)
        loss = F.cross_entropy(model(x + 1 if self.fault == "range" else x), y)
        match self.fault:
            case "vector":
                return loss.expand(3)
            case "constant":
                return loss.detach()
            case "nan":
                return loss * float("nan")
            case "steps":
                with torch.no_grad():
                    next(model.parameters()).add_(0.1)
            case "gradients":
                loss.backward(retain_graph=True)
            case "freezes":
                next(model.parameters()).requires_grad_(False)
            case "eval":
                model.eval()
            case "unused":
                return 0 * loss + next(model.parameters()).sum() * float("inf")
        return loss


@pytest.mark.parametrize(
    ("fault", "faults"),
    [
        ("", set()),
        ("global", {"loss seed", "loss generators"}),
        ("vector", {"loss loss"}),
        ("constant", {"loss loss"}),
        ("nan", {"loss loss"}),
        ("steps", {"loss weights"}),
        ("gradients", {"loss weights"}),
        ("freezes", {"loss weights", "loss gradients"}),
        ("eval", {"loss mode"}),
        ("range", {"loss range"}),
        ("unused", {"loss loss"}),
    ],
)
def test_faults_of_loss(fault: str, faults: set[str], ctx: Context, data: ImageSet) -> None:
    assert broken(check_countermeasure(Procedure(fault=fault), data, ctx)) >= faults
    assert bool(faults) == bool(broken(check_countermeasure(Procedure(fault=fault), data, ctx)))


def test_parameters_without_a_gradient_are_found(ctx: Context, data: ImageSet) -> None:
    class Partial(Countermeasure):
        def loss(self, model: nn.Module, x: Tensor, y: Tensor, ctx: TrainContext) -> Tensor:
            return torch.stack([p.square().sum() for p in list(model.parameters())[1:]]).sum()

    assert broken(check_countermeasure(Partial(), data, ctx)) == {"loss gradients"}


def test_the_batch_that_is_trained_on_is_measured(ctx: Context, data: ImageSet) -> None:
    changes = found(check_countermeasure(Procedure(), data, ctx), "loss", "changes").values
    assert changes["percent"] > 90
    assert 10 < changes["max"] <= 25.5 + 1e-3


def test_cost_of_a_procedure_is_told_in_passes(ctx: Context, data: ImageSet) -> None:
    class Slow(Procedure):
        @property
        def passes(self) -> float:
            return 12.0

        def loss(self, model: nn.Module, x: Tensor, y: Tensor, ctx: TrainContext) -> Tensor:
            for _ in range(15):
                model(x)
            return F.cross_entropy(model(x), y)

    cost = found(check_countermeasure(Slow(), data, ctx), "loss", "cost").values
    assert cost["passes"] > 3
    assert cost["declared"] == 12


class Keeper(Countermeasure):
    name: ClassVar[str] = "keeper"
    fault: str = ""

    def selection_score(self, model: nn.Module, ctx: TrainContext) -> float:
        if self.fault == "changes":
            with torch.no_grad():
                next(model.parameters()).add_(0.1)
        if self.fault == "random":
            return random.random()
        return float("nan") if self.fault == "nan" else 0.5


class Finisher(Countermeasure):
    name: ClassVar[str] = "finisher"
    fault: str = ""

    def after_training(self, model: nn.Module, ctx: TrainContext) -> None:
        source = None if self.fault == "global" else ctx.generator
        with torch.no_grad():
            weight = next(model.parameters())
            weight.add_(torch.rand(weight.shape, generator=source))
            if self.fault == "nan":
                weight.div_(0).sub_(weight)


@pytest.mark.parametrize(
    ("countermeasure", "faults"),
    [
        (Keeper(), set()),
        (Keeper(fault="changes"), {"selection_score weights"}),
        (Keeper(fault="random"), {"selection_score seed", "selection_score generators"}),
        (Keeper(fault="nan"), {"selection_score selection_score"}),
        (Finisher(), set()),
        (Finisher(fault="global"), {"after_training seed", "after_training generators"}),
        (Finisher(fault="nan"), {"after_training weights"}),
    ],
    ids=lambda v: f"{v.name} {v.fault}" if isinstance(v, Keeper | Finisher) else "",
)
def test_faults_at_the_end_of_training(
    countermeasure: Countermeasure, faults: set[str], ctx: Context, data: ImageSet
) -> None:
    findings = check_countermeasure(countermeasure, data, ctx)
    assert broken(findings) == faults
    if countermeasure == Finisher():
        assert found(findings, "after_training", "weights").values == {"changed": 1}


def test_every_part_of_a_combination_is_tried(ctx: Context, data: ImageSet) -> None:
    together = combine(combine(Brighter(), Fading()), Procedure())
    stages = {f.stage for f in check_countermeasure(together, data, ctx)}
    assert stages == {"declares", "purify", "augment", "loss"}
    assert broken(check_countermeasure(combine(Turned(), Fading(fault="range")), data, ctx)) == {
        "purify order",
        "augment range",
    }


def test_global_generators_are_put_back(ctx: Context, data: ImageSet) -> None:
    def states() -> tuple[object, ...]:
        return random.getstate(), repr(np.random.get_state(legacy=False)), torch.get_rng_state().tolist()  # noqa: NPY002

    before = states()
    check_countermeasure(combine(Unseeded(), Procedure(fault="global")), data, ctx)
    assert states() == before
