"""From wanted stages to the stages that are missing, in an order that can be run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .stages.base import Stage, Stores


@dataclass(frozen=True)
class Planned:
    """A stage to compute, and the keys of the stages it waits for."""

    stage: Stage
    needs: tuple[str, ...]


def plan(targets: Iterable[Stage], stores: Stores) -> list[Planned]:
    """Return what has to be computed for ``targets``: those that are missing, after what they need and is missing."""
    planned: dict[str, Planned] = {}
    present: set[str] = set()

    def visit(stage: Stage) -> None:
        if stage.key in planned or stage.key in present:
            return
        if stage.exists(stores):
            present.add(stage.key)
            return
        needed = stage.needs()
        for need in needed:
            visit(need)
        waits = tuple(dict.fromkeys(need.key for need in needed if need.key in planned))
        planned[stage.key] = Planned(stage, waits)

    for target in targets:
        visit(target)
    return list(planned.values())
