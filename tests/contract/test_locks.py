"""Locks, also where the file system has none of its own."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ue_bench.contract.context import Context
from ue_bench.errors import EnvironmentProblem
from ue_bench.locks import hold

fcntl: Any = pytest.importorskip("fcntl", reason="of POSIX systems")


class Busy(Exception):
    """Another process has the lock."""


def refuse(advice: str) -> None:
    raise Busy(advice)


@pytest.fixture(params=["native", "ENOLCK", "ENOSYS", "EOPNOTSUPP", "EINVAL"])
def file_system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file system with locks, or one where flock fails with this error."""
    name: str = request.param
    if name != "native":

        def flock(fd: int, operation: int) -> None:
            raise OSError(getattr(errno, name), os.strerror(getattr(errno, name)))

        monkeypatch.setattr(fcntl, "flock", flock)
    return name


def test_one_at_a_time(tmp_path: Path, file_system: str) -> None:
    path = tmp_path / "a.lock"
    for _ in range(2):  # what the first left behind is in nobody's way
        with hold(path, refuse):
            with pytest.raises(Busy, match="wait for it to end"), hold(path, refuse):
                pass
            with hold(tmp_path / "b.lock", refuse):
                pass


def test_a_file_that_a_native_lock_left_is_in_nobodys_way(tmp_path: Path, file_system: str) -> None:
    (tmp_path / "a.lock").touch()
    with hold(tmp_path / "a.lock", refuse):
        pass


def test_released_after_an_error(tmp_path: Path, file_system: str) -> None:
    with pytest.raises(ZeroDivisionError), hold(tmp_path / "a.lock", refuse):
        raise ZeroDivisionError
    with hold(tmp_path / "a.lock", refuse):
        pass


@pytest.mark.skipif(os.name != "posix", reason="a process is killed")
@pytest.mark.parametrize("locks", [True, False])
def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path, locks: bool, monkeypatch: Any) -> None:
    code = f"""
import errno, fcntl, os, sys
from pathlib import Path
def flock(fd, operation):
    raise OSError(errno.ENOLCK, "No locks available")
if not {locks}:
    fcntl.flock = flock
from ue_bench.locks import hold
with hold(Path(sys.argv[1]), print):
    print("held", flush=True)
    sys.stdin.read()
"""
    if not locks:

        def flock(fd: int, operation: int) -> None:
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(fcntl, "flock", flock)
    path = tmp_path / "a.lock"
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(Busy), hold(path, refuse):
            pass
        holder.kill()
        holder.wait()
    with hold(path, refuse):
        pass


def test_a_waiting_process_gets_it_in_the_end(tmp_path: Path, file_system: str) -> None:
    first = hold(tmp_path / "a.lock", refuse)
    first.__enter__()
    said = []

    def let_go(advice: str) -> None:
        said.append(advice)
        first.__exit__(None, None, None)

    with hold(tmp_path / "a.lock", let_go):
        pass
    assert len(said) == 1


def test_what_cannot_be_locked_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(EnvironmentProblem, match="Input/output error"), hold(tmp_path / "a", refuse):
        pass


def test_plugins_can_keep_artifacts(tmp_path: Path, file_system: str) -> None:
    ctx = Context(device="cpu", seed=0, scratch=tmp_path, artifacts=tmp_path / "cache", data_dir=tmp_path)

    def make(folder: Path) -> None:
        (folder / "a.txt").write_text("a", encoding="utf-8")

    assert (ctx.cached("key", make) / "a.txt").read_text(encoding="utf-8") == "a"
