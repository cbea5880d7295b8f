"""Results made up for the tests: every field has a plausible value, the interesting ones can be given."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from ue_bench.leaderboard.board import BoardInfo
from ue_bench.store.evasion import EvasionResult
from ue_bench.store.schema import Budget, Cost, DatasetInfo, Environment, Metrics, Result

BOARD = BoardInfo(
    name="tiny",
    title="Tiny board",
    description="A board for tests.",
    countermeasures=("vanilla", "jpeg[quality=10]"),
    protectors=("none", "em", "ar"),
    reference=("none", "noise"),
    clean="none",
    plain="vanilla",
    column_notes={"gaussian-filter": "No-op: at sigma 0.1 nothing changes."},
    dataset="cifar10",
    victims=("resnet18",),
    protocol="fast",
    protocol_versions={"fast": 1, "full": 1},
)


def result(protector: str = "em", countermeasure: str = "vanilla", accuracy: float = 20.0, **changes: Any) -> Result:
    """A finished cell. ``changes`` are fields of the result or of one of its parts."""
    parts: dict[str, dict[str, Any]] = {
        "dataset": {
            "selector": "cifar10",
            "source": "CIFAR-10 (test copy)",
            "train": 50_000,
            "test": 10_000,
            "classes": 10,
            "height": 32,
            "width": 32,
            "fingerprint": "f" * 32,
        },
        "metrics": {
            "accuracy_last": accuracy,
            "accuracy_peak": accuracy + 1,
            "peak_epoch": 7.0,
            "accuracy_train": 99.0,
            "loss_train": 0.01,
        },
        "budget": {
            "declared": "linf 8/255",
            "linf_mean": 8.0,
            "linf_max": 8,
            "rms": 6.0,
            "over_8": 0.0,
            "l2_mean": 0.99,
            "l0_mean": 1.0,
            "psnr": 32.5,
            "ssim": 0.93,
        },
        "cost": {"protect_seconds": 61.0, "train_seconds": 38.0, "images_per_second": 2e4, "peak_memory_mb": 2210.0},
        "environment": {
            "ue_bench": "0.1.0",
            "commit": "0f3c2a1",
            "python": "3.11.7",
            "torch": "2.11.0",
            "device": "Some GPU",
            "threads": 4,
        },
    }
    fields: dict[str, Any] = {
        "protector": protector,
        "countermeasure": countermeasure,
        "victim": "resnet18",
        "protocol": "fast",
        "protocol_version": 1,
        "seed": 0,
        "fraction": 1.0,
        "precision": "fp32",
        "attempts": 1,
        "finished": "2026-01-02T03:04:05Z",
    }
    for name, value in changes.items():
        owner = next((part for part in parts.values() if name in part), fields)
        owner[name] = value
    fields.setdefault("id", f"{protector}/{countermeasure}/s{fields['seed']}")
    fields.setdefault("key", hashlib.sha256(repr((fields, parts)).encode()).hexdigest()[:32])
    return Result(
        version=1,  # its key is made up
        dataset=DatasetInfo(**parts["dataset"]),
        metrics=Metrics(**parts["metrics"]),
        budget=Budget(**parts["budget"]),
        cost=Cost(**parts["cost"]),
        environment=Environment(**parts["environment"]),
        **fields,
    )


def grid(accuracies: Mapping[str, tuple[float, ...]], **changes: Any) -> list[Result]:
    """One row a protector, with an accuracy for each of the board's countermeasures."""
    return [
        result(protector, countermeasure, accuracy, **changes)
        for protector, row in accuracies.items()
        for countermeasure, accuracy in zip(BOARD.countermeasures, row, strict=True)
    ]


EVADED = {"none": (82.0, 70.0), "raeg": (28.0, 40.0), "rae-igsm": (46.0, 64.0)}


def evasion(protector: str, countermeasure: str, accuracy: float, **changes: Any) -> EvasionResult:
    """A result of evasion; ``changes`` are fields of it."""
    fields: dict[str, Any] = {
        "victim": "resnet18", "protocol": "fast", "protocol_version": 1, "seed": 0, "images": 1000, "transfer": False,
        "precision": "fp32", "psnr": 26.6, "ssim": 0.9, "classifier": "0" * 16, "finished": "2026-01-02T03:04:05Z",
    } | changes  # fmt: skip
    key = hashlib.sha256(repr((protector, countermeasure, accuracy, fields)).encode()).hexdigest()[:32]
    info = DatasetInfo(
        selector="cifar10", source="CIFAR-10 (test copy)", train=50_000, test=10_000, classes=10, height=32, width=32,
        fingerprint="f" * 32,
    )  # fmt: skip
    environment = Environment(
        ue_bench="0.1.0", commit="0f3c2a1", python="3.11.7", torch="2.11.0", device="Some GPU", threads=4
    )
    return EvasionResult(
        version=1, key=key, id=f"{protector}/{countermeasure}", dataset=info, protector=protector,
        countermeasure=countermeasure, accuracy=accuracy, environment=environment, **fields,
    )  # fmt: skip


def evaded(**changes: Any) -> list[EvasionResult]:
    """Results of evasion of two protectors and of clean images, as they are and under JPEG."""
    return [
        evasion(protector, column, value, **changes)
        for protector, values in EVADED.items()
        for column, value in zip(("vanilla", "jpeg[quality=50]"), values, strict=True)
    ]
