"""Computing the stages that are missing, on the slots of this machine."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Protocol

from ..schedule import local
from ..schedule.devices import Slot, slots
from ..schedule.local import Event, Task
from ..store.schema import Failure
from .environment import RunEnvironment
from .planner import Planned, plan
from .stages.base import Stage, Stores


class Follower(Protocol):
    """Hears what happens while stages are computed."""

    def begin(self, tasks: list[Task], targets: int, missing: int, workers: list[Slot]) -> None:
        """Take note of the work: of so many targets so many are missing. There may be none."""

    def on_event(self, event: Event) -> None:
        """Take note of one event."""

    def end(self) -> None:
        """Stop following; called however the work ends."""


def fill(
    targets: Sequence[Stage], env: RunEnvironment, devices: str, jobs: int | None, follower: Follower
) -> dict[str, str]:
    """Compute what is missing for ``targets``; return why each failed stage failed, by key.

    Failures are recorded beside the results, and forgotten when the same stage succeeds. Raises EnvironmentProblem when
    the results folder cannot be written or another run is filling it, KeyboardInterrupt after Ctrl-C.
    """
    stores = Stores(env)
    with contextlib.ExitStack() as held:
        if any(target.keeps_failure for target in targets):  # else nothing is written there
            stores.results.create()
            held.enter_context(stores.results.lock())
        stores.artifacts.sweep()
        planned = plan(targets, stores)
        tasks = [Task(p.stage.key, p.stage.label, p.stage, p.needs, p.stage.cost().weight) for p in planned]
        workers = slots(devices, jobs, env.threads)[: len(tasks)] if tasks else []
        todo = {p.stage.key for p in planned}
        follower.begin(tasks, len(targets), sum(t.key in todo for t in targets), workers)
        try:
            if not planned:
                return {}
            recorder = _recorder(planned, stores, follower)
            scheduler = local.Scheduler(workers, "ue_bench.grid.work:run", {"env": env}, recorder)
            return scheduler.run(tasks)
        finally:
            follower.end()


def _recorder(planned: list[Planned], stores: Stores, follower: Follower) -> Callable[[Event], None]:
    """Return what takes in the scheduler's events: failures are kept, then the follower hears."""
    stages = {p.stage.key: p.stage for p in planned}

    def on_event(event: Event) -> None:
        stage = stages[event.task.key] if event.task else None
        if stage is not None and stage.keeps_failure:
            if event.kind == "failed":
                now = datetime.now(UTC).isoformat(timespec="seconds")
                failure = Failure(
                    key=stage.key,
                    id=stage.label,
                    attempts=event.attempt,
                    kind=event.failure,
                    error=event.text[:500],
                    failed=now,
                )
                stores.results.write_failure(failure, event.trace)
            elif event.kind == "done":
                stores.results.forget_failure(stage.key)
        follower.on_event(event)

    return on_event
