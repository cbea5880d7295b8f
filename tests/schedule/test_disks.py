"""Disks that are full or go away while drivers work: one line, exit code 3, and the same command continues."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest

from .board_drivers import CELLS, DEADLINE, ROOT, TESTS, Board, needs_mounts, needs_proc

pytestmark = [needs_proc, needs_mounts]

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
        cwd=TESTS,
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


@pytest.mark.slow  # seconds as a rule, over a minute now and then
def test_a_results_folder_that_vanishes_stops_the_run(the_board: Board) -> None:
    command = ["unshare", *ROOT, "--mount", "sh", "-c", VANISHING, "sh", str(the_board.root)]
    env = {**os.environ, "PYTHON": sys.executable, "UE_BENCH_LEASE_SECONDS": "1.5"}
    ran = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=DEADLINE, env=env,
        cwd=TESTS,
    )  # fmt: skip
    assert "first 3" in ran.stdout, ran.stdout + ran.stderr
    # Whichever notices first, a claim or the lease that is kept: one line that names the folder.
    [problem] = [line for line in ran.stdout.splitlines() if line.startswith("problem:")]
    assert str(the_board.root / "out") in problem
    assert "failed" not in ran.stdout
    assert not list((the_board.root / "out").glob("cells/*"))  # nothing was written beside the folder
