"""How long passes through networks take on this machine: measured, not remembered."""

from __future__ import annotations

from typing import cast

from ..catalogue.registry import registry
from ..contract.plugin import NetworkCost, Victim
from ..engine.speed import seconds_a_pass


def seconds(
    cost: NetworkCost, images: int, classes: int, size: tuple[int, int], device: str, precision: str, threads: int
) -> float:
    """Return the seconds that so many images of ``size`` spend in the network of ``cost`` on one worker.

    They are brought to the size that the cost names, if it names one.

    Raises UserError when its victim is not one.
    """
    [victim] = registry().resolve("victim", cost.victim)
    one = seconds_a_pass(cast(Victim, victim), classes, cost.size or size, device, precision, threads)
    return cost.passes * images * one
