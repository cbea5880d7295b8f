from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from toys import PROTOCOL, Linear, Plain, Toy, toy_cell

from ue_bench.catalogue.registry import registry
from ue_bench.contract.plugin import NetworkCost, Protector, Victim
from ue_bench.engine import speed
from ue_bench.grid import cost, prediction
from ue_bench.grid.cell import epochs
from ue_bench.grid.stages.protect import LEAST_PASSES, ProtectStage
from ue_bench.grid.stages.train import TrainStage


def victim() -> Victim:
    [found] = registry().resolve("victim", "resnet9[width=4,blocks=1]")
    assert isinstance(found, Victim)
    return found


class Dear(Toy):
    def cost(self, images: int) -> NetworkCost:
        return NetworkCost("linear", 30.0)


def test_epochs_are_passes_over_the_set() -> None:
    short = PROTOCOL.model_copy(update={"batch": 10, "epochs": 3})
    assert epochs(short, 100) == 3
    assert epochs(short, 104) == pytest.approx(300 / 104)  # the last, smaller batch is dropped
    assert epochs(short.model_copy(update={"epochs": None, "steps": 50}), 100) == 5
    assert epochs(short, 4) == 3


def test_protection_weighs_as_many_passes_as_it_makes() -> None:
    assert ProtectStage.of(toy_cell(protector=Toy())).cost().weight == LEAST_PASSES
    assert ProtectStage.of(toy_cell(protector=Dear())).cost().weight == 30


def test_what_a_victim_learns_before_its_training_weighs_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Learner(Linear):
        def cost(self, images: int) -> NetworkCost:
            return NetworkCost("mlp", 3.0 * images)

    plain, learner = (
        toy_cell(victim=Linear(), countermeasure=Plain()),
        toy_cell(victim=Learner(), countermeasure=Plain()),
    )
    alone = epochs(plain.recipe, 10)  # 10 images
    assert TrainStage(plain).cost().weight == pytest.approx(alone)
    assert TrainStage(learner).cost().weight == pytest.approx(alone + 30)
    asked: list[NetworkCost] = []

    def seconds(network: NetworkCost, *rest: Any) -> float:
        asked.append(network)
        return 5.0

    monkeypatch.setattr(prediction, "network_seconds", seconds)
    place = SimpleNamespace(device="cpu", threads=1, cache_dir=tmp_path)
    wanted: Any = SimpleNamespace(env=place, data=learner.data, precision="fp32", place="here")
    assert prediction.Predictor(wanted).seconds(TrainStage(learner)) == 10
    assert sorted(asked, key=lambda n: n.victim) == [NetworkCost("linear", alone), NetworkCost("mlp", 30.0)]


def test_a_pass_is_timed_by_training_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds are those of the clock, over all images that were passed."""
    now = iter(range(100))
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(now)))
    monkeypatch.setattr(speed, "LEAST_SECONDS", 2.5)
    speed.seconds_a_pass.cache_clear()
    found = speed.seconds_a_pass(victim(), 10, (8, 8), "cpu", "fp32", 1)
    # Begun at 0, looked at the clock after steps 1 and 2 (at 1 and 2) and 3 (at 3), read it at 4.
    assert found == pytest.approx(4 / (3 * 64))
    many = cost.seconds(NetworkCost("resnet9[width=4,blocks=1]", 5.0), 1000, 10, (8, 8), "cpu", "fp32", 1)
    assert many == pytest.approx(5000 * found)
    speed.seconds_a_pass.cache_clear()


def test_a_pass_is_of_the_size_that_the_network_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[tuple[int, int]] = []

    def seconds_a_pass(victim: Victim, classes: int, size: tuple[int, int], *rest: Any) -> float:
        timed.append(size)
        return 1.0

    monkeypatch.setattr(cost, "seconds_a_pass", seconds_a_pass)
    for size in (None, (224, 224)):
        cost.seconds(NetworkCost("linear", 5.0, size), 10, 10, (32, 32), "cpu", "fp32", 1)
    assert timed == [(32, 32), (224, 224)]


def test_timing_disturbs_nothing() -> None:
    speed.seconds_a_pass.cache_clear()
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    assert speed.seconds_a_pass(victim(), 3, (8, 8), "cpu", "fp32", threads + 1) > 0
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("selector", "images", "passes"),
    [
        ("tap", 50_000, 40 + 8 * 250 * 2 / 3),
        ("tap[preset=micro,restarts=2]", 10_000, 8 + 2 * 100 * 2 / 3),
        ("em", 50_000, 10 * (10 * 512 / 50_000 + 20 * 2 / 3 + 1 / 3)),
        ("em[mode=class]", 50_000, 10 * (10 * 512 / 50_000 + 0.2 * (2 / 3 + 1 / 3))),
        ("em[batch=100]", 50, 10 * (10 + 20 * 2 / 3 + 1 / 3)),
    ],
)
def test_costs_are_those_of_the_methods(selector: str, images: int, passes: float) -> None:
    [protector] = registry().resolve("protector", selector)
    assert isinstance(protector, Protector)
    found = protector.cost(images)
    assert found is not None
    assert found.passes == pytest.approx(passes)
    assert found.victim.startswith("resnet")
