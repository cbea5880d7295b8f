"""From wanted stages to the stages that are missing, in an order that can be run."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from ..collector import without_collector
from ..errors import UserError
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

    with without_collector():
        for target in targets:
            visit(target)
    return list(planned.values())


def find(targets: Iterable[Stage], key: str) -> Stage:
    """Return the stage whose key is or begins with ``key``, among ``targets`` and what they need.

    Raises UserError where there is none, or there are several.
    """
    found: dict[str, Stage] = {}
    seen: set[str] = set()
    todo = deque[Stage]()
    for target in targets:
        todo.append(target)
        while todo:
            stage = todo.pop()
            if stage.key in seen:
                continue
            seen.add(stage.key)
            if stage.key == key:
                return stage
            if key and stage.key.startswith(key):
                found[stage.key] = stage
            todo.extend(stage.needs())
    if len(found) == 1:
        return next(iter(found.values()))
    hint = "give the options of 'ue-bench plan', and the key that it prints"
    if found:
        raise UserError(f"{len(found)} stages have keys that begin with {key}", hint)
    raise UserError(f"no stage with key {key!r} in this plan", hint)
