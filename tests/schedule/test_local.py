from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ue_bench.schedule.executor import Event
from ue_bench.schedule.oom import OutOfMemoryKills

from .helpers import Outcome, kill, read_log, task
from .targets import DiesOnArrival, SeesThreads, Unreadable, Unsendable

Drive = Callable[..., Outcome]
# What is known of a SIGKILL: that the kernel did not send it for want of memory, where it says so at all.
KILLED = "SIGKILL: out of memory?" if OutOfMemoryKills().count() is None else "SIGKILL"
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def test_every_task_once_in_few_workers(drive: Drive) -> None:
    tasks = [task(f"{group}{i}", needs=() if group == "a" else (f"a{i}",)) for group in "ba" for i in range(4)]
    outcome = drive(tasks, jobs=2)
    assert outcome.failed == {}
    assert sorted(outcome.logged("end")) == sorted(t.key for t in tasks)
    assert sorted(outcome.of("done")) == sorted(t.key for t in tasks)
    ended = outcome.logged("end")
    assert all(ended.index(f"a{i}") < ended.index(f"b{i}") for i in range(4))
    assert len(outcome.workers) <= 2


def test_many_quick_tasks_in_one_worker(drive: Drive) -> None:
    outcome = drive([task(str(i)) for i in range(500)])
    assert outcome.logged("end") == outcome.of("done") == [str(i) for i in range(500)]
    assert len(outcome.workers) == 1


def test_no_more_workers_than_tasks(drive: Drive) -> None:
    assert len(drive([task("only")], jobs=8).workers) == 1


def test_nothing_to_do(drive: Drive) -> None:
    assert drive([]).events == []


@pytest.mark.parametrize("jobs", [0, 1])
def test_tasks_that_can_never_start(drive: Drive, jobs: int) -> None:
    with pytest.raises(RuntimeError, match="2 tasks can never start, such as task a"):
        drive([task("a", needs=("b",)), task("b", needs=("a",))], jobs=jobs)


def test_without_slots(drive: Drive) -> None:
    with pytest.raises(RuntimeError, match="can never start"):
        drive([task("a")], on=[])


def test_outside_the_main_thread(drive: Drive) -> None:
    found: list[Outcome] = []
    thread = threading.Thread(target=lambda: found.append(drive([task("a")])))
    thread.start()
    thread.join()
    assert found[0].of("done") == ["a"]


def test_failure_costs_the_task_and_what_needs_it(drive: Drive) -> None:
    chain = [
        task("protect", "fail", "plain"),
        task("purify", needs=("protect",)),
        task("train", needs=("protect", "purify")),
    ]
    outcome = drive([*chain, task("other")])
    assert outcome.failed["protect"] == "ValueError: first line"
    assert outcome.failed["purify"] == outcome.failed["train"]
    assert outcome.failed["train"] == "needs task protect, which failed: ValueError: first line"
    assert outcome.of("failed") == ["protect", "purify", "train"]
    assert outcome.of("done") == ["other"]
    failures = [e for e in outcome.events if e.kind == "failed"]
    assert [e.attempt for e in failures] == [1, 0, 0]
    assert all("second line" in e.trace for e in failures)


def test_worker_is_not_used_again_after_an_unexpected_error(drive: Drive) -> None:
    outcome = drive([task("bad", "fail", "plain"), task("good")])
    assert outcome.of("done") == ["good"]
    assert len(outcome.workers) == 2


def test_worker_lives_on_after_a_user_error(drive: Drive) -> None:
    outcome = drive([task("bad", "fail", "user"), task("good")])
    assert outcome.failed == {"bad": "no such file (look for it)"}
    assert next(e.trace for e in outcome.events if e.kind == "failed") == ""
    assert len(outcome.workers) == 1


def test_a_training_that_diverged_is_a_failure_of_its_own_kind_and_so_is_what_needs_it(drive: Drive) -> None:
    outcome = drive([task("bad", "fail", "diverged"), task("after", needs=("bad",)), task("b", "fail", "user")])
    kinds = {e.task.key: e.failure for e in outcome.events if e.kind == "failed" and e.task}
    assert kinds == {"bad": "diverged", "after": "diverged", "b": "task"}
    assert outcome.failed["bad"].startswith("diverged at step 3 of 9: loss not finite")


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (task("bad", "fail", "odd"), "OddError: (its message cannot be shown)"),
        (task("bad", "fail", "exit"), "SystemExit: 0"),
        (task("bad", "fail", "interrupt"), "KeyboardInterrupt: "),
        (task("bad", "fail", "pipe"), "BrokenPipeError: not the driver's"),
        (task("bad", "fail", "half a name"), r"ValueError: caf\udce9"),
        (task("bad", "no such action"), "KeyError: 'no such action'"),
        (task("bad", "nothing", Unreadable()), "ImportError: no plugin of that name"),
        (task("bad", "nothing", Unsendable()), "cannot be sent to a worker: TypeError: cannot pickle this plugin"),
    ],
    ids=["odd", "exit", "interrupt", "pipe", "name", "action", "unreadable", "unsendable"],
)
def test_errors_of_all_kinds(drive: Drive, bad: Any, reason: str) -> None:
    outcome = drive([bad])
    assert outcome.failed == {"bad": reason}
    assert outcome.of("crashed") == []


def test_target_that_cannot_be_imported(drive: Drive) -> None:
    outcome = drive([task("a")], target="no_such_module:run")
    assert outcome.failed == {"a": "ModuleNotFoundError: No module named 'no_such_module'"}


def test_large_messages_both_ways_and_a_slow_driver(drive: Drive) -> None:
    tasks = [task("there", "nothing", "x" * 3_000_000), task("back", "fail", "long"), task("after")]
    outcome = drive(tasks, on_event=lambda event: time.sleep(0.05))
    assert outcome.of("done") == ["there", "after"]
    assert len(outcome.failed["back"]) > 3_000_000


def test_killed_worker_costs_one_attempt(drive: Drive) -> None:
    outcome = drive([task("killed", "die", signal.SIGKILL, 1), task("other")])
    assert outcome.failed == {}
    assert outcome.of("crashed") == ["killed"]
    assert [e.attempt for e in outcome.events if e.kind == "started" and e.task and e.task.key == "killed"] == [1, 2]
    assert sorted(outcome.of("done")) == ["killed", "other"]
    assert sorted(outcome.logged("end")) == ["killed", "other"]


@pytest.mark.parametrize(
    ("bad", "how"),
    [
        (task("bad", "die", signal.SIGKILL, 3), KILLED),
        (task("bad", "die", signal.SIGSEGV, 3), "SIGSEGV"),
        (task("bad", "leave", 0), "exit code 0"),
        (task("bad", "leave", 3), "exit code 3"),
    ],
    ids=["killed", "segfault", "left", "left with a code"],
)
def test_worker_that_dies_three_times_is_a_failure(drive: Drive, bad: Any, how: str) -> None:
    outcome = drive([bad])
    assert outcome.failed == {"bad": f"the worker died ({how})"}
    assert [e.kind for e in outcome.events] == ["started", "crashed"] * 2 + ["started", "failed"]


def test_worker_that_lost_its_task_to_another_process_has_not_failed(drive: Drive, tmp_path: Path) -> None:
    outcome = drive([task("a", "lose_once", str(tmp_path / "mark"))])
    assert outcome.failed == {}
    assert [(e.kind, e.attempt) for e in outcome.events] == [
        ("started", 1), ("deferred", 1), ("started", 1), ("done", 1)
    ]  # fmt: skip


@pytest.mark.parametrize("size", [10, 3_000_000], ids=["small", "more than a pipe holds"])
def test_worker_killed_at_start_up(drive: Drive, tmp_path: Path, size: int) -> None:
    outcome = drive([task("a", "nothing", "x" * size), task("b")], plugin=DiesOnArrival(str(tmp_path / "mark")))
    assert outcome.failed == {}
    assert outcome.of("crashed") == ["a"]
    assert outcome.of("done") == ["a", "b"]


def test_worker_that_never_starts_up_ends_the_run(drive: Drive) -> None:
    outcome = drive([task("a", "nothing", "x" * 3_000_000)], plugin=Unreadable())
    assert outcome.failed == {"a": "the worker died (exit code 1)"}


def test_idle_worker_that_dies_costs_nothing(drive: Drive) -> None:
    first, killer = task("first"), task("killer", "kill_worker_of", "first")
    then = [task(name, needs=("killer",)) for name in ("next", "last")]  # two, so that both slots are wanted
    outcome = drive([first, killer, *then], jobs=2)
    assert outcome.failed == {}
    assert outcome.of("crashed") == []
    assert sorted(outcome.logged("end")) == ["first", "killer", "last", "next"]


@forks
def test_death_is_noticed_while_a_child_holds_the_connection(drive: Drive) -> None:
    outcome = drive([task("parent", "fork_and_die")])
    [child] = [int(line[1]) for line in outcome.log if line[0] == "child"]
    kill(child)
    assert outcome.of("crashed") == outcome.of("done") == ["parent"]


def test_tasks_may_start_processes(drive: Drive) -> None:
    assert drive([task("parent", "start_a_process")]).of("done") == ["parent"]


def test_what_a_task_prints_is_not_data(drive: Drive, capfd: pytest.CaptureFixture[str]) -> None:
    drive([task("a", "speak", "hello from a plugin")])
    out, err = capfd.readouterr()
    assert out == ""
    assert "hello from a plugin" in err


def test_workers_know_their_threads_from_the_start(drive: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    outcome = drive([task("a", "tell", "threads")], threads=SeesThreads())
    assert ["told", "a", "1"] in outcome.log
    assert os.environ["OMP_NUM_THREADS"] == "7"


@pytest.mark.parametrize(
    ("done", "total", "fraction"), [(1, 4, 0.25), (9, 4, 1.0), (-1, 4, 0.0), (1, 0, 1.0), (float("nan"), 4, 0.0)]
)
def test_progress_is_a_share(drive: Drive, done: float, total: float, fraction: float) -> None:
    outcome = drive([task("a", "report_once", done, total, "epoch\n1")])
    [event] = [e for e in outcome.events if e.kind == "progress"]
    assert (event.fraction, event.text, event.slot) == (fraction, "epoch 1", "cpu#0")


def test_thread_left_behind_does_not_speak_for_the_next_task(drive: Drive) -> None:
    outcome = drive([task("talker", "report_always"), task("next", "sleep", 0.4)])
    assert outcome.of("done") == ["talker", "next"]
    progress = {(e.task.key, e.text) for e in outcome.events if e.kind == "progress" and e.task}
    assert progress == {("talker", "from the past"), ("next", "asleep")}


def test_first_interrupt_lets_running_tasks_finish(drive: Drive) -> None:
    def interrupt(event: Event) -> None:
        if event.kind == "started":
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    outcome = drive([task("running"), task("waiting")], on_event=interrupt)
    assert outcome.interrupted
    assert [e.kind for e in outcome.events] == ["started", "stopping", "done"]
    assert outcome.logged("end") == ["running"]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_worker_killed_while_stopping_is_no_failure(drive: Drive) -> None:
    def interrupt(event: Event) -> None:
        if event.kind == "started":
            os.kill(os.getpid(), signal.SIGINT)

    outcome = drive([task("running", "die", signal.SIGKILL, 2)], on_event=interrupt)
    assert outcome.interrupted
    assert [e.kind for e in outcome.events] == ["started", "stopping", "crashed"]


@pytest.mark.parametrize("stubborn", [False, True])
def test_second_interrupt_stops_at_once(drive: Drive, log: Path, stubborn: bool) -> None:
    def interrupt(event: Event) -> None:
        if event.kind == "progress":
            if stubborn:
                os.kill(int(read_log(log)[0][2]), signal.SIGSTOP)
            os.kill(os.getpid(), signal.SIGINT)
        elif event.kind == "stopping":
            os.kill(os.getpid(), signal.SIGINT)

    started = time.monotonic()
    outcome = drive([task("running", "sleep", 600.0)], on_event=interrupt)
    assert outcome.interrupted
    assert time.monotonic() - started < 120
    assert outcome.logged("end") == []
    with pytest.raises(ProcessLookupError):
        os.kill(int(outcome.log[0][2]), 0)


def test_error_in_the_driver_stops_the_workers(drive: Drive, log: Path) -> None:
    def full(event: Event) -> None:
        if event.kind == "done":
            raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space left"):
        drive([task("long", "sleep", 600.0), task("quick")], jobs=2, on_event=full)
    for line in read_log(log):
        with pytest.raises(ProcessLookupError):
            os.kill(int(line[2]), 0)
