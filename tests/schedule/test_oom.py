"""Stages that take memory until there is none: told from other deaths, tried once more alone, recorded as ``oom``."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ue_bench.schedule import oom
from ue_bench.schedule.oom import OutOfMemoryKills

from .board_drivers import CELLS, Board, finish, needs_proc
from .helpers import eventually

LIMIT = 200_000_000  # bytes: a driver and two workers of light stages take some 100 MB


def a_process(root: Path, groups: str, mounts: str) -> Path:
    """A folder that tells of a process as /proc does."""
    (root / "proc").mkdir()
    (root / "proc" / "cgroup").write_text(groups)
    (root / "proc" / "mountinfo").write_text(mounts.format(root=root))
    return root / "proc"


@pytest.mark.parametrize(
    ("groups", "mounts", "file"),
    [
        ("0::/user.slice/a b\n", "30 1 0:2 / {root}/cg rw - cgroup2 cgroup rw\n", "user.slice/a b/memory.events.local"),
        ("0::/user.slice/a\n", "30 1 0:2 / {root}/cg rw - cgroup2 cgroup rw\n", "user.slice/a/memory.events"),
        ("0::/\n", "30 1 0:2 / {root}/cg rw - cgroup2 cgroup rw\n", "memory.events"),
        (
            "5:cpuset:/\n4:memory:/jobs/7\n0::/\n",
            "30 1 0:2 / {root}/cpu rw - cgroup cgroup rw,cpu\n31 1 0:3 / {root}/cg rw - cgroup cgroup rw,memory\n"
            "32 1 0:4 / {root}/unified rw - cgroup2 cgroup2 rw\n",
            "jobs/7/memory.oom_control",
        ),
        # A container: what is mounted is the part of the tree in which the process is.
        ("4:memory:/docker/1\n", "31 1 0:3 /docker/1 {root}/cg rw - cgroup cgroup rw,memory\n", "memory.oom_control"),
    ],
    ids=["v2", "v2 before 5.2", "v2 namespace", "v1", "v1 container"],
)
def test_kills_are_read_from_the_cgroup_of_the_process(tmp_path: Path, groups: str, mounts: str, file: str) -> None:
    path = tmp_path / "cg" / file
    path.parent.mkdir(parents=True)
    path.write_text("low 0\noom 4\noom_kill 3\noom_group_kill 0\n")
    kills = OutOfMemoryKills(a_process(tmp_path, groups, mounts))
    assert kills.count() == 3
    path.write_text("oom_kill 4\n")
    assert [kills.hit(4), kills.hit(3), kills.hit(3)] == [False, True, False]  # one kill accounts for one worker
    path.write_text("oom_kill 6\n")
    assert [kills.hit(3), kills.hit(3), kills.hit(3)] == [True, True, False]


def test_where_the_system_does_not_tell_nothing_is_claimed(tmp_path: Path) -> None:
    assert OutOfMemoryKills(tmp_path / "none").count() is None
    assert OutOfMemoryKills(tmp_path / "none").hit(None) is None


@needs_proc
def test_workers_are_killed_before_their_driver(the_board: Board) -> None:
    own = int(Path("/proc/self/oom_score_adj").read_text())
    driver = the_board.start(jobs=1, mode="slow")
    eventually(lambda: the_board.logged("start"), "it is at work")
    worker = int(the_board.log()[0][2])
    scores = [int(Path(f"/proc/{pid}/oom_score_adj").read_text()) for pid in (driver.pid, worker)]
    assert scores == [own, max(own, oom.MORE_LIKELY)]


def check_hog(one: Board, said: str) -> None:
    """One stage failed as oom, after a second attempt; the driver lived on and did the others."""
    assert one.drivers[-1].returncode == 1, said
    [failure] = [json.loads(p.read_text()) for p in (one.root / "out" / "failures").glob("*.json")]
    assert (failure["id"], failure["kind"], failure["attempts"]) == ("train aw", "oom", 2)
    assert sorted(name for name in one.stored() if name in CELLS) == [name for name in CELLS if name != "aw"]


@needs_proc
def test_a_stage_without_limit_meets_that_of_its_address_space(the_board: Board) -> None:
    [said] = finish(the_board.start(mode="hog", env={"BOARD_ROOM": "100_000_000"}))
    assert "crashed train aw MemoryError" in said
    check_hog(the_board, said)


@pytest.fixture
def cgroup() -> Iterator[Callable[[int], Path]]:
    """Make a memory cgroup with a limit in bytes, below that of this process."""
    made: list[Path] = []

    def make(limit: int) -> Path:
        for parent in OutOfMemoryKills()._folders():
            folder = parent / f"test-{uuid.uuid4().hex}"
            try:
                folder.mkdir()
                made.append(folder)
                [file] = [folder / n for n in ("memory.max", "memory.limit_in_bytes") if (folder / n).exists()]
                file.write_text(str(limit))
                for swap, room in (("memory.swap.max", 0), ("memory.memsw.limit_in_bytes", limit)):
                    with contextlib.suppress(OSError):  # a system without swap
                        if (folder / swap).exists():
                            (folder / swap).write_text(str(room))
            except (OSError, ValueError) as error:
                pytest.skip(f"no memory cgroup can be made here: {error}")
            return folder
        pytest.skip("this process is in no memory cgroup")

    yield make
    for folder in made:
        eventually(lambda: not (folder / "cgroup.procs").read_text(), "its processes have ended")  # noqa: B023
        folder.rmdir()


@needs_proc
def test_a_stage_that_the_kernel_kills_for_its_memory(the_board: Board, cgroup: Callable[[int], Path]) -> None:
    group = cgroup(LIMIT)
    enter = ("sh", "-c", f'echo $$ > "{group}/cgroup.procs" && exec "$@"', "sh")
    [said] = finish(the_board.start(mode="hog", before=enter))
    assert "crashed train aw the worker died (SIGKILL: the kernel found no more memory)" in said
    check_hog(the_board, said)
