"""The local scheduler: a dependency graph of tasks over device slots of this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from . import worker
from .devices import Slot

ATTEMPTS = 2  # a task whose worker dies is tried once more


@dataclass(frozen=True)
class Task:
    """Something to run: ``payload`` goes to the worker, ``needs`` are keys of tasks that come first."""

    key: str
    label: str
    payload: Any
    needs: tuple[str, ...] = ()
    weight: float = 1.0


@dataclass(frozen=True)
class Event:
    """What happened: started, progress, done, failed, crashed (to be retried) or stopping."""

    kind: str
    task: Task | None = None
    slot: str = ""
    fraction: float = 0.0
    text: str = ""
    trace: str = ""
    attempt: int = 1


@dataclass
class _Worker:
    slot: Slot
    process: BaseProcess
    connection: Connection
    task: Task | None = None


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
    _draining: bool = False

    def run(self, tasks: list[Task]) -> dict[str, str]:
        """Run all tasks and return why each failed one failed, by key.

        A task whose worker dies is tried once more; a task that needs a failed one fails with it. Raises
        KeyboardInterrupt after Ctrl-C: the first lets running tasks finish, the second stops them.
        """
        waiting = {t.key: t for t in tasks}
        unmet = {t.key: {n for n in t.needs if n in waiting} for t in tasks}
        followers: dict[str, list[str]] = {}
        for task in tasks:
            for need in task.needs:
                followers.setdefault(need, []).append(task.key)
        order = {key: rank for rank, key in enumerate(_by_urgency(tasks, followers))}
        attempts: dict[str, int] = {}
        failed: dict[str, str] = {}

        def fail(task: Task, reason: str, trace: str = "") -> None:
            failed[task.key] = reason
            self.on_event(Event("failed", task, text=reason, trace=trace, attempt=attempts.get(task.key, 0)))
            for follower in followers.get(task.key, []):
                if follower in waiting:
                    fail(waiting.pop(follower), f"needs {task.label}, which failed: {reason}")

        def finish(task: Task) -> None:
            for follower in followers.get(task.key, []):
                unmet[follower].discard(task.key)
            self.on_event(Event("done", task))

        with self._interruptible():
            try:
                while waiting or any(w.task for w in self._workers):
                    if not self._draining:
                        self._dispatch(waiting, unmet, order, attempts)
                    elif not any(w.task for w in self._workers):
                        break
                    for one in self._ready():
                        task = one.task
                        message = _receive(one.connection)
                        if message is None:
                            code = self._replace(one)
                            if task is None:
                                continue
                            if attempts[task.key] < ATTEMPTS and not self._draining:
                                waiting[task.key] = task
                                self.on_event(Event("crashed", task, text=code, attempt=attempts[task.key]))
                            else:
                                fail(task, f"the worker died ({code})")
                            continue
                        assert task is not None
                        kind, what, more = message
                        if kind == "progress":
                            self.on_event(Event("progress", task, one.slot.name, what, more))
                            continue
                        one.task = None
                        if kind == "done":
                            finish(task)
                        else:
                            fail(task, what, more)
            finally:
                self._stop()
        if self._draining:
            raise KeyboardInterrupt
        return failed

    def _dispatch(
        self, waiting: dict[str, Task], unmet: dict[str, set[str]], order: dict[str, int], attempts: dict[str, int]
    ) -> None:
        ready = sorted((k for k in waiting if not unmet[k]), key=order.__getitem__, reverse=True)
        while ready:
            one = self._idle()
            if one is None:
                return
            task = waiting.pop(ready.pop())
            attempts[task.key] = attempts.get(task.key, 0) + 1
            try:
                one.connection.send((task.payload, attempts[task.key]))
            except (BrokenPipeError, ConnectionResetError):  # died while idle: not the task's fault
                attempts[task.key] -= 1
                waiting[task.key] = task
                self._replace(one)
                continue
            one.task = task
            self.on_event(Event("started", task, one.slot.name, attempt=attempts[task.key]))

    def _idle(self) -> _Worker | None:
        for one in self._workers:
            if one.task is None:
                return one
        free = [s for s in self.slots if s not in [w.slot for w in self._workers]]
        if not free:
            return None
        self._workers.append(self._start(free[0]))
        return self._workers[-1]

    def _start(self, slot: Slot) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=worker.main, args=(theirs, os.getpid(), slot, self.target, self.settings), daemon=True
        )
        process.start()
        theirs.close()
        return _Worker(slot, process, ours)

    def _ready(self) -> Iterator[_Worker]:
        """Workers with something to say. Wakes up now and then, so that Ctrl-C is seen."""
        heard = wait([w.connection for w in self._workers], timeout=0.5)
        yield from [w for w in self._workers if w.connection in heard]

    def _replace(self, dead: _Worker) -> str:
        """Forget a dead worker; a new one is started when a task needs it. Returns how it ended."""
        dead.process.join(5)
        if dead.process.exitcode is None:
            dead.process.kill()
            dead.process.join()
        dead.connection.close()
        self._workers.remove(dead)
        code = dead.process.exitcode or 0
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    def _stop(self) -> None:
        for one in self._workers:
            one.connection.close()
            if one.task is not None:
                one.process.terminate()
        for one in self._workers:
            one.process.join(5)
            if one.process.exitcode is None:
                one.process.kill()
                one.process.join()
        self._workers.clear()

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """The first Ctrl-C starts no more tasks, the second raises KeyboardInterrupt."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def interrupted(number: int, frame: Any) -> None:
            if self._draining:
                raise KeyboardInterrupt
            self._draining = True
            self.on_event(Event("stopping"))

        before = signal.signal(signal.SIGINT, interrupted)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


def _receive(connection: Connection) -> tuple[str, Any, Any] | None:
    """The next message, or None when the other end is gone."""
    try:
        message: tuple[str, Any, Any] = connection.recv()
    except (EOFError, ConnectionResetError, OSError):
        return None
    return message


def _by_urgency(tasks: list[Task], followers: dict[str, list[str]]) -> list[str]:
    """Keys, the task with the longest chain of work behind it first, so that no long one is left for the end."""
    by_key = {t.key: t for t in tasks}
    length: dict[str, float] = {}

    def measure(key: str) -> float:
        if key not in length:
            behind = [measure(f) for f in followers.get(key, []) if f in by_key]
            length[key] = by_key[key].weight + max(behind, default=0.0)
        return length[key]

    return sorted(by_key, key=measure, reverse=True)
