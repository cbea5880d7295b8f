"""In a process of its own: how memory is kept cannot be undone."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ue_bench.engine import memory

pytestmark = pytest.mark.skipif(memory._gnu_libc() is None, reason="the C library is not GNU's")

# Twenty blocks of 16 MB that are written and freed, twice; then what is resident before and after giving it back.
CODE = """
import resource, sys
from pathlib import Path
import numpy as np
from ue_bench.engine import memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    [np.full(2**24, 1, np.uint8) for _ in range(20)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

memory.keep_freed()
faults()
print(faults(), resident())
memory.reset("cpu")
print(resident())
"""


def measure(environment: dict[str, str]) -> list[int]:
    given = {name: value for name, value in os.environ.items() if name not in memory.CHOSEN} | environment
    out = subprocess.run([sys.executable, "-c", CODE], check=True, capture_output=True, text=True, env=given).stdout
    return [int(word) for word in out.split()]


def test_freed_memory_is_used_again_and_given_back_between_pieces_of_work() -> None:
    faults, kept, rest = measure({})
    assert faults < 100  # pages; all of the blocks are at least 160, of 2 MB
    assert kept - rest > 300 * 2**20


def test_what_the_environment_says_of_memory_holds() -> None:
    faults, _, _ = measure({"MALLOC_MMAP_THRESHOLD_": "65536"})
    assert faults >= 160
