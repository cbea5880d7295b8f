"""The engine's own tensor code on a GPU, as far as that can be tried without one: see ``fake_cuda``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from fake_cuda import FakeGpu
from sets import colours
from torch import Tensor, nn

from ue_bench.contract.plugin import Countermeasure
from ue_bench.engine import loop
from ue_bench.engine.crops import to_unit
from ue_bench.engine.features import cosines
from ue_bench.engine.loop import Pixels, accuracy, make_optimizer, train

from .test_resume import countermeasure, network
from .test_train import longer, silent


class Recorded(Exception):
    """A step was recorded, which ends the training of a test."""


@pytest.fixture
def taken(fake_gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let the training's step be taken once, held to what a recorded one may do; optimizers note what they get."""
    steps: list[str] = []

    class Graphs:
        def __init__(self, device: torch.device, generators: Sequence[torch.Generator]) -> None:
            assert device.type == "cuda"
            assert [g.device.type for g in generators] == ["cuda", "cuda"]

        def warm_up(self, step: Callable[[], Tensor]) -> None:
            step()

        def record(self, step: Callable[[], Tensor]) -> Callable[[], Tensor]:
            with fake_gpu(recorded=True):
                assert step().device.type == "cuda"
            raise Recorded

    def step(self: torch.optim.Optimizer) -> None:
        [group] = self.param_groups
        assert group["fused"]
        assert (group["lr"].device.type, group["lr"].dtype, group["lr"].shape) == ("cuda", torch.float32, ())
        assert all(p.grad is not None and p.grad.device.type == "cuda" for p in group["params"])
        steps.append(type(self).__name__)

    monkeypatch.setattr(loop, "CudaGraphs", Graphs)
    monkeypatch.setattr(loop, "own_generator", torch.Generator)
    for kind in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW):
        monkeypatch.setattr(kind, "step", step)
    return steps


def run(fake_gpu: FakeGpu, action: Countermeasure, precision: str = "fp32", **recipe: Any) -> None:
    with fake_gpu():
        train(network, colours(), colours(30, 1), longer(**recipe), action, "cuda", precision, 0, silent)


@pytest.mark.parametrize(
    "recipe",
    [{}, {"crop": "resized"}, {"crop": "resized", "flip": False}, {"pad": 0, "flip": False}, {"clip": 0.1},
     {"optimizer": "adam"}, {"optimizer": "adamw", "shift": 0.5}, {"nesterov": True}],
    ids=str,
)  # fmt: skip
def test_a_step_is_taken_on_the_gpu_and_may_be_recorded(
    recipe: dict[str, Any], fake_gpu: FakeGpu, taken: list[str]
) -> None:
    with pytest.raises(Recorded):
        run(fake_gpu, countermeasure("vanilla"), **recipe)
    assert [name.lower() for name in taken] == [recipe.get("optimizer", "sgd")] * 2


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("selector", ["cutout", "cutmix", "at[steps=2]", "early-stopping[clean=20]"])
def test_steps_of_countermeasures(selector: str, precision: str, fake_gpu: FakeGpu, taken: list[str]) -> None:
    with pytest.raises(Recorded):
        run(fake_gpu, countermeasure(selector), precision)
    assert len(taken) == 2


def test_a_plugin_that_is_not_replayable_runs_as_it_is(fake_gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    class Undeclared(Countermeasure):
        def augment(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
            assert x.device.type == "cuda"
            raise Recorded

    monkeypatch.setattr(loop, "own_generator", torch.Generator)
    monkeypatch.setattr(loop, "CudaGraphs", None)
    with pytest.raises(Recorded):
        run(fake_gpu, Undeclared())


@pytest.mark.parametrize("fits", [True, False])
def test_images_come_to_the_gpu(fits: bool, fake_gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    if not fits:
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 100))
    with fake_gpu():
        pixels = Pixels(colours(), torch.device("cuda"))
        assert (pixels.resident is not None) == fits
        if fits:
            assert to_unit(pixels.take(torch.arange(5, device="cuda"))).device.type == "cuda"


def test_an_evaluation(fake_gpu: FakeGpu) -> None:
    with fake_gpu():
        model = network().to("cuda")
        pixels = Pixels(colours(), torch.device("cuda"))
        found = accuracy(model, pixels, lambda: torch.autocast("cuda", torch.bfloat16), lambda x: x.flip(3))
    assert found == 100 / 40  # a number that is read from the fake GPU is 1


def test_features(fake_gpu: FakeGpu) -> None:
    convolutional = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    data = colours()
    with fake_gpu():
        assert cosines(convolutional.to("cuda"), data, "cuda", "bf16") == (1 / 40, 1.0)


def test_optimizers_on_a_gpu_are_one_kernel(fake_gpu: FakeGpu) -> None:
    with fake_gpu():
        model = nn.Linear(2, 2).to("cuda")
        for optimizer, recorded in (("sgd", True), ("adam", True), ("adamw", False)):
            [group] = make_optimizer(model, longer(optimizer=optimizer), recorded).param_groups
            assert group["fused"]
            assert group.get("capturable", recorded) == recorded
