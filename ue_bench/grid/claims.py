"""Which driver computes which stage: leases in the folders that drivers share, and failures they tell one another."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import get_args

from ..atomic import write_atomically
from ..leases import FOLDER, Lease, Leases, leases_in
from ..schedule.driver import Claim
from ..schedule.executor import Event, FailureClass
from ..schedule.graph import Task
from .environment import RunEnvironment
from .stages.base import Stage, Stores
from .work import Assignment, shared_folder

FAILED = "failed"  # folder beside the leases: what drivers that run now need not try in their turn


class StageClaims:
    """The claims of one driver on the stages it has planned.

    ``detached``: jobs take leases themselves when they begin, see :class:`ue_bench.schedule.executor.Executor`.
    """

    def __init__(
        self,
        stages: Iterable[Stage],
        env: RunEnvironment,
        detached: bool = False,
        leases_in: Callable[[Path], Leases] = leases_in,
    ) -> None:
        self.stages = {stage.key: stage for stage in stages}
        self.env, self.stores, self.detached, self.leases_in = env, Stores(env), detached, leases_in
        self._held: dict[str, Lease] = {}
        self._before = {root: _notes(root) for root in (env.cache_dir, env.out)}

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Hold a lease that says of this driver that it works, in every folder where its stages are stored."""
        with contextlib.ExitStack() as held:
            for root in {self._root(stage) for stage in self.stages.values()}:
                leases = self.leases_in(root)
                held.enter_context(leases.hold(f"driver.{leases.owner}", "a driver", lambda: None))
            yield

    def claim(self, task: Task) -> Claim:
        """Take the lease of a stage, unless it is stored, in another driver's hands, or failed there."""
        stage = self.stages[task.key]
        leases = self._leases(stage)
        lease = None
        if not self.detached:
            lease = leases.claim(stage.key, stage.label)
            if lease is None:
                return Claim("taken")
        elif not leases.is_free(stage.key):  # a job of an earlier driver is at work on it
            return Claim("taken")
        claim = None
        try:
            claim = Claim("stored") if stage.is_stored(self.stores) else self._failed_elsewhere(stage)
            claim = claim or Claim("mine", Assignment(stage, lease))
        finally:
            if lease is not None and (claim is None or claim.state != "mine"):
                leases.release(lease)
        if lease is not None and claim.state == "mine":
            self._held[task.key] = lease
        return claim

    def is_free(self, task: Task, lease: str) -> bool:
        """Return whether a stage, or the artifact that it waits for, is in nobody's hands or a dead one's."""
        stage = self.stages[task.key]
        leases = self._leases(stage) if lease in ("", stage.key) else self.leases_in(self.env.cache_dir)
        return leases.is_free(lease or stage.key)

    def release(self, task: Task, failed: Event | None = None) -> None:
        """Give a stage back. Whatever cannot be written then is of no consequence: the lease goes stale."""
        stage = self.stages[task.key]
        note = _note(self._root(stage), stage.key)
        with contextlib.suppress(OSError):
            if failed is not None:
                said = {"failure": failed.failure, "text": failed.text, "trace": failed.trace}
                write_atomically(note, json.dumps(said, allow_nan=False))
                self._before[self._root(stage)][stage.key] = _stamp(note)
            else:
                note.unlink(missing_ok=True)
        if lease := self._held.pop(task.key, None):
            self._leases(stage).release(lease)

    def broken(self) -> str:
        """Return what is wrong with a shared folder; "" while all is well. Only while the claims are ``kept``."""
        for leases in {self._leases(stage) for stage in self.stages.values()}:
            leases.beat()
            if not leases.working:
                return f"{leases.folder.parent} has gone, or cannot be written any more"
        return ""

    def _root(self, stage: Stage) -> Path:
        return shared_folder(stage, self.env)

    def _leases(self, stage: Stage) -> Leases:
        return self.leases_in(self._root(stage))

    def _failed_elsewhere(self, stage: Stage) -> Claim | None:
        """Return how a stage failed at another driver since this one began; None if it did not."""
        root = self._root(stage)
        note = _note(root, stage.key)
        stamp = _stamp(note)
        if stamp is None or stamp == self._before[root].get(stage.key):
            return None
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            said = json.loads(note.read_text(encoding="utf-8"))
            if said["failure"] in get_args(FailureClass):
                return Claim("failed", failure=said["failure"], text=str(said["text"]), trace=str(said["trace"]))
        return None


def leases_shared(env: RunEnvironment) -> list[Leases]:
    """Return the leases of both folders in which drivers agree."""
    return [leases_in(root) for root in dict.fromkeys((env.cache_dir, env.out))]


def _note(root: Path, key: str) -> Path:
    return root / FOLDER / FAILED / key


def _notes(root: Path) -> dict[str, tuple[int, int] | None]:
    folder = _note(root, "x").parent
    with contextlib.suppress(OSError):
        return {entry.name: _stamp(Path(entry.path)) for entry in os.scandir(folder)}
    return {}


def _stamp(path: Path) -> tuple[int, int] | None:
    """Return what tells one note from the next of its name: each is a new file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns
