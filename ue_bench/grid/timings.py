"""How long stages took on this machine: kept beside the cache, for predictions. No number depends on it."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Any

from ..atomic import write_atomically
from ..schedule.devices import Slot
from ..schedule.executor import Event
from ..schedule.graph import Task
from .filling import Follower, Predict
from .stages.base import Stage, StageCost

FILE = "timings.json"  # in the cache folder
KEPT = 21  # newest values of each kind
START_UP = "start-up"


class Timings:
    """Seconds by what took them: the newest of each, and their median."""

    def __init__(self, cache: Path) -> None:
        self.path = cache / FILE
        self._values = _read(self.path)
        self._new: dict[str, list[float]] = {}

    def add(self, what: str, seconds: float) -> None:
        """Take note of a value; ``save`` keeps it."""
        self._new.setdefault(what, []).append(seconds)

    def median(self, what: str) -> float | None:
        """Return the median of what is known; None where nothing is."""
        values = [*self._values.get(what, ()), *self._new.get(what, ())][-KEPT:]
        return median(values) if values else None

    def save(self) -> None:
        """Write what was added beside what other processes have added meanwhile. Where that fails it is forgotten."""
        if not self._new:
            return
        self._values = _read(self.path)
        for what, values in self._new.items():
            self._values[what] = [*self._values.get(what, ()), *values][-KEPT:]
        self._new = {}
        with contextlib.suppress(OSError):
            write_atomically(self.path, json.dumps(self._values, indent=0, sort_keys=True, allow_nan=False) + "\n")


def _read(path: Path) -> dict[str, list[float]]:
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        return {str(what): [float(v) for v in values if 0 <= v < math.inf] for what, values in content.items()}
    except (OSError, ValueError, TypeError, AttributeError, OverflowError):
        # There is none, or it is no such file: it is made anew.
        return {}


def paces(kind: str, cost: StageCost, place: str) -> list[str]:
    """Return what stages are counted under that take time in proportion to their work, the most alike first."""
    return [f"{kind}|{subject}|{place}" for subject in cost.subjects]


class Timed:
    """A follower that takes note of how long stages take, and passes on what it hears.

    The first stage on a slot is that of a new process: what it takes longer is the start-up.
    """

    def __init__(
        self, follower: Follower, timings: Timings, place: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.follower, self.timings, self.place, self.clock = follower, timings, place, clock
        self._begun: dict[str, tuple[float, str]] = {}
        self._warm: set[str] = set()
        self._first: list[tuple[Stage, float]] = []

    def begin(self, tasks: list[Task], targets: int, missing: int, workers: list[Slot]) -> None:
        self.follower.begin(tasks, targets, missing, workers)

    def on_event(self, event: Event) -> None:
        if event.task is not None:
            self._note(event, event.task)
        self.follower.on_event(event)

    def _note(self, event: Event, task: Task) -> None:
        if event.kind == "started":
            self._begun[task.key] = self.clock(), event.slot
        elif event.kind in ("done", "failed", "crashed") and task.key in self._begun:
            started, slot = self._begun.pop(task.key)
            seconds = self.clock() - started
            if event.kind != "done":  # its process may be another one now
                self._warm.discard(slot)
            elif isinstance(task.payload, Stage):
                if slot in self._warm:
                    self._add(task.payload, seconds)
                else:
                    self._first.append((task.payload, seconds))
                self._warm.add(slot)

    def _add(self, stage: Stage, seconds: float) -> None:
        cost = stage.cost()
        for pace in paces(stage.kind, cost, self.place):
            self.timings.add(pace, seconds / cost.work)

    def end(self) -> None:
        for stage, seconds in self._first:
            cost = stage.cost()
            known = first_known(self.timings, paces(stage.kind, cost, self.place))
            if known is None:  # nothing else tells how long such a stage takes
                self._add(stage, seconds)
            else:
                self.timings.add(f"{START_UP}|{self.place}", max(0.0, seconds - known * cost.work))
        self._first = []
        self.timings.save()
        self.follower.end()


def remembered(timings: Timings, place: str) -> Predict:
    """Return what predicts stages from what was measured at ``place`` before, and from nothing else."""
    found: dict[tuple[str, StageCost], float | None] = {}

    def predict(stage: Stage) -> float | None:
        kind, cost = stage.kind, stage.cost()
        if (kind, cost) not in found:
            rate = first_known(timings, paces(kind, cost, place))
            found[kind, cost] = None if rate is None else rate * cost.work
        return found[kind, cost]

    return predict


def first_known(timings: Timings, whats: Iterable[str]) -> float | None:
    """Return the median of the first of ``whats`` that is known."""
    return next((found for what in whats if (found := timings.median(what)) is not None), None)
