"""The driver: gives tasks of a graph to an executor, and agrees with other drivers on who computes what."""

from __future__ import annotations

import pickle
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from ..errors import EnvironmentProblem, StorageProblem
from .endings import describe
from .executor import Event, Executor, FailureClass, Job
from .graph import Graph, Task
from .rules import Health, Limits, Stops, try_again

WAKE = 0.5  # seconds between two looks at Ctrl-C
LOOK = 1.0  # and at what other drivers do
TICK = 5.0  # seconds that count at most between two looks: this process may have been stopped, or the machine asleep


@dataclass(frozen=True)
class Claim:
    """What came of asking for a task.

    ``mine``: this driver computes it, ``payload`` goes to the worker. ``stored``: its outcome is there. ``taken``:
    another driver has it. ``failed``: it failed at another driver since this run began, with ``failure``, ``text`` and
    ``trace``.
    """

    state: Literal["mine", "stored", "taken", "failed"]
    payload: Any = None
    failure: FailureClass = "task"
    text: str = ""
    trace: str = ""


class Claims(Protocol):
    """Who computes what, among drivers that share a folder."""

    def claim(self, task: Task) -> Claim:
        """Ask for a task."""

    def is_free(self, task: Task, lease: str) -> bool:
        """Return whether ``task`` can be asked for again: nobody alive has ``lease``, "" for its own."""

    def release(self, task: Task, failed: Event | None = None) -> None:
        """Give a task back, with how it failed if it did: others then do not try it in their turn."""

    def broken(self) -> str:
        """Return what is wrong with the shared folder in a line; "" while claims in it can be kept."""


class Alone:
    """The claims of a driver that shares nothing."""

    def claim(self, task: Task) -> Claim:
        return Claim("mine", task.payload)

    def is_free(self, task: Task, lease: str) -> bool:
        return True

    def release(self, task: Task, failed: Event | None = None) -> None: ...

    def broken(self) -> str:
        return ""


@dataclass
class _Attempts:
    """What was tried of one task so far."""

    count: int = 0
    failures: Counter[FailureClass] = field(default_factory=Counter)
    slots: set[str] = field(default_factory=set)  # where it failed for no fault of its own
    alone: bool = False
    slot: str = ""
    started: float | None = None  # None while it waits for a slot
    worked: float = 0.0  # seconds since, as far as this process and the machine were awake


class Driver:
    """Runs tasks through an executor. ``on_event`` is called in this process, in order."""

    def __init__(
        self,
        executor: Executor,
        on_event: Callable[[Event], None],
        claims: Claims | None = None,
        limits: Limits | None = None,
        stops: Stops | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.executor, self.on_event, self.claims = executor, on_event, claims or Alone()
        self.limits, self.stops, self.clock = limits or Limits(), stops or Stops(), clock
        self.failed: dict[str, str] = {}
        self._running: dict[str, Task] = {}
        self._elsewhere: dict[str, tuple[Task, str]] = {}  # and the lease to wait for
        self._attempts: dict[str, _Attempts] = {}
        self._health = Health()
        self._failures = 0
        self._looked = 0.0
        self._checked = clock()
        self._interrupted = self._stopping = False
        self._storage = ""

    def run(self, tasks: list[Task], width: int = 1) -> dict[str, str]:
        """Run all tasks on ``width`` slots and return why each failed one failed, by key.

        A task that needs a failed one fails with it; what is tried again :mod:`.rules` says. Raises KeyboardInterrupt
        after Ctrl-C: the first lets running tasks finish, the second stops them. SIGTERM stops them at once and raises
        SystemExit. Raises StorageProblem when a folder fails, EnvironmentProblem when every slot is broken, and
        RuntimeError when no task can start although some wait.
        """
        graph = Graph(tasks, width)
        with self._interruptible():
            try:
                while self.step(graph):
                    pass
            finally:
                self.executor.close()
                if not self.executor.detached:
                    for task in self._running.values():
                        self.claims.release(task)
        if self._interrupted:
            raise KeyboardInterrupt
        if self._storage:
            raise StorageProblem(self._storage, "make room or choose other folders; the same command continues")
        if graph.waiting and not self._stopping:
            if self.executor.capacity() < 0:
                raise EnvironmentProblem("no slot is left that works", "see 'ue-bench doctor' and the failures")
            stuck = next(iter(graph.waiting.values()))
            raise RuntimeError(f"{len(graph.waiting)} tasks can never start, such as {stuck.label}")
        return self.failed

    def step(self, graph: Graph) -> bool:
        """Start what can start and take in what happened since; return whether there is anything left to wait for."""
        self._dispatch(graph)
        if not self._running and (self._stopping or not self._elsewhere):
            return False
        events = self.executor.events(WAKE)
        if self._interrupted:
            self._stop("")
        for event in events:
            self._hear(event, graph)
        self._stop_late(graph)
        self._look_elsewhere(graph)
        return not (self._interrupted and self.executor.detached)  # what that one has goes on without this driver

    def _dispatch(self, graph: Graph) -> None:
        """Submit tasks that can start, as many as there is room for."""
        while not (self._interrupted or self._stopping) and self.executor.capacity() > 0 and (task := graph.take()):
            try:
                claim = self.claims.claim(task)
            except (OSError, StorageProblem) as error:
                graph.put_back(task)
                self._stop(_told(error))
                return
            if claim.state == "stored":
                graph.finish(task)
                self.on_event(Event("elsewhere", task))
            elif claim.state == "taken":
                self._elsewhere[task.key] = task, ""
            elif claim.state == "failed":
                self._give_up(graph, Event("failed", task, text=claim.text, trace=claim.trace, failure=claim.failure))
            else:
                self._submit(task, claim.payload, graph)

    def _submit(self, task: Task, payload: Any, graph: Graph) -> None:
        tried = self._attempts.setdefault(task.key, _Attempts())
        tried.count, tried.started = tried.count + 1, None
        self._running[task.key] = task
        try:
            message = pickle.dumps(payload)
        except Exception as error:  # a plugin's object can refuse in its own way
            self._hear(Event("failed", task, text=f"cannot be sent to a worker: {describe(error)}"), graph)
            return
        avoid = frozenset(tried.slots)
        self.executor.submit(Job(task, message, tried.count, self.limits.expected(task), tried.alone, avoid))

    def _hear(self, event: Event, graph: Graph) -> None:
        """Take in what an executor tells."""
        task = event.task
        if task is None or task.key not in self._running:
            self.on_event(event)
            return
        tried = self._attempts[task.key]
        event = Event(**{**event.__dict__, "attempt": tried.count})
        if event.kind == "started":
            tried.slot, tried.started, tried.worked = event.slot, self.clock(), 0.0
        elif event.kind == "waiting":
            tried.started = None
        if event.kind in ("started", "progress", "warning", "waiting"):
            self.on_event(event)
            return
        del self._running[task.key]
        if event.kind == "done":
            if event.seconds is not None:
                self.limits.ended(task, event.seconds)
            elif tried.started is not None:
                self.limits.ended(task, self.clock() - tried.started)
            self._health.is_broken(tried.slot, task, None)
            graph.finish(task)
            self.on_event(event)
            self.claims.release(task)
        elif event.kind == "deferred":
            tried.count -= 1
            self._elsewhere[task.key] = task, event.text
            self.claims.release(task)
            self.on_event(event)
        else:
            self._hear_failure(event, task, tried, graph)

    def _stop_late(self, graph: Graph) -> None:
        """Stop tasks that ran past their limit."""
        now = self.clock()
        passed, self._checked = min(now - self._checked, TICK), now
        for task in list(self._running.values()):
            tried = self._attempts[task.key]
            if tried.started is None:
                continue
            tried.worked += passed
            limit = self.limits.of(task)
            if limit is not None and tried.worked > limit:
                log = self.executor.cancel(task.key)
                why = f"it ran past its limit of {limit:,.0f} s"
                self._hear(Event("failed", task, tried.slot, text=why, failure="timeout", log=log), graph)

    def _hear_failure(self, event: Event, task: Task, tried: _Attempts, graph: Graph) -> None:
        storage = event.text if event.storage else self.claims.broken()
        if storage:  # not the task's fault, nor would another fare better
            self._put_back(graph, task, event)
            self._stop(storage)
            return
        slot = event.slot or tried.slot
        if self._health.is_broken(slot, task, event.failure):
            self.executor.retire(slot)
            self.on_event(Event("retired", slot=slot, text=event.text))
        if event.failure == "infrastructure":
            tried.slots.add(slot)
        if self._stopping or try_again(event.failure, tried.failures):
            if self._stopping and event.failure in ("task", "diverged"):
                self._give_up(graph, event)
                return
            tried.failures[event.failure] += 1
            tried.alone = tried.alone or event.failure == "resource"
            self._put_back(graph, task, event)
            return
        self._give_up(graph, event)

    def _put_back(self, graph: Graph, task: Task, event: Event) -> None:
        """Let a task wait for its next attempt."""
        self.claims.release(task)
        graph.put_back(task)
        self.on_event(Event(**{**event.__dict__, "kind": "crashed"}))

    def _give_up(self, graph: Graph, event: Event) -> None:
        """Give up a task and all that need it: theirs is a failure of the same class."""
        task = event.task
        assert task is not None
        self.failed[task.key] = event.text
        self.on_event(event)
        self.claims.release(task, event)
        for follower in graph.drop(task):
            why = self.failed[follower.key] = f"needs {task.label}, which failed: {event.text}"
            self.on_event(
                Event("failed", follower, text=why, trace=event.trace, attempt=0, failure=event.failure, log=event.log)
            )
        self._failures += 1
        if self.stops.reached(self._failures):
            self._stop("")

    def _look_elsewhere(self, graph: Graph) -> None:
        """Let tasks that waited for another process be asked for again where that one has ended."""
        if not self._elsewhere or self._stopping or self.clock() - self._looked < LOOK:
            return
        self._looked = self.clock()
        try:
            for key, (task, lease) in list(self._elsewhere.items()):
                if self.claims.is_free(task, lease):
                    del self._elsewhere[key]
                    graph.put_back(task)
        except (OSError, StorageProblem) as error:
            self._stop(_told(error))

    def _stop(self, storage: str) -> None:
        """Start nothing more; what runs may finish."""
        self._storage = self._storage or storage
        if not self._stopping:
            self._stopping = True
            self.on_event(Event("stopping", text=storage))

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """The first Ctrl-C starts no more tasks, the second raises KeyboardInterrupt, SIGTERM raises SystemExit."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def interrupted(number: int, frame: Any) -> None:  # no output here: it may break into other output
            if self._interrupted:
                raise KeyboardInterrupt
            self._interrupted = True

        def terminated(number: int, frame: Any) -> None:
            sys.exit(128 + number)

        before = {signal.SIGINT: signal.signal(signal.SIGINT, interrupted)}
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            before[signal.SIGTERM] = signal.signal(signal.SIGTERM, terminated)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _told(error: OSError | StorageProblem) -> str:
    """Return what is wrong with a folder in one line."""
    if isinstance(error, StorageProblem):
        return error.message
    return f"{error.strerror or error} ({error.filename or 'the shared folder'})"
