"""What runs tasks, as the driver sees it: how many it takes, what becomes of them, how to stop one.

The driver submits at most ``capacity()`` jobs, then reads ``events()`` until each of them has ended: exactly once, with
``done``, ``failed`` or ``deferred``. It alone decides what is tried again; an executor says what kind of failure it
was, and knows neither the graph nor leases.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

from .graph import Task

FailureClass = Literal["task", "resource", "infrastructure", "timeout", "diverged"]
"""Why a job failed.

``task``: the code of the stage raised. ``resource``: memory ran out. ``infrastructure``: the worker died, fell silent
or its device broke. ``timeout``: it ran past its limit and was stopped. ``diverged``: a training was no longer finite.
"""

EventKind = Literal[
    "started", "progress", "warning", "waiting", "done", "failed", "deferred",  # of a job, from an executor
    "crashed", "elsewhere", "retired", "stopping",  # from the driver: see Event
]  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One attempt at a task. ``payload`` is what the worker gets, pickled; it holds nothing of CUDA."""

    task: Task
    payload: bytes
    attempt: int = 1
    seconds: float | None = None  # that it is expected to take, where that is known
    alone: bool = False  # nothing else may run on its device
    avoid: frozenset[str] = frozenset()  # slots where it failed for no fault of its own: another device if there is one


@dataclass(frozen=True)
class Event:
    """What happened.

    From an executor, of a submitted job: ``started`` on ``slot``; ``progress`` with ``fraction`` and ``text``;
    ``warning``, a line for the user; ``waiting``: it is in a queue again, and will be ``started`` once more; ``done``;
    ``failed`` with ``failure``, ``text``, one line, and ``trace``; ``deferred``: it needs what another process makes
    now, ``text`` names the lease to wait for.

    From the driver to those who follow it: also ``crashed``, the attempt failed and the task is tried again;
    ``elsewhere``, another driver has computed it; ``retired``, ``slot`` gets no more work; ``stopping``.

    ``storage`` says that a failure is one of a disk, which stops the run: the next cell would fail the same way.
    ``log`` is where the output of the job lies, if anywhere. ``seconds`` are those it took, where the executor knows
    better than whoever hears of its start and its end.
    """

    kind: EventKind
    task: Task | None = None
    slot: str = ""
    fraction: float = 0.0
    text: str = ""
    trace: str = ""
    attempt: int = 1
    failure: FailureClass = "task"
    storage: bool = False
    log: str = ""
    seconds: float | None = None

    @classmethod
    def of(cls, job: Job, slot: str, kind: EventKind, *said: Any) -> Event:
        """Return the event of what a worker says in the middle of a job, as :class:`.call.Report` sends it."""
        return cls(kind, job.task, slot, said[0] if kind == "progress" else 0.0, said[-1], attempt=job.attempt)


class Executor(Protocol):
    """Runs jobs somewhere: on slots of this machine, in a Ray cluster, under SLURM.

    ``detached`` says that jobs outlive the driver, as under SLURM. Then the driver holds no lease for them: a job takes
    the lease of its stage when it begins, and ends with ``deferred`` where another process has it.
    """

    detached: bool

    def capacity(self) -> int:
        """Return how many jobs can be submitted now. Negative when slots were lost for good and none are left."""

    def submit(self, job: Job) -> None:
        """Take a job; it starts now or soon. Raises nothing that is the job's: that comes as a ``failed`` event."""

    def events(self, timeout: float) -> list[Event]:
        """Return what happened since the last call, in order; wait up to ``timeout`` seconds for the first event.

        Notices workers that died or fell silent.
        """

    def retire(self, slot: str) -> None:
        """Give no more jobs to ``slot``, whose failures are those of the machine."""

    def cancel(self, key: str) -> str:
        """Stop the job of the task with that key, without an event. Return where its output lies, "" if nowhere."""

    def close(self) -> None:
        """Stop everything that still runs and leave nothing behind, unless jobs are ``detached``."""
