"""What cells print: a log each, of limited size."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

LARGEST = 1_000_000  # bytes of a log; what is printed after that is left out


@dataclass
class CellLog:
    """The log of one task. It appears with the first thing that is printed, and goes on in the next attempt."""

    path: Path
    attempt: int = 1
    _begun: bool = False
    _full: bool = False

    @property
    def shown(self) -> str:
        """Where it lies; "" when nothing was printed."""
        return str(self.path) if self._begun else ""

    def begin(self) -> None:
        """Forget what an earlier run printed."""
        if self.attempt == 1:
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)

    def write(self, output: bytes) -> None:
        """Add output. A log that cannot be written is no reason to stop: it ends there."""
        if self._full:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                if not self._begun and self.attempt > 1:
                    file.write(f"--- attempt {self.attempt}\n".encode())
                self._begun = True
                room = LARGEST - file.tell()
                file.write(output[: max(0, room)])
                if len(output) > room:
                    file.write(b"\n--- the rest is left out\n")
                    self._full = True
        except OSError:
            self._full = True


def read_available(pipe: int) -> tuple[bytes, bool]:
    """Return what a pipe that does not block holds now, at most a megabyte, and whether that was its end."""
    parts: list[bytes] = []
    try:
        while sum(map(len, parts)) < LARGEST:
            part = os.read(pipe, 65536)
            if not part:
                return b"".join(parts), True
            parts.append(part)
    except BlockingIOError:
        pass
    return b"".join(parts), False
