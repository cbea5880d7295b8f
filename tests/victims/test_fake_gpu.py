"""Networks on a GPU that is none: all their tensors come along, and no pass waits for the device."""

from __future__ import annotations

import pytest
import torch
from fake_cuda import FakeGpu

from ue_bench.engine.loop import ShiftedInput

from .helpers import here, offline, victim

FAMILIES = [
    "resnet9", "resnet18", "resnet50", "vgg16", "densenet121", "mobilenetv2", "senet18", "vit", "mlp", "linear",
    "linear-probe", "simclr", "probe", "timm",
]  # fmt: skip


@pytest.mark.parametrize("name", here(FAMILIES))
def test_a_pass_may_be_recorded(name: str, fake_gpu: FakeGpu) -> None:
    with fake_gpu():
        model = ShiftedInput(victim(offline(name)).build(10, (32, 32)), 0.5).to("cuda").train()
        x = torch.rand(2, 3, 32, 32, device="cuda")
    with fake_gpu(recorded=True), torch.autocast("cuda", torch.bfloat16):
        logits = model(x)
        assert (logits.shape, logits.device.type) == ((2, 10), "cuda")
        logits.sum().backward()
