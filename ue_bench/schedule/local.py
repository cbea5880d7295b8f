"""The local executor: worker processes on device slots of this machine."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from . import worker
from .devices import Slot
from .endings import LOST, Ending
from .executor import Event, Job
from .logs import CellLog, read_available
from .oom import OutOfMemoryKills

PATIENCE = 5.0  # seconds a worker gets to leave by itself
SILENCE = 300.0  # seconds without a sign of life until a worker is killed; code that lets no thread run gives none
TICK = 5.0  # seconds that count between two looks: this process may have been stopped, or the machine asleep
ROOM = 0.9  # share of a device's memory that packed cells may come to


@dataclass
class _Worker:
    slot: Slot
    process: subprocess.Popen[bytes]
    connection: Connection
    output: int | None  # a pipe of what it prints
    job: Job | None = None
    log: CellLog | None = None
    kills: int | None = None  # of the kernel, for want of memory, before this job
    silent: float = 0.0

    @property
    def dead(self) -> bool:
        return self.process.poll() is not None

    def kill(self) -> None:
        """Kill it, and what it started: it leads a process group of its own."""
        with suppress(OSError):
            os.killpg(self.process.pid, signal.SIGKILL)


@dataclass
class LocalExecutor:
    """Runs jobs in workers on ``slots``; ``target`` and ``settings`` say what a worker does with a payload.

    ``logs`` is a folder for what cells print; without one it goes to stderr. With ``measure_memory`` a device takes one
    job at first, and more when the largest so far leaves room. A worker is killed after ``silence`` seconds without a
    sign of life.
    """

    slots: list[Slot]
    target: str
    settings: dict[str, Any]
    logs: Path | None = None
    measure_memory: bool = False
    silence: float = SILENCE
    detached = False
    _workers: list[_Worker] = field(default_factory=list)
    _pending: list[Job] = field(default_factory=list)  # submitted, waiting for a slot that suits them
    _events: list[Event] = field(default_factory=list)
    _retired: set[str] = field(default_factory=set)
    _peak: dict[str, float] = field(default_factory=dict)  # largest share of a device's memory
    _looked: float = field(default_factory=time.monotonic)
    _kills: OutOfMemoryKills = field(default_factory=OutOfMemoryKills)

    def capacity(self) -> int:
        """Return how many slots are free; -1 when all are retired."""
        usable = [s for s in self.slots if s.name not in self._retired]
        if self.slots and not usable:
            return -1
        return max(0, len(self._free()) - len(self._pending))

    def submit(self, job: Job) -> None:
        """Take a job for the next slot that suits it: not one to avoid, if there is another; alone where it asks so."""
        self._pending.append(job)
        self._start_pending()

    def events(self, timeout: float) -> list[Event]:
        """Return what happened, in order."""
        if not self._events:
            for one in self._ready(timeout):
                self._hear(one)
        self._kill_silent()
        self._start_pending()
        events, self._events = self._events, []
        return events

    def retire(self, slot: str) -> None:
        """Give no more jobs to ``slot``."""
        self._retired.add(slot)
        for one in [w for w in self._workers if w.slot.name == slot and w.job is None]:
            self._bury(one)

    def cancel(self, key: str) -> str:
        """Stop the job with that key; return where its output lies."""
        self._pending = [job for job in self._pending if job.task.key != key]
        log = ""
        for one in [w for w in self._workers if w.job and w.job.task.key == key]:
            one.kill()
            self._bury(one)
            log = one.log.shown if one.log else ""
        return log

    def close(self) -> None:
        """End all workers: idle ones leave when their connection closes, the others are killed."""
        self._pending.clear()
        for one in self._workers:
            if one.job is not None:
                one.kill()
            one.connection.close()
        for one in list(self._workers):
            self._bury(one)

    def _start_pending(self) -> None:
        for job in list(self._pending):
            slot = self._slot_for(job)
            if slot is not None:
                self._pending.remove(job)
                self._start(job, slot)

    def _start(self, job: Job, slot: Slot) -> None:
        if job.alone:  # idle workers hold memory of the device
            for one in [w for w in self._workers if w.slot.device == slot.device]:
                self._bury(one, at_once=True)
        packed = 1 if job.alone else self._room(slot) if self.measure_memory else slot.packed
        one = self._worker(slot)
        one.job, one.silent, one.kills = job, 0.0, self._kills.count()
        if self.logs is not None:
            self._pass_on(one)  # what the worker printed since its last job is not this one's
            one.log = CellLog(self.logs / f"{job.task.key}.log", job.attempt)
            one.log.begin()
        self._events.append(Event("started", job.task, slot.name, attempt=job.attempt))
        with suppress(OSError):  # it has just died, which _ready will find
            one.connection.send_bytes(pickle.dumps((job.payload, job.attempt, packed)))

    def _hear(self, one: _Worker) -> None:
        """Take in the next message of a worker, or its death."""
        self._pass_on(one)
        if one.connection.closed or not (one.dead or one.connection.poll()):
            return  # it has only printed something
        message = _receive(one.connection)
        job, one.silent = one.job, 0.0
        if message is None:
            self._end(one, self._death(one))
            return
        kind, *said = message
        if job is None or kind == "alive":
            return
        if kind == "lost":
            kind, said = "ended", [LOST, 0.0]
        if kind != "ended":
            self._events.append(Event.of(job, one.slot.name, kind, *said))
            return
        ending, peak = said
        self._peak[one.slot.device] = max(peak, self._peak.get(one.slot.device, 0.0))
        self._pass_on(one)
        if not ending.reusable or job.alone or ending.failure in ("resource", "infrastructure"):
            one.kill()
            self._bury(one)
        self._end(one, ending)

    def _death(self, one: _Worker) -> Ending:
        """Bury a worker that says nothing any more, and return how its job ended."""
        with suppress(subprocess.TimeoutExpired):
            one.process.wait(PATIENCE)
        died = one.dead
        code = self._bury(one, at_once=True)
        how = _ending(code) if died else "it closed its connection"
        if died and code == -signal.SIGKILL:
            hit = self._kills.hit(one.kills)
            if hit:
                reason = f"the worker died ({how}: the kernel found no more memory)"
                return Ending("failed", reason, failure="resource")
            how += ": out of memory?" if hit is None else ""
        return Ending("failed", f"the worker died ({how})", failure="infrastructure")

    def _end(self, one: _Worker, ending: Ending) -> None:
        job, one.job = one.job, None
        if job is not None:
            self._events.append(ending.event(job, one.slot.name, one.log.shown if one.log else ""))

    def _kill_silent(self) -> None:
        """Kill workers that fell silent."""
        now = time.monotonic()
        passed, self._looked = min(now - self._looked, TICK), now
        for one in [w for w in self._workers if w.job is not None]:
            one.silent += passed
            if one.silent > self.silence:
                one.kill()
                self._bury(one)
                why = f"the worker gave no sign of life for {self.silence:,.0f} s"
                self._end(one, Ending("failed", why, failure="infrastructure"))

    def _free(self) -> list[Slot]:
        """Return the slots that can take a job now, those with an idle worker first."""
        for one in [w for w in self._workers if w.job is None and w.dead]:
            self._bury(one)
        busy = {w.slot.name: w for w in self._workers if w.job is not None}
        alone = {w.slot.device for w in busy.values() if w.job and w.job.alone}
        free: list[Slot] = []
        for device in dict.fromkeys(s.device for s in self.slots):
            if device in alone:
                continue
            here = [s for s in self.slots if s.device == device]
            room = self._room(here[0]) if self.measure_memory else len(here)
            idle = [s for s in here if s.name not in busy and s.name not in self._retired]
            free += idle[: max(0, room - sum(s.name in busy for s in here))]
        warm = {w.slot.name for w in self._workers}
        return sorted(free, key=lambda slot: slot.name not in warm)

    def _slot_for(self, job: Job) -> Slot | None:
        """Return a free slot for ``job``; None while it has to wait for one."""
        # A processor is no better through another slot; an accelerator is what may be broken.
        avoid = {s.device for s in self.slots if s.name in job.avoid and s.device != "cpu"}
        others = [s for s in self.slots if s.name not in self._retired and s.device not in avoid]
        free = self._free()
        if job.alone:
            busy = {w.slot.device for w in self._workers if w.job is not None}
            free = [s for s in free if s.device not in busy]
        elif any(
            j.alone for j in self._pending
        ):  # a job that needs a whole device gets one: nothing else starts before
            free = []
        suitable = [s for s in free if s.device not in avoid] if others else free
        return suitable[0] if suitable else None

    def _room(self, slot: Slot) -> int:
        """Return how many jobs a device has memory for, by the largest so far: one while nothing is known."""
        peak = self._peak.get(slot.device, 0.0)
        return max(1, min(slot.packed, int(ROOM / peak))) if peak > 0 else 1

    def _worker(self, slot: Slot) -> _Worker:
        """Return the worker of ``slot``, started if there is none."""
        for one in self._workers:
            if one.slot == slot:
                return one
        ours = theirs = None
        if self.logs is not None:
            ours, theirs = os.pipe()
            os.set_blocking(ours, False)
        try:
            process, connection = worker.start(slot, self.target, self.settings, theirs)
        finally:
            if theirs is not None:
                os.close(theirs)
        self._workers.append(_Worker(slot, process, connection, ours))
        return self._workers[-1]

    def _ready(self, timeout: float) -> list[_Worker]:
        """Return the workers that have something to say or are dead."""
        if not self._workers:
            time.sleep(timeout)
            return []
        places = [w.connection for w in self._workers] + [w.output for w in self._workers if w.output is not None]
        heard = wait(places, timeout)
        # A connection does not close while a child of a dead worker holds it: ask for the exit code as well.
        return [w for w in self._workers if w.connection in heard or w.output in heard or w.dead]

    def _pass_on(self, one: _Worker) -> None:
        """Put what a worker printed into the log of its job."""
        if one.output is None:
            return
        output, ended = read_available(one.output)
        if ended:
            os.close(one.output)
            one.output = None
        if output and one.log is not None:
            one.log.write(output)
        elif output:
            sys.stderr.write(output.decode("utf-8", "replace"))

    def _bury(self, dead: _Worker, at_once: bool = False) -> int:
        """Forget a worker, killed if it does not leave by itself; return its exit code."""
        dead.connection.close()
        with suppress(subprocess.TimeoutExpired):
            dead.process.wait(0 if at_once else PATIENCE)
        dead.kill()  # it, or what it left behind
        self._workers.remove(dead)
        code = dead.process.wait()
        if dead.output is not None:
            self._pass_on(dead)
        if dead.output is not None:  # a process outside its group still holds the other end
            os.close(dead.output)
            dead.output = None
        return code


def open_executor(
    target: str, settings: dict[str, Any], slots: list[Slot], logs: Path | None, options: Mapping[str, str]
) -> LocalExecutor:
    """Return a local executor: what every module of an executor offers, see ``grid.filling.EXECUTORS``.

    ``options``: ``pack=auto`` lets a device take as many jobs as its memory holds; ``silence`` are the seconds after
    which a worker without a sign of life is killed.
    """
    silence = float(options.get("silence", SILENCE))
    return LocalExecutor(slots, target, settings, logs, options.get("pack") == "auto", silence)


def _receive(connection: Connection) -> tuple[Any, ...] | None:
    """Return the next message, or None when no more can come."""
    try:
        if not connection.poll():  # the process is dead, or this would not have been called
            return None
        message: tuple[Any, ...] = connection.recv()
    except Exception:  # the other end is gone, or what it wrote makes no sense
        return None
    return message


def _ending(code: int) -> str:
    """Return an exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:  # a real-time signal
        return f"signal {-code}"
