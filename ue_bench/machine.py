"""Ask what this machine offers, and where things go on it by default.

Torch is asked in a process of its own, so that the process which only plans and waits does not hold it in memory.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from .errors import EnvironmentProblem


@dataclass(frozen=True)
class Device:
    """A torch device: its name for torch, what it is, and the precision it computes fastest in."""

    name: str
    label: str
    precision: str


@cache
def devices() -> tuple[Device, ...]:
    """Return the devices of this machine, best first. Raises EnvironmentProblem when torch does not work."""
    code = "from ue_bench.machine import _report; _report()"
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if asked.returncode:
        last = (asked.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise EnvironmentProblem(f"torch does not work here: {last}", "see 'ue-bench doctor'")
    return tuple(Device(**d) for d in json.loads(asked.stdout.splitlines()[-1]))


def _report() -> None:
    """Print the devices as JSON: what the other process runs."""
    import torch

    from .engine.loop import default_precision

    names = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    if torch.backends.mps.is_available():
        names.append("mps")
    names.append("cpu")
    print(json.dumps([asdict(Device(n, label(n), default_precision(n))) for n in names], allow_nan=False))


@cache
def label(device: str) -> str:
    """Return the accelerator's name, or the processor's."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Run a block with torch on ``count`` threads, and as before afterwards."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def usable_cores() -> int:
    """Return the number of cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cache_dir() -> Path:
    """Return where datasets and protected sets are kept: UE_BENCH_CACHE, else the user's cache folder."""
    import platformdirs

    return Path(os.environ.get("UE_BENCH_CACHE") or platformdirs.user_cache_path("ue-bench")).absolute()


def data_dir(cache: Path) -> Path:
    """Return where datasets are read from and downloaded to: UE_BENCH_DATA, else ``data`` in the cache folder."""
    return Path(os.environ.get("UE_BENCH_DATA") or cache / "data").absolute()
