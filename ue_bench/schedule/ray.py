"""Jobs on a Ray cluster: one actor for every slot, on a GPU or a share of one, or on CPUs."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, replace
from typing import Any

from ..errors import EnvironmentProblem
from .call import Call
from .endings import LOST, Ending, describe
from .executor import Event, FailureClass, Job
from .ray_worker import NODE_DIGITS, Worker, connect


@dataclass(eq=False)
class _Actor:
    """The driver's end of a worker. ``answers`` is Ray's reference to its place, then the stream of a job."""

    handle: Any
    answers: Any
    job: Job | None
    node: str = ""  # these two once it is placed
    slot: str = ""


class RayExecutor:
    """Runs jobs on the nodes of a Ray cluster, which see the cache and the results under the same paths as the driver.

    ``jobs`` workers share a GPU, or with CPUs a node; each has ``call.threads`` CPUs. Raises EnvironmentProblem when
    there is no such cluster, or when none of its nodes has room for one worker.
    """

    detached = False

    def __init__(self, call: Call, address: str = "", devices: str = "auto", jobs: int | None = None) -> None:
        self.ray, self._owns = connect(address)
        gpus = devices == "cuda" or (devices == "auto" and any("GPU" in has for has in self._nodes().values()))
        self.need = {"CPU": float(call.threads)} | ({"GPU": 1 / (jobs or 1)} if gpus else {})
        self.most = None if gpus else jobs  # workers on a node
        self.call = replace(call, device="cuda:0" if gpus else "cpu", packed=(jobs or 1) if gpus else 1)
        self._actors: list[_Actor] = []
        self._events: list[Event] = []
        self._retired: set[str] = set()
        if not self._room():
            self.close()
            raise EnvironmentProblem(f"no node of the Ray cluster has {self.need}", "see 'ray status'")

    def capacity(self) -> int:
        """Return for how many more jobs there is room; -1 when only retired slots are left."""
        if any(a.job and a.job.alone and not a.slot for a in self._actors):
            return 0  # it waits for a whole device
        left = max(1, self._room()) - sum(a.job is None and a.slot in self._retired for a in self._actors)
        return left - sum(a.job is not None for a in self._actors) if left > 0 else -1

    def _room(self) -> int:
        """Return for how many workers the living nodes are large enough."""
        nodes = self._nodes().values()
        fits = [min(int(has.get(what, 0) / n + 1e-6) for what, n in self.need.items()) for has in nodes]
        return sum(min(n, self.most or n) for n in fits)

    def submit(self, job: Job) -> None:
        """Take a job: for an idle worker, or for a new one."""
        alive = self._nodes()
        for lost in [a for a in self._actors if a.job is None and a.node not in alive]:
            self._bury(lost)
        idle = [a for a in self._actors if a.job is None and a.slot not in self._retired]
        suitable = [a for a in idle if a.slot not in job.avoid and not job.alone]
        if suitable:
            self._start(suitable[0], job)
            return
        for actor in idle if job.alone or len(self._actors) >= self._room() else ():
            self._bury(actor)  # it holds what the new one needs
        self._place(job)

    def events(self, timeout: float) -> list[Event]:
        """Return what happened, in order."""
        busy = {a.answers: a for a in self._actors if a.job}
        if not busy:
            time.sleep(0.0 if self._events else timeout)
        else:
            for answers in self.ray.wait(list(busy), timeout=0.0 if self._events else timeout)[0]:
                self._hear(busy[answers])
        events, self._events = self._events, []
        return events

    def retire(self, slot: str) -> None:
        """Give no more jobs to ``slot``: a worker that gets it keeps it, idle, so that no other does."""
        self._retired.add(slot)

    def cancel(self, key: str) -> str:
        """Stop the job with that key. What it printed is with Ray."""
        for actor in [a for a in self._actors if a.job and a.job.task.key == key]:
            self._bury(actor)
        return ""

    def close(self) -> None:
        """End all workers, and the connection if this executor opened it."""
        for actor in list(self._actors):
            self._bury(actor)
        if self._owns:
            self.ray.shutdown()

    def _nodes(self) -> dict[str, dict[str, float]]:
        """Return what each living node has."""
        return {node["NodeID"][:NODE_DIGITS]: node["Resources"] for node in self.ray.nodes() if node["Alive"]}

    def _place(self, job: Job) -> None:
        """Ask Ray for a worker; where a job must be alone, one with a whole GPU, or all CPUs of a node."""
        need = dict(self.need)
        if job.alone:
            largest = max(has.get("CPU", 0) for has in self._nodes().values())
            need |= {"GPU": 1.0} if "GPU" in need else {"CPU": largest}
        options = {"num_cpus": need["CPU"], "num_gpus": need.get("GPU", 0)}
        handle = self.ray.remote(Worker).options(**options).remote(self.call)
        self._actors.append(_Actor(handle, handle.place.remote(), job))

    def _start(self, actor: _Actor, job: Job) -> None:
        actor.job = job
        actor.answers = actor.handle.run.options(num_returns="streaming").remote(actor.slot, job.payload, job.attempt)
        self._events.append(Event("started", job.task, actor.slot, attempt=job.attempt))

    def _hear(self, actor: _Actor) -> None:
        """Take in the next answer of an actor, or its death."""
        job = actor.job
        assert job is not None
        try:
            kind, *said = self.ray.get(next(actor.answers) if actor.slot else actor.answers)
        except (self.ray.exceptions.RayError, StopIteration) as error:
            ran_out = isinstance(error, self.ray.exceptions.OutOfMemoryError)
            failure: FailureClass = "resource" if ran_out else "infrastructure"
            kind, said = "ended", [Ending("failed", describe(error), str(error), failure, reusable=False)]
        if kind == "lost":
            kind, said = "ended", [LOST]
        if kind == "ended":
            actor.job = None
            self._events.append(said[0].event(job, actor.slot))
            if not said[0].reusable or job.alone or said[0].failure in ("resource", "infrastructure"):
                self._bury(actor)
        elif actor.slot:
            self._events.append(Event.of(job, actor.slot, kind, *said))
        else:
            self._settle(actor, job, kind, said[0])

    def _settle(self, actor: _Actor, job: Job, node: str, place: str) -> None:
        """Let a worker begin where Ray has placed it, or stay idle where that is a retired slot."""
        taken = {a.slot for a in self._actors}
        actor.node, actor.slot = node, next(s for i in itertools.count() if (s := f"{place}#{i}") not in taken)
        if actor.slot in self._retired:
            actor.job = None
            self._place(job)
        else:
            self._start(actor, job)

    def _bury(self, actor: _Actor) -> None:
        self._actors.remove(actor)
        self.ray.kill(actor.handle, no_restart=True)
