"""What the kernel tells of processes that it killed because memory ran out.

A SIGKILL does not say who sent it. Linux counts the processes of a memory cgroup that it killed for want of memory,
whether the limit was the cgroup's or the machine's: ``oom_kill`` in ``memory.events.local`` and ``memory.events`` of
cgroup v2 and in ``memory.oom_control`` of v1.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath

FILES = "memory.events.local", "memory.events", "memory.oom_control"
MORE_LIKELY = 300  # of -1000 to 1000: added to a worker's badness, so that the kernel does not choose its driver


class OutOfMemoryKills:
    """Counts the kills in the memory cgroup of this process, which its workers share.

    ``proc`` is where the kernel tells of this process, ``/proc/self``.
    """

    def __init__(self, proc: Path = Path("/proc/self")) -> None:
        self._proc = proc
        self._accounted = 0  # the count up to which each kill is known to have hit a worker

    @cached_property
    def _file(self) -> Path | None:
        with contextlib.suppress(OSError, ValueError):
            return next(
                (folder / name for folder in self._folders() for name in FILES if (folder / name).exists()), None
            )
        return None

    def _folders(self) -> Iterator[Path]:
        """Yield the folders of this process's memory cgroup: of v1 where that counts memory, else of v2."""
        groups: dict[str, str] = {}  # by controllers: "memory" in v1, "" in v2
        for line in (self._proc / "cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            groups |= dict.fromkeys(controllers.split(","), path)
        for line in reversed((self._proc / "mountinfo").read_text(encoding="utf-8").splitlines()):
            place, _, what = line.partition(" - ")
            kind, _, options = what.split(" ", 2)
            controller = "memory" if "memory" in groups else ""
            if kind != ("cgroup" if controller else "cgroup2") or (controller and controller not in options.split(",")):
                continue
            root, mounted = (field.replace("\\040", " ") for field in place.split(" ")[3:5])
            with contextlib.suppress(ValueError):  # mounted from another part of the tree than this process is in
                yield Path(mounted, PurePosixPath(groups[controller]).relative_to(root))

    def count(self) -> int | None:
        """Return how many processes were killed so far; None where the system does not tell."""
        if self._file is None:
            return None
        with contextlib.suppress(OSError, ValueError):
            for line in self._file.read_text(encoding="ascii").splitlines():
                name, _, number = line.partition(" ")
                if name == "oom_kill":
                    return int(number)
        return None

    def hit(self, before: int | None) -> bool | None:
        """Return whether one of the kills since the count ``before`` may be that of a worker which has just died.

        Each kill accounts for one worker. None where the system does not tell.
        """
        now = self.count()
        if now is None or before is None:
            return None
        known = max(before, self._accounted)
        if now <= known:
            return False
        self._accounted = known + 1
        return True


def prefer_to_be_killed() -> None:
    """Ask the kernel to end this process rather than its driver when memory runs out."""
    score = Path("/proc/self/oom_score_adj")
    with contextlib.suppress(OSError, ValueError):
        if int(score.read_text(encoding="ascii")) < MORE_LIKELY:
            score.write_text(str(MORE_LIKELY), encoding="ascii")
