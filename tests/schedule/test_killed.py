"""Killing the driver and its workers from outside, as a user, a batch system or the kernel would."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import driver
from .helpers import DEADLINE, eventually, kill, processes, read_log

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in Linux' /proc")
OUTPUTS = sorted([*driver.PROTECTORS, *(p + c for p in driver.PROTECTORS for c in driver.COUNTERMEASURES)])


class Grid:
    """A folder that drivers fill, one driver after the other."""

    def __init__(self, root: Path) -> None:
        self.root, self.folder, self.marker = root, root / "out", f"TEST_DRIVER={uuid.uuid4().hex}"
        self.folder.mkdir()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, jobs: int = 2, mode: str = "short") -> subprocess.Popen[bytes]:
        name, _, value = self.marker.partition("=")
        with (self.root / "events").open("a") as events, (self.root / "stderr").open("a") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", driver.__name__, str(self.folder), str(jobs), mode],
                stdout=events,
                stderr=errors,
                env={**os.environ, name: value},
                cwd=Path(driver.__file__).parents[driver.__name__.count(".")],
                start_new_session=True,
            )
        return self.process

    def log(self) -> list[list[str]]:
        return read_log(self.root / "log")

    def count(self, *words: str) -> int:
        return sum(line[0] in words for line in self.log())

    def stored(self) -> dict[str, str]:
        return {p.name: p.read_text() for p in self.folder.iterdir() if not p.suffix}

    def all_gone(self) -> bool:
        return not processes(self.marker)


@pytest.fixture
def grid(tmp_path: Path) -> Iterator[Grid]:
    grid = Grid(tmp_path)
    yield grid
    for pid in processes(grid.marker):
        kill(pid)
    if grid.process:
        grid.process.wait()


def kill_and_check(grid: Grid, process: subprocess.Popen[bytes]) -> None:
    """Kill the driver; no process of it may be left, and what it stored must stay."""
    process.kill()
    process.wait()
    eventually(grid.all_gone, "workers leave with their driver")


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_grid_survives_kill_of_driver_and_workers(grid: Grid, seed: int) -> None:
    rng = random.Random(seed)
    before: dict[str, str] = {}
    drivers = 0
    while len(before) < len(OUTPUTS):
        drivers += 1
        assert drivers < 40
        process = grid.start()
        lines = len(grid.log()) + rng.randint(0, 8)
        eventually(lambda: len(grid.log()) >= lines or process.poll() is not None, "the driver gets on")  # noqa: B023
        if rng.random() < 0.5:  # first one of its children; the driver carries on
            kill(rng.choice([pid for pid in processes(grid.marker) if pid != process.pid] or [process.pid]))
            lines = len(grid.log()) + rng.randint(0, 4)
            eventually(lambda: len(grid.log()) >= lines or process.poll() is not None, "the driver gets on")  # noqa: B023
        kill_and_check(grid, process)
        stored = grid.stored()
        assert {name: stored[name] for name in before} == before
        before = stored
    assert grid.start().wait(DEADLINE) == 0  # nothing is left to do
    assert sorted(before) == OUTPUTS
    assert grid.count("again") == 0
    made = [name for word, name, *_ in grid.log() if word == "made"]
    assert len(made) == len(set(made))


def test_workers_killed_all_the_time(grid: Grid) -> None:
    """A task may be hit twice and fail; running again fills the gaps."""
    rng = random.Random(5)
    rounds = 0
    while sorted(grid.stored()) != OUTPUTS:
        rounds += 1
        assert rounds < 10
        process = grid.start()
        for _ in range(3):
            lines = len(grid.log()) + rng.randint(1, 4)
            eventually(lambda: len(grid.log()) >= lines or process.poll() is not None, "the driver gets on")  # noqa: B023
            busy = [int(line[2]) for line in grid.log()[-3:] if line[0] == "start"]
            for pid in set(busy) & set(processes(grid.marker)):
                kill(pid)
        assert process.wait(DEADLINE) in (0, 1)
        eventually(grid.all_gone, "workers leave with their driver")
    assert grid.count("again") == 0
    made = [name for word, name, *_ in grid.log() if word == "made"]
    assert len(made) == len(set(made))


@pytest.mark.parametrize(("mode", "word"), [("hold", "holding"), ("cling", "clinging")])
def test_no_worker_outlives_a_killed_driver(grid: Grid, mode: str, word: str) -> None:
    """Neither in native code that keeps the interpreter, nor where the kernel does not tell of a parent's death."""
    process = grid.start(mode=mode)
    eventually(lambda: grid.count(word) == 2, "both workers are busy")
    kill_and_check(grid, process)


def test_driver_killed_while_workers_start_up(grid: Grid) -> None:
    process = grid.start()
    eventually(lambda: len(processes(grid.marker)) > 2, "the driver has children")  # one is a tracker of its own
    kill_and_check(grid, process)


def test_terminated_driver_stops_its_workers(grid: Grid) -> None:
    process = grid.start(mode="cling")
    eventually(lambda: grid.count("clinging") == 2, "both workers are busy")
    process.terminate()
    assert process.wait(DEADLINE) == 128 + signal.SIGTERM
    eventually(grid.all_gone, "workers leave with their driver")
    assert "failed" not in (grid.root / "events").read_text()


def test_interrupt_of_the_whole_group_spares_the_workers_and_the_rest_can_follow(grid: Grid) -> None:
    """Ctrl-C in a terminal reaches workers too, here before they have run a line of Python."""
    process = grid.start(jobs=1, mode="interrupt")
    assert process.wait(DEADLINE) == 130
    events = [line.split() for line in (grid.root / "events").read_text().splitlines()]
    assert events == [["started", "a"], ["stopping"], ["done", "a"]]
    assert sorted(grid.stored()) == ["a"]
    assert (grid.root / "stderr").read_text() == ""
    eventually(grid.all_gone, "workers leave with their driver")
    before = grid.stored()
    assert grid.start().wait(DEADLINE) == 0
    after = grid.stored()
    assert sorted(after) == OUTPUTS
    assert after["a"] == before["a"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_grid_of_the_real_command_survives_a_kill(tmp_path: Path) -> None:
    marker = uuid.uuid4().hex
    out, cache = tmp_path / "out", tmp_path / "cache"
    command = [sys.executable, "-c", "from ue_bench.cli.main import main; main()", "run"]
    command += ["-D", "demo[train_per_class=20,test_per_class=10]", "-P", "none", "-C", "vanilla,gray,bdr"]
    command += ["--devices", "cpu", "--jobs", "1", "--out", str(out), "--cache-dir", str(cache)]

    def stored() -> dict[Path, bytes]:
        kinds = [*out.glob("results/**/*.json"), *out.glob("curves/*.json"), *cache.glob("protected/*/protect.json")]
        return {p.relative_to(tmp_path): p.read_bytes() for p in kinds}

    before: dict[Path, bytes] = {}
    try:
        for wanted in (1, 3):  # the protected set; a result with its curve
            with subprocess.Popen(command, stderr=subprocess.DEVNULL, env={**os.environ, "TEST": marker}) as process:
                eventually(lambda: len(stored()) >= wanted or process.poll() is not None, "it gets on", 600)  # noqa: B023
                process.kill()
            eventually(lambda: not processes(marker), "workers leave with their driver")
            after = stored()
            assert {name: after[name] for name in before} == before
            before = after
        last = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=True)
    finally:
        for pid in processes(marker):
            kill(pid)
    after = stored()
    results = sum("results" in p.parts for p in before)
    said = (
        f"{3 - results} of 3 cells to compute, {results} cached" if results < 3 else "nothing to compute, all 3 cells"
    )
    assert said in last.stderr
    assert len(after) == 1 + 3 + 3
    assert {name: after[name] for name in before} == before
    assert not list(out.rglob(".writing-*"))
