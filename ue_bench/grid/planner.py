"""From wanted stages to the stages that are missing, in an order that can be run."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from .stages.base import Stage, Stores


@dataclass(frozen=True, slots=True)
class Planned:
    """A stage to compute, and the keys of the stages it waits for."""

    stage: Stage
    needs: tuple[str, ...]


def plan(targets: Iterable[Stage], stores: Stores) -> list[Planned]:
    """Return what has to be computed for ``targets``: those that are missing, after what they need and is missing."""
    planned: dict[str, Planned] = {}
    present: set[str] = set()
    waits: dict[tuple[str, ...], tuple[str, ...]] = {}  # stages that wait for the same share the list of it

    def visit(stage: Stage) -> str | None:
        """Plan ``stage`` unless it exists; return its key if others have to wait for it."""
        key = stage.key
        if key in planned:
            return key
        if key in present:
            return None
        if stage.exists(stores):
            present.add(key)
            return None
        missing = tuple([need for one in stage.needs() if (need := visit(one)) is not None])
        if len(missing) > 1:
            missing = tuple(dict.fromkeys(missing))
        planned[key] = Planned(stage, waits.setdefault(missing, missing))
        return key

    with _without_collector():
        for target in targets:
            visit(target)
    return list(planned.values())


@contextmanager
def _without_collector() -> Iterator[None]:
    """Stop the collector of cycles: none are made here, and it would walk millions of objects again and again."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()
