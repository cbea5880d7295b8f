"""The executor for Ray, on a Ray that is a fake: placing, ending, losing. ``test_ray_cluster`` has a real one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from ue_bench.errors import EnvironmentProblem
from ue_bench.schedule.call import Call
from ue_bench.schedule.driver import Driver
from ue_bench.schedule.executor import Event, Job
from ue_bench.schedule.ray import RayExecutor
from ue_bench.schedule.rules import Limits

from . import targets
from .fakes import FakeRay
from .helpers import job, read_log, task

Make = Callable[..., RayExecutor]


@pytest.fixture
def make(log: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """An executor on nodes with that many GPUs each."""

    def start(gpus: tuple[float, ...] = (1, 1), devices: str = "auto", jobs: int | None = None, **more: Any) -> Any:
        ray = FakeRay(list(gpus), **more)
        monkeypatch.setitem(sys.modules, "ray", ray)
        return RayExecutor(Call(f"{targets.__name__}:run", {"log": str(log)}), devices=devices, jobs=jobs)

    return start


def run(executor: RayExecutor, *jobs: Job) -> list[Event]:
    """Everything that happens to these jobs."""
    for one in jobs:
        executor.submit(one)
    return [event for _ in range(20) for event in executor.events(0.0)]


def said(events: list[Event]) -> list[tuple[str, str, str]]:
    return [(e.kind, e.task.key if e.task else "", e.slot) for e in events]


def test_a_job_starts_reports_and_ends_on_its_slot(make: Make) -> None:
    executor = make((1,))
    events = run(executor, job("a", "report_once", 1, 4, "a quarter"))
    assert [e.kind for e in events] == ["started", "progress", "done"]
    assert {e.slot for e in events} == {events[0].slot}
    assert (events[1].fraction, events[1].text) == (0.25, "a quarter")


@pytest.mark.parametrize(
    ("gpus", "devices", "jobs", "capacity", "need"),
    [
        ((1, 2), "auto", None, 3, {"num_cpus": 1.0, "num_gpus": 1.0}),
        ((1, 1), "auto", 2, 4, {"num_cpus": 1.0, "num_gpus": 0.5}),
        ((0, 0), "auto", None, 4, {"num_cpus": 1.0, "num_gpus": 0}),
        ((2, 2), "cpu", None, 4, {"num_cpus": 1.0, "num_gpus": 0}),
        ((0, 0), "auto", 1, 2, {"num_cpus": 1.0, "num_gpus": 0}),
    ],
)
def test_nodes_have_room_for_shares(make: Make, gpus: Any, devices: str, jobs: Any, capacity: int, need: Any) -> None:
    executor = make(gpus, devices, jobs)
    assert executor.capacity() == capacity
    executor.submit(job("a", "nothing"))
    assert executor.capacity() == capacity - 1
    assert executor.ray.asked == [need]


def test_workers_are_used_again(make: Make) -> None:
    executor = make((1,))
    for name in "abc":
        assert [e.kind for e in run(executor, job(name, "nothing"))] == ["started", "done"]
    assert len(executor.ray.actors) == 1


def test_a_worker_whose_job_raised_is_not_used_again(make: Make) -> None:
    executor = make((1,))
    [_, failed] = run(executor, job("a", "fail", "plain"))
    assert (failed.kind, failed.failure, failed.text) == ("failed", "task", "ValueError: first line")
    assert executor.ray.actors[0].dead
    assert run(executor, job("b", "nothing"))[-1].kind == "done"


def test_a_lost_node_is_a_failure_of_infrastructure_and_the_job_runs_elsewhere(make: Make, log: Path) -> None:
    executor = make((1, 1))
    events: list[Event] = []

    def on_event(event: Event) -> None:
        events.append(event)
        if event.kind == "started" and event.task and event.task.key == "b" and event.attempt == 1:
            executor.ray.alive.pop(executor._actors[-1].node)

    assert Driver(executor, on_event).run([task(name) for name in "abcd"]) == {}
    assert [e.failure for e in events if e.kind == "crashed"] == ["infrastructure"]
    assert sorted(line[1] for line in read_log(log) if line[0] == "end") == ["a", "b", "c", "d"]


def test_idle_workers_of_a_lost_node_get_no_job(make: Make) -> None:
    executor = make((1, 1))
    run(executor, *(job(name, "nothing") for name in "ab"))
    executor.ray.alive.pop(executor._actors[0].node)
    events = run(executor, job("c", "nothing"))
    assert [e.kind for e in events] == ["started", "done"]


def test_a_worker_that_lost_its_task_to_another_process_has_not_failed(make: Make, leaving: str) -> None:
    executor = make((1,))
    assert [e.kind for e in run(executor, job("a", "lose_once", leaving))] == ["started", "deferred"]
    assert executor.ray.actors[0].dead
    assert [e.kind for e in run(executor, job("a", "lose_once", leaving))] == ["started", "done"]


def test_memory_that_ran_out_is_said(make: Make) -> None:
    [_, failed] = run(make((1,)), job("a", "exhaust"))
    assert (failed.kind, failed.failure) == ("failed", "resource")


def test_a_job_alone_gets_a_whole_gpu_and_nothing_else_starts_before(make: Make) -> None:
    executor = make((1, 1), jobs=2)
    executor.submit(job("a", "nothing", alone=True))
    assert executor.ray.asked == [{"num_cpus": 1.0, "num_gpus": 1.0}]
    assert executor.capacity() == 0
    assert [e.kind for e in run(executor)] == ["started", "done"]
    assert executor.capacity() == 4
    assert executor.ray.actors[0].dead


def test_a_retired_slot_keeps_an_idle_worker(make: Make) -> None:
    executor = make((1, 1))
    slot = run(executor, job("a", "fail", "plain"))[0].slot
    executor.retire(slot)
    events = run(executor, job("b", "nothing"), job("c", "nothing"))
    assert slot not in {e.slot for e in events}
    assert executor.capacity() == 1
    executor.retire(next(e.slot for e in events if e.kind == "done"))
    assert executor.capacity() == -1


def test_a_job_goes_to_another_slot_than_those_it_avoids(make: Make) -> None:
    executor = make((1, 1))
    first = run(executor, job("a", "nothing"))[0].slot
    again = run(executor, job("b", "nothing", avoid=frozenset([first])))
    assert first not in {e.slot for e in again}


def test_a_job_past_its_limit_is_stopped(make: Make) -> None:
    executor = make((1,))
    events: list[Event] = []
    assert list(Driver(executor, events.append, limits=Limits(0.0)).run([task("a", "hang")])) == ["a"]
    assert [(e.kind, e.failure) for e in events] == [
        ("started", "task"), ("crashed", "timeout"), ("started", "task"), ("failed", "timeout"),
    ]  # fmt: skip
    assert all(actor.dead for actor in executor.ray.actors)


def test_a_cancelled_job_says_nothing(make: Make) -> None:
    executor = make((1,))
    executor.submit(job("a", "nothing"))
    executor.cancel("a")
    assert executor.events(0.0) == []
    assert executor.ray.actors[0].dead
    assert executor.capacity() == 1


def test_no_node_with_room_is_said_at_once(make: Make) -> None:
    with pytest.raises(EnvironmentProblem, match="no node of the Ray cluster has"):
        make((0,), "cuda")


def test_no_cluster_is_said_in_one_line(make: Make, log: Path) -> None:
    executor = make()
    cast(Any, executor.ray).initialized = False
    with pytest.raises(EnvironmentProblem) as raised:
        RayExecutor(executor.call)
    assert "nobody answers" in raised.value.message
    assert "\n" not in raised.value.message
    assert "--ray-address" in raised.value.hint


def test_closing_ends_all_workers(make: Make) -> None:
    executor = make((1, 1))
    run(executor, *(job(name, "nothing") for name in "ab"))
    executor.close()
    assert all(actor.dead for actor in executor.ray.actors)
