"""What keeping the state of a training costs: ratios within one run.

    pytest benchmarks/test_saving.py --benchmark-only --benchmark-columns=min,median,rounds

``kept`` writes one state in so many steps; a training writes one in ``SAVE_EVERY`` seconds, so that of the difference
to ``plain`` a share of the time of these steps over ``SAVE_EVERY`` is left. ``asked`` is asked after every step whether
it is time, as every training is.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from ue_bench.api import Countermeasure, ImageSet, Victim
from ue_bench.atomic import save_checkpoint
from ue_bench.catalogue.protocols import protocol
from ue_bench.catalogue.registry import registry
from ue_bench.engine.loop import train
from ue_bench.engine.saving import SavedState

STEPS, BATCH = 4, 8


@pytest.mark.benchmark(group="four steps of 8 images of 32 px")
@pytest.mark.parametrize("way", ["plain", "asked", "kept"])
@pytest.mark.parametrize("network", ["resnet9[blocks=1]", "resnet9"])
def test_state(benchmark: BenchmarkFixture, network: str, way: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    [victim] = registry().resolve("victim", network)
    assert isinstance(victim, Victim)
    images = np.random.default_rng(0).integers(0, 256, (STEPS * BATCH, 32, 32, 3), dtype=np.uint8)
    data = ImageSet(images, np.arange(len(images)) % 10, tuple("abcdefghij"))
    recipe = protocol("smoke").model_copy(update={"epochs": 1, "batch": BATCH})
    saved, states = SavedState(tmp_path / "state.pt", "cpu"), list[int]()

    def keep(state: dict[str, object]) -> None:
        save_checkpoint(saved.path, state)
        states.append(1)

    save = {"plain": None, "asked": saved.offer, "kept": keep}[way]

    def work() -> None:
        train(
            lambda: victim.build(10, (32, 32)), data, None, recipe, Countermeasure(), "cpu", "fp32", 0,
            lambda *done: None, None, save, None if way == "plain" else saved.due,
        )  # fmt: skip

    rounds = 3
    benchmark.pedantic(work, rounds=rounds, warmup_rounds=1)
    assert len(states) == (rounds + 1 if way == "kept" else 0)
    assert (tmp_path / "state.pt").exists() == (way == "kept")
