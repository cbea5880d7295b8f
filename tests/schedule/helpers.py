"""What these tests share: making tasks, reading the log that workers write, waiting with a deadline."""

from __future__ import annotations

import os
import pickle
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ue_bench.schedule.devices import Slot
from ue_bench.schedule.executor import Event, Job
from ue_bench.schedule.graph import Task

DEADLINE = 60.0  # seconds; generous, because the machine may be busy


@dataclass
class Outcome:
    """How a run went: its events, why tasks failed, and the lines that workers logged."""

    events: list[Event]
    failed: dict[str, str] = field(default_factory=dict)
    log: list[list[str]] = field(default_factory=list)
    interrupted: bool = False

    def of(self, kind: str) -> list[str]:
        """Keys of the tasks with an event of this kind, in order."""
        return [e.task.key for e in self.events if e.kind == kind and e.task]

    def logged(self, word: str) -> list[str]:
        """Names of the tasks that logged ``word``, in order."""
        return [name for first, name, *_ in self.log if first == word]

    @property
    def workers(self) -> set[str]:
        """Process ids that worked."""
        return {line[2] for line in self.log if line[0] == "start"}


def task(name: str, action: str = "nothing", *args: Any, needs: tuple[str, ...] = (), weight: float = 1.0) -> Task:
    return Task(name, f"task {name}", (name, action, *args), needs, weight)


def job(name: str, action: str = "nothing", *args: Any, **more: Any) -> Job:
    """A job for an executor that is tested alone."""
    return Job(Task(name, name, None), pickle.dumps((name, action, *args)), **more)


def slots(count: int) -> list[Slot]:
    return [Slot(f"cpu#{i}", "cpu", 1) for i in range(count)]


def read_log(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def eventually(condition: Callable[[], Any], what: str, deadline: float = DEADLINE) -> Any:
    """The first true value of ``condition()``; AssertionError after ``deadline`` seconds."""
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {deadline:.0f} s: {what}")


def processes(marker: str) -> list[int]:
    """Living processes that have ``marker`` in their environment, from Linux' /proc."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and marker.encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
    return found


def kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
