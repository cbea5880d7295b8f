"""One board, many drivers and every kind of fault: nothing is lost, nothing done twice, nothing changed."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import board
from .helpers import eventually, kill, processes, read_log

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in Linux' /proc")
CELLS = sorted(p + c for p in board.PROTECTORS for c in board.COLUMNS)
NAMES = sorted([*board.PROTECTORS, *CELLS])
DEADLINE = 90.0


def permitted(*arguments: str) -> bool:
    """Whether ``unshare`` may do this here."""
    if not shutil.which("unshare"):
        return False
    return subprocess.run(["unshare", *arguments, "true"], capture_output=True, check=False).returncode == 0


ROOT = () if os.geteuid() == 0 else ("--user", "--map-root-user")
needs_mounts = pytest.mark.skipif(not permitted(*ROOT, "--mount"), reason="mounts are not permitted here")
needs_namespaces = pytest.mark.skipif(
    not permitted(*ROOT, "--pid", "--fork", "--uts", "--mount-proc"), reason="namespaces are not permitted here"
)


class Board:
    """A folder that any number of drivers fill."""

    def __init__(self, root: Path) -> None:
        self.root, self.marker = root, f"TEST_BOARD={uuid.uuid4().hex}"
        self.drivers: list[subprocess.Popen[str]] = []

    def start(
        self, jobs: int = 2, mode: str = "short", before: tuple[str, ...] = (), folder: Path | None = None, **env: str
    ) -> subprocess.Popen[str]:
        name, _, value = self.marker.partition("=")
        command = [*before, sys.executable, "-m", board.__name__, str(folder or self.root), str(jobs), mode]
        self.drivers.append(
            subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env={**os.environ, name: value, "UE_BENCH_LEASE_SECONDS": "1.2", **env},
                cwd=Path(board.__file__).parents[board.__name__.count(".")],
                start_new_session=True,
            )
        )
        return self.drivers[-1]

    def log(self) -> list[list[str]]:
        return read_log(self.root / "log")

    def logged(self, word: str) -> list[str]:
        return [line[1] for line in self.log() if line[0] == word]

    def stored(self) -> dict[str, str]:
        cells = {p.name: p.read_text() for p in (self.root / "out" / "cells").glob("[!.]*")}
        tokens = (self.root / "cache" / "protected").glob("[!.]*/token")
        return cells | {p.parent.name: p.read_text() for p in tokens}

    def check(self, before: dict[str, str] | None = None) -> None:
        """Everything is there, was made once, and is what it was ``before``."""
        stored = self.stored()
        assert sorted(name for name in stored if name in CELLS) == CELLS
        assert len(stored) == len(NAMES)
        made = Counter(self.logged("made"))
        assert {name: count for name, count in made.items() if count > 1} == {}
        assert self.logged("again") == []
        assert {name: stored[name] for name in before or {}} == (before or {})

    def leases(self) -> list[str]:
        return [p.name for r in ("cache", "out") for p in (self.root / r / ".leases").glob("[!.]*") if p.is_file()]


def finish(*drivers: subprocess.Popen[str]) -> list[str]:
    """What drivers print, once all have ended."""
    return [driver.communicate(timeout=DEADLINE)[0] for driver in drivers]


@pytest.fixture
def the_board(tmp_path: Path) -> Iterator[Board]:
    one = Board(tmp_path)
    yield one
    for pid in processes(one.marker):
        kill(pid)
    for driver in one.drivers:
        if driver.stdout and not driver.stdout.closed:
            driver.communicate()


def kill_drivers(one: Board, times: int, seed: int) -> None:
    """Kill drivers at random points in mid-work; begin with a new board whenever one is full."""
    rng = random.Random(seed)
    before: dict[str, str] = {}
    number = 0
    while times:
        driver = one.start()
        lines = len(one.log()) + rng.randint(1, 9)
        eventually(lambda: len(one.log()) >= lines or driver.poll() is not None, "the driver gets on")  # noqa: B023
        time.sleep(rng.uniform(0, 0.06))
        if driver.poll() is None:
            times -= 1
        driver.kill()
        eventually(lambda: not processes(one.marker), "workers leave with their driver")
        driver.communicate()
        after = one.stored()
        assert {name: after[name] for name in before} == before
        before = after
        if len(before) == len(NAMES):
            one.check(before)
            number += 1
            one.root = one.root.parent / f"board {number}"
            one.root.mkdir()
            before = {}
    assert finish(one.start())[0].endswith("end\n")
    one.check(before)
    assert one.leases() == []


def test_drivers_killed_in_mid_work(the_board: Board) -> None:
    kill_drivers(the_board, 20, seed=0)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_drivers_killed_100_times_in_mid_work(the_board: Board, seed: int) -> None:
    kill_drivers(the_board, 100, seed)


def test_four_drivers_share_the_work(the_board: Board) -> None:
    said = finish(*(the_board.start(jobs=1, mode="slow") for _ in range(4)))
    the_board.check()
    assert Counter(the_board.logged("start")) == Counter(NAMES)  # not even begun twice
    done = [sum(line.startswith("done") for line in text.splitlines()) for text in said]
    assert sum(done) == len(NAMES)
    assert sum(count > 0 for count in done) > 1
    assert the_board.leases() == []
    assert all(driver.returncode == 0 for driver in the_board.drivers)


@needs_namespaces
def test_drivers_that_cannot_see_each_others_processes(the_board: Board) -> None:
    """As on two nodes or in two containers: one is killed, and the others take over what it held."""
    before = [("unshare", *ROOT, "--pid", "--fork", "--kill-child", "--uts", "--mount-proc") for _ in range(2)]
    first = the_board.start(jobs=2, mode="slow", before=before[0])
    eventually(lambda: len(the_board.logged("start")) >= 2, "the first driver is at work")
    second = the_board.start(jobs=1, mode="slow", before=before[1])
    third = the_board.start(jobs=1, mode="slow")
    eventually(lambda: len(the_board.logged("made")) >= 4, "work goes on")
    first.kill()
    finish(first, second, third)
    assert (second.returncode, third.returncode) == (0, 0)
    the_board.check()


def test_a_driver_that_stood_still_loses_its_work_and_does_nothing_twice(the_board: Board) -> None:
    """As a laptop that was closed: others take over, and it goes on with what is left."""
    first = the_board.start(jobs=2, mode="slow")
    eventually(lambda: len(the_board.logged("start")) >= 2, "the first driver is at work")
    asleep = processes(the_board.marker)
    for pid in asleep:
        os.kill(pid, signal.SIGSTOP)
    second = the_board.start(jobs=2, mode="short")
    finish(second)
    before = the_board.stored()
    for pid in asleep:
        os.kill(pid, signal.SIGCONT)
    finish(first)
    assert (first.returncode, second.returncode) == (0, 0)
    the_board.check(before)


@pytest.mark.slow
def test_workers_of_a_driver_that_stands_still_give_way(the_board: Board) -> None:
    """Only the driver is stopped: its workers go on until somebody else has taken their work."""
    first = the_board.start(jobs=2, mode="slow")
    eventually(lambda: len(the_board.logged("start")) >= 2, "the first driver is at work")
    os.kill(first.pid, signal.SIGSTOP)
    second = the_board.start(jobs=2, mode="short")
    finish(second)
    os.kill(first.pid, signal.SIGCONT)
    finish(first)
    assert (first.returncode, second.returncode) == (0, 0)
    the_board.check()


@pytest.mark.slow
def test_a_worker_without_a_sign_of_life_is_killed_and_its_cell_tried_again(the_board: Board) -> None:
    [said] = finish(the_board.start(mode="hang", BOARD_SILENCE="4"))
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


@pytest.mark.parametrize("times", [1, 2])
def test_interrupts(the_board: Board, times: int) -> None:
    """The first lets running stages end, the second stops them; the same command continues."""
    driver = the_board.start(mode="slow" if times == 1 else "long")
    eventually(lambda: len(the_board.logged("start")) == 2, "two stages run")
    for _ in range(times):
        driver.send_signal(signal.SIGINT)
        time.sleep(1.0 if times == 2 else 0)
    [said] = finish(driver)
    assert driver.returncode == 130
    assert len(the_board.logged("made")) == (2 if times == 1 else 0)
    assert "failed" not in said
    eventually(lambda: not processes(the_board.marker), "workers leave with their driver")
    before = the_board.stored()
    finish(the_board.start())
    the_board.check(before)


MOUNTED = """
set -e
mkdir -p "$1/$2"
mount -t tmpfs -o size=2m none "$1/$2"
code=0; "$PYTHON" -m schedule.board "$1" 2 "$3" || code=$?
echo "first $code"
mount -o remount,size=60m none "$1/$2"
code=0; "$PYTHON" -m schedule.board "$1" 2 short || code=$?
echo "second $code"
mkdir "$1/kept"; cp -r "$1/out/cells" "$1/kept/"
"""


@needs_mounts
@pytest.mark.parametrize("where", ["out", pytest.param("cache", marks=pytest.mark.slow)])
def test_a_full_disk_stops_the_run_in_one_line_and_loses_nothing(the_board: Board, where: str) -> None:
    command = ["unshare", *ROOT, "--mount", "sh", "-c", MOUNTED, "sh", str(the_board.root), where, f"big {where}"]
    ran = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE,
        env={**os.environ, "PYTHON": sys.executable, "BOARD_LOG": str(the_board.root / "log")},
        cwd=Path(board.__file__).parents[board.__name__.count(".")],
    )
    assert "first 3" in ran.stdout, ran.stdout + ran.stderr
    assert "second 0" in ran.stdout, ran.stdout + ran.stderr
    [problem] = [line for line in ran.stdout.splitlines() if line.startswith("problem")]
    assert "No space left on device" in problem
    assert "failed" not in ran.stdout
    assert "Traceback" not in ran.stdout + ran.stderr
    assert sorted(p.name for p in (the_board.root / "kept" / "cells").glob("[!.]*")) == CELLS
    assert {n for n, count in Counter(the_board.logged("made")).items() if count > 1} == set()


VANISHING = """
set -e
mkdir -p "$1/out"
mount -t tmpfs none "$1/out"
"$PYTHON" -m schedule.board "$1" 2 slow & driver=$!
while [ "$(cat "$1/log" 2>/dev/null | grep -c made)" -lt 3 ]; do sleep 0.05; done
umount -l "$1/out"
code=0; wait $driver || code=$?
echo "first $code"
"""


@needs_mounts
@pytest.mark.slow  # seconds as a rule, over a minute now and then
def test_a_results_folder_that_vanishes_stops_the_run(the_board: Board) -> None:
    command = ["unshare", *ROOT, "--mount", "sh", "-c", VANISHING, "sh", str(the_board.root)]
    env = {**os.environ, "PYTHON": sys.executable, "UE_BENCH_LEASE_SECONDS": "1.5"}
    ran = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=DEADLINE, env=env,
        cwd=Path(board.__file__).parents[board.__name__.count(".")],
    )  # fmt: skip
    assert "first 3" in ran.stdout, ran.stdout + ran.stderr
    # Whichever notices first, a claim or the lease that is kept: one line that names the folder.
    [problem] = [line for line in ran.stdout.splitlines() if line.startswith("problem:")]
    assert str(the_board.root / "out") in problem
    assert "failed" not in ran.stdout
    assert not list((the_board.root / "out").glob("cells/*"))  # nothing was written beside the folder
