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

    def wait(self, references: list[int], num_returns: int, timeout: float) -> tuple[list[int], list[int]]:
        ready = [r for r in references if self.answers[r].__name__ != "never"]
        for reference in ready:
            self.answers[reference] = outcome(self.answers[reference])
        return ready, [r for r in references if r not in ready]

    def get(self, reference: int | None) -> Any:
        return None if reference is None else self.answers[reference]()

    def kill(self, actor: FakeActor, no_restart: bool) -> None:
        actor.dead = True


def outcome(answer: Callable[[], Any]) -> Callable[[], Any]:
    """Let it happen now, and be told later."""
    try:
        value = answer()
    except RayError as error:
        raised = error

        def lost() -> Any:
            raise raised

        return lost
    return lambda: value


class FakeActor:
    """A worker on the first node that has fewer than it can take."""

    def __init__(self, ray: FakeRay, worker: Any) -> None:
        self.ray, self.worker, self.dead = ray, worker, False
        self.node = ""
        load = {name: sum(a.node == name and not a.dead for a in ray.actors) for name in ray.alive}
        self.node = min(load, key=lambda name: (load[name], name), default="")
        self.place = SimpleNamespace(remote=lambda: ray.promise(self._place))
        self.run = SimpleNamespace(remote=self._run)

    def _place(self) -> Any:
        self.ray.here = self.node
        return self.worker.place()

    def _run(self, key: str, slot: str, payload: bytes, attempt: int) -> int:
        if pickle.loads(payload)[1] == "hang":

            def never() -> None: ...

            return self.ray.promise(never)

        def answer() -> Any:
            if self.node not in self.ray.alive or self.dead:
                raise RayError("the node is lost")
            if pickle.loads(payload)[1] == "exhaust":
                raise OutOfMemoryError("killed")
            return self.worker.run(key, slot, payload, attempt)

        return self.ray.promise(answer)


class FakeQueue:
    def __init__(self, actor_options: Any = None) -> None:
        self.items: list[Any] = []
        self.actor = SimpleNamespace(put_nowait=SimpleNamespace(remote=self.items.append))

    def qsize(self) -> int:
        return len(self.items)

    def get_nowait_batch(self, count: int) -> list[Any]:
        taken, self.items[:] = self.items[:count], self.items[count:]
        return taken

    def shutdown(self, force: bool) -> None: ...


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
