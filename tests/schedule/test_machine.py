"""Drivers, leases and executors under every order of events: fake hosts, fake devices and a fake clock.

What is real: the graph, the driver and its rules, the claims of stages, and leases in files. Only workers are faked,
and time: hosts beat, stand still, die and come back as Hypothesis likes.
"""

from __future__ import annotations

import pickle
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ue_bench.grid.claims import StageClaims
from ue_bench.grid.environment import RunEnvironment
from ue_bench.grid.stages.base import Stage, StageCost, Stores, Work
from ue_bench.leases import Leases
from ue_bench.schedule.driver import Driver
from ue_bench.schedule.executor import Event, FailureClass, Job
from ue_bench.schedule.graph import Graph, Task

from .test_leases import Clock, Host

PATIENCE, SLOTS, HOSTS = 10.0, 2, 3
NEEDS = {"a": "", "b": "", "aw": "a", "ax": "a", "bw": "b", "bx": "b", "c": ""}
CLASSES: list[FailureClass] = ["task", "diverged", "infrastructure", "resource", "timeout"]


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
        return [Light(need) for need in NEEDS[self.name]]

    def cost(self) -> StageCost:
        return StageCost(1, other=1.0)

    def exists(self, stores: Stores) -> bool:
        return self.name in self.outcomes

    def run(self, work: Work) -> None:
        raise AssertionError("it is not run")


class FakeExecutor:
    """Slots whose jobs end when the test says so."""

    detached = False

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.told: list[Event] = []

    def capacity(self) -> int:
        return SLOTS - len(self.jobs)

    def submit(self, job: Job) -> None:
        assert len(self.jobs) < SLOTS, "a slot is booked twice"
        assert job.task.key not in self.jobs
        self.jobs[job.task.key] = job
        self.told.append(Event("started", job.task, f"slot{len(self.jobs)}"))

    def events(self, timeout: float) -> list[Event]:
        told, self.told = self.told, []
        return told

    def end(self, key: str, event: Event) -> None:
        del self.jobs[key]
        self.told.append(event)

    def retire(self, slot: str) -> None: ...

    def cancel(self, key: str) -> str:
        return ""

    def close(self) -> None: ...


class OneHost:
    """A driver on a host of its own."""

    def __init__(self, machine: Machine, number: int) -> None:
        self.machine, self.number = machine, number
        self.executor = FakeExecutor()
        self.leases: dict[Path, Host] = {}
        self.ended: list[str] = []
        self.still = self.finished = False
        stages = [Light(name) for name in NEEDS if name not in Light.outcomes]
        claims = StageClaims(stages, machine.env, leases_in=self.leases_in)
        self.driver = Driver(self.executor, self.hear, claims, clock=machine.clock)
        waits = {name: tuple(n for n in NEEDS[name] if n not in Light.outcomes) for name in NEEDS}
        self.tasks = [Task(s.key, s.key, s, waits[s.key]) for s in stages]
        self.graph = Graph(self.tasks, SLOTS)

    def leases_in(self, root: Path) -> Leases:
        if root not in self.leases:
            self.leases[root] = Host(root / ".leases", PATIENCE, self.machine.clock)
        return self.leases[root]

    def hear(self, event: Event) -> None:
        if event.task and event.kind in ("done", "elsewhere", "failed"):
            self.ended.append(event.task.key)
        if event.kind == "failed" and event.task:
            self.machine.failed[event.task.key] = event.failure

    def step(self) -> None:
        if not self.driver.step(self.graph):
            self.finished = True

    def beat(self) -> None:
        for leases in self.leases.values():
            leases.beat()

    def end(self, key: str, failure: FailureClass | None) -> None:
        """Let a job end: what it yields is published if its lease still stands, and only the first time."""
        job = self.executor.jobs[key]
        if failure is not None:
            self.executor.end(key, Event("failed", job.task, text="bad luck", failure=failure))
        elif pickle.loads(job.payload).lease.held():
            self.machine.publish(key, f"host {self.number}")
            self.executor.end(key, Event("done", job.task))
        else:
            self.executor.end(key, Event("deferred", job.task, text=key))


class Machine(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.clock = Clock()
        self.root = Path(tempfile.mkdtemp())
        self.env = RunEnvironment(self.root / "cache", self.root / "data", self.root / "out")
        Light.outcomes.clear()
        self.failed: dict[str, str] = {}
        self.published: list[str] = []
        self.hosts = [OneHost(self, number) for number in range(HOSTS)]

    def publish(self, key: str, by: str) -> None:
        assert all(need in Light.outcomes for need in NEEDS[key]), "a stage came before what it needs"
        self.published.append(key)
        Light.outcomes.setdefault(key, by)

    def awake(self) -> list[OneHost]:
        return [host for host in self.hosts if not host.still]

    @rule(number=st.integers(0, HOSTS - 1))
    def step(self, number: int) -> None:
        if not self.hosts[number].still:
            self.hosts[number].step()

    @rule(
        number=st.integers(0, HOSTS - 1),
        which=st.integers(0, SLOTS - 1),
        failure=st.one_of(st.none(), st.none(), st.sampled_from(CLASSES)),
    )
    def end_a_job(self, number: int, which: int, failure: FailureClass | None) -> None:
        """Jobs go on where only the driver stands still."""
        jobs = sorted(self.hosts[number].executor.jobs)
        if which < len(jobs):
            self.hosts[number].end(jobs[which], failure)

    @rule(seconds=st.sampled_from([0.5, 2.0, 14.0]), times=st.integers(1, 12))
    def let_time_pass(self, seconds: float, times: int) -> None:
        for _ in range(times):
            self.clock.now += seconds
            for host in self.awake():
                host.beat()
                if seconds < 3:
                    host.step()

    @rule(number=st.integers(0, HOSTS - 1))
    def stop(self, number: int) -> None:
        self.hosts[number].still = True

    @rule(number=st.integers(0, HOSTS - 1))
    def stop_for_so_long_that_others_take_over(self, number: int) -> None:
        self.hosts[number].still = True
        self.let_time_pass(2.0, 12)

    @rule(number=st.integers(0, HOSTS - 1))
    def wake(self, number: int) -> None:
        self.hosts[number].still = False

    @rule(number=st.integers(0, HOSTS - 1))
    def die_and_come_back(self, number: int) -> None:
        """Its leases and beat stay behind."""
        self.hosts[number] = OneHost(self, number)

    @precondition(lambda self: hasattr(self, "hosts"))
    @invariant()
    def nothing_is_published_twice(self) -> None:
        assert len(self.published) == len(set(self.published))

    @precondition(lambda self: hasattr(self, "hosts"))
    @invariant()
    def no_stage_ends_twice_at_one_driver(self) -> None:
        for host in self.hosts:
            assert len(host.ended) == len(set(host.ended))

    @precondition(lambda self: hasattr(self, "hosts"))
    @invariant()
    def a_stage_runs_at_one_driver_that_holds_its_lease(self) -> None:
        held = [
            key for host in self.hosts for key, job in host.executor.jobs.items()
            if pickle.loads(job.payload).lease.held() and not host.finished
        ]  # fmt: skip
        assert len(held) == len(set(held))

    def teardown(self) -> None:
        """Everybody wakes up, and all work ends: whatever happened, nothing starves and nothing is lost."""
        if not hasattr(self, "hosts"):
            return
        try:
            for _ in range(600):
                for host in self.hosts:
                    host.still = False
                    host.beat()
                    if not host.finished:
                        host.step()
                    for key in sorted(host.executor.jobs):
                        host.end(key, None)
                self.clock.now += 2.0
                if all(host.finished for host in self.hosts):
                    break
            else:
                raise AssertionError("some driver never ends")
            for host in self.hosts:
                assert sorted(host.ended) == sorted(task.key for task in host.tasks)
            assert set(NEEDS) <= set(Light.outcomes) | set(self.failed)
        finally:
            shutil.rmtree(self.root)


TestMachine = Machine.TestCase
TestMachine.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
