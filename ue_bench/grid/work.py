"""The function workers call: where the scheduler, which knows no stages, meets the stages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ..schedule.devices import Slot
from .plan import Stage
from .stages import execute


def run(
    stage: Stage, slot: Slot, settings: dict[str, Any], report: Callable[[float, float, str], None], attempt: int
) -> None:
    """Compute ``stage`` on ``slot``."""
    import torch

    torch.set_num_threads(slot.threads)
    execute(stage, replace(settings["env"], device=slot.device, threads=slot.threads), report, attempt)
