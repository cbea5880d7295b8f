"""What becomes of a task that failed: the rules of retrying, one place for all executors."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from .executor import FailureClass
from .graph import Task

ATTEMPTS: dict[FailureClass, int] = {"task": 1, "diverged": 1, "infrastructure": 3, "resource": 2, "timeout": 2}
STREAK = 3  # tasks in a row that fail on a slot for no fault of their own, after which it is retired
SHORTEST_LIMIT = 3600.0  # seconds: a prediction is never trusted to less
GENEROSITY = 20.0  # times the prediction
KNOWN = 3  # tasks of a kind that must have ended before their pace says anything


def try_again(failure: FailureClass, earlier: Counter[FailureClass]) -> bool:
    """Return whether a task that failed so now, and so before, is tried once more."""
    return earlier[failure] + 1 < ATTEMPTS[failure]


@dataclass
class Limits:
    """For how long a task may run: ``timeout`` seconds if given, else many times what it is predicted to take.

    Without a prediction of its own a task is compared with those of its kind that have ended in this run, the slowest
    of them by weight.
    """

    timeout: float | None = None
    _ended: Counter[str] = field(default_factory=Counter)
    _slowest: dict[str, float] = field(default_factory=dict)  # seconds a weight

    def ended(self, task: Task, seconds: float) -> None:
        """Take note of how long a task took."""
        if task.kind:
            self._ended[task.kind] += 1
            pace = seconds / max(task.weight, 1e-9)
            self._slowest[task.kind] = max(pace, self._slowest.get(task.kind, 0.0))

    def expected(self, task: Task) -> float | None:
        """Return the seconds that a task is predicted to take, or by its kind may take; None where nothing tells."""
        if task.seconds is not None or task.kind not in self._slowest:
            return task.seconds
        return self._slowest[task.kind] * task.weight

    def of(self, task: Task) -> float | None:
        """Return the limit of a task in seconds; None while too little is known of its kind."""
        if self.timeout is not None:
            return self.timeout
        seconds = self.expected(task)
        if seconds is None or (task.seconds is None and self._ended[task.kind] < KNOWN):
            return None
        return max(SHORTEST_LIMIT, GENEROSITY * seconds)


@dataclass
class Health:
    """Which slots work: one on which several tasks in a row failed for no fault of their own does not."""

    _streaks: dict[str, set[str]] = field(default_factory=dict)

    def is_broken(self, slot: str, task: Task, failure: FailureClass | None) -> bool:
        """Take note of how a task ended on ``slot``; return whether the slot is to be retired.

        Several failures of one task count once: they may be the task's own doing.
        """
        if failure != "infrastructure":
            self._streaks.pop(slot, None)
            return False
        streak = self._streaks.setdefault(slot, set())
        streak.add(task.key)
        return len(streak) >= STREAK


@dataclass(frozen=True)
class Stops:
    """When a run gives up: after so many failures; None for never."""

    max_failures: int | None = None

    def reached(self, failures: int) -> bool:
        """Return whether ``failures`` are too many."""
        return self.max_failures is not None and failures >= self.max_failures
