"""Where work is done: folders, device and threads, and what a result says of them."""

from __future__ import annotations

import contextlib
import platform
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .. import __version__, machine
from ..store import schema


@dataclass(frozen=True)
class RunEnvironment:
    """Where a stage finds and puts things, and what it runs on."""

    cache_dir: Path
    data_dir: Path
    out: Path
    device: str = "cpu"
    threads: int = 1

    @classmethod
    def of(
        cls,
        cache_dir: Path | None,
        data_dir: Path | None,
        out: Path | None = None,
        device: str = "cpu",
        threads: int = 1,
    ) -> RunEnvironment:
        """Return an environment whose folders, where they are not given, are this machine's.

        These are UE_BENCH_CACHE or the user's cache folder, UE_BENCH_DATA or ``data`` in it; ``out`` defaults to the
        cache, for work that has no results.
        """
        cache = (cache_dir or machine.cache_dir()).absolute()
        data = (data_dir or machine.data_dir(cache)).absolute()
        return cls(cache, data, (out or cache).absolute(), device, threads)

    def record(self) -> schema.Environment:
        """Return what a result says of the place where it was computed."""
        import torch

        return schema.Environment(
            ue_bench=__version__,
            commit=_commit(),
            python=platform.python_version(),
            torch=torch.__version__,
            device=machine.label(self.device),
            threads=self.threads,
        )


@cache
def _commit() -> str:
    """Return the commit of the source tree this runs from, with ``+`` when it was changed; empty if it has none."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return ""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        described = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty=+", "--abbrev=10", "--match=none"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
        return described.stdout.strip()
    return ""
