"""Computing the stages that are missing, on this machine or elsewhere, beside any number of other drivers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from statistics import median
from typing import Protocol

from ..errors import UserError
from ..schedule import local
from ..schedule.call import Call
from ..schedule.choice import LOCAL, ExecutorChoice
from ..schedule.devices import Pack, Slot, available, slots
from ..schedule.driver import Driver
from ..schedule.executor import Event, Executor, FailureClass
from ..schedule.graph import Task
from ..schedule.ray import RayExecutor
from ..schedule.rules import Limits, Stops
from ..schedule.slurm import SlurmExecutor
from ..store.schema import Failure, FailureKind
from .claims import StageClaims, leases_shared
from .environment import RunEnvironment
from .planner import Planned, plan
from .stages.base import Stage, Stores

TARGET = "ue_bench.grid.work:run"
RECORDED_AS: dict[FailureClass, FailureKind] = {
    "task": "error", "diverged": "diverged", "resource": "oom", "timeout": "timeout",
    "infrastructure": "infrastructure",
}  # fmt: skip


@dataclass(frozen=True)
class FillOptions:
    """How missing stages are computed; no number depends on it.

    ``retry`` are the kinds of recorded failures that are tried again, all by default. ``timeout`` in seconds a stage.
    ``executor_options`` are those of the local executor, such as how long a worker may be silent.
    """

    pack: Pack | None = None
    timeout: float | None = None
    max_failures: int | None = None
    retry: Collection[FailureKind] | None = None
    executor_options: Mapping[str, str] = field(default_factory=dict)


Predict = Callable[[Stage], float | None]
"""Returns the seconds that a stage will take, None where nothing tells."""


def nothing_known(stage: Stage) -> float | None:
    """Predict nothing."""
    return None


class Follower(Protocol):
    """Hears what happens while stages are computed."""

    def begin(self, tasks: list[Task], targets: int, missing: int, workers: list[Slot]) -> None:
        """Take note of the work: of so many targets that are tried so many are missing. There may be none."""

    def on_event(self, event: Event) -> None:
        """Take note of one event."""

    def end(self) -> None:
        """Stop following; called however the work ends."""


def fill(
    targets: Sequence[Stage],
    env: RunEnvironment,
    devices: str,
    jobs: int | None,
    follower: Follower,
    options: FillOptions | None = None,
    choice: ExecutorChoice = LOCAL,
    predict: Predict = nothing_known,
) -> dict[str, str]:
    """Compute what is missing for ``targets``; return why each failed stage failed, by key.

    What ``predict`` knows of stages decides their order, their time limit and when the end is expected.
    Others may fill the same folders meanwhile: each stage is computed by one of them. Failures are recorded beside the
    results, and forgotten when the same stage succeeds. Raises StorageProblem when a folder cannot be written,
    KeyboardInterrupt after Ctrl-C.
    """
    options = options or FillOptions()
    stores = Stores(env)
    if any(target.keeps_failure for target in targets):  # else nothing is written there
        stores.results.create()
    _sweep(stores, env)
    given_up = not_tried_again(targets, stores, options)
    planned = plan([t for t in targets if t.key not in given_up], stores)
    tasks = tasks_of(planned, predict)
    executor: Executor | None = None
    workers: list[Slot] = []
    if choice.is_remote and tasks:
        executor = _open_remote(choice, env, devices, jobs, options.pack)
        workers = [Slot(choice.name, devices, env.threads)] * min(executor.capacity(), len(tasks))
    elif not choice.is_remote:
        if tasks:
            available()  # raises where torch does not work: better than failing stage by stage
        places = slots(devices, jobs, env.threads, options.pack)
        workers = places[: len(tasks)] if options.pack != "auto" else places if tasks else []
    todo = {p.stage.key for p in planned}
    follower.begin(tasks, len(targets) - len(given_up), sum(t.key in todo for t in targets), workers)
    try:
        if given_up:
            text = f"{len(given_up)} cells failed earlier and are not tried again; --retry says which are"
            follower.on_event(Event("warning", text=text))
        if not planned:
            return given_up
        if executor is None:
            settings = dict(options.executor_options) | ({"pack": "auto"} if options.pack == "auto" else {})
            executor = local.open_executor(TARGET, {"env": env}, workers, env.out / "logs", settings)
        claims = StageClaims([p.stage for p in planned], env, executor.detached)
        recorder = _recorder(planned, stores, follower)
        driver = Driver(executor, recorder, claims, Limits(options.timeout), Stops(options.max_failures))
        with claims.kept():
            return given_up | driver.run(tasks, max(len(workers), executor.capacity()))
    finally:
        follower.end()


def tasks_of(planned: Sequence[Planned], predict: Predict = nothing_known) -> list[Task]:
    """Return stages as the scheduler sees them. Where times are known, all weigh seconds.

    One whose time is not known weighs what it takes at the pace of others of its kind, or else of all.
    """
    work = [(p.stage, p.needs, p.stage.cost(), predict(p.stage)) for p in planned]
    paces: dict[str, list[float]] = {}
    for stage, _, cost, seconds in work:
        if seconds is not None:
            paces.setdefault(stage.kind, []).append(seconds / max(cost.weight, 1e-3))
    pace = {kind: median(values) for kind, values in paces.items()}
    usual = median(pace.values()) if pace else 1.0
    tasks = []
    for stage, needs, cost, seconds in work:
        weight = cost.weight * pace.get(stage.kind, usual) if seconds is None else seconds
        paced = stage.kind if cost.networks else ""  # the weight of other work says nothing of its time
        tasks.append(Task(stage.key, stage.label, stage, needs, weight, paced, seconds))
    return tasks


def _open_remote(
    choice: ExecutorChoice, env: RunEnvironment, devices: str, jobs: int | None, pack: Pack | None
) -> Executor:
    """Return the executor of another place than this machine."""
    call = Call(TARGET, {"env": env}, threads=env.threads)
    if choice.name == "ray":
        if pack == "auto":
            raise UserError("--pack auto measures the memory of this machine's devices", "give a number with ray")
        return RayExecutor(call, choice.ray_address, devices, pack or jobs)
    if pack is not None:
        raise UserError("a job under SLURM has its GPU for itself", "leave --pack out with slurm")
    return SlurmExecutor(call, env.out / "slurm", choice.slurm, jobs, devices)


def _sweep(stores: Stores, env: RunEnvironment) -> None:
    """Remove what killed processes left long ago. Where that fails the folder is not ours to clear."""
    with contextlib.suppress(OSError):
        stores.artifacts.sweep()
        stores.results.sweep()
        for leases in leases_shared(env):
            leases.sweep()


def not_tried_again(targets: Sequence[Stage], stores: Stores, options: FillOptions) -> dict[str, str]:
    """Return the targets whose recorded failure is of a kind that ``options`` leave as it is, and why they failed."""
    if options.retry is None:
        return {}
    wanted = {target.key for target in targets if target.keeps_failure}
    failures = [f for f in stores.results.failures() if f.key in wanted and f.kind not in options.retry]
    return {f.key: f.error for f in failures if not stores.results.has(f.key)}


def _recorder(planned: list[Planned], stores: Stores, follower: Follower) -> Callable[[Event], None]:
    """Return what takes in the driver's events: failures are kept, then the follower hears."""
    stages = {p.stage.key: p.stage for p in planned}

    def on_event(event: Event) -> None:
        stage = stages.get(event.task.key) if event.task else None
        if stage is not None and stage.keeps_failure:
            if event.kind == "failed":
                now = datetime.now(UTC).isoformat(timespec="seconds")
                failure = Failure(
                    key=stage.key,
                    id=stage.label,
                    attempts=event.attempt,
                    kind=RECORDED_AS[event.failure],
                    error=event.text[:500],
                    failed=now,
                )
                stores.results.write_failure(failure, event.trace)
            elif event.kind in ("done", "elsewhere"):
                stores.results.forget_failure(stage.key)
        follower.on_event(event)

    return on_event
