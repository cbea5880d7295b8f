from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from ue_bench.api import Countermeasure, TrainContext
from ue_bench_countermeasures.adversarial import (
    AdversarialTraining,
    FastAdversarialTraining,
    NoisyFastAdversarialTraining,
)
from ue_bench_countermeasures.adversarial_l2 import L2AdversarialTraining
from ue_bench_countermeasures.augmentation import Coin, CutMix, Cutout, GaussianNoise, Mixup
from ue_bench_countermeasures.policies import AutoAugment, RandAugment, Rotation
from ue_bench_countermeasures.ueraser import UEraser

pytestmark = pytest.mark.gpu


@pytest.fixture
def no_synchronisation() -> Iterator[None]:
    """Any wait of the host for the device is an error."""
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(
    "countermeasure",
    [
        Cutout(),
        Cutout(fill="gray"),
        Cutout(fill="mean"),
        GaussianNoise(),
        Mixup(),
        Mixup(variant="standard"),
        CutMix(),
        CutMix(label="original"),
        AdversarialTraining(steps=2),
        AdversarialTraining(steps=2, start="gauss"),
        FastAdversarialTraining(),
        NoisyFastAdversarialTraining(),
        NoisyFastAdversarialTraining(attack_mode="train"),
        L2AdversarialTraining(steps=2),
        Rotation(),
        RandAugment(),
        AutoAugment(),
        UEraser(variant="max"),
        Coin(),
    ],
    ids=lambda c: c.selector,
)
def test_host_never_waits_for_the_device(countermeasure: Countermeasure, request: pytest.FixtureRequest) -> None:
    x = torch.rand(16, 3, 8, 8, device="cuda").to(memory_format=torch.channels_last)
    y = torch.randint(10, (16,), device="cuda")
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 10)).cuda()
    generator = torch.Generator("cuda").manual_seed(0)
    request.getfixturevalue("no_synchronisation")
    if countermeasure.overrides("augment"):
        countermeasure.augment(x, y, generator)
    else:
        countermeasure.loss(model, x, y, TrainContext(generator, epoch=0, epochs=1, autocast=nullcontext))
