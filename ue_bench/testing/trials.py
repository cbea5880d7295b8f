"""Run a method and watch it: time, memory, and whether it drew from a global generator."""

from __future__ import annotations

import contextlib
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from .. import machine
from ..contract.context import Context
from ..contract.imageset import ImageSet
from ..engine import memory
from ..errors import UserError, one_line
from .findings import Findings

T = TypeVar("T")
LEAST_SECONDS, LONG_SECONDS = 0.2, 2.0  # a measurement goes on for the one, and is not repeated after the other


@dataclass(frozen=True)
class Trial(Generic[T]):
    """The result of a run, its time, the memory it grew by in MB, and whether global generators were drawn from."""

    result: T
    seconds: float
    memory_mb: float
    drew: bool


class Stop(Exception):
    """A trial failed, which the findings say: no more can be learned of it."""


def fresh(base: Context, seed: int, clean: ImageSet | None = None) -> Context:
    """Return ``base`` with another seed and with no artifacts, so that what a plugin keeps is made again."""
    folder = Path(tempfile.mkdtemp(dir=base.scratch))
    (folder / "scratch").mkdir()
    return replace(base, seed=seed, scratch=folder / "scratch", artifacts=folder / "artifacts", clean=clean)


@contextlib.contextmanager
def global_generators(seed: int) -> Iterator[Callable[[], bool]]:
    """Seed the generators that everybody shares, and give a function that says whether they were drawn from since.

    They are as before afterwards.
    """
    import torch

    kept, old = random.getstate(), np.random.get_state()  # noqa: NPY002  # it is the global one that is watched
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            random.seed(seed)
            np.random.seed(seed)  # noqa: NPY002
            torch.manual_seed(seed)
            before = _states()
            yield lambda: _states() != before
        finally:
            random.setstate(kept)
            np.random.set_state(old)  # noqa: NPY002


def _states() -> tuple[object, ...]:
    import torch

    name, keys, *rest = np.random.get_state()  # noqa: NPY002
    cuda = [s.numpy().tobytes() for s in torch.cuda.get_rng_state_all()] if torch.cuda.is_initialized() else []
    return random.getstate(), name, np.asarray(keys).tobytes(), *rest, torch.get_rng_state().numpy().tobytes(), *cuda


def trial(work: Callable[[], T], device: str, run: int, findings: Findings) -> Trial[T]:
    """Do ``work`` with global generators seeded by ``run``. An exception is a finding, and raises Stop.

    A UserError is the user's to mend, such as a missing package, and passes.
    """
    memory.reset(device)
    before = memory.peak_mb(device)
    with global_generators(run) as drawn:
        started = time.perf_counter()
        try:
            result = work()
            synchronise(device)
        except UserError:
            raise
        except Exception as error:  # the method of a third-party plugin may raise anything
            findings.check("runs", False, f"raises {one_line(error)}")
            raise Stop from error
        return Trial(result, time.perf_counter() - started, max(0.0, memory.peak_mb(device) - before), drawn())


def synchronise(device: str) -> None:
    """Wait until a GPU has done what it was given."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)


def shortest(device: str, *works: Callable[[], object]) -> list[float]:
    """Return the seconds of each of ``works``: the shortest of repetitions in turn, three and more of short ones."""
    seconds, spent, rounds = [float("inf")] * len(works), 0.0, 0
    with global_generators(0):
        while not rounds or (spent < LONG_SECONDS and (rounds < 3 or spent < LEAST_SECONDS)):
            for number, work in enumerate(works):
                started = time.perf_counter()
                work()
                synchronise(device)
                took = time.perf_counter() - started
                seconds[number], spent = min(seconds[number], took), spent + took
            rounds += 1
    return seconds


def here(device: str) -> str:
    """Return what a time was measured on."""
    import torch

    threads = torch.get_num_threads()
    many = f", {threads} thread{'s' if threads > 1 else ''}" if device == "cpu" else ""
    return f"measured here ({device}, {machine.label(device)}{many})"


def note_cost(findings: Findings, seconds: float, memory_mb: float | None, images: int, device: str) -> None:
    """Note time and memory for one image and the whole sample."""
    each = 1000 * seconds / images
    findings.note("cost", f"{each:.3g} ms an image, {here(device)}", milliseconds=each)
    if memory_mb is not None:
        findings.note("memory", f"{memory_mb:.0f} MB at most for {images} images, beside them", megabytes=memory_mb)


def check_generators(findings: Findings, drew: bool, same: bool, differs: bool) -> None:
    """Check what depends on seeds: ``same`` for one seed twice, ``differs`` for another seed.

    ``drew`` says whether a global generator was used, which is seeded otherwise in every run. Ask a second run: the
    first one imports libraries, and some of them draw while they are imported.
    """
    text = "the same seed gives the same result" if same else "the same seed gives another result"
    findings.check("seed", same, text, deterministic=same)
    if same:
        text = "another seed gives another result" if differs else "none: another seed gives the same result"
        findings.note("randomness", text, random=differs)
    text = "draws from a global generator" if drew else "global ones are left alone"
    findings.check("generators", not drew, text, drew=drew)
