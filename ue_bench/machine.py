"""Ask what this machine offers, and where things go on it by default.

Torch is asked in a process of its own, so that the process which only plans and waits does not hold it in memory. On a
Linux PC without an accelerator Linux is asked instead, which takes no time.
"""

from __future__ import annotations

import contextlib
import importlib.util
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


# In /dev where torch may find an accelerator: NVIDIA's driver, the one of its boards, AMD's, and Windows' for WSL.
ACCELERATORS = ("nvidia*", "nvhost*", "nvgpu*", "kfd", "dxg")
VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
# What Linux calls the instructions that ``engine.precision`` asks torch for.
MULTIPLIES_BFLOAT16 = {"amx_tile", "avx512_bf16"}


@cache
def devices() -> tuple[Device, ...]:
    """Return the devices of this machine, best first. Raises EnvironmentProblem when torch, if asked, does not work."""
    return _processor_alone() or ask_torch()


def ask_torch() -> tuple[Device, ...]:
    """Return the devices that torch finds, best first. Raises EnvironmentProblem when it does not work."""
    code = "from ue_bench.machine import _report; _report()"
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if asked.returncode:
        last = (asked.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise torch_problem(last)
    return tuple(Device(**d) for d in json.loads(asked.stdout.splitlines()[-1]))


def torch_problem(reason: str) -> EnvironmentProblem:
    """Return the error that says why torch does not work."""
    return EnvironmentProblem(f"torch does not work here: {reason}", "see 'ue-bench doctor'")


def _processor_alone(dev: Path = Path("/dev"), info: Path = Path("/proc/cpuinfo")) -> tuple[Device, ...]:
    """Return the processor where torch can find nothing beside it; nothing where torch has to be asked.

    That is Linux on x86-64 without a driver of an accelerator, and nobody has chosen one by an environment variable.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64" or importlib.util.find_spec("torch") is None:
        return ()
    if any(os.environ.get(name) for name in VISIBLE) or any(True for node in ACCELERATORS for _ in dev.glob(node)):
        return ()
    try:
        lines = info.read_text(encoding="utf-8").splitlines()
    except OSError:
        return ()
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), None)
    if flags is None:
        return ()
    return (Device("cpu", label("cpu"), "fp32" if MULTIPLIES_BFLOAT16.isdisjoint(flags) else "bf16"),)


def _report() -> None:
    """Print the devices as JSON: what the other process runs."""
    import torch

    from .engine.precision import default_precision

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
