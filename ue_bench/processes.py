"""Telling processes apart, also those of other machines and containers."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Identity:
    """A process: ``space``, where process ids mean the same, its ``pid`` there, and when it started.

    ``space`` is empty where the system does not tell it: then nothing is known of any other process.
    """

    space: str
    pid: int
    started: str

    @classmethod
    def here(cls) -> Identity:
        """Return this process."""
        return cls(_space(), os.getpid(), _started(os.getpid()) or "")

    @classmethod
    def of(cls, text: str) -> Identity:
        """Return the process whose ``text`` this is."""
        space, _, rest = text.partition(" ")
        pid, _, started = rest.partition(" ")
        return cls(space, int(pid), started) if pid.isdigit() else cls("", 0, "")

    @property
    def text(self) -> str:
        """All of it as one line."""
        return f"{self.space} {self.pid} {self.started}"

    @property
    def has_ended(self) -> bool:
        """Whether it is known to have ended: false wherever that cannot be seen from here."""
        if not self.space or self.space != _space():
            return False
        started = _started(self.pid)
        if started is None:  # gone, or another user's, which some systems hide
            try:
                os.kill(self.pid, 0)
            except ProcessLookupError:
                return True
            except OSError:
                return False
            return False
        return started != self.started


@cache
def _space() -> str:
    """Return the boot of this machine and the namespace of process ids: together they make an id unique."""
    with contextlib.suppress(OSError):
        if str(Path("/proc/self").readlink()) != str(
            os.getpid()
        ):  # of another namespace: ids mean something else there
            return ""
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    return ""


def _started(pid: int) -> str | None:
    """Return when a process started, in ticks of its machine: "" for one that ended; None where it cannot be seen."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return "" if after_name[0] in "ZX" else after_name[19]
