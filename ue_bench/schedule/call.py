"""Running one job in a worker: what those of this machine, of Ray and of SLURM have in common."""

from __future__ import annotations

import importlib
import os
import pickle
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

from .devices import Slot
from .endings import Ending, ending_of, printable

REPORT_EVERY = 0.25  # seconds between progress messages
LEAVING = 1.0  # seconds for taking the last message of a process that leaves, and for passing it on


@dataclass(frozen=True)
class Call:
    """What a worker does with a payload.

    ``target`` is ``module:function``, called as ``function(payload, slot, settings, report, attempt)``. Modules are
    found where the driver finds them, after the worker's own places.
    """

    target: str
    settings: dict[str, Any]
    device: str = "cpu"  # or "cuda:0": a worker sees no GPU but its own
    threads: int = 1
    packed: int = 1  # workers that share the GPU
    path: list[str] = field(default_factory=lambda: list(sys.path))

    def run(
        self,
        name: str,
        payload: bytes,
        attempt: int,
        send: Callable[..., object],
        leaving: Callable[[], bool] = lambda: False,
    ) -> Ending:
        """Run one job on the slot ``name`` of this process and return how it ended.

        ``send`` takes what a :class:`Report` sends. When ``leaving()``, what the job raises is the process being told
        to go, and is raised on.
        """
        sys.path += [place for place in self.path if place not in sys.path]
        try:
            module, _, function = self.target.partition(":")
            target = getattr(importlib.import_module(module), function)
            with Report(send) as report:
                slot = Slot(name, self.device, self.threads, self.packed)
                target(pickle.loads(payload), slot, self.settings, report, attempt)
        except BaseException as error:  # whatever a plugin raises, SystemExit too, costs its job only
            if leaving():
                raise
            return ending_of(error)
        return Ending()


class Report:
    """Tells the driver how far a task is, now and then, until the task is over. Threads may share it.

    ``send`` takes "progress" with a fraction and a text, "warning" with a text, or "lost" (see ``leave``).
    """

    def __init__(self, send: Callable[..., object]) -> None:
        self._send = send
        self._lock = threading.Lock()
        self._last = 0.0
        self._over = False

    def __enter__(self) -> Report:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:  # a thread that a plugin left behind must not speak for the next task
            self._over = True

    def __call__(self, done: float, total: float, text: str) -> None:
        now = time.monotonic()
        with self._lock:
            if self._over or now - self._last < REPORT_EVERY:
                return
            self._last = now
            fraction = float(done) / max(float(total), 1e-9)
            said = printable(" ".join(str(text).split()))
            self._send("progress", min(fraction, 1.0) if fraction > 0 else 0.0, said)

    def warn(self, text: str) -> None:
        """Send a line that the user should read."""
        with self._lock:
            if not self._over:
                self._send("warning", printable(" ".join(text.split())))

    def leave(self) -> NoReturn:
        """Say that the task is another process's by now, and end this one: it is put off, and has not failed."""
        # A driver that stands still may not take the message. The process ends nevertheless.
        sends = threading.Thread(target=self._send, args=("lost",), name="leaves", daemon=True)
        sends.start()
        sends.join(LEAVING)
        time.sleep(LEAVING)
        os._exit(1)
