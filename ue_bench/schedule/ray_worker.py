"""What the executor for Ray is made of: a connection to a cluster, and processes on its nodes that run jobs."""

from __future__ import annotations

import math
import os
import socket
import time
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from ..errors import EnvironmentProblem
from .choice import needed
from .endings import Ending, describe
from .executor import Event, Job
from .remote import Call

NODE_DIGITS = 6  # of the id of a node


class Worker:
    """A process on some node that runs one job after another. Ray sets CUDA_VISIBLE_DEVICES before it starts."""

    def __init__(self, call: Call, queue: Any) -> None:
        self.call, self.queue = call, queue

    def place(self) -> tuple[str, str]:
        """Return the id of the node of this process, shortened, and readable its node and GPU."""
        node = needed("ray", "ray").get_runtime_context().get_node_id()[:NODE_DIGITS]
        gpu = "" if self.call.device == "cpu" else f"/gpu{os.environ.get('CUDA_VISIBLE_DEVICES', '')}"
        return node, f"{socket.gethostname()}-{node}{gpu}"

    def run(self, key: str, slot: str, payload: bytes, attempt: int) -> Ending:
        """Run a job and return how it ended; meanwhile its progress goes into the queue."""

        def send(*said: Any) -> None:
            sent = self.queue.actor.put_nowait.remote((key, attempt, *said))
            if said[0] == "warning":  # which must not come after the end
                needed("ray", "ray").get(sent)

        return self.call.run(slot, payload, attempt, send)


@dataclass(eq=False)
class Actor:
    """The driver's end of a worker: what it does, and Ray's reference to its next answer.

    It answers with its place, then with how each job ended.
    """

    handle: Any
    answer: Any
    job: Job | None
    payload: bytes
    node: str = ""  # these two once it is placed
    slot: str = ""
    end: float = math.inf  # when the limit of its job is reached

    @classmethod
    def place(cls, ray: ModuleType, need: dict[str, float], call: Call, queue: Any, job: Job, payload: bytes) -> Actor:
        """Ask Ray for a worker on a node that has what it needs."""
        options = {"num_cpus": need["CPU"], "num_gpus": need.get("GPU", 0)}
        handle = ray.remote(Worker).options(**options).remote(call, queue)
        return cls(handle, handle.place.remote(), job, payload)

    def start(self) -> Event:
        """Let the worker begin with its job."""
        job = self.job
        assert job is not None
        self.end = math.inf if job.limit is None else time.monotonic() + job.limit
        self.answer = self.handle.run.remote(job.task.key, self.slot, self.payload, job.attempt)
        return Event("started", job.task, self.slot, attempt=job.attempt)


def connect(address: str) -> tuple[ModuleType, bool]:
    """Return Ray, connected to a cluster, and whether the connection is new.

    Without ``address`` that is RAY_ADDRESS or the cluster of this machine. Raises EnvironmentProblem when none answers.
    """
    ray = needed("ray", "ray")
    if ray.is_initialized():
        return ray, False
    try:
        ray.init(address=address or "auto", log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, ValueError, RuntimeError) as error:
        hint = "start one with 'ray start --head', or say where it is with --ray-address"
        raise EnvironmentProblem(f"no Ray cluster answers: {describe(error)}", hint) from error
    return ray, True


def open_queue(ray: ModuleType) -> Any:
    """Return a queue for messages of workers. It lives on the driver's node: another one may be lost."""
    near = needed("ray.util.scheduling_strategies", "ray").NodeAffinitySchedulingStrategy
    here = near(ray.get_runtime_context().get_node_id(), soft=True)
    options = {"num_cpus": 0, "scheduling_strategy": here}
    return needed("ray.util.queue", "ray").Queue(actor_options=options)
