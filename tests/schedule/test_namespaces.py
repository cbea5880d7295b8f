"""Drivers that see neither each other's processes nor the same host name, as on several nodes or in containers."""

from __future__ import annotations

import random
import time
from collections import Counter

import pytest

from .board_drivers import NAMES, SEPARATE, Board, finish, needs_namespaces, needs_proc
from .helpers import eventually

pytestmark = [needs_proc, needs_namespaces]


@pytest.mark.slow
def test_four_of_them_share_the_work(the_board: Board) -> None:
    """Each has its own name and processes of the same numbers; nothing is even begun twice."""
    finish(*(the_board.start(1, "slow", SEPARATE, env={"UE_BENCH_LEASE_SECONDS": "5"}) for _ in range(4)))
    assert [driver.returncode for driver in the_board.drivers] == [0] * 4
    the_board.check()
    assert Counter(the_board.logged("start")) == Counter(NAMES)
    assert the_board.leases() == []
    assert len({line[2] for line in the_board.log()}) < 4  # process ids: the same ones in each


@pytest.mark.parametrize(
    ("drivers", "kills"),
    [(2, 1), *(pytest.param(n, 50, marks=[pytest.mark.slow, pytest.mark.timeout(7200)]) for n in (2, 4))],
)
def test_kills_among_them(the_board: Board, drivers: int, kills: int) -> None:
    """Whichever is killed, the others take over what it held; another one comes in its place."""
    rng = random.Random(100 * drivers + kills)
    before: dict[str, str] = {}
    boards = 1
    running = [the_board.start(1, "short", SEPARATE) for _ in range(drivers)]

    def is_full() -> bool:
        return len(the_board.stored()) == len(NAMES)

    while kills:
        lines = len(the_board.log()) + rng.randint(1, 6)
        eventually(lambda: len(the_board.log()) >= lines or is_full(), "they get on")  # noqa: B023
        time.sleep(rng.uniform(0, 0.06))
        victim = rng.choice(running)
        kills -= bool(victim.poll() is None and not is_full())
        victim.kill()
        victim.communicate()
        running.remove(victim)
        before = the_board.check_unchanged(before)
        if kills and is_full():
            finish(*running)
            the_board.check(before)
            the_board.next()
            boards, before, running = boards + 1, {}, []
        while len(running) < drivers:
            running.append(the_board.start(1, "short", SEPARATE))
    finish(*running)
    assert [driver.returncode for driver in running] == [0] * drivers
    the_board.check(before)
    print(f"{boards} boards")
