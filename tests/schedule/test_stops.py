"""Drivers and workers that stand still for so long that others take over, and then go on (SIGSTOP and SIGCONT)."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from .board_drivers import NAMES, Board, finish, needs_proc
from .helpers import eventually, processes

pytestmark = needs_proc
QUICK = {"UE_BENCH_LEASE_SECONDS": "0.6"}
STALE = 0.6


def send(number: int, pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def with_workers(one: Board, driver: subprocess.Popen[str]) -> list[int]:
    """The process ids of a driver and of what it started, the driver's first."""
    found = [driver.pid]
    for pid in processes(one.marker):
        with contextlib.suppress(OSError):
            if int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) == driver.pid:
                found.append(pid)
    return found


@pytest.mark.parametrize("which", ["all", pytest.param("driver", marks=pytest.mark.slow)])
def test_a_driver_that_stood_still_loses_its_work_and_does_nothing_twice(the_board: Board, which: str) -> None:
    """As a laptop that was closed. Where only the driver is stopped, its workers go on until others have their work."""
    first = the_board.start(jobs=2, mode="slow", env=QUICK)
    eventually(lambda: len(the_board.logged("start")) >= 2, "the first driver is at work")
    asleep = with_workers(the_board, first)[: None if which == "all" else 1]
    send(signal.SIGSTOP, asleep)
    second = the_board.start(jobs=2, mode="short", env=QUICK)
    finish(second)
    before = the_board.stored()
    send(signal.SIGCONT, asleep)
    finish(first)
    assert (first.returncode, second.returncode) == (0, 0)
    the_board.check(before, taken_over=True)


@pytest.mark.slow
def test_workers_that_stand_still_keep_their_work_while_their_driver_lives(the_board: Board) -> None:
    first = the_board.start(jobs=2, mode="slow", env=QUICK)
    eventually(lambda: len(the_board.logged("start")) >= 2, "the first driver is at work")
    _, *workers = with_workers(the_board, first)
    send(signal.SIGSTOP, workers)
    second = the_board.start(jobs=2, mode="short", env=QUICK)
    eventually(lambda: len(the_board.leases()) >= 4, "the second has come")  # of two drivers, and of two stages
    time.sleep(4 * STALE)
    send(signal.SIGCONT, workers)
    finish(first, second)
    assert (first.returncode, second.returncode) == (0, 0)
    the_board.check()
    assert Counter(the_board.logged("start")) == Counter(NAMES)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a", "aw"])
def test_work_that_stands_still_in_the_moment_of_publishing_changes_nothing(the_board: Board, name: str) -> None:
    """The worst one: the lease was looked at, and stood; what another process stores meanwhile is what counts."""
    first = the_board.start(jobs=1, mode=f"stop {name}", env=QUICK)
    eventually(lambda: name in the_board.logged("stopped"), "it stands still")
    asleep = with_workers(the_board, first)
    send(signal.SIGSTOP, asleep)
    second = the_board.start(jobs=1, env=QUICK)
    finish(second)
    before = the_board.stored()
    send(signal.SIGCONT, asleep)
    finish(first)
    assert (first.returncode, second.returncode) == (0, 0)
    the_board.check(before, taken_over=True)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_100_stops_at_random_points(the_board: Board) -> None:
    """Of a driver, of its workers or of both, for longer than it takes the other driver to take over."""
    stops, rng = 100, random.Random(100)
    boards, second_best = 0, 0
    while stops:
        drivers = [the_board.start(jobs=2, mode="slow", env=QUICK) for _ in range(2)]
        while stops and all(driver.poll() is None for driver in drivers):
            lines = len(the_board.log()) + rng.randint(1, 4)
            eventually(
                lambda: len(the_board.log()) >= lines or any(d.poll() is not None for d in drivers),  # noqa: B023
                "they get on",
            )
            time.sleep(rng.uniform(0, 0.6))
            pids = with_workers(the_board, rng.choice(drivers))
            asleep = rng.choice([pids, pids[:1], pids[1:]])
            stops -= bool(len(pids) > 1 and len(the_board.stored()) < len(NAMES))
            send(signal.SIGSTOP, asleep)
            before = the_board.stored()
            time.sleep(rng.uniform(1.5, 4) * STALE)
            send(signal.SIGCONT, asleep)
            the_board.check_unchanged(before)
        before = the_board.stored()
        finish(*drivers)
        assert [driver.returncode for driver in drivers] == [0, 0]
        the_board.check(before, taken_over=True)
        boards, second_best = boards + 1, second_best + len(the_board.logged("again"))
        the_board.next()
    print(f"{boards} boards, {second_best} outcomes that came second")
