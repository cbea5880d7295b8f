"""Tasks that wait for one another, and which of them to start next."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Task:
    """Something to run: ``payload`` goes to the worker, ``needs`` are keys of tasks that come first.

    ``weight`` is the expected work in any unit, ``seconds`` what it is predicted to take, where that is known. Tasks of
    one ``kind`` take time in proportion to their weights; those of kind "" need not.
    """

    key: str
    label: str
    payload: Any
    needs: tuple[str, ...] = ()
    weight: float = 1.0
    kind: str = ""
    seconds: float | None = None


class Graph:
    """Tasks that are not finished yet. A need that is not among the tasks counts as met.

    Of the tasks that can start, the one with the longest chain of work behind it comes first, so that no long one is
    left for the end; among equals the given order holds.
    """

    def __init__(self, tasks: list[Task]) -> None:
        self.waiting = {t.key: t for t in tasks}
        self._unmet = {t.key: {n for n in t.needs if n in self.waiting} for t in self.waiting.values()}
        self._followers: dict[str, list[str]] = {key: [] for key in self.waiting}
        for key, needs in self._unmet.items():
            for need in needs:
                self._followers[need].append(key)
        length = self._chain_lengths()
        order = sorted(self.waiting, key=length.__getitem__, reverse=True)
        self._rank = {key: rank for rank, key in enumerate(order)}
        self._ready = [(self._rank[key], key) for key in order if not self._unmet[key]]  # a heap: it is sorted

    def take(self) -> Task | None:
        """The most urgent task that can start, no longer waiting; None when there is none."""
        while self._ready:
            _, key = heapq.heappop(self._ready)
            if key in self.waiting:
                return self.waiting.pop(key)
        return None

    def put_back(self, task: Task) -> None:
        """Let a task that was taken wait again."""
        self.waiting[task.key] = task
        heapq.heappush(self._ready, (self._rank[task.key], task.key))

    def finish(self, task: Task) -> None:
        """What waited only for ``task`` can start."""
        for key in self._followers[task.key]:
            self._unmet[key].discard(task.key)
            if not self._unmet[key]:
                heapq.heappush(self._ready, (self._rank[key], key))

    def drop(self, task: Task) -> list[Task]:
        """Everything that needs ``task``, directly or not; none of it waits any longer."""
        dropped, reached = [], list(self._followers[task.key])
        for key in reached:  # grows while it is walked
            if key in self.waiting:
                dropped.append(self.waiting.pop(key))
                reached += self._followers[key]
        return dropped

    def _chain_lengths(self) -> dict[str, float]:
        """Weight of each task and of the longest chain behind it, from the last tasks backwards."""
        length = {key: task.weight for key, task in self.waiting.items()}
        behind = dict.fromkeys(length, 0.0)
        open_followers = {key: len(after) for key, after in self._followers.items()}
        ends = [key for key, count in open_followers.items() if not count]
        while ends:
            key = ends.pop()
            length[key] += behind[key]
            for need in self._unmet[key]:
                behind[need] = max(behind[need], length[key])
                open_followers[need] -= 1
                if not open_followers[need]:
                    ends.append(need)
        return length
