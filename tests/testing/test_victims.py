from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ue_bench.api import Context, ImageSet, Victim
from ue_bench.testing import check_victim, failures

from .helpers import broken, found


class Net(nn.Module):
    def __init__(self, inputs: int, classes: int, fault: str) -> None:
        super().__init__()
        self.fault = fault
        self.layer = nn.Linear(inputs, classes + (fault == "classes"))
        self.norm = nn.BatchNorm1d(inputs, track_running_stats=fault != "batch")
        self.unused = nn.Parameter(torch.zeros(3)) if fault == "unused" else None
        self.count: Tensor
        self.register_buffer("count", torch.zeros(()))
        if fault == "frozen":
            self.requires_grad_(False)
        if fault == "unseeded":
            self.layer.weight.data = torch.rand(
                self.layer.weight.shape, generator=torch.Generator().manual_seed(id(self))
            )

    def forward(self, x: Tensor) -> Tensor:
        if self.fault == "counts":
            self.count += 1
        x = self.norm(x.flatten(1))
        if self.fault == "dropout":
            x = F.dropout(x, 0.5, training=True)
        found: Tensor = self.layer(x)
        return found / 0 if self.fault == "infinite" else found


class Plain(Victim):
    name: ClassVar[str] = "plain"
    fault: str = ""
    asks: dict[str, Any] = Field({})

    def build(self, num_classes: int, image_size: tuple[int, int]) -> Any:
        if self.fault == "function":
            return F.relu
        return Net(3 * image_size[0] * image_size[1], num_classes, self.fault)

    def optimizer(self) -> dict[str, Any]:
        return self.asks


def test_one_that_keeps_the_rules(ctx: Context, data: ImageSet) -> None:
    findings = check_victim(Plain(asks={"learning_rate": 0.01}), data, ctx)
    assert failures(findings) == []
    assert found(findings, "build", "parameters").values == {"parameters": 3 * 390 + 3 + 2 * 390}
    assert found(findings, "build", "optimizer").text == "asks for learning_rate=0.01"
    assert found(findings, "build", "randomness").values == {"random": True}
    assert found(findings, "train", "cost").values["milliseconds"] > 0


@pytest.mark.parametrize(
    ("changes", "faults"),
    [
        ({"fault": "function"}, {"build network"}),
        ({"fault": "classes"}, {"forward logits"}),
        ({"fault": "infinite"}, {"forward logits"}),
        ({"fault": "unseeded"}, {"build seed"}),
        ({"fault": "frozen"}, {"build trained", "train runs"}),
        ({"fault": "batch"}, {"forward runs"}),  # one image has no deviation
        ({"fault": "counts"}, {"forward state"}),
        ({"fault": "dropout"}, {"forward eval", "forward alone", "forward generators"}),
        ({"fault": "unused"}, {"train gradients"}),
        ({"asks": {"learning_rate": -1}}, {"build optimizer"}),
        ({"asks": {"speed": 1}}, {"build optimizer"}),
    ],
    ids=lambda value: str(sorted(value) if isinstance(value, set) else value),  # the same in every process
)
def test_faults(changes: dict[str, Any], faults: set[str], ctx: Context, data: ImageSet) -> None:
    assert broken(check_victim(Plain(**changes), data, ctx)) == faults


def test_images_that_see_one_another(ctx: Context, data: ImageSet) -> None:
    class Whole(Victim):
        def build(self, num_classes: int, image_size: tuple[int, int]) -> nn.Module:
            class Centred(Net):
                def forward(self, x: Tensor) -> Tensor:
                    return super().forward(x) + x.mean()

            return Centred(3 * image_size[0] * image_size[1], num_classes, "")

    assert broken(check_victim(Whole(), data, ctx)) == {"forward alone"}
