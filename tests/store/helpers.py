"""Results, curves and failures as a run writes them."""

from __future__ import annotations

from typing import Any

from ue_bench.keys import digest
from ue_bench.store.schema import (
    Budget,
    Cost,
    Curve,
    DatasetInfo,
    Environment,
    Failure,
    Metrics,
    Result,
)

KEY = "0123456789abcdef" * 2


def plugin(name: str, **parameters: Any) -> dict[str, Any]:
    return {"name": name, "revision": 1, "parameters": parameters}


CELL = {
    "engine": 1, "train": "a" * 32, "test": "b" * 32,
    "protector": plugin("lsp"), "countermeasure": plugin("jpeg", quality=10), "victim": plugin("resnet18"),
    "protocol": {"name": "fast", "version": 1, "batch": 128, "epochs": 18},
    "seed": 0, "fraction": 1.0, "precision": "fp32",
}  # fmt: skip


def result(cell: dict[str, Any] | None = None, **changes: Any) -> Result:
    """A finished cell; ``cell`` holds what differs from the usual one, ``changes`` are fields of the result."""
    identity = CELL | (cell or {})
    fields: dict[str, Any] = {
        "key": digest(identity),
        "cell": identity,
        "id": "cifar10/lsp/jpeg[quality=10]/resnet18/fast/s0",
        "dataset": DatasetInfo(
            selector="cifar10", source="CIFAR-10", train=50_000, test=10_000, classes=10, height=32, width=32,
            fingerprint=digest(["a" * 32, "b" * 32])[:16],
        ),
        "protector": "lsp",
        "countermeasure": "jpeg[quality=10]",
        "victim": "resnet18",
        "protocol": "fast",
        "protocol_version": 1,
        "seed": 0,
        "fraction": 1.0,
        "precision": "fp32",
        "metrics": Metrics(
            accuracy_last=12.34, accuracy_peak=23.45, peak_epoch=3.0, accuracy_train=None, loss_train=0.123
        ),
        "budget": Budget(
            declared="none", linf_mean=1, linf_max=2, rms=0.5, over_8=0, l2_mean=1, l0_mean=3, psnr=None, ssim=0.9
        ),
        "cost": Cost(protect_seconds=1, train_seconds=2, images_per_second=3, peak_memory_mb=4),
        "environment": Environment(ue_bench="0.1.0", commit="", python="3", torch="2", device="a processor", threads=1),
        "attempts": 1,
        "finished": "2026-01-01T00:00:00+00:00",
    }  # fmt: skip
    return Result(**(fields | changes))


CURVE = Curve(key=KEY, epoch=[1], accuracy_test=[10.0], accuracy_train=[None], loss_train=[2.0])


FAILURE = Failure(key=KEY, id="x", attempts=2, error="ValueError: no", failed="2026-01-01T00:00:00+00:00")


def old(**changes: Any) -> Result:
    """A result of version 1, which held no cell: its key may be anything."""
    fields = result().model_dump() | {"version": 1, "cell": None}
    return Result(**(fields | changes))
