"""Time two ways of the same work in turn, so that whatever else the machine does falls on both.

``BENCH_SIZE=full`` in the environment measures at the sizes that claims are made at; the default is small enough for
the whole folder to run in some ten minutes on two cores.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from typing import TypeVar

import torch
from pytest_benchmark.fixture import BenchmarkFixture

from ue_bench.engine.precision import default_precision

T = TypeVar("T")
FULL = os.environ.get("BENCH_SIZE") == "full"


def sized(small: T, full: T) -> T:
    """Return ``full`` where the environment asks for full sizes, else ``small``."""
    return full if FULL else small


def clocks() -> tuple[float, float]:
    """Return seconds of the wall, and seconds of CPU of this process and the ended ones that it started."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return time.perf_counter(), sum(one.ru_utime + one.ru_stime for one in used)


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Return what ``work`` takes, as ``clocks`` counts."""
    wall, cpu = clocks()
    work()
    ended = clocks()
    return ended[0] - wall, ended[1] - cpu


def conditions() -> dict[str, str]:
    """Return what the table says of the whole run."""
    size = "full" if FULL else "small"
    return {"torch": torch.__version__, "precision": default_precision("cpu"), "size": size}


def in_pairs(
    benchmark: BenchmarkFixture,
    what: str,
    here: Callable[[], object],
    against: str,
    there: Callable[[], object],
    rounds: int = 5,
    prepare: Callable[[], object] = lambda: None,
    warm: bool = True,
) -> None:
    """Run ``there`` and ``here`` one after the other, ``rounds`` times, and note the seconds of both for ``summary``.

    ``what`` and ``against`` name the work and the other way of it; ``prepare`` comes before each of the two and is not
    timed; ``warm`` runs both once before.
    """
    taken: dict[str, list[tuple[float, float]]] = {"here": [], "there": []}

    def other_way() -> None:
        prepare()
        taken["there"].append(seconds(there))
        prepare()

    if warm:
        for work in (there, here):
            prepare()
            work()
    benchmark.pedantic(lambda: taken["here"].append(seconds(here)), setup=other_way, rounds=rounds)
    benchmark.extra_info.update({"what": what, "against": against, **taken, **conditions()})
    assert len(taken["here"]) == len(taken["there"]) >= 1
