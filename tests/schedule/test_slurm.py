"""The executor for SLURM, on a submitit and SLURM commands that are fakes. ``test_slurm_cluster`` has real ones."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ue_bench.errors import EnvironmentProblem
from ue_bench.schedule import slurm
from ue_bench.schedule.call import Call
from ue_bench.schedule.choice import SlurmOptions
from ue_bench.schedule.driver import Driver
from ue_bench.schedule.executor import Event
from ue_bench.schedule.slurm import SlurmExecutor
from ue_bench.schedule.slurm_group import Group
from ue_bench.schedule.slurm_sent import grouped

from . import targets
from .fakes import FakeSlurm
from .helpers import job, read_log, task

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a shell for squeue")
Make = Callable[..., SlurmExecutor]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    fake = FakeSlurm(tmp_path)
    monkeypatch.setenv("PATH", str(fake.bin), prepend=":")
    monkeypatch.setitem(sys.modules, "submitit", fake.module())
    monkeypatch.setattr(slurm, "GATHER", 0.0)
    return fake


@pytest.fixture
def make(cluster: FakeSlurm, log: Path, tmp_path: Path) -> Make:
    def start(options: SlurmOptions | None = None, **more: Any) -> SlurmExecutor:
        call = Call(f"{targets.__name__}:run", {"log": str(log)})
        return SlurmExecutor(call, tmp_path / "slurm", options or SlurmOptions(), **{"poll": 0.0, **more})

    return start


def kinds(events: list[Event]) -> list[tuple[str, str]]:
    return [(e.kind, e.task.key if e.task else "") for e in events]


def happened(executor: SlurmExecutor, looks: int = 3) -> list[Event]:
    return [event for _ in range(looks) for event in executor.events(0.0)]


def test_jobs_are_sent_as_one_array_and_followed(make: Make, cluster: FakeSlurm) -> None:
    executor = make()
    for name in "ab":
        executor.submit(job(name))
    assert happened(executor) == []
    assert cluster.arrays == [2]
    cluster.work()
    assert kinds(happened(executor)) == [("started", "a"), ("done", "a"), ("started", "b"), ("done", "b")]
    assert not list((executor.folder).glob("*.json"))


def test_short_jobs_share_one(make: Make, cluster: FakeSlurm, log: Path) -> None:
    executor = make(SlurmOptions(group=1.0))
    for name in "abcd":
        executor.submit(job(name, seconds=25.0))
    happened(executor)
    assert [len(group.jobs) for group in cluster.queue.values()] == [2, 2]
    cluster.work()
    assert [line[1] for line in read_log(log) if line[0] == "end"] == ["a", "b", "c", "d"]
    assert [k for k in kinds(happened(executor)) if k[0] == "done"] == [("done", name) for name in "abcd"]


def test_groups_leave_out_what_failed_before_or_is_of_unknown_length() -> None:
    jobs = [
        job("a", seconds=1.0),
        job("b"),
        job("c", seconds=1.0, attempt=2),
        job("d", seconds=1.0),
        job("e", seconds=9.0),
    ]
    names = [[j.task.key for j in group] for group in grouped(jobs, 10.0)]
    assert sorted(names) == [["a", "d"], ["b"], ["c"], ["e"]]


def test_what_sbatch_is_asked(make: Make, cluster: FakeSlurm) -> None:
    executor = make(SlurmOptions.parse(["partition=gpu,time=90,reservation=mine,gres=gpu:1"]))
    asked = cluster.parameters
    assert (asked["partition"], asked["time"], asked["gres"], asked["job_name"]) == ("gpu", 90, "gpu:1", "ue-bench")
    assert asked["additional_parameters"] == {"requeue": True, "reservation": "mine"}
    assert executor.call.device == "cuda:0"
    executor.retire("n7")
    assert cluster.parameters["exclude"] == "n7"


def test_a_failure_names_its_log_and_keeps_it(make: Make, cluster: FakeSlurm) -> None:
    executor = make()
    executor.submit(job("a", "fail", "plain"))
    happened(executor)
    (executor.folder / "1_0_0_log.err").write_text("what was printed\n")
    cluster.work()
    [_, failed] = happened(executor)
    assert (failed.kind, failed.failure, failed.text) == ("failed", "task", "ValueError: first line")
    assert Path(failed.log).read_text() == "what was printed\n"


@pytest.mark.parametrize(
    ("state", "failure"),
    [
        ("CANCELLED", "infrastructure"),
        ("NODE_FAIL", "infrastructure"),
        ("OUT_OF_MEMORY", "resource"),
        ("TIMEOUT", "timeout"),
        ("FAILED", "infrastructure"),
    ],
)
def test_a_job_that_ended_without_a_word_failed(make: Make, cluster: FakeSlurm, state: str, failure: str) -> None:
    executor = make()
    executor.submit(job("a"))
    happened(executor)
    (executor.folder / "1_0_0_log.err").write_text("first\nslurmstepd: its last words\n")
    cluster.tell(**{"1_0": state})
    [failed] = happened(executor)
    assert (failed.kind, failed.failure) == ("failed", failure)
    assert failed.text == f"SLURM job 1_0 ended: {state} slurmstepd: its last words"


def test_what_a_broken_group_had_not_begun_is_sent_again_without_an_attempt(make: Make, cluster: FakeSlurm) -> None:
    executor = make(SlurmOptions(group=10.0))
    for name, action in (("a", "nothing"), ("b", "fail"), ("c", "nothing")):
        executor.submit(job(name, action, *(["plain"] if action == "fail" else []), seconds=1.0))
    happened(executor)
    cluster.work()
    assert kinds(happened(executor))[-1] == ("failed", "b")
    happened(executor)
    cluster.work()
    assert kinds(happened(executor)) == [("started", "c"), ("done", "c")]
    assert cluster.arrays == [1, 1]


def test_a_task_that_another_process_has_taken_over_is_put_off(make: Make, cluster: FakeSlurm, leaving: str) -> None:
    executor = make(SlurmOptions(group=10.0))
    executor.submit(job("a", "lose_once", leaving, seconds=1.0))
    executor.submit(job("b", seconds=1.0))
    happened(executor)
    cluster.work()
    assert kinds(happened(executor))[-1] == ("deferred", "a")
    happened(executor)
    cluster.work()
    assert kinds(happened(executor)) == [("started", "b"), ("done", "b")]


def test_a_requeued_group_goes_on_where_it_was(make: Make, cluster: FakeSlurm, log: Path) -> None:
    executor = make(SlurmOptions(group=10.0))
    for name in "ab":
        executor.submit(job(name, seconds=1.0))
    happened(executor)
    [group] = cluster.queue.values()
    Group(group.call, group.jobs[:1], group.events)()  # as far as it got before it was preempted
    cluster.work()
    assert [line[1] for line in read_log(log) if line[0] == "end"] == ["a", "b"]
    assert [k for k in kinds(happened(executor)) if k[0] == "done"] == [("done", "a"), ("done", "b")]


def test_leaving_for_a_requeue_is_no_failure(make: Make, cluster: FakeSlurm) -> None:
    executor = make()
    executor.submit(job("a", "fail", "exit"))
    happened(executor)
    [group] = cluster.queue.values()
    group._leaving = True  # submitit has asked for a checkpoint and exits
    with pytest.raises(SystemExit):
        group()
    assert kinds(happened(executor)) == [("started", "a"), ("waiting", "a")]


def test_a_job_that_reached_its_time_limit_too_often_timed_out(make: Make, cluster: FakeSlurm) -> None:
    executor = make()
    executor.submit(job("a", "fail", "plain"))
    happened(executor)
    [group] = cluster.queue.values()
    group._leaving = True  # then submitit raises, where it would have requeued
    group()
    assert [e.failure for e in happened(executor) if e.kind == "failed"] == ["timeout"]


def test_a_later_driver_follows_what_an_earlier_one_sent(make: Make, cluster: FakeSlurm, log: Path) -> None:
    first = make()
    for name in "ab":
        first.submit(job(name))
    happened(first)
    cluster.work("1_0")
    second = make()
    second.submit(job("b"))
    assert happened(second) == []
    cluster.work("1_1")
    assert kinds(happened(second)) == [("started", "b"), ("done", "b")]
    assert cluster.arrays == [2]
    assert [line[1] for line in read_log(log) if line[0] == "start"] == ["a", "b"]


def test_what_slurm_has_forgotten_is_sent_again(make: Make, cluster: FakeSlurm) -> None:
    first = make()
    first.submit(job("a"))
    happened(first)
    cluster.states.clear()
    cluster.tell()
    second = make()
    second.submit(job("a"))
    happened(second)
    assert cluster.arrays == [1, 1]


def test_a_requeued_job_waits_and_its_log_is_known(make: Make, cluster: FakeSlurm) -> None:
    executor = make()
    executor.submit(job("a"))
    happened(executor)
    [group] = cluster.queue.values()
    group._say("a", kind="started", slot="n1", said=[""])
    cluster.tell(**{"1_0": "RUNNING"})
    assert kinds(happened(executor)) == [("started", "a")]
    cluster.tell(**{"1_0": "PENDING"})
    assert kinds(happened(executor)) == [("waiting", "a")]
    assert executor.cancel("a") == str(executor.folder / "1_0_0_log.err")


def test_a_cancelled_job_says_nothing_and_others_of_its_group_run(make: Make, cluster: FakeSlurm) -> None:
    executor = make(SlurmOptions(group=10.0))
    for name in "ab":
        executor.submit(job(name, seconds=1.0))
    happened(executor)
    executor.cancel("a")
    assert cluster.cancelled() == ["1_0"]
    cluster.tell(**{"1_0": "CANCELLED"})
    assert happened(executor) == []
    cluster.work("2_0")
    assert kinds(happened(executor)) == [("started", "b"), ("done", "b")]


def test_what_a_cancelled_job_still_says_is_not_of_its_next_attempt(make: Make, cluster: FakeSlurm) -> None:
    executor = make()
    executor.submit(job("a", "fail", "plain"))
    happened(executor)
    executor.cancel("a")
    executor.submit(job("a", attempt=2))
    happened(executor)
    cluster.work("1_0")
    assert happened(executor) == []
    cluster.work("2_0")
    assert kinds(happened(executor)) == [("started", "a"), ("done", "a")]


def test_a_full_queue_is_asked_again_a_wrong_partition_is_not(make: Make, cluster: FakeSlurm, monkeypatch: Any) -> None:
    monkeypatch.setattr(slurm, "REFUSED", 0.0)
    executor = make()
    executor.submit(job("a"))
    happened(executor)
    cluster.refusal = "QOSMaxSubmitJobPerUserLimit"
    executor.submit(job("b"))
    assert {event.text for event in happened(executor)} == {
        "sbatch refuses, asked again in a minute: RuntimeError: QOSMaxSubmitJobPerUserLimit"
    }
    cluster.refusal = ""
    happened(executor)
    assert cluster.arrays == [1, 1]
    other = make()
    other._sent.clear()
    cluster.refusal = "invalid partition specified: gpuu"
    other.submit(job("c"))
    with pytest.raises(EnvironmentProblem, match="gpuu"):
        other.events(0.0)


def test_a_deaf_controller_is_asked_again(make: Make, cluster: FakeSlurm) -> None:
    executor = make()
    executor.submit(job("a"))
    happened(executor)
    cluster.work()
    answer = (cluster.bin / "squeue").read_text()
    cluster.command("squeue", "exit 1")
    events = happened(executor)
    assert kinds([event for event in events if event.task]) == [("started", "a"), ("done", "a")]
    assert all(event.text.startswith("squeue does not answer: ") for event in events if not event.task)
    (cluster.bin / "squeue").write_text(answer)
    assert happened(executor) == []
    assert not list(executor.folder.glob("*.json"))


def test_no_slurm_is_said(make: Make, cluster: FakeSlurm) -> None:
    cluster.command("squeue", "exit 1")
    with pytest.raises(EnvironmentProblem, match="SLURM does not answer"):
        make()


def test_an_interrupted_driver_leaves_its_jobs(make: Make, cluster: FakeSlurm, monkeypatch: Any) -> None:
    executor = make()
    look = executor.events

    def interrupted(timeout: float) -> list[Event]:
        os.kill(os.getpid(), signal.SIGINT)
        return look(0.0)

    monkeypatch.setattr(executor, "events", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Driver(executor, lambda event: None).run([task("a")])
    assert list(cluster.states.values()) == ["PENDING"]
    assert cluster.cancelled() == []
