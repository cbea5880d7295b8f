"""Whether what countermeasures do in a training step may be recorded on a GPU and replayed is as they say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import pytest
import torch
from fake_cuda import FakeGpu
from torch import Tensor, nn

from ue_bench.api import Countermeasure, TrainContext
from ue_bench.catalogue.registry import registry
from ue_bench.testing.training import small_network
from ue_bench_countermeasures import policies

SIZE = 12
VARIANTS = [
    "all", "cutout[fill=mean]", "cutout[fill=gray]", "mixup[variant=standard]", "cutmix[label=original]",
    "cutmix[box=kornia]", "at[start=gauss]", "at[start=none]", "n-fgsm[attack_mode=train]", "at-l2[start=step]",
    "ueraser[variant=max,trivial=batch]", "eclipse[t=0]", "cutout+at[steps=1]",
]  # fmt: skip


def acting() -> list[Countermeasure]:
    """All that act on batches."""
    countermeasures = cast(list[Countermeasure], registry().resolve("countermeasure", VARIANTS))
    return [c for c in countermeasures if c.overrides("augment") or c.overrides("loss")]


@pytest.fixture(autouse=True)
def constants() -> Iterator[None]:
    """Constants that are kept on the device are fake ones here, and nothing for later tests."""
    policies.constant.cache_clear()
    yield
    policies.constant.cache_clear()


def act(countermeasure: Countermeasure, fake_gpu: FakeGpu, recorded: bool, device: str = "cuda") -> None:
    """Do in a step what ``countermeasure`` does, on a batch on ``device``."""
    with fake_gpu():
        model = small_network(10, (SIZE, SIZE)).to(device)
        x = torch.rand(6, 3, SIZE, SIZE, device=device).to(memory_format=torch.channels_last)
        y = torch.randint(10, (6,), device=device)
        generator = torch.Generator(device)
        ctx = TrainContext(generator, 0, 4, lambda: torch.autocast("cuda", torch.bfloat16))
    with fake_gpu(recorded):
        if countermeasure.overrides("augment"):
            x, y = countermeasure.augment(x, y, generator)
        if countermeasure.overrides("loss"):
            loss = countermeasure.loss(model, x, y, ctx)
            assert loss.shape == ()
            loss.backward()
            assert all(p.grad is not None for p in model.parameters())
        assert {x.device.type, y.device.type} == {device}
        assert x.shape == (6, 3, SIZE, SIZE)


def may_be_recorded(countermeasure: Countermeasure, fake_gpu: FakeGpu) -> bool:
    act(countermeasure, fake_gpu, recorded=False)  # what is kept on the device is brought there while warming up
    try:
        act(countermeasure, fake_gpu, recorded=True)
    except Exception:  # of many kinds: HostCopy, and torch's own
        return False
    return True


@pytest.mark.parametrize("countermeasure", acting(), ids=lambda c: c.selector)
def test_it_is_as_they_say(countermeasure: Countermeasure, fake_gpu: FakeGpu) -> None:
    if countermeasure.overrides("augment"):  # what is computed once on the host is there before
        countermeasure.augment(torch.rand(6, 3, SIZE, SIZE), torch.zeros(6, dtype=torch.long), torch.Generator("cpu"))
    parts = countermeasure.members if hasattr(countermeasure, "members") else (countermeasure,)
    assert may_be_recorded(countermeasure, fake_gpu) == all(part.replayable for part in parts)


class Faulty(Countermeasure):
    """Does one thing in a step that cannot be recorded."""

    fault: str

    def augment(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        match self.fault:
            case "number":
                x = x * float(x.mean())
            case "condition":
                x = x if x.mean() > 0.5 else 1 - x
            case "mask":
                x[x.mean((1, 2, 3)) > 0.5] = x[x.mean((1, 2, 3)) > 0.5].flip(3)
            case "places":
                x = x.index_fill(0, (y == 3).nonzero()[:, 0], 0.0)
            case "constant":
                x = x * torch.tensor([0.1, 0.2, 0.3], device=x.device)[:, None, None]
            case "list":
                x = x[:, [2, 1, 0]]
            case "host":
                x = x + (x.cpu() / 2).to(x.device)
        return x, y


@pytest.mark.parametrize("fault", ["number", "condition", "mask", "places", "constant", "list", "host"])
def test_what_cannot_be_recorded_is_found(fault: str, fake_gpu: FakeGpu) -> None:
    assert not Faulty.replayable
    with pytest.raises(Exception, match=r"number is read|cpu|nonzero|cuda"):
        act(Faulty(fault=fault), fake_gpu, recorded=True)


class Forgetful(Countermeasure):
    """Makes a tensor on the host, or draws there."""

    what: str

    def augment(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        if self.what == "noise":
            return x + torch.rand(x.shape), y
        if self.what == "generator":
            return x + torch.rand(x.shape, device=x.device, generator=torch.Generator("cpu")), y
        return x, y.new_zeros(len(y)) + torch.arange(len(y))


@pytest.mark.parametrize("what", ["noise", "generator", "labels"])
def test_a_device_that_is_forgotten_is_found(what: str, fake_gpu: FakeGpu) -> None:
    with pytest.raises((RuntimeError, AssertionError), match=r"cpu|cuda"):
        act(Forgetful(what=what), fake_gpu, recorded=False)


def test_a_network_that_reads_a_number_is_found(fake_gpu: FakeGpu) -> None:
    class Reads(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean((2, 3)) * float(x.amax())

    with fake_gpu(recorded=True), pytest.raises(AssertionError, match="a number is read from the device"):
        Reads()(torch.rand(2, 3, 4, 4, device="cuda"))
