"""Drivers, leases and executors under every order of events: fake hosts, fake devices and a fake clock.

What is real: the graph, the driver and its rules, the local executor, the claims of stages, and leases in files. Faked
are the processes of workers, the devices and time: hosts beat, stand still, die and come back, workers die, hang and
run out of memory as Hypothesis likes.
"""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest import mock

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from ue_bench.grid.claims import StageClaims
from ue_bench.grid.environment import RunEnvironment
from ue_bench.grid.stages.base import Stage, StageCost, Stores, Work
from ue_bench.grid.work import Assignment
from ue_bench.leases import Leases
from ue_bench.schedule import local
from ue_bench.schedule.devices import Slot
from ue_bench.schedule.driver import Driver
from ue_bench.schedule.endings import Ending
from ue_bench.schedule.executor import Event, FailureClass, Job
from ue_bench.schedule.graph import Graph, Task
from ue_bench.schedule.local import LocalExecutor
from ue_bench.schedule.oom import OutOfMemoryKills
from ue_bench.schedule.rules import Limits

from .test_leases import Clock, Host

PATIENCE, HOSTS, SILENCE, LIMIT = 10.0, 3, 40.0, 60.0
DEVICES = ["cuda:0", "cuda:1"]
SLOTS = [Slot(f"{device}#{number}", device, 1, 2) for device in DEVICES for number in range(2)]
NEEDS = {"a": "", "b": "", "aw": "a", "ax": "a", "bw": "b", "bx": "b", "abc": "a bw c"} | dict.fromkeys("cdefg", "")
CLASSES: list[FailureClass] = ["task", "diverged", "infrastructure", "resource"]
BAD_LUCK = ["die", "exhaust", "hang", "lose", "look"]


@dataclass(frozen=True)
class Light(Stage):
    """A stage whose outcome is an entry in a dictionary that all hosts share."""

    name: str
    kind = "light"
    outcomes: ClassVar[dict[str, str]] = {}

    @property
    def key(self) -> str:
        return self.name

    @property
    def label(self) -> str:
        return self.name

    def needs(self) -> Sequence[Stage]:
        return [Light(need) for need in NEEDS[self.name].split()]

    def cost(self) -> StageCost:
        return StageCost(1, other=1.0)

    def exists(self, stores: Stores) -> bool:
        return self.name in self.outcomes

    def run(self, work: Work) -> None:
        raise AssertionError("it is not run")


class FakeWorker:
    """A worker process on a slot, and the connection to it: what it does happens when the test says so."""

    def __init__(self, pid: int, slot: Slot) -> None:
        self.pid, self.slot = pid, slot
        self.code: int | None = None
        self.work: Assignment | None = None
        self.messages: list[tuple[Any, ...]] = []
        self.closed = self.hangs = self.looked_at_lease = False

    def poll(self) -> Any:
        """Its exit code: what is asked of a process. A connection has no code, and a dead process no message."""
        return self.code

    def wait(self, timeout: float | None = None) -> int:
        if self.code is None:
            raise subprocess.TimeoutExpired("a worker", timeout or 0)
        return self.code

    def die(self, code: int) -> None:
        self.code, self.work = code, None

    def end(self, ending: Ending, peak: float = 0.0) -> None:
        self.work = None
        self.messages.append(("ended", ending, peak))

    def leave(self) -> None:
        self.work = None
        self.messages.append(("lost",))

    def give_sign(self) -> None:
        if self.code is None and not self.hangs and not self.messages:
            self.messages.append(("alive",))


class FakeConnection:
    def __init__(self, worker: FakeWorker) -> None:
        self.worker = worker

    @property
    def closed(self) -> bool:
        return self.worker.closed

    def close(self) -> None:
        self.worker.closed = True
        if self.worker.work is None and self.worker.code is None:
            self.worker.die(0)

    def poll(self) -> bool:
        return bool(self.worker.messages)

    def recv(self) -> tuple[Any, ...]:
        return self.worker.messages.pop(0)

    def send_bytes(self, message: bytes) -> None:
        payload, _, _ = pickle.loads(message)
        self.worker.work = pickle.loads(payload)
        self.worker.looked_at_lease = False


class FakeMachines:
    """In place of the processes and the clock that the local executor has from the system."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.workers: dict[int, FakeWorker] = {}
        self._patches: list[Any] = [
            mock.patch.object(local, "worker", SimpleNamespace(start=self.start)),
            mock.patch.object(local, "time", SimpleNamespace(monotonic=clock, sleep=lambda seconds: None)),
            mock.patch.object(local, "wait", lambda places, timeout: [p for p in places if p.poll()]),
            mock.patch.object(os, "killpg", lambda pid, number: self.workers[pid].die(-number)),
        ]
        for patch in self._patches:
            patch.start()

    def start(self, slot: Slot, target: str, host: OneHost, output: int | None) -> tuple[FakeWorker, FakeConnection]:
        assert slot.name not in {w.slot.name for w in host.workers}, "a slot has two workers"
        one = FakeWorker(1 + len(self.workers), slot)
        self.workers[one.pid] = one
        host.started.append(one)
        return one, FakeConnection(one)

    def stop(self) -> None:
        for patch in self._patches:
            patch.stop()


class WatchedExecutor(LocalExecutor):
    """The local executor, with what must hold whenever a job begins."""

    exhausted: set[str]  # tasks for which memory did not suffice

    def submit(self, job: Job) -> None:
        usable = [s for s in self.slots if s.name not in self._retired]
        busy = [w for w in self._workers if w.job is not None]
        assert len(busy) + len(self._pending) < len(usable), "more jobs than slots"
        assert job.task.key not in Light.outcomes, "what is stored is computed again"
        assert all(need in Light.outcomes for need in NEEDS[job.task.key].split()), "it begins before what it needs"
        super().submit(job)

    def _start(self, job: Job, slot: Slot) -> None:
        busy = [w for w in self._workers if w.job is not None]
        beside = [w for w in busy if w.slot.device == slot.device]
        assert slot.name not in {w.slot.name for w in busy}, "a slot is booked twice"
        assert slot.name not in self._retired, "a retired slot gets work"
        assert job.alone or job.task.key not in self.exhausted, "memory did not suffice, and it shares the device again"
        assert not (job.alone and beside), "a job that must be alone is not"
        assert not any(w.job and w.job.alone for w in beside), "a job joins one that must be alone"
        others = {s.device for s in self.slots if s.name not in self._retired} - {
            s.partition("#")[0] for s in job.avoid
        }
        assert not others or slot.device in others, "a job is back on the device where it failed"
        if self.measure_memory and not job.alone:
            peak = self._peak.get(slot.device, 0.0)
            assert (len(beside) + 1) * peak <= 1.0 or not beside, "more jobs than the device has memory for"
            assert peak > 0 or not beside, "a device is shared before anybody knows how much memory a job takes"
        super()._start(job, slot)


class OneHost:
    """A driver on a host of its own, with two accelerators of two slots each."""

    def __init__(self, machine: Machine, number: int) -> None:
        self.machine, self.number = machine, number
        self.started: list[FakeWorker] = []
        self.executor = WatchedExecutor(
            SLOTS, "", self, measure_memory=number == 1, silence=SILENCE,  # type: ignore[arg-type]  # no settings
            _looked=machine.clock(), _kills=OutOfMemoryKills(machine.root),
        )  # fmt: skip
        self.executor.exhausted = set()
        self.may_lose: set[str] = set()  # tokens of leases that it had while it stood still
        self.leases: dict[Path, Host] = {}
        self.ended: list[str] = []
        self.still = self.finished = False
        stages = [Light(name) for name in NEEDS if name not in Light.outcomes]
        claims = StageClaims(stages, machine.env, leases_in=self.leases_in)
        self.driver = Driver(
            self.executor, self.hear, claims, Limits(None if number == 2 else LIMIT), clock=machine.clock
        )
        waits = {name: tuple(n for n in NEEDS[name].split() if n not in Light.outcomes) for name in NEEDS}
        self.tasks = [Task(s.key, s.key, s, waits[s.key]) for s in stages]
        self.graph = Graph(self.tasks, len(SLOTS))

    @property
    def workers(self) -> list[FakeWorker]:
        return [w for w in self.started if w.code is None]

    @property
    def busy(self) -> list[FakeWorker]:
        return [w for w in self.workers if w.work is not None]

    @property
    def has_slots(self) -> bool:
        return self.executor.capacity() >= 0

    def leases_in(self, root: Path) -> Leases:
        if root not in self.leases:
            self.leases[root] = Host(root / ".leases", PATIENCE, self.machine.clock)
        return self.leases[root]

    def hear(self, event: Event) -> None:
        if event.task and event.kind in ("done", "elsewhere", "failed"):
            self.ended.append(event.task.key)
        if event.kind == "crashed" and event.task and event.failure == "resource":
            self.executor.exhausted.add(event.task.key)
        if event.kind == "failed" and event.task:
            self.machine.failed[event.task.key] = event.failure

    def step(self) -> None:
        if not self.driver.step(self.graph):
            self.finished = True

    def beat(self) -> None:
        for leases in self.leases.values():
            leases.beat()

    def end(self, worker: FakeWorker, failure: FailureClass | None = None, peak: float = 0.0) -> None:
        """Let a job end: what it yields is published if its lease still stands, or stood when it last looked."""
        assert worker.work is not None
        key, lease = worker.work.stage.key, worker.work.lease
        assert lease is not None
        if failure is not None:
            reusable = failure in ("task", "diverged")
            worker.end(Ending("failed", "bad luck", failure=failure, reusable=reusable), peak)
        elif worker.looked_at_lease or lease.held():
            self.machine.publish(key, f"worker {worker.pid}")
            worker.end(Ending(), peak)
        else:
            worker.end(Ending("deferred", key), peak)


class Machine(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.clock = Clock()
        self.root = Path(tempfile.mkdtemp())
        self.env = RunEnvironment(self.root / "cache", self.root / "data", self.root / "out")
        Light.outcomes.clear()
        self.failed: dict[str, str] = {}
        self.seen: dict[str, str] = {}
        self.orphans: list[tuple[OneHost, FakeWorker]] = []
        self.system = FakeMachines(self.clock)
        self.hosts = [OneHost(self, number) for number in range(HOSTS)]

    def publish(self, key: str, by: str) -> None:
        """Store an outcome, as ``write_once`` does: the first stays."""
        assert all(need in Light.outcomes for need in NEEDS[key].split()), "a stage came before what it needs"
        Light.outcomes.setdefault(key, by)

    def awake(self) -> list[OneHost]:
        return [host for host in self.hosts if not host.still]

    def at_work(self, number: int, which: int) -> FakeWorker | None:
        """Choose a worker that has a job, on that host if there is one."""
        host = self.hosts[number]
        if not host.still and not host.finished:
            host.step()
        return host.busy[which % len(host.busy)] if host.busy else None

    @rule(number=st.integers(0, HOSTS - 1))
    def step(self, number: int) -> None:
        if not self.hosts[number].still:
            self.hosts[number].step()

    @rule(
        number=st.integers(0, HOSTS - 1),
        which=st.integers(0, len(SLOTS) - 1),
        failure=st.one_of(st.none(), st.none(), st.sampled_from(CLASSES)),
        peak=st.sampled_from([0.2, 0.4, 0.7]),
    )
    def end_a_job(self, number: int, which: int, failure: FailureClass | None, peak: float) -> None:
        """Jobs go on where only the driver stands still."""
        if one := self.at_work(number, which):
            self.hosts[number].end(one, failure, peak)

    @rule(number=st.integers(0, HOSTS - 1), which=st.integers(0, len(SLOTS) - 1), what=st.sampled_from(BAD_LUCK))
    def trouble_for_a_worker(self, number: int, which: int, what: str) -> None:
        """It dies, has no memory left, hangs, sees its work taken over, or is about to publish it."""
        one = self.at_work(number, which)
        if not one or not one.work or not one.work.lease:
            return
        held = one.work.lease.held()
        match what:
            case "die":
                one.die(-9)
            case "exhaust":
                self.hosts[number].end(one, "resource", 0.9)
            case "hang":
                one.hangs = True
            case "lose" if not held:
                one.leave()
            case "look" if held:
                one.looked_at_lease = True

    @rule(number=st.integers(0, HOSTS - 1), device=st.sampled_from(DEVICES))
    def a_device_breaks(self, number: int, device: str) -> None:
        """Whatever comes to it fails, one after the other."""
        host = self.hosts[number]
        for _ in range(9):
            if host.still or host.finished:
                return
            host.step()
            for one in [w for w in host.busy if w.slot.device == device]:
                host.end(one, "infrastructure")

    @rule(which=st.integers(0, 3))
    def a_worker_outlives_its_driver(self, which: int) -> None:
        """For a moment: it ends what it had begun, if the lease still stands."""
        if self.orphans:
            host, one = self.orphans.pop(which % len(self.orphans))
            if one.work is not None:
                host.end(one)

    @rule(seconds=st.sampled_from([0.5, 2.0, 14.0]), times=st.integers(1, 12))
    def let_time_pass(self, seconds: float, times: int) -> None:
        for _ in range(times):
            self.clock.now += seconds
            for host in self.awake():
                host.beat()
                for one in host.workers:
                    one.give_sign()
                if seconds < 3:
                    host.step()

    @rule(number=st.integers(0, HOSTS - 1))
    def stop(self, number: int) -> None:
        host = self.hosts[number]
        host.still = True
        host.may_lose |= {w.work.lease.token for w in host.busy if w.work and w.work.lease}
        host.may_lose |= {pickle.loads(job.payload).lease.token for job in host.executor._pending}

    @rule(number=st.integers(0, HOSTS - 1))
    def stop_for_so_long_that_others_take_over(self, number: int) -> None:
        self.stop(number)
        self.let_time_pass(2.0, 12)

    @rule(number=st.integers(0, HOSTS - 1))
    def wake(self, number: int) -> None:
        self.hosts[number].still = False

    @rule(number=st.integers(0, HOSTS - 1))
    def die_and_come_back(self, number: int) -> None:
        """Its leases and beat stay behind."""
        self.orphans += [(self.hosts[number], one) for one in self.hosts[number].busy]
        self.hosts[number] = OneHost(self, number)

    @precondition(lambda self: hasattr(self, "hosts"))
    @invariant()
    def an_outcome_never_changes(self) -> None:
        assert {key: Light.outcomes[key] for key in self.seen} == self.seen
        self.seen = dict(Light.outcomes)

    @precondition(lambda self: hasattr(self, "hosts"))
    @invariant()
    def no_stage_ends_twice_at_one_driver(self) -> None:
        for host in self.hosts:
            assert len(host.ended) == len(set(host.ended))

    @precondition(lambda self: hasattr(self, "hosts"))
    @invariant()
    def a_stage_runs_at_one_driver_that_holds_its_lease(self) -> None:
        held = [
            one.work.stage.key for host in self.hosts for one in host.busy
            if one.work and one.work.lease and one.work.lease.held() and not host.finished
        ]  # fmt: skip
        assert len(held) == len(set(held))

    @precondition(lambda self: hasattr(self, "hosts"))
    @invariant()
    def nobody_loses_work_whose_driver_beats(self) -> None:
        for host in self.hosts:
            for one in host.busy:
                assert one.work is not None
                assert one.work.lease is not None
                assert one.work.lease.token in host.may_lose or one.work.lease.held()

    def bring_to_an_end(self) -> None:
        """Everybody wakes up, and all work ends well from now on."""
        for _ in range(600):
            for host in self.hosts:
                host.still = False
                host.beat()
                if not host.finished:
                    host.step()
                for one in host.busy:
                    if not one.hangs:
                        host.end(one)
            self.clock.now += 2.0
            if all(host.finished for host in self.hosts):
                return
        raise AssertionError("some driver never ends")

    def teardown(self) -> None:
        """Whatever happened, nothing starves and nothing is lost: neither for these drivers nor for the next one."""
        if not hasattr(self, "hosts"):
            return
        try:
            self.bring_to_an_end()
            for host in self.hosts:
                assert host.executor._pending == []
                tasks = sorted(task.key for task in host.tasks)
                assert sorted(host.ended) == tasks or (not host.has_slots and set(host.ended) < set(tasks))
            if any(host.has_slots for host in self.hosts):
                assert set(NEEDS) <= set(Light.outcomes) | set(self.failed)
            self.an_outcome_never_changes()
            self.hosts = [OneHost(self, 0)]  # the same command again
            self.bring_to_an_end()
            self.an_outcome_never_changes()
            assert set(NEEDS) == set(Light.outcomes)
        finally:
            self.system.stop()
            shutil.rmtree(self.root)


SETTINGS = settings(
    max_examples=30, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)  # fmt: skip
TestMachine = Machine.TestCase
TestMachine.settings = SETTINGS


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_orders_of_events() -> None:
    run_state_machine_as_test(Machine, settings=settings(SETTINGS, max_examples=500))
