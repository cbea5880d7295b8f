from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from toys import PROTOCOL, Linear, Plain, Toy, toy_cell

from ue_bench.catalogue.registry import registry
from ue_bench.cli import plan as cli_plan
from ue_bench.contract.plugin import NetworkCost, Protector
from ue_bench.grid import cost
from ue_bench.grid.plan import TrainStage, epochs, stages


class Dear(Toy):
    def cost(self, images: int) -> NetworkCost:
        return NetworkCost("linear", 30.0)


def test_epochs_are_passes_over_the_set() -> None:
    short = PROTOCOL.model_copy(update={"batch": 10, "epochs": 3})
    assert epochs(short, 100) == 3
    assert epochs(short, 104) == pytest.approx(300 / 104)  # the last, smaller batch is dropped
    assert epochs(short.model_copy(update={"epochs": None, "steps": 50}), 100) == 5
    assert epochs(short, 4) == 3


def test_dear_protection_weighs_as_much_as_it_trains() -> None:
    cheap, dear = (stages([toy_cell(protector=p)], lambda *_: False) for p in (Toy(), Dear()))
    assert cheap[0].weight == 0.5
    own = toy_cell()
    assert dear[0].weight == pytest.approx(30 / epochs(own.recipe, own.data.info.train))


def test_what_a_victim_learns_before_its_training_weighs_too(monkeypatch: pytest.MonkeyPatch) -> None:
    class Learner(Linear):
        def cost(self, images: int) -> NetworkCost:
            return NetworkCost("mlp", 3.0 * images)

    plain, learner = (
        toy_cell(victim=Linear(), countermeasure=Plain()),
        toy_cell(victim=Learner(), countermeasure=Plain()),
    )
    [*_, last] = stages([plain], lambda *_: False)
    assert last.weight == 1
    [*_, last] = stages([learner], lambda *_: False)
    assert last.weight == pytest.approx(1 + 30 / epochs(learner.recipe, 10))  # 10 images
    asked: list[NetworkCost] = []
    monkeypatch.setattr(cost, "seconds", lambda found, *rest: asked.append(found) or 5.0)
    wanted: Any = SimpleNamespace(env=SimpleNamespace(device="cpu", threads=1), data=learner.data, cells=[learner])
    assert cli_plan._seconds(TrainStage(learner), wanted) == 10
    assert asked == [NetworkCost("mlp", 30.0), NetworkCost("linear", epochs(learner.recipe, 10))]


def test_a_pass_is_timed_by_training_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds are those of the clock, over all images that were passed."""
    now = iter(range(100))
    monkeypatch.setattr(cost.time, "perf_counter", lambda: float(next(now)))
    monkeypatch.setattr(cost, "LEAST_SECONDS", 2.5)
    cost.seconds_a_pass.cache_clear()
    found = cost.seconds_a_pass("resnet9[width=4,blocks=1]", 10, (8, 8), "cpu", "fp32", 1)
    # Begun at 0, looked at the clock after steps 1 and 2 (at 1 and 2) and 3 (at 3), read it at 4.
    assert found == pytest.approx(4 / (3 * 64))
    many = cost.seconds(NetworkCost("resnet9[width=4,blocks=1]", 5.0), 1000, 10, (8, 8), "cpu", "fp32", 1)
    assert many == pytest.approx(5000 * found)
    cost.seconds_a_pass.cache_clear()


def test_timing_disturbs_nothing() -> None:
    cost.seconds_a_pass.cache_clear()
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    assert cost.seconds_a_pass("resnet9[width=4,blocks=1]", 3, (8, 8), "cpu", "fp32", threads + 1) > 0
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
