"""Wall clocks that are wrong, differ, or are set while drivers work. The machine's own clock is left alone."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from .board_drivers import NAMES, SEPARATE, Board, finish, needs_namespaces, needs_proc
from .helpers import eventually

pytestmark = [
    needs_proc,
    pytest.mark.skipif(not shutil.which("cc"), reason="a clock is shifted by a library that 'cc' has to build"),
]
HOUR = 3600


class WallClock:
    """A wall clock of its own for drivers that are started with ``env``."""

    def __init__(self, folder: Path) -> None:
        self.file, library = folder / "shift", folder / "wall_clock.so"
        source = Path(__file__).with_name("wall_clock.c")
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source], check=True)
        self.set(0)
        self.env = {"LD_PRELOAD": str(library), "CLOCK_SHIFT": str(self.file)}

    def set(self, seconds: int) -> None:
        """Let it be so many seconds ahead from now on."""
        if not self.file.exists():
            self.file.write_bytes(bytes(8))
        with self.file.open("r+b") as file:
            file.write(struct.pack("=q", seconds))


@pytest.fixture
def clocks(tmp_path: Path) -> list[WallClock]:
    folders = [tmp_path / name for name in ("first-clock", "second-clock")]  # a path to preload holds no space
    for folder in folders:
        folder.mkdir()
    return [WallClock(folder) for folder in folders]


def ahead(one: Board) -> set[int]:
    """By how many hours the clocks of those that hold leases are ahead."""
    hours = set()
    for lease in [p for room in ("cache", "out") for p in (one.root / room / ".leases").glob("[!.]*")]:
        with suppress(FileNotFoundError, IsADirectoryError):  # the work may end in this moment
            hours.add(round((json.loads(lease.read_text())["since"] - time.time()) / HOUR))
    return hours


def test_only_the_wall_clock_is_shifted(clocks: list[WallClock]) -> None:
    code = "import time, datetime; print(time.time(), datetime.datetime.now().timestamp(), time.monotonic())"
    clocks[0].set(-HOUR)
    env = {**os.environ, **clocks[0].env}
    said = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    wall, other, monotonic = map(float, said.split())
    assert abs(time.time() - HOUR - wall) < 60
    assert abs(other - wall) < 60
    assert 0 <= time.monotonic() - monotonic < 60


@pytest.mark.parametrize("hours", [-1, pytest.param(1, marks=pytest.mark.slow)], ids=["back", "forward"])
def test_a_clock_that_is_set_while_drivers_work(the_board: Board, clocks: list[WallClock], hours: int) -> None:
    """What was written before is an hour off by the new time; nobody is taken for dead, and nothing begun twice."""
    clock = clocks[0]
    clock.set(-hours * HOUR)
    drivers = [the_board.start(jobs=2, mode="slow", env={"UE_BENCH_LEASE_SECONDS": "5", **clock.env}) for _ in range(2)]
    eventually(lambda: len(the_board.logged("start")) >= 4 and len(the_board.logged("made")) >= 2, "both are at work")
    assert ahead(the_board) == {-hours}
    clock.set(0)
    for path in the_board.root.rglob("*"):
        try:
            was = path.stat().st_mtime
            os.utime(path, (was - hours * HOUR, was - hours * HOUR))
        except FileNotFoundError:  # a temporary name
            continue
    finish(*drivers)
    assert [driver.returncode for driver in drivers] == [0, 0]
    the_board.check()
    assert Counter(the_board.logged("start")) == Counter(NAMES)


@needs_namespaces
@pytest.mark.slow
def test_drivers_whose_clocks_are_two_hours_apart(the_board: Board, clocks: list[WallClock]) -> None:
    """As on two hosts; the death of either is noticed by the other as if their clocks agreed."""
    for clock, hours in zip(clocks, (-1, 1), strict=True):
        clock.set(hours * HOUR)
    late, early = [the_board.start(jobs=2, mode="slow", before=SEPARATE, env=clock.env) for clock in clocks]
    eventually(lambda: ahead(the_board) >= {-1, 1} and len(the_board.logged("made")) >= 2, "both are at work")
    late.kill()
    finish(early)
    assert early.returncode == 0
    the_board.check()
