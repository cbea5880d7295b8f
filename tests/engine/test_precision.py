from __future__ import annotations

import pytest
import torch

from ue_bench.engine.precision import MULTIPLIES_BFLOAT16, default_precision


@pytest.mark.parametrize(
    ("tiles", "vectors", "expected"), [(True, False, "bf16"), (False, True, "bf16"), (False, False, "fp32")]
)
def test_a_processor_computes_in_bfloat16_where_it_multiplies_it(
    tiles: bool, vectors: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, supported in zip(MULTIPLIES_BFLOAT16, (tiles, vectors), strict=True):
        monkeypatch.setattr(torch.cpu, name, lambda supported=supported: supported, raising=False)
    assert default_precision("cpu") == expected


def test_a_torch_that_cannot_be_asked_computes_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in MULTIPLIES_BFLOAT16:
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert default_precision("cpu") == "fp32"


def test_other_devices_than_cuda_and_processors_compute_in_float32() -> None:
    assert default_precision("mps") == "fp32"
