"""The function that workers call: where the scheduler, which knows no stages, meets the stages."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..schedule.devices import Slot
from ..schedule.worker import Report
from .stages.base import Stage, Work


def run(stage: Stage, slot: Slot, settings: dict[str, Any], report: Report, attempt: int) -> None:
    """Compute ``stage`` on ``slot``."""
    import torch

    torch.set_num_threads(slot.threads)
    env = replace(settings["env"], device=slot.device, threads=slot.threads)
    stage.run(Work(env, report, attempt, report.warn))
