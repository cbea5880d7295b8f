"""Drivers and workers killed at random points while they work: nothing is lost, nothing done twice, nothing changed."""

from __future__ import annotations

import random
import time

import pytest

from .board_drivers import NAMES, Board, finish, needs_proc
from .helpers import eventually, kill, processes

pytestmark = needs_proc
FEW_AND_MANY = pytest.mark.parametrize(
    "kills", [2, pytest.param(300, marks=[pytest.mark.slow, pytest.mark.timeout(7200)])]
)


def at_work(one: Board) -> dict[int, str]:
    """The workers that have begun a stage and not made it, and the stage."""
    begun = {}
    for word, name, pid, *_ in one.log():
        if word == "start":
            begun[int(pid)] = name
        elif word == "made":
            begun.pop(int(pid), None)
    alive = set(processes(one.marker))
    return {pid: name for pid, name in begun.items() if pid in alive}


@FEW_AND_MANY
def test_drivers_killed_in_mid_work(the_board: Board, kills: int) -> None:
    """Each at a random point, with a worker in the middle of a stage; a new board begins whenever one is full."""
    rng = random.Random(kills)
    before: dict[str, str] = {}
    boards, drivers = 1, 0
    while kills:
        driver = the_board.start()
        drivers += 1
        lines = len(the_board.log()) + rng.randint(1, 9)
        eventually(lambda: len(the_board.log()) >= lines or driver.poll() is not None, "the driver gets on")  # noqa: B023
        time.sleep(rng.uniform(0, 0.06))
        kills -= bool(driver.poll() is None and at_work(the_board))
        driver.kill()
        eventually(lambda: not processes(the_board.marker), "workers leave with their driver")
        driver.communicate()
        before = the_board.check_unchanged(before)
        if kills and len(before) == len(NAMES):
            the_board.check(before)
            the_board.next()
            boards, before = boards + 1, {}
    assert finish(the_board.start())[0].endswith("end\n")
    the_board.check(before)
    assert the_board.leases() == []
    print(f"{drivers} drivers killed, {boards} boards")


@FEW_AND_MANY
def test_workers_killed_in_mid_work(the_board: Board, kills: int) -> None:
    """The driver lives on and tries again; where one stage is hit too often the next command does it."""
    rng = random.Random(kills)
    before: dict[str, str] = {}
    boards, drivers, failed = 1, 0, 0
    while kills:
        driver = the_board.start()
        drivers += 1
        while driver.poll() is None and kills:
            lines = len(the_board.log()) + rng.randint(1, 3)
            eventually(lambda: len(the_board.log()) >= lines or driver.poll() is not None, "the driver gets on")  # noqa: B023
            time.sleep(rng.uniform(0, 0.04))
            if busy := at_work(the_board):
                kill(rng.choice(sorted(busy)))
                kills -= 1
        [said] = finish(driver)
        assert driver.returncode in (0, 1, 3), said  # 3: no slot is left that works, after three stages in a row
        assert "Traceback" not in said
        failed += said.count("\nfailed")
        before = the_board.check_unchanged(before)
        if kills and len(before) == len(NAMES):
            the_board.check(before)
            the_board.next()
            boards, before = boards + 1, {}
    assert finish(the_board.start())[0].endswith("end\n")
    the_board.check(before)
    assert the_board.leases() == []
    print(f"{drivers} drivers, {boards} boards, {failed} stages hit too often")
