"""What one SLURM job does: a group of jobs, one after the other. A file beside it tells what became of them."""

from __future__ import annotations

import json
import os
import socket
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from .call import Call
from .choice import needed
from .endings import LOST, Ending

ENDED = ("done", "failed", "deferred")
REPORT_EVERY = 15.0  # seconds between two lines of progress: many SLURM jobs write to one file server


@dataclass
class Group:
    """The far side: submitit calls it in the SLURM job, and again when SLURM has requeued that."""

    call: Call
    jobs: list[tuple[str, bytes, int]]  # key, payload, attempt
    events: Path
    _leaving: bool = False
    _reported: float = 0.0

    def __call__(self) -> None:
        """Run what has not ended yet. One that leaves the process unusable is the last; the driver sends the others."""
        over = {line["key"] for line in lines_of(self.events, 0)[0] if line["kind"] in ENDED}
        for key, payload, attempt in self.jobs:
            if key in over:
                continue
            slot = socket.gethostname()
            self._say(key, kind="started", slot=slot, said=[""])
            begun = time.monotonic()
            try:
                ending = self.call.run(slot, payload, attempt, partial(self._hear, key), lambda: self._leaving)
            except Exception as error:  # submitit's: the SLURM job has reached its time limit too often
                ending = Ending("failed", str(error), failure="timeout", reusable=False)
            self._say(key, **asdict(ending), seconds=round(time.monotonic() - begun, 3))
            if not ending.reusable:
                return

    def checkpoint(self) -> Any:
        """Return what to do after the requeue; submitit asks on preemption and shortly before the time limit."""
        self._leaving = True
        return needed("submitit.helpers", "slurm").DelayedSubmission(Group(self.call, self.jobs, self.events))

    def _hear(self, key: str, kind: str, *said: Any) -> None:
        if kind == "lost":
            self._say(key, **asdict(LOST), seconds=0.0)
            return
        if kind == "progress" and time.monotonic() - self._reported < REPORT_EVERY:
            return
        self._reported = time.monotonic()
        self._say(key, kind=kind, said=said)

    def _say(self, key: str, **said: Any) -> None:
        """Append a line in one piece."""
        file = os.open(self.events, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, (json.dumps({"key": key, **said}, allow_nan=False) + "\n").encode())
        finally:
            os.close(file)


def lines_of(path: Path, offset: int) -> tuple[list[dict[str, Any]], int]:
    """Return what is said in the whole lines of ``path`` from ``offset`` on, and where they end."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            content = file.read()
    except FileNotFoundError:
        return [], offset
    whole = content.rpartition(b"\n")[0]
    return [json.loads(line) for line in whole.splitlines()], offset + len(whole) + bool(whole)
