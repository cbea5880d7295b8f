"""Run a method and watch it: time, memory, and whether it drew from a global generator."""

from __future__ import annotations

import contextlib
import random
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from .. import machine
from ..contract.context import Context
from ..contract.imageset import ImageSet
from ..engine import memory
from ..errors import UserError, one_line
from .clock import OutOfTime, stoppable
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


def fresh(
    base: Context,
    seed: int,
    clean: ImageSet | None = None,
    rows: NDArray[np.int64] | None = None,
    queried: ImageSet | None = None,
) -> Context:
    """Return ``base`` with another seed and with no artifacts, so that what a plugin keeps is made again."""
    folder = Path(tempfile.mkdtemp(dir=base.scratch))
    (folder / "scratch").mkdir()
    return replace(
        base, seed=seed, scratch=folder / "scratch", artifacts=folder / "artifacts", clean=clean, rows=rows,
        queried=queried,
    )  # fmt: skip


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


class Watch:
    """Remembers a set that is given to a plugin, which must leave it as it is."""

    def __init__(self, data: ImageSet) -> None:
        self.data, self.images, self.labels = data, np.array(data.images), np.array(data.labels)

    def check(self, findings: Findings) -> None:
        """Check that images and labels are what they were."""
        same = np.array_equal(self.data.images, self.images) and np.array_equal(self.data.labels, self.labels)
        findings.hold("inputs", same, "left as they were" if same else "what was given is changed")


def _settings() -> dict[str, object]:
    """Return settings of the whole process that a plugin must leave alone."""
    import torch

    return {
        "torch's default type": torch.get_default_dtype(), "torch's gradients": torch.is_grad_enabled(),
        "torch's threads": torch.get_num_threads(), "NumPy's error state": tuple(np.geterr().items()),
        "torch's determinism": torch.are_deterministic_algorithms_enabled(), "the working folder": Path.cwd(),
    }  # fmt: skip


@contextlib.contextmanager
def _no_casts_of_nan(findings: Findings) -> Iterator[None]:
    """Find numbers that are not finite and became bytes: NumPy warns of them."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.filterwarnings("always", message="invalid value encountered in cast")
        yield
    casts = [w for w in seen if "invalid value encountered in cast" in str(w.message)]
    text = "numbers that are not finite become pixels" if casts else "no NaN becomes a pixel"
    findings.hold("finite", not casts, text)
    for other in seen:
        if other not in casts:
            warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)


def trial(work: Callable[[], T], device: str, run: int, findings: Findings) -> Trial[T]:
    """Do ``work`` with global generators seeded by ``run``. An exception is a finding, and raises Stop.

    A UserError is the user's to mend, such as a missing package, and passes.
    """
    memory.reset(device)
    before, settings = memory.peak_mb(device), _settings()
    with global_generators(run) as drawn:
        started = time.perf_counter()
        try:
            with _no_casts_of_nan(findings), stoppable():
                result = work()
                synchronise(device)
        except UserError:
            raise
        except OutOfTime as end:
            findings.note("time", f"stopped after {time.perf_counter() - started:.0f} s: nothing more was tried of it")
            raise Stop from end
        except (Exception, SystemExit) as error:  # the method of a third-party plugin may raise anything
            findings.check("runs", False, f"raises {one_line(error)}")
            raise Stop from error
        changed = [name for name, value in _settings().items() if value != settings[name]]
        findings.hold("settings", not changed, f"changes {changed[0]}" if changed else "those of the process stay")
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
