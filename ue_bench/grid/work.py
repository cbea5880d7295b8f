"""The function that workers call: where the executors, which know no stages, meet the stages."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .. import machine
from ..errors import Deferred, one_line
from ..leases import BEATS, Lease, leases_in, patience
from ..schedule.call import Report
from ..schedule.devices import Slot
from ..store.running import announced
from .environment import RunEnvironment
from .stages.base import Stage, Work


@dataclass(frozen=True)
class Assignment:
    """What is sent to a worker: a stage, and the driver's lease; without one the worker takes it itself."""

    stage: Stage
    lease: Lease | None = None


def run(assignment: Assignment, slot: Slot, settings: dict[str, Any], report: Report, attempt: int) -> None:
    """Compute a stage on ``slot``. Raises Deferred where it has to wait for another process."""
    stage = assignment.stage
    if stage.uses_torch:
        try:
            import torch
        except Exception as error:  # a broken installation fails in its own ways
            raise machine.torch_problem(one_line(error)) from error

        from ..engine import memory
        from ..engine.no_compiler import leave_compiler_out

        leave_compiler_out()
        memory.keep_freed()
        torch.set_num_threads(slot.threads)
    env = replace(settings["env"], device=slot.device, threads=slot.threads)
    with contextlib.ExitStack() as held:
        lease = assignment.lease or held.enter_context(_own_lease(stage, env))
        held.enter_context(_watched(lease, report))
        said = held.enter_context(announced(lease.path, slot.name, report))
        stage.run(Work(env, said, attempt, report.warn, lease, True, slot.packed))


def shared_folder(stage: Stage, env: RunEnvironment) -> Path:
    """Return the folder in which drivers agree on who computes ``stage``; its lease there is named by its key."""
    return env.out if stage.stored_in == "out" else env.cache_dir


@contextlib.contextmanager
def _own_lease(stage: Stage, env: RunEnvironment) -> Iterator[Lease]:
    leases = leases_in(shared_folder(stage, env))
    lease = leases.claim(stage.key, stage.label)
    if lease is None:
        raise Deferred(stage.key)
    try:
        yield lease
    finally:
        leases.release(lease)


@contextlib.contextmanager
def _watched(lease: Lease, report: Report) -> Iterator[None]:
    """End this process when another one has taken the work over, as it does when the driver has stood still.

    Going on would cost time, and states of long work would be written that nobody reads.
    """
    over = threading.Event()

    def watch() -> None:
        while not over.wait(patience() / BEATS):
            if not lease.held() and not over.is_set():
                report.leave()

    thread = threading.Thread(target=watch, name="watches the lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
