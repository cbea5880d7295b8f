"""Running one job in a process of another machine: what the workers of Ray and the jobs of SLURM have in common."""

from __future__ import annotations

import importlib
import pickle
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .devices import Slot
from .endings import Ending, describe, ending_of
from .executor import Event, Job
from .worker import Line, Report


@dataclass(frozen=True)
class Call:
    """What a remote process does with a payload: ``target`` is ``module:function``, see :func:`.worker.start`.

    It finds modules where the driver does, after its own places.
    """

    target: str
    settings: dict[str, Any]
    device: str = "cpu"  # or "cuda:0": the process sees no GPU but its own
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

        ``send`` takes messages as a worker sends them: their kind and what belongs to it. When ``leaving()``, what the
        job raises is the process being told to go, and is raised on.
        """
        sys.path += [place for place in self.path if place not in sys.path]
        slot = Slot(name, self.device, self.threads, self.packed)
        try:
            module, _, function = self.target.partition(":")
            target = getattr(importlib.import_module(module), function)
            with Report(_Line(send)) as report:
                target(pickle.loads(payload), slot, self.settings, report, attempt)
        except BaseException as error:  # whatever a plugin raises, SystemExit too, costs its job only
            if leaving():
                raise
            return ending_of(error)
        return Ending()


class _Line(Line):
    """What a report writes to, where there is no connection of the driver's."""

    def __init__(self, send: Callable[..., object]) -> None:
        self._send = send

    def send(self, *message: Any) -> None:
        self._send(*message)


def packed(job: Job) -> bytes | Event:
    """Return the payload of ``job`` for another process, or the event of its failure where it cannot be sent."""
    try:
        return pickle.dumps(job.payload)
    except Exception as error:  # a plugin's object can refuse in its own way
        return Event("failed", job.task, text=f"cannot be sent to a worker: {describe(error)}", attempt=job.attempt)


def ended(job: Job, slot: str, ending: Ending, log: str = "") -> Event:
    """Return the event of how ``job`` ended."""
    kind: Any = ending.kind
    return Event(
        kind, job.task, slot, 0.0, ending.text, ending.trace, job.attempt, ending.failure, ending.storage, log
    )  # fmt: skip
