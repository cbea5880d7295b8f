"""Keep this process's memory from one step to the next, and measure the peak of one piece of work.

The peak is that of the device where it counts itself, else of this process.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from pathlib import Path

# Of <malloc.h> of the GNU C library, and what it reads from the environment instead.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
CHOSEN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES")
KEPT = 2**30  # bytes at most that are free and not given back
LARGEST_MMAP_THRESHOLD = 32 * 2**20  # bytes: the C library takes no larger one


def keep_freed() -> None:
    """Let this process keep memory that a training step has freed for the next one, which allocates the same.

    Else the system clears the same pages for every step. Nothing is done where the C library is another than GNU's, or
    the environment tells it something.
    """
    libc = _gnu_libc()
    if libc is not None and not any(os.environ.get(name) for name in CHOSEN):
        libc.mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)
        libc.mallopt(M_TRIM_THRESHOLD, KEPT)


def give_back() -> None:
    """Give memory that is free back to the system, where the C library is GNU's."""
    libc = _gnu_libc()
    if libc is not None:
        libc.malloc_trim(0)


def _gnu_libc() -> ctypes.CDLL | None:
    """Return the C library of this process if it is GNU's."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "gnu_get_libc_version") else None


def reset(device: str) -> None:
    """Forget earlier peaks, and what is only kept from earlier work."""
    give_back()
    if device.startswith("cuda"):
        import torch

        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        with contextlib.suppress(OSError):  # not permitted everywhere; the peak is then the process's since its start
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_mb(device: str) -> float:
    """Return the largest memory since ``reset`` in MB (10^6 bytes): of the GPU, or resident in this process."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.max_memory_allocated(device) / 1e6
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024 / 1e6
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
