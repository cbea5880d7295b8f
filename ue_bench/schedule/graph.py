"""Tasks that wait for one another, and which of them to start next."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

HASTE = 1.5  # how much earlier a chain starts than it must, to end with the last of the others


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

    Of the tasks that can start, those come first whose needs were computed here: what is begun is brought to an end, so
    that results appear from the first minutes. A task that opens the way for others and waits for none, such as the
    protection of a set, starts in time for its followers to be there when ``width`` slots have done the others, and
    early enough not to be left for the end. Among equals the one with the longest chain of work behind it comes first,
    then the given order holds; only the first result is reached by the shortest way.

    ``length`` is the weight of each task and of the longest chain behind it.
    """

    def __init__(self, tasks: list[Task], width: int = 1) -> None:
        self.waiting = {t.key: t for t in tasks}
        self.width = max(1, width)
        self._unmet = {t.key: {n for n in t.needs if n in self.waiting} for t in self.waiting.values()}
        self._followers: dict[str, list[str]] = {key: [] for key in self.waiting}
        for key, needs in self._unmet.items():
            for need in needs:
                self._followers[need].append(key)
        self.length = self._chain_lengths()
        order = sorted(self.waiting, key=self.length.__getitem__, reverse=True)
        self._rank = {key: rank for rank, key in enumerate(order)}
        self._opens = {key for key, needs in self._unmet.items() if not needs and self._followers[key]}
        self._behind = {key: sum(self.waiting[f].weight for f in self._followers[key]) for key in self._opens}
        self._openings = [(self._rank[key], key) for key in order if key in self._opens]  # heaps: they are sorted
        self._steps: list[tuple[int, str]] = []
        self._ready = 0.0  # weight of the steps that can start
        self._coming = 0.0  # weight of the followers of openings that were taken
        self._left = sum(t.weight for t in tasks)  # of all that is not finished
        self._without_result = self._untouched = True
        for key in order:
            if not self._unmet[key] and key not in self._opens:
                self._push(key)

    def take(self) -> Task | None:
        """Return the task to start next, no longer waiting; None when none can start."""
        for heap in (self._openings, self._steps):
            while heap and heap[0][1] not in self.waiting:
                heapq.heappop(heap)
        if self._openings and (not self._steps or self._opening_is_due(self._openings[0][1])):
            return self._take_opening()
        if not self._steps:
            return None
        return self._take_step()

    def put_back(self, task: Task) -> None:
        """Let a task that was taken wait again."""
        self.waiting[task.key] = task
        if task.key in self._opens:
            self._coming -= self._behind[task.key]
        self._push(task.key)

    def finish(self, task: Task) -> None:
        """Let what waited only for ``task`` start."""
        self._close(task)
        for key in self._followers[task.key]:
            self._unmet[key].discard(task.key)
            if not self._unmet[key] and key in self.waiting:
                self._push(key)

    def drop(self, task: Task) -> list[Task]:
        """Return everything that needs ``task``, directly or not; none of it waits any longer."""
        self._close(task)
        dropped, reached = [], list(self._followers[task.key])
        for key in reached:  # grows while it is walked
            if key in self.waiting:
                dropped.append(self.waiting.pop(key))
                self._left -= dropped[-1].weight
                reached += self._followers[key]
        return dropped

    def _take_opening(self) -> Task:
        if self._without_result and self._untouched and len(self._openings) > 1:
            shortest = self._chain_lengths(min)
            key = min((key for _, key in self._openings), key=shortest.__getitem__)  # its place is skipped later
        else:
            key = heapq.heappop(self._openings)[1]
        self._untouched = False
        self._coming += self._behind[key]
        return self.waiting.pop(key)

    def _take_step(self) -> Task:
        ends = self._ready_ends() if self._without_result else []
        if ends:
            self._without_result = False
            key = min(ends, key=lambda end: self.waiting[end].weight)  # its place in the heap is skipped later
        else:
            key = heapq.heappop(self._steps)[1]
        task = self.waiting.pop(key)
        self._ready -= task.weight
        return task

    def _ready_ends(self) -> list[str]:
        return [key for _, key in self._steps if key in self.waiting and not self._followers[key]]

    def _opening_is_due(self, key: str) -> bool:
        """Return whether the opening ``key`` must start although other work is ready."""
        if self.length[key] * HASTE > self._left / self.width:
            return True
        if self._without_result and self._ready_ends():
            return False
        weight = self.waiting[key].weight
        return self._ready + self._coming < self.width * weight

    def _push(self, key: str) -> None:
        if key in self._opens:
            heapq.heappush(self._openings, (self._rank[key], key))
            return
        heapq.heappush(self._steps, (self._rank[key], key))
        self._ready += self.waiting[key].weight

    def _close(self, task: Task) -> None:
        self._left -= task.weight
        if task.key in self._opens:
            self._coming -= self._behind[task.key]

    def _chain_lengths(self, best: Callable[[float, float], float] = max) -> dict[str, float]:
        """Return the weight of each task and of the longest chain behind it, or of the ``best`` by another measure."""
        length = {key: task.weight for key, task in self.waiting.items()}
        behind: dict[str, float] = {}
        open_followers = {key: len(after) for key, after in self._followers.items()}
        ends = [key for key, count in open_followers.items() if not count]
        while ends:
            key = ends.pop()
            length[key] += behind.get(key, 0.0)
            for need in self._unmet[key]:
                behind[need] = best(behind.get(need, length[key]), length[key])
                open_followers[need] -= 1
                if not open_followers[need]:
                    ends.append(need)
        return length
