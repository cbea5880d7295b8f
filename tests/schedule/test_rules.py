"""What becomes of failures: which are tried again, where, and when a run gives up."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ue_bench.errors import EnvironmentProblem, StorageProblem
from ue_bench.schedule import rules
from ue_bench.schedule.devices import Slot
from ue_bench.schedule.driver import Alone, Driver
from ue_bench.schedule.endings import failure_class
from ue_bench.schedule.executor import Event, Job
from ue_bench.schedule.graph import Task
from ue_bench.schedule.logs import LARGEST
from ue_bench.schedule.rules import Limits, Stops

from .helpers import Outcome, eventually, slots, task

Drive = Callable[..., Outcome]
GPUS = [Slot(f"cuda:{number}", f"cuda:{number}", 1) for number in range(2)]


class OutOfMemoryError(RuntimeError):
    """Called as torch's."""


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("x"), "task"),
        (MemoryError(), "resource"),
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB"), "resource"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "resource"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), "resource"),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."), "resource"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "resource"),
        (OSError(errno.ENOENT, "No such file or directory"), "task"),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), "infrastructure"),
        (RuntimeError("CUDA error: device-side assert triggered"), "task"),
    ],
)
def test_classes_of_errors(error: Exception, expected: str) -> None:
    assert failure_class(error) == expected


def kinds(outcome: Outcome) -> list[str]:
    return [event.kind for event in outcome.events]


def test_a_failure_of_the_code_is_not_tried_again(drive: Drive) -> None:
    assert kinds(drive([task("bad", "fail", "plain")])) == ["started", "failed"]


def test_out_of_memory_is_tried_once_more_alone_on_the_device(drive: Drive, log: Path) -> None:
    """The other slot of the device stays empty meanwhile."""
    places = [Slot(f"cuda:0#{number}", "cuda:0", 1) for number in range(2)]
    tasks = [task("large", "fail_at_first", "memory", 1, weight=9), *(task(f"s{n}", "sleep", 0.2) for n in range(4))]
    outcome = drive(tasks, on=places)
    assert outcome.failed == {}
    lines = [line[:2] for line in outcome.log if line[0] in ("start", "end")]
    again = len(lines) - 1 - lines[::-1].index(["start", "large"])
    assert lines[again + 1] == ["end", "large"]  # nothing began or ended in between
    before = lines[:again]
    assert sum(word == "start" for word, _ in before) == sum(word == "end" for word, _ in before) + 1  # it itself


def test_out_of_memory_twice_is_the_end(drive: Drive) -> None:
    outcome = drive([task("large", "fail", "memory")])
    assert kinds(outcome) == ["started", "crashed", "started", "failed"]
    assert outcome.events[-1].failure == "resource"


def test_a_stage_that_runs_past_its_limit_is_stopped_and_tried_once_more(drive: Drive) -> None:
    outcome = drive([task("slow", "sleep", 600.0), task("quick")], limits=Limits(1.0))
    assert outcome.failed == {"slow": "it ran past its limit of 1 s"}
    assert [e.failure for e in outcome.events if e.kind in ("crashed", "failed")] == ["timeout", "timeout"]
    assert outcome.of("done") == ["quick"]


def test_a_worker_that_stands_still_is_killed_and_its_task_tried_again(drive: Drive) -> None:
    outcome = drive([task("still", "stand_still", 1)], executor={"silence": 4.0})
    assert outcome.failed == {}
    [crash] = [e for e in outcome.events if e.kind == "crashed"]
    assert (crash.failure, crash.text) == ("infrastructure", "the worker gave no sign of life for 4 s")


def test_a_broken_device_costs_no_task_and_is_retired(drive: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    outcome = drive([task(f"t{number}", "fail_on", "0") for number in range(8)], on=GPUS)
    assert outcome.failed == {}
    assert len(outcome.of("done")) == 8
    [retired] = [e for e in outcome.events if e.kind == "retired"]
    assert (retired.slot, len(outcome.of("crashed"))) == ("cuda:0", rules.STREAK)


def test_a_run_without_a_slot_that_works_says_so(drive: Drive) -> None:
    with pytest.raises(EnvironmentProblem, match="no slot is left that works"):
        drive([task(f"t{number}", "fail", "device") for number in range(4)], on=[Slot("cuda:0", "cuda:0", 1)])


def test_one_task_that_kills_its_workers_retires_no_slot(drive: Drive) -> None:
    outcome = drive([task("bad", "fail", "device"), task("good", needs=())], on=slots(1))
    assert outcome.of("done") == ["good"]
    assert list(outcome.failed) == ["bad"]


def test_a_worker_sees_its_own_gpu_only(drive: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of those that the driver sees, whatever they are called."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-77")
    outcome = drive([task(f"t{number}", "fail_on", "none") for number in range(4)], on=GPUS)
    assert {line[2] for line in outcome.log if line[0] == "on"} == {"4", "GPU-77"}


def test_a_full_disk_stops_the_run_and_fails_no_task(drive: Drive) -> None:
    with pytest.raises(StorageProblem, match="No space left on device"):
        drive([task("a", "fail", "disk"), task("b"), task("c")])


def test_fail_fast_and_max_failures(drive: Drive) -> None:
    tasks = [task(str(number), "fail", "user") for number in range(5)]
    assert list(drive(tasks, stops=Stops(1)).failed) == ["0"]
    assert list(drive(tasks, stops=Stops(3)).failed) == ["0", "1", "2"]


def test_what_a_task_leaves_running_dies_with_it(drive: Drive) -> None:
    outcome = drive([task("parent", "leave_a_child"), task("next", "sleep", 0.3)])
    [child] = [int(line[1]) for line in outcome.log if line[0] == "child"]
    assert outcome.of("done") == ["parent", "next"]
    assert len(outcome.workers) == 2

    def gone() -> bool:
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return True
        return False

    eventually(gone, "the child is gone")


def test_output_goes_to_a_log_of_limited_size(drive: Drive, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tasks = [task("quiet"), task("short", "speak", "hello from a plugin"), task("long", "print_much")]
    assert drive(tasks, executor={"logs": tmp_path / "logs"}).failed == {}
    assert sorted(p.name for p in (tmp_path / "logs").iterdir()) == ["long.log", "short.log"]
    assert (tmp_path / "logs" / "short.log").read_text() == "hello from a plugin\n"
    long = (tmp_path / "logs" / "long.log").read_text()
    assert LARGEST <= len(long) < LARGEST + 100
    assert long.endswith("the rest is left out\n")
    assert capfd.readouterr() == ("", "")


class OneSlot:
    """An executor whose jobs end at once; in its first attempt "waits" needs what another process makes."""

    detached = False

    def __init__(self) -> None:
        self.told: list[Event] = []
        self.tried: list[str] = []

    def capacity(self) -> int:
        return 0 if self.told else 1

    def submit(self, job: Job) -> None:
        first = job.task.key not in self.tried
        self.tried.append(job.task.key)
        end = Event("deferred", job.task, text="a surrogate") if first and job.task.key == "waits" else None
        self.told += [Event("started", job.task, "slot"), end or Event("done", job.task)]

    def events(self, timeout: float) -> list[Event]:
        told, self.told = self.told, []
        return told

    def retire(self, slot: str) -> None: ...

    def cancel(self, key: str) -> str:
        return ""

    def close(self) -> None: ...


def test_a_task_that_waits_for_a_surrogate_of_another_process_holds_no_slot() -> None:
    executor, asked = OneSlot(), []

    class Elsewhere(Alone):
        def is_free(self, task: Task, lease: str) -> bool:
            asked.append(lease)
            return len(executor.tried) > 3

    driver = Driver(executor, lambda event: None, Elsewhere(), clock=iter(range(1000)).__next__)
    assert driver.run([task("waits", weight=0.5), *(task(name) for name in "abc")]) == {}
    assert executor.tried == ["waits", "a", "b", "c", "waits"]
    assert set(asked) == {"a surrogate"}


def test_limits() -> None:
    one = task("a", weight=2.0)
    assert Limits().of(one) is None
    assert Limits(7.0).of(one) == 7.0
    paced = type(one)("b", "b", None, weight=1000.0, kind="train")
    limits = Limits()
    for seconds in (1.0, 2.0, 3.0):
        assert limits.of(paced) is None
        limits.ended(type(one)("x", "x", None, weight=1.0, kind="train"), seconds)
    assert limits.of(paced) == rules.GENEROSITY * 3.0 * 1000
    predicted = type(one)("c", "c", None, seconds=1000.0)
    assert Limits().of(predicted) == rules.GENEROSITY * 1000
