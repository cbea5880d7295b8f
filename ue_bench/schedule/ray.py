"""Jobs on a Ray cluster: one actor for every slot, on a GPU or a share of one, or on CPUs."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from typing import Any

from ..errors import EnvironmentProblem
from .endings import Ending, describe
from .executor import Event, Job
from .ray_worker import NODE_DIGITS, Actor, connect, open_queue
from .remote import Call, ended, packed

TICK = 0.25  # seconds between two looks at progress and time limits


class RayExecutor:
    """Runs jobs on the nodes of a Ray cluster, which see the cache and the results under the same paths as the driver.

    ``jobs`` workers share a GPU, or with CPUs a node; each has ``call.threads`` CPUs. Raises EnvironmentProblem when
    there is no such cluster, or when none of its nodes has room for one worker.
    """

    detached = False

    def __init__(self, call: Call, address: str = "", devices: str = "auto", jobs: int | None = None) -> None:
        self.ray, self._owns = connect(address)
        gpus = devices == "cuda" or (devices == "auto" and any("GPU" in node for node in self._nodes()))
        self.need = {"CPU": float(call.threads)} | ({"GPU": 1 / (jobs or 1)} if gpus else {})
        self.most = None if gpus else jobs  # workers on a node
        self.call = replace(call, device="cuda:0" if gpus else "cpu", packed=(jobs or 1) if gpus else 1)
        self._actors: list[Actor] = []
        self._events: list[Event] = []
        self._retired: set[str] = set()
        self.queue: Any = None
        if not self._room():
            self.close()
            raise EnvironmentProblem(f"no node of the Ray cluster has {self.need}", "see 'ray status'")
        self.queue = open_queue(self.ray)

    def capacity(self) -> int:
        """Return for how many more jobs there is room; -1 when only retired slots are left."""
        if any(a.job and a.job.alone and not a.slot for a in self._actors):
            return 0  # it waits for a whole device
        left = max(1, self._room()) - sum(a.job is None and a.slot in self._retired for a in self._actors)
        return left - sum(a.job is not None for a in self._actors) if left > 0 else -1

    def _room(self) -> int:
        """Return for how many workers the living nodes are large enough."""
        fits = [min(int(node.get(what, 0) / n + 1e-6) for what, n in self.need.items()) for node in self._nodes()]
        return sum(min(n, self.most or n) for n in fits)

    def submit(self, job: Job) -> None:
        """Take a job: for an idle worker, or for a new one."""
        alive = {node["NodeID"][:NODE_DIGITS] for node in self.ray.nodes() if node["Alive"]}
        for lost in [a for a in self._actors if a.job is None and a.node not in alive]:
            self._bury(lost)
        idle = [a for a in self._actors if a.job is None and a.slot not in self._retired]
        suitable = [a for a in idle if a.slot not in job.avoid and not job.alone]
        payload = packed(job)
        if isinstance(payload, Event):
            self._events.append(payload)
        elif suitable:
            suitable[0].job, suitable[0].payload = job, payload
            self._events.append(suitable[0].start())
        else:
            for actor in idle if job.alone or len(self._actors) >= self._room() else ():
                self._bury(actor)  # it holds what the new one needs
            self._place(job, payload)

    def events(self, timeout: float) -> list[Event]:
        """Return what happened, in order."""
        end = time.monotonic() + timeout
        while not self._events:
            left = min(TICK, max(0.0, end - time.monotonic()))
            busy = {a.answer: a for a in self._actors if a.job}
            if not busy:
                time.sleep(left)
            ready = self.ray.wait(list(busy), num_returns=len(busy), timeout=left)[0] if busy else []
            self._hear_progress()
            for answer in ready:
                self._hear(busy[answer])
            for late in [a for a in self._actors if a.job and time.monotonic() > a.end]:
                self._end(late, Ending("failed", "it ran past its time limit", failure="timeout", reusable=False))
            if time.monotonic() >= end:
                break
        events, self._events = self._events, []
        return events

    def retire(self, slot: str) -> None:
        """Give no more jobs to ``slot``: a worker that gets it keeps it, idle, so that no other does."""
        self._retired.add(slot)

    def cancel(self, key: str) -> None:
        """Stop the job with that key."""
        for actor in [a for a in self._actors if a.job and a.job.task.key == key]:
            self._bury(actor)

    def close(self) -> None:
        """End all workers, and the connection if this executor opened it."""
        for actor in list(self._actors):
            self._bury(actor)
        if self.queue is not None:
            self.queue.shutdown(force=True)
        if self._owns:
            self.ray.shutdown()

    def _nodes(self) -> list[dict[str, float]]:
        return [node["Resources"] for node in self.ray.nodes() if node["Alive"]]

    def _place(self, job: Job, payload: bytes) -> None:
        """Ask Ray for a worker; where a job must be alone, one with a whole GPU, or all CPUs of a node."""
        need = dict(self.need)
        if job.alone:
            need |= {"GPU": 1.0} if "GPU" in need else {"CPU": max(node.get("CPU", 0) for node in self._nodes())}
        self._actors.append(Actor.place(self.ray, need, self.call, self.queue, job, payload))

    def _hear(self, actor: Actor) -> None:
        """Take in the answer of an actor, or its death."""
        try:
            answer: tuple[str, str] | Ending = self.ray.get(actor.answer)
        except self.ray.exceptions.RayError as error:
            answer = Ending("failed", describe(error), str(error), "infrastructure", reusable=False)
            if isinstance(error, self.ray.exceptions.OutOfMemoryError):
                answer = replace(answer, failure="resource")
        if isinstance(answer, Ending):
            self._end(actor, answer)
            return
        actor.node, place = answer
        taken = {a.slot for a in self._actors}
        actor.slot = next(name for i in itertools.count() if (name := f"{place}#{i}") not in taken)
        if actor.slot in self._retired and actor.job:
            job, actor.job = actor.job, None
            self._place(job, actor.payload)
        else:
            self._events.append(actor.start())

    def _hear_progress(self) -> None:
        actors = {(a.job.task.key, a.job.attempt): a for a in self._actors if a.job}
        try:
            messages = self.queue.get_nowait_batch(self.queue.qsize())
        except self.ray.exceptions.RayError:  # its node is lost; workers that run now say no more until they end
            messages, self.queue = [], open_queue(self.ray)
        for key, attempt, kind, *said in messages:
            if (actor := actors.get((key, attempt))) and actor.job and kind in ("progress", "warning"):
                fraction = said[0] if kind == "progress" else 0.0
                self._events.append(Event(kind, actor.job.task, actor.slot, fraction, said[-1]))

    def _end(self, actor: Actor, ending: Ending) -> None:
        job, actor.job = actor.job, None
        assert job is not None
        self._events.append(ended(job, actor.slot, ending))
        if not ending.reusable or job.alone or ending.failure in ("resource", "infrastructure"):
            self._bury(actor)

    def _bury(self, actor: Actor) -> None:
        self._actors.remove(actor)
        self.ray.kill(actor.handle, no_restart=True)
