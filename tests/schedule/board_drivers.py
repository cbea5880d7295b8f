"""Drivers of light stages as processes of their own: starting them, killing them, and what must hold in the end."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from . import board
from .helpers import read_log

CELLS = sorted(p + c for p in board.PROTECTORS for c in board.COLUMNS)
NAMES = sorted([*board.PROTECTORS, *CELLS])
DEADLINE = 90.0
TESTS = Path(board.__file__).parents[board.__name__.count(".")]

needs_proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in Linux' /proc")


def permitted(*arguments: str) -> bool:
    """Whether ``unshare`` may do this here."""
    if not shutil.which("unshare"):
        return False
    return subprocess.run(["unshare", *arguments, "true"], capture_output=True, check=False).returncode == 0


ROOT = () if os.geteuid() == 0 else ("--user", "--map-root-user")
needs_mounts = pytest.mark.skipif(not permitted(*ROOT, "--mount"), reason="mounts are not permitted here")
needs_namespaces = pytest.mark.skipif(
    not permitted(*ROOT, "--pid", "--fork", "--kill-child", "--uts", "--mount-proc"),
    reason="namespaces are not permitted here",
)
# How a command begins that runs as on a node of its own: with its own processes and its own host name.
NAME = 'hostname "node-$(od -An -N4 -tx4 /dev/urandom | tr -d " ")" && exec "$@"'
SEPARATE = ("unshare", *ROOT, "--pid", "--fork", "--kill-child", "--uts", "--mount-proc", "sh", "-c", NAME, "sh")


class Board:
    """A folder that any number of drivers fill."""

    def __init__(self, root: Path) -> None:
        self.root, self.marker = root, f"TEST_BOARD={uuid.uuid4().hex}"
        self.drivers: list[subprocess.Popen[str]] = []

    def start(
        self, jobs: int = 2, mode: str = "short", before: Sequence[str] = (), env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Start a driver; ``before`` is what the command begins with."""
        name, _, value = self.marker.partition("=")
        command = [*before, sys.executable, "-m", board.__name__, str(self.root), str(jobs), mode]
        self.drivers.append(
            subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env={**os.environ, name: value, "UE_BENCH_LEASE_SECONDS": "1.2", **(env or {})},
                cwd=TESTS,
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

    def check(self, before: dict[str, str] | None = None, taken_over: bool = False) -> None:
        """Everything is there, was made once, and is what it was ``before``.

        Where work of a process that lives was ``taken_over``, that one may have come second with it, and gone away.
        """
        stored = self.stored()
        assert sorted(name for name in stored if name in CELLS) == CELLS
        assert len(stored) == len(NAMES)
        made = Counter(self.logged("made"))
        assert {name: count for name, count in made.items() if count > 1} == {}
        assert self.logged("again") == [] or taken_over
        assert {name: stored[name] for name in before or {}} == (before or {})

    def check_unchanged(self, before: dict[str, str]) -> dict[str, str]:
        """What was stored ``before`` is the same now; return all that is."""
        stored = self.stored()
        assert {name: stored[name] for name in before} == before
        return stored

    def next(self) -> None:
        """Go on with an empty folder beside this one."""
        self.root = self.root.parent / f"board {len(list(self.root.parent.iterdir()))}"
        self.root.mkdir()

    def leases(self) -> list[str]:
        return [p.name for r in ("cache", "out") for p in (self.root / r / ".leases").glob("[!.]*") if p.is_file()]


def finish(*drivers: subprocess.Popen[str]) -> list[str]:
    """What drivers print, once all have ended."""
    return [driver.communicate(timeout=DEADLINE)[0] for driver in drivers]
