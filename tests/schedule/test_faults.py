"""One board, many drivers and every kind of fault: nothing is lost, nothing done twice, nothing changed."""

from __future__ import annotations

import signal
import subprocess
from collections import Counter

import pytest

from . import board
from .board_drivers import NAMES, Board, finish, needs_proc
from .helpers import eventually, processes

pytestmark = needs_proc


def test_four_drivers_share_the_work(the_board: Board) -> None:
    said = finish(*(the_board.start(jobs=1, mode="slow") for _ in range(4)))
    the_board.check()
    assert Counter(the_board.logged("start")) == Counter(NAMES)  # not even begun twice
    done = [sum(line.startswith("done") for line in text.splitlines()) for text in said]
    assert sum(done) == len(NAMES)
    assert sum(count > 0 for count in done) > 1
    assert the_board.leases() == []
    assert all(driver.returncode == 0 for driver in the_board.drivers)


@pytest.mark.slow
def test_a_worker_without_a_sign_of_life_is_killed_and_its_cell_tried_again(the_board: Board) -> None:
    [said] = finish(the_board.start(mode="hang", env={"BOARD_SILENCE": "4"}))
    assert "crashed train aw the worker gave no sign of life for 4 s" in said
    the_board.check()


def test_what_failed_at_one_driver_is_not_tried_by_the_next(the_board: Board) -> None:
    finish(*(the_board.start(jobs=1, mode="fail") for _ in range(2)))
    assert [driver.returncode for driver in the_board.drivers] == [1, 1]
    started = Counter(the_board.logged("start"))
    assert (started["aw"], started["b"]) == (1, 1)
    assert len(list((the_board.root / "out" / "failures").glob("*.json"))) == 1 + len(board.COLUMNS)
    again = the_board.start(mode="short")  # the next run tries again
    finish(again)
    assert again.returncode == 0
    the_board.check()
    assert list((the_board.root / "out" / "failures").iterdir()) == []


def test_an_artifact_that_another_worker_makes_is_waited_for_without_a_slot(the_board: Board) -> None:
    said = finish(*(the_board.start(jobs=2, mode="surrogate") for _ in range(2)))
    assert len([line for line in the_board.log() if line[0] == "surrogate"]) == 1
    assert "deferred protect" in "".join(said)
    the_board.check()


def interrupt(driver: subprocess.Popen[str], times: int) -> str:
    """Ctrl-C once, or once more when it has said that it stops; return what it said until then."""
    driver.send_signal(signal.SIGINT)
    said = ""
    while times == 2 and driver.stdout and not said.endswith("stopping  \n"):
        said += driver.stdout.readline()
    if times == 2:
        driver.send_signal(signal.SIGINT)
    return said


@pytest.mark.parametrize("times", [1, 2])
def test_interrupts(the_board: Board, times: int) -> None:
    """The first lets what three workers run end, the second stops them; the same command continues."""
    driver = the_board.start(jobs=3, mode="slow" if times == 1 else "long")
    eventually(lambda: len(the_board.logged("start")) == 3, "three stages run")
    said = interrupt(driver, times) + finish(driver)[0]
    assert driver.returncode == 130
    assert sorted(the_board.logged("made")) == (sorted(the_board.logged("start")) if times == 1 else [])
    assert len(the_board.logged("start")) == 3
    assert "failed" not in said
    eventually(lambda: not processes(the_board.marker), "workers leave with their driver")
    assert the_board.leases() == []
    before = the_board.stored()
    finish(the_board.start())
    the_board.check(before)


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2])
def test_an_interrupt_of_one_of_two_drivers_leaves_the_work_to_the_other(the_board: Board, times: int) -> None:
    leaves = the_board.start(jobs=2, mode="slow" if times == 1 else "long", env={"UE_BENCH_LEASE_SECONDS": "60"})
    eventually(lambda: len(the_board.logged("start")) == 2, "two stages run")
    stays = the_board.start(jobs=2, mode="slow", env={"UE_BENCH_LEASE_SECONDS": "60"})
    eventually(lambda: len(the_board.logged("start")) >= 3, "the second driver is at work")
    interrupt(leaves, times)
    finish(leaves, stays)  # without waiting for anything to become stale
    assert (leaves.returncode, stays.returncode) == (130, 0)
    the_board.check()
