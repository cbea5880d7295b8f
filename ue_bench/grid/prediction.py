"""How long missing stages will take on the slots of this machine."""

from __future__ import annotations

import heapq
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from ..contract.plugin import NetworkCost
from ..errors import EnvironmentProblem
from ..schedule.devices import Slot
from ..schedule.graph import Graph, Task
from . import trial
from .cost import seconds as network_seconds
from .grid import Grid
from .planner import Planned
from .stages.base import Stage, StageCost
from .timings import START_UP, Timings, remembered

TRIALS = 15.0  # seconds for trying stages that nothing tells of


class Predictor:
    """Predicts from what this machine measured before; where there is nothing, from what it measures now.

    That is passes through networks, timed for a second each, which leave out reading and measuring; for stages without
    networks, what they do to a few images, as long as ``TRIALS`` seconds are not used up.
    """

    def __init__(self, grid: Grid, timings: Timings | None = None) -> None:
        self.data, self.env, self.place = grid.data, grid.env, grid.place
        self._left = TRIALS
        self.precision = grid.precision
        self.timings = timings or Timings(grid.env.cache_dir)
        self._remembered = remembered(self.timings, grid.place)
        self._measured: dict[tuple[str, StageCost], float | None] = {}

    def seconds(self, stage: Stage) -> float | None:
        """Return the expected seconds of ``stage`` on one slot; None where nothing tells."""
        before = self._remembered(stage)
        if before is not None:
            return before
        kind, cost = stage.kind, stage.cost()
        if (kind, cost) not in self._measured:
            self._measured[kind, cost] = self._measure(stage, cost)
        return self._measured[kind, cost]

    def _measure(self, stage: Stage, cost: StageCost) -> float | None:
        if cost.networks:
            try:
                return sum(self._passes(network, cost.images) for network in cost.networks)
            except EnvironmentProblem:  # its weights are not here; the stage says so when it is its turn
                return None
        started = time.perf_counter()
        found = trial.seconds(stage, self.data, self.env) if self._left > 0 else None
        self._left -= time.perf_counter() - started
        return found

    def _passes(self, network: NetworkCost, images: int) -> float:
        info = self.data.info
        size = info.height, info.width
        return network_seconds(network, images, info.classes, size, self.env.device, self.precision, self.env.threads)

    @property
    def start_up(self) -> float:
        """Seconds that a worker takes to start, if that is known."""
        return self.timings.median(f"{START_UP}|{self.place}") or 0.0


@dataclass(frozen=True)
class Forecast:
    """What computing takes. ``stages`` are seconds of each stage, None where nothing tells; these are not counted."""

    stages: Sequence[float | None]
    finish: float  # seconds from now

    @property
    def work(self) -> float:
        """Seconds of all devices together."""
        return sum(seconds or 0.0 for seconds in self.stages)

    @property
    def unknown(self) -> int:
        """How many stages are not counted."""
        return sum(seconds is None for seconds in self.stages)


def forecast(planned: Sequence[Planned], grid: Grid, slots: Sequence[Slot], timings: Timings | None = None) -> Forecast:
    """Return what computing ``planned`` on ``slots`` takes: the order of work is that of the scheduler."""
    predictor = Predictor(grid, timings)
    stages = [predictor.seconds(p.stage) for p in planned]
    tasks = [Task(p.stage.key, "", None, p.needs, seconds or 0.0) for p, seconds in zip(planned, stages, strict=True)]
    return Forecast(stages, _finish(tasks, len(slots), predictor.start_up))


def _finish(tasks: list[Task], slots: int, start_up: float) -> float:
    """Return when the last task ends, each taking as many seconds as it weighs."""
    graph, now, number = Graph(tasks, slots), 0.0, count()
    running: list[tuple[float, int, Task]] = []
    cold = slots
    while True:
        while len(running) < slots and (task := graph.take()):
            first, cold = (start_up, cold - 1) if cold else (0.0, 0)
            heapq.heappush(running, (now + first + task.weight, next(number), task))
        if not running:
            return now
        now, _, task = heapq.heappop(running)
        graph.finish(task)
