"""The result of one cell, as it lies on disk: one JSON of at most 2 KB."""

from __future__ import annotations

import json
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict

SCHEMA: Final = 1


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DatasetInfo(_Record):
    """The data a cell was measured on. ``source`` is for the head of a table."""

    selector: str
    source: str
    train: int
    test: int
    classes: int
    height: int
    width: int
    fingerprint: str


class Metrics(_Record):
    """Accuracies on the clean test set and on the last epoch's training batches, in percent.

    ``accuracy_last`` is the headline. ``accuracy_peak`` picks its epoch on the test set: an oracle, kept apart.
    ``accuracy_train`` is null where a training procedure changes images or labels inside its loss.
    """

    accuracy_last: float
    accuracy_peak: float
    peak_epoch: float
    accuracy_train: float | None
    loss_train: float


class Budget(_Record):
    """The perturbation as measured on the stored 8-bit images, beside what the protector declares.

    Linf and RMS in gray levels (of 255); L2 on the [0, 1] scale; L0 in changed pixels; PSNR in dB (null when nothing
    changed). Means are over images; ``over_8`` is the fraction of values changed by more than 8 levels.
    """

    declared: str
    linf_mean: float
    linf_max: int
    rms: float
    over_8: float
    l2_mean: float
    l0_mean: float
    psnr: float | None
    ssim: float


class Cost(_Record):
    """Seconds and memory of making the protected set and of training on it."""

    protect_seconds: float
    train_seconds: float
    images_per_second: float
    peak_memory_mb: float


class Environment(_Record):
    """What it ran on. No host names, no paths."""

    ue_bench: str
    commit: str
    python: str
    torch: str
    device: str
    threads: int


class Result(_Record):
    """A finished cell: what it is, what came out, what it cost and where it ran."""

    version: Literal[1] = SCHEMA
    key: str
    id: str
    dataset: DatasetInfo
    protector: str
    countermeasure: str
    victim: str
    protocol: str
    protocol_version: int
    seed: int
    fraction: float
    precision: str
    metrics: Metrics
    budget: Budget
    cost: Cost
    environment: Environment
    attempts: int
    finished: str


class Failure(_Record):
    """A cell that could not be computed. Never read as a result."""

    version: Literal[1] = SCHEMA
    key: str
    id: str
    attempts: int
    error: str
    failed: str


class Curve(_Record):
    """Test accuracy over training, kept beside the result."""

    key: str
    epoch: list[float]
    accuracy_test: list[float]
    accuracy_train: list[float | None]
    loss_train: list[float]


def as_json(record: BaseModel) -> dict[str, Any]:
    """Plain data, floats kept short enough for a diff and a 2 KB file."""
    plain: dict[str, Any] = _rounded(record.model_dump(mode="json"))
    return plain


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    return value


def json_text(value: Any) -> str:
    """Indented JSON of plain data, floats shortened as in results."""
    return json.dumps(_rounded(value), indent=1, ensure_ascii=False) + "\n"
