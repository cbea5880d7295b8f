"""A process on a node of a Ray cluster that runs jobs, and how the driver comes to such a cluster."""

from __future__ import annotations

import os
import queue
import socket
import threading
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from ..errors import EnvironmentProblem
from .call import Call
from .choice import needed
from .endings import describe

NODE_DIGITS = 6  # of the id of a node


class Worker:
    """Runs one job after another. Ray sets CUDA_VISIBLE_DEVICES before it starts."""

    def __init__(self, call: Call) -> None:
        self.call = call

    def place(self) -> tuple[str, str]:
        """Return the id of the node of this process, shortened, and readable its node and GPU."""
        node = needed("ray", "ray").get_runtime_context().get_node_id()[:NODE_DIGITS]
        gpu = "" if self.call.device == "cpu" else f"/gpu{os.environ.get('CUDA_VISIBLE_DEVICES', '')}"
        return node, f"{socket.gethostname()}-{node}{gpu}"

    def run(self, slot: str, payload: bytes, attempt: int) -> Iterator[tuple[Any, ...]]:
        """Run a job; yield what it reports, and last "ended" with how it ended."""
        said: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()

        def work() -> None:
            said.put(("ended", self.call.run(slot, payload, attempt, lambda *words: said.put(words))))

        threading.Thread(target=work, name="works").start()
        while True:
            yield (message := said.get())
            if message[0] == "ended":
                return


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
