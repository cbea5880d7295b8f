"""Ray and submitit as far as the executors use them, without a cluster: what is asked runs here, when asked for."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any


class RayError(Exception):
    pass


class OutOfMemoryError(RayError):
    pass


class FakeRay(ModuleType):
    """A cluster whose workers answer as soon as somebody waits for them. ``gpus`` are those of each node."""

    def __init__(self, gpus: list[float], cpus: float = 2.0) -> None:
        super().__init__("ray")
        self.alive = {f"node{i:02}": {"CPU": cpus, **({"GPU": n} if n else {})} for i, n in enumerate(gpus)}
        self.exceptions = SimpleNamespace(RayError=RayError, OutOfMemoryError=OutOfMemoryError)
        self.answers: dict[int, Callable[[], Any]] = {}
        self.numbers = itertools.count()
        self.asked: list[dict[str, float]] = []  # what each worker needs
        self.actors: list[FakeActor] = []
        self.initialized = True
        self.here = ""  # the node that a worker asks about

    def is_initialized(self) -> bool:
        return self.initialized

    def init(self, **_: Any) -> None:
        raise ConnectionError("nobody answers\nat this address")

    def shutdown(self) -> None: ...

    def nodes(self) -> list[dict[str, Any]]:
        return [{"NodeID": name, "Alive": True, "Resources": has} for name, has in self.alive.items()]

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(get_node_id=lambda: self.here)

    def remote(self, kind: type) -> Any:
        def options(**need: float) -> Any:
            def make(*arguments: Any) -> FakeActor:
                self.asked.append(need)
                self.actors.append(FakeActor(self, kind(*arguments)))
                return self.actors[-1]

            return SimpleNamespace(remote=make)

        return SimpleNamespace(options=options)

    def promise(self, answer: Callable[[], Any]) -> int:
        number = next(self.numbers)
        self.answers[number] = answer
        return number

    def wait(self, waited: list[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        ready = [one for one in waited if isinstance(one, int) or one.ready][:1]
        return ready, [one for one in waited if one not in ready]

    def get(self, reference: int) -> Any:
        return self.answers[reference]()

    def kill(self, actor: FakeActor, no_restart: bool) -> None:
        actor.dead = True


class FakeActor:
    """A worker on the first node that has fewer than it can take."""

    def __init__(self, ray: FakeRay, worker: Any) -> None:
        self.ray, self.worker, self.dead = ray, worker, False
        self.node = ""
        load = {name: sum(a.node == name and not a.dead for a in ray.actors) for name in ray.alive}
        self.node = min(load, key=lambda name: (load[name], name), default="")
        self.place = SimpleNamespace(remote=lambda: ray.promise(self._place))
        self.run = SimpleNamespace(options=self._streaming)

    def _place(self) -> Any:
        self.ray.here = self.node
        return self.worker.place()

    def _streaming(self, num_returns: str) -> Any:
        assert num_returns == "streaming"
        return SimpleNamespace(remote=lambda *arguments: FakeStream(self, *arguments))


class FakeStream:
    """What a worker says of one job, a promise at a time."""

    def __init__(self, actor: FakeActor, slot: str, payload: bytes, attempt: int) -> None:
        self.actor, self.action = actor, pickle.loads(payload)[1]
        self.said = actor.worker.run(slot, payload, attempt)

    @property
    def ready(self) -> bool:
        return bool(self.action != "hang")

    def __next__(self) -> int:
        return self.actor.ray.promise(self._next)

    def _next(self) -> Any:
        if self.actor.node not in self.actor.ray.alive or self.actor.dead:
            raise RayError("the node is lost")
        if self.action == "exhaust":
            raise OutOfMemoryError("killed")
        return next(self.said)


class FakeSubmitit:
    """submitit's executor: SLURM jobs stay in ``queue`` until ``work`` runs one."""

    def __init__(self, slurm: FakeSlurm, folder: Path, max_num_timeout: int) -> None:
        self.slurm, self.folder = slurm, folder

    def update_parameters(self, **parameters: Any) -> None:
        self.slurm.parameters.update(parameters)

    def submit_array(self, calls: list[Any]) -> list[Any]:
        if self.slurm.refusal:
            raise RuntimeError(self.slurm.refusal)
        first = len(self.slurm.arrays) + 1
        self.slurm.arrays.append(len(calls))
        jobs = [f"{first}_{i}" for i in range(len(calls))]
        self.slurm.queue |= dict(zip(jobs, calls, strict=True))
        self.slurm.tell(**dict.fromkeys(jobs, "PENDING"))
        return [SimpleNamespace(job_id=job) for job in jobs]


class FakeSlurm:
    """A queue of SLURM jobs, and the commands squeue and scancel in ``bin`` that speak of it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bin = folder, folder / "bin"
        self.bin.mkdir()
        self.queue: dict[str, Any] = {}
        self.states: dict[str, str] = {}
        self.arrays: list[int] = []
        self.parameters: dict[str, Any] = {}
        self.refusal = ""
        self.tell()
        self.command("squeue", f'cat "{folder}/states"')
        self.command("scancel", f'echo "$1" >> "{folder}/cancelled"')

    def command(self, name: str, line: str) -> None:
        (self.bin / name).write_text(f"#!/bin/sh\n{line}\n")
        (self.bin / name).chmod(0o755)

    def tell(self, **states: str) -> None:
        """Let squeue say so of these jobs from now on."""
        self.states |= states
        (self.folder / "states").write_text("".join(f"{job}|{state}\n" for job, state in self.states.items()))

    def work(self, *jobs: str) -> None:
        """Run these SLURM jobs, or all that wait, to their end."""
        for job in jobs or list(self.queue):
            self.queue.pop(job)()
            self.tell(**{job: "COMPLETED"})

    def cancelled(self) -> list[str]:
        path = self.folder / "cancelled"
        return path.read_text().split() if path.exists() else []

    def module(self) -> ModuleType:
        module = ModuleType("submitit")
        module.__dict__["SlurmExecutor"] = lambda folder, max_num_timeout: FakeSubmitit(self, folder, max_num_timeout)
        return module
