"""The local scheduler: a dependency graph of tasks over device slots of this machine."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any, Literal

from . import worker
from .devices import Slot
from .graph import Graph, Task

__all__ = ["ATTEMPTS", "Event", "Scheduler", "Task"]

ATTEMPTS = 2  # a task whose worker dies is tried once more
PATIENCE = 5.0  # seconds a worker gets to leave by itself


@dataclass(frozen=True)
class Event:
    """What happened: started, progress, warning, done, failed, crashed (to be retried) or stopping.

    ``failure`` is the kind of a failure: ``diverged`` where a training was no longer finite, else ``error``.
    """

    kind: str
    task: Task | None = None
    slot: str = ""
    fraction: float = 0.0
    text: str = ""
    trace: str = ""
    attempt: int = 1
    failure: Literal["error", "diverged"] = "error"


@dataclass
class _Worker:
    slot: Slot
    process: subprocess.Popen[bytes]
    connection: Connection
    task: Task | None = None

    @property
    def dead(self) -> bool:
        return self.process.poll() is not None

    def kill(self) -> None:
        """Kill it, and what it started: it leads a process group of its own."""
        with suppress(OSError):
            os.killpg(self.process.pid, signal.SIGKILL)


@dataclass
class Scheduler:
    """Runs tasks on ``slots``; ``target`` and ``settings`` say what a worker does with a payload.

    ``on_event`` is called in this process, in order.
    """

    slots: list[Slot]
    target: str
    settings: dict[str, Any]
    on_event: Callable[[Event], None]
    _workers: list[_Worker] = field(default_factory=list)
    _attempts: dict[str, int] = field(default_factory=dict)
    _failed: dict[str, str] = field(default_factory=dict)
    _interrupted: bool = False

    def run(self, tasks: list[Task]) -> dict[str, str]:
        """Run all tasks and return why each failed one failed, by key.

        A task whose worker dies is tried once more; a task that needs a failed one fails with it. Raises
        KeyboardInterrupt after Ctrl-C: the first lets running tasks finish, the second stops them. SIGTERM stops them
        at once and raises SystemExit. Raises RuntimeError when no task can start although some wait.
        """
        graph = Graph(tasks)
        self._attempts, self._failed = {}, {}
        self._interrupted = stopping = False
        with self._interruptible():
            try:
                while True:
                    self._dispatch(graph)
                    if not any(w.task for w in self._workers):
                        break
                    ready = self._ready()
                    if self._interrupted and not stopping:
                        stopping = True
                        self.on_event(Event("stopping"))
                    for one in ready:
                        self._hear(one, graph)
            finally:
                self._stop()
        if self._interrupted:
            raise KeyboardInterrupt
        if graph.waiting:
            stuck = next(iter(graph.waiting.values()))
            raise RuntimeError(f"{len(graph.waiting)} tasks can never start, such as {stuck.label}")
        return self._failed

    def _dispatch(self, graph: Graph) -> None:
        """Give tasks that can start to workers that are idle."""
        while not self._interrupted and (slot := self._free_slot()) and (task := graph.take()):
            attempt = self._attempts[task.key] = self._attempts.get(task.key, 0) + 1
            try:
                message = pickle.dumps((task.payload, attempt))
            except Exception as error:  # a plugin's object can refuse in its own way
                self._fail(graph, task, f"cannot be sent to a worker: {worker.describe(error)}")
                continue
            one = self._worker(slot)
            one.task = task
            self.on_event(Event("started", task, slot.name, attempt=attempt))
            try:
                one.connection.send_bytes(message)
            except OSError:  # it has just died, which _ready will find
                continue

    def _hear(self, one: _Worker, graph: Graph) -> None:
        """Take in the next message of a worker, or its death."""
        task, message = one.task, _receive(one.connection)
        if message is None:
            how = self._bury(one)
            if task is not None:
                self._crashed(graph, task, how)
            return
        if task is None:
            return
        kind, what, more, failure = message
        if kind == "progress":
            self.on_event(Event("progress", task, one.slot.name, what, more))
            return
        if kind == "warning":
            self.on_event(Event("warning", task, one.slot.name, text=what))
            return
        one.task = None
        if kind == "done":
            graph.finish(task)
            self.on_event(Event("done", task))
            return
        if kind == "failed":  # an error can leave a process unusable, a CUDA context for instance
            one.kill()
            self._bury(one)
        self._fail(graph, task, what, more, failure)

    def _crashed(self, graph: Graph, task: Task, how: str) -> None:
        attempt = self._attempts[task.key]
        if attempt < ATTEMPTS:
            graph.put_back(task)
            self.on_event(Event("crashed", task, text=how, attempt=attempt))
        else:
            self._fail(graph, task, f"the worker died ({how})")

    def _fail(
        self, graph: Graph, task: Task, reason: str, trace: str = "", kind: Literal["error", "diverged"] = "error"
    ) -> None:
        """Give up ``task`` and all that need it: theirs is a failure of the same kind."""
        self._failed[task.key] = reason
        self.on_event(Event("failed", task, text=reason, trace=trace, attempt=self._attempts[task.key], failure=kind))
        for follower in graph.drop(task):
            why = self._failed[follower.key] = f"needs {task.label}, which failed: {reason}"
            self.on_event(Event("failed", follower, text=why, trace=trace, attempt=0, failure=kind))

    def _free_slot(self) -> Slot | None:
        """A slot where a task can start, one with an idle worker if possible."""
        for one in [w for w in self._workers if w.task is None]:
            if not one.dead:
                return one.slot
            self._bury(one)
        taken = [w.slot for w in self._workers]
        return next((s for s in self.slots if s not in taken), None)

    def _worker(self, slot: Slot) -> _Worker:
        """The worker of ``slot``, started if there is none."""
        for one in self._workers:
            if one.slot == slot:
                return one
        self._workers.append(_Worker(slot, *worker.start(slot, self.target, self.settings)))
        return self._workers[-1]

    def _ready(self) -> list[_Worker]:
        """Workers that have something to say or are dead. Wakes up now and then, so that Ctrl-C is seen."""
        heard = wait([w.connection for w in self._workers], timeout=0.5)
        # A connection does not close while a child of a dead worker holds it: ask for the exit code as well.
        return [w for w in self._workers if w.connection in heard or w.dead]

    def _bury(self, dead: _Worker) -> str:
        """Forget a worker; a new one is started when a task needs it. Returns how it ended."""
        dead.connection.close()
        with suppress(subprocess.TimeoutExpired):
            dead.process.wait(PATIENCE)
        dead.kill()  # it, or what it left behind
        self._workers.remove(dead)
        return _ending(dead.process.wait())

    def _stop(self) -> None:
        """End all workers: idle ones leave when their connection closes, the others are killed."""
        for one in self._workers:
            if one.task is not None:
                one.kill()
            one.connection.close()
        for one in list(self._workers):
            self._bury(one)

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


def _receive(connection: Connection) -> tuple[str, Any, Any, Any] | None:
    """The next message, or None when no more can come."""
    try:
        if not connection.poll():  # the process is dead, or this would not have been called
            return None
        message: tuple[str, Any, Any, Any] = connection.recv()
    except Exception:  # the other end is gone, or what it wrote makes no sense
        return None
    return message


def _ending(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:  # a real-time signal
        name = f"signal {-code}"
    return f"{name}: out of memory?" if name == "SIGKILL" else name
