"""Protectors on a GPU that is none: every step of theirs, with networks that nobody trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_cuda import FakeGpu
from sets import corners
from torch import nn

from ue_bench.api import Context, ImageSet, Protector
from ue_bench.catalogue.registry import registry
from ue_bench.testing.training import small_network

SELECTORS = [
    "em[preset=micro,max_rounds=1,steps=2,train_steps=2]", "pue[preset=micro,max_rounds=1,steps=2,train_steps=2]",
    "em[preset=micro,mode=class,max_rounds=1,steps=1,train_steps=2]",
    "rem[preset=micro,train_steps=1]", "sem[preset=micro,train_steps=1]", "pil[epochs=2]",
    "aue[preset=micro,epochs=1]", "aap[preset=micro,surrogate_epochs=2,iterations=2]",
    "gue[epochs=1,batch=8,width=2,answers=2]", "dune[preset=micro,iterations=2]",
    "uc[side=16,epochs=1,width=2,batch=12,surrogate=resnet9]",
    "tap[preset=micro]", "advin-like[preset=micro]", "entf[preset=micro]",
    "sep[preset=micro]", "hypo[preset=micro]", "tue[passes=1,steps=1,batch=12]", "ntga[validation=12,block=3]",
    "tensorclog[preset=micro]",
    "lsp", "ar", "ops", "cuda", "noise", "spots",
    "rae-igsm", "rit-igsm",
]  # fmt: skip


def name_of(file: Any) -> str:
    """Return the name of a path or an open file."""
    return Path(getattr(file, "name", file)).name


class Untrained:
    """Networks on the device, in place of trained ones."""

    def network(self, ctx: Context, data: ImageSet, victim: str) -> nn.Module:
        return small_network(data.num_classes, data.size).to(ctx.device)

    def surrogate(
        self, ctx: Context, data: ImageSet, victim: str, countermeasure: str, recipe: Mapping[str, Any]
    ) -> nn.Module:
        return self.network(ctx, data, victim).eval().requires_grad_(False)

    def checkpoints(
        self, ctx: Context, data: ImageSet, victim: str, countermeasure: str, recipe: Mapping[str, Any], count: int
    ) -> list[nn.Module]:
        return [self.surrogate(ctx, data, victim, countermeasure, recipe) for _ in range(count)]


@pytest.mark.parametrize("selector", SELECTORS)
def test_it_protects(selector: str, fake_gpu: FakeGpu, ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    [protector] = registry().resolve("protector", selector)
    assert isinstance(protector, Protector)
    kept: dict[str, Any] = {}  # in place of files, which fake tensors cannot be written to
    monkeypatch.setattr(torch, "save", lambda thing, file, **options: kept.update({name_of(file): thing}))
    monkeypatch.setattr(torch, "load", lambda file, **options: kept[name_of(file)])
    data = corners(24, (16, 16))
    on_gpu = replace(ctx, device="cuda", networks=Untrained())
    with fake_gpu():
        assert protector.protect(data, on_gpu).images.shape == data.images.shape
