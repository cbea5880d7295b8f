"""Who computes what, agreed on through a folder that processes on any number of machines share.

A lease is a file; whoever creates it has the work. Files are created by link or exclusively and go by rename: no lock
of the operating system is needed, nor clocks that agree. Each process writes a beat into a file of its own. A lease is
taken over when its owner's beat was *seen* not to change for a while, by the clock of the process that looks; on the
same machine, when that process is dead.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from .checksums import log
from .processes import Identity
from .temporaries import FILE, OLD, clock_of, host, sweep, temporary_file, token

PATIENCE = "UE_BENCH_LEASE_SECONDS"  # the variable that sets how long an owner may be silent
BEATS = 12  # in that time
LOOKS = 4  # in that time: less often, and time between two looks is not counted as silence
GONE = ".gone-"
FOLDER = ".leases"  # in a cache or results folder
# What link says where a file system has none.
NO_LINKS = frozenset({errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EMLINK, errno.EINVAL})


def patience() -> float:
    """Return for how many seconds an owner may be silent: UE_BENCH_LEASE_SECONDS, else two minutes."""
    with contextlib.suppress(KeyError, ValueError):
        return max(0.1, float(os.environ[PATIENCE]))
    return 120.0


@dataclass(frozen=True)
class Lease:
    """The right to compute something. Plain data: it travels to a worker, which asks ``held`` before it publishes."""

    path: Path
    token: str

    def held(self) -> bool:
        """Return whether it still stands: nobody took it over, and the folder is there."""
        for _ in range(3):  # for an instant another process may have it in hand, see Leases._take_away
            with contextlib.suppress(OSError):
                return _holder(self.path.read_bytes()).token == self.token
            time.sleep(0.02)
        return False


@dataclass(frozen=True)
class Holder:
    """What a lease says of who has it. Without ``token`` it cannot be read, as where it is being written."""

    token: str = ""
    owner: str = ""
    host: str = ""
    process: str = ""
    label: str = ""
    since: float = 0.0  # by the clock of its host, for people
    patience: float = 0.0

    @property
    def is_dead(self) -> bool:
        """Whether its process ran where this one runs, and ended."""
        return Identity.of(self.process).has_ended


@dataclass
class _Seen:
    beat: bytes
    at: float
    silent: float = 0.0


class Leases:
    """The leases in one folder, as one process takes and sees them. Threads may share it."""

    def __init__(self, folder: Path, wait: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.folder, self.owners = folder, folder / "owners"
        self.owner = token()
        self.patience = patience() if wait is None else wait
        self.working = True  # false when the beat can no longer be written: the folder is gone or read-only
        self._clock = clock
        self._seen: dict[str, _Seen] = {}
        self._held: set[Lease] = set()
        self._lock = threading.RLock()
        self._beats = 0
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    @cached_property
    def _beat_file(self) -> Path:
        return self.owners / self.owner

    def claim(self, name: str, label: str = "") -> Lease | None:
        """Take the lease ``name``, or return None where another process has it. One that is stale is taken over.

        Whether it is stale shows when this is called again and again. Raises OSError when the folder cannot be written.
        """
        with self._lock:
            lease = Lease(self.folder / name, token())
            said = {
                "token": lease.token, "owner": self.owner, "host": host(), "process": Identity.here().text,
                "label": label, "since": round(time.time()), "patience": self.patience,
            }  # fmt: skip
            content = json.dumps(said, allow_nan=False).encode()
            self.start()
            for _ in range(3):
                if _create(lease.path, content):
                    self._held.add(lease)
                    return lease
                holder = self.holder(name)
                if holder is None:  # given back meanwhile
                    continue
                if holder.token == lease.token:  # created, though the file server's answer was lost
                    self._held.add(lease)
                    return lease
                if not self._is_stale(name, holder):
                    return None
                _take_away(lease.path, holder.token)
            return None

    def mine(self, name: str) -> Lease | None:
        """Return the lease ``name`` if this process has it."""
        with self._lock:
            kept = next((lease for lease in self._held if lease.path.name == name), None)
        if kept is not None and not kept.held():  # taken over while this process stood still
            with self._lock:
                self._held.discard(kept)
            return None
        return kept

    def release_all(self, beginning: str = "") -> None:
        """Give back what this process holds, where the name begins so."""
        with self._lock:
            held = [lease for lease in self._held if lease.path.name.startswith(beginning)]
        for lease in held:
            self.release(lease)

    def release(self, lease: Lease) -> None:
        """Give a lease back. One that was taken over stays with its new owner."""
        with self._lock:
            self._held.discard(lease)
        with contextlib.suppress(OSError):
            if lease.held():
                _take_away(lease.path, lease.token)

    def wait(self, name: str, label: str, busy: Callable[[], None]) -> Lease:
        """Take the lease ``name``; wait for it where another process has it, after calling ``busy`` once."""
        pause = 0.02
        while (lease := self.claim(name, label)) is None:
            if pause == 0.02:
                busy()
            time.sleep(pause)
            pause = min(1.0, self.patience / LOOKS / 2, pause * 2)
        return lease

    @contextlib.contextmanager
    def hold(self, name: str, label: str, busy: Callable[[], None]) -> Iterator[Lease]:
        """Hold the lease ``name`` while the block runs, see ``wait``."""
        lease = self.wait(name, label, busy)
        try:
            yield lease
        finally:
            self.release(lease)

    def holder(self, name: str) -> Holder | None:
        """Return who has the lease ``name``; None where nobody has."""
        try:
            return _holder((self.folder / name).read_bytes())
        except FileNotFoundError:
            return None

    def is_free(self, name: str) -> bool:
        """Return whether ``claim`` can take the lease ``name`` now."""
        holder = self.holder(name)
        return holder is None or self._is_stale(name, holder)

    def held(self) -> dict[str, Holder]:
        """Return all leases of the folder, whoever has them, by name."""
        names = [p.name for p in self.folder.glob("[!.]*") if not p.is_dir()]
        return {name: holder for name in sorted(names) if (holder := self.holder(name))}

    def silence(self, holder: Holder, name: str = "") -> float:
        """Return for how many seconds this process has seen the owner of a lease silent, at least.

        Time in which nobody looked does not count: this process may have been stopped, or the machine asleep.
        """
        who = holder.owner or name
        beat = b""
        with contextlib.suppress(OSError):
            beat = (self.owners / who).read_bytes() if holder.owner else (self.folder / name).read_bytes()
        now = self._clock()
        with self._lock:
            seen = self._seen.get(who)
            if seen is None or seen.beat != beat:
                self._seen[who] = _Seen(beat, now)
                return 0.0
            seen.silent += max(0.0, min(now - seen.at, self.patience / LOOKS))
            seen.at = now
            return seen.silent

    def _is_stale(self, name: str, holder: Holder) -> bool:
        if holder.owner == self.owner:
            return not any(lease.token == holder.token for lease in self._held)
        return holder.is_dead or self.silence(holder, name) > max(self.patience, holder.patience)

    def start(self) -> None:
        """Begin to beat, if this process does not yet. Raises OSError when the folder cannot be written."""
        with self._lock:
            if self._thread is not None and (self._held or self._beat_file.exists()):
                return  # a folder that vanished under what is held is not made again: it was a disk
            self.owners.mkdir(parents=True, exist_ok=True)
            self._beat_file.write_bytes(b"0".rjust(20))
            self.working = True
            if self._thread is not None:
                return
            self._over.clear()
            self._thread = threading.Thread(target=self._beat_on, name="lease beat", daemon=True)
            self._thread.start()

    def beat(self) -> None:
        """Say that this process lives. In place, which needs no room on a full disk."""
        self._beats += 1
        try:
            file = os.open(self._beat_file, os.O_WRONLY)
            try:
                os.pwrite(file, str(self._beats).rjust(20).encode(), 0)
            finally:
                os.close(file)
        except OSError as error:
            if self.working:
                log.warning("ue-bench: leases in %s cannot be kept: %s", self.folder, error.strerror)
            self.working = False
        else:
            self.working = True

    def _beat_on(self) -> None:
        """Beat while anything is held."""
        while not self._over.wait(self.patience / BEATS):
            with self._lock:
                if not self._held:
                    self._leave()
                    return
            self.beat()

    def _leave(self) -> None:
        self._thread = None
        with contextlib.suppress(OSError):
            self._beat_file.unlink(missing_ok=True)

    def close(self) -> None:
        """Give everything back and leave."""
        self.release_all()
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        self._leave()

    def sweep(self) -> None:
        """Remove what processes left that ended, here or long ago: leases, beats, notes of failures, half of a file."""
        sweep([self.folder], (f"{FILE}*", f"{GONE}*"))
        with contextlib.suppress(OSError):
            now = clock_of(self.folder)
            for path in self.folder.glob("*/*"):
                if now - path.stat().st_mtime > OLD:
                    path.unlink(missing_ok=True)
            for name, holder in self.held().items():
                path = self.folder / name
                forgotten = not (self.owners / holder.owner).exists() and now - path.stat().st_mtime > OLD
                if holder.is_dead or forgotten:
                    _take_away(path, holder.token)


_of_process: dict[tuple[Path, int], Leases] = {}


def leases_in(root: Path) -> Leases:
    """Return the leases of the cache or results folder ``root`` as this process takes them."""
    place = (root, os.getpid())
    if place not in _of_process:
        _of_process[place] = Leases(root / FOLDER)
    return _of_process[place]


@atexit.register
def close_all() -> None:
    """Give back every lease of this process."""
    for (root, process), leases in list(_of_process.items()):
        if process == os.getpid():
            with contextlib.suppress(OSError):
                leases.close()
            del _of_process[root, process]


def _holder(content: bytes) -> Holder:
    try:
        said: Any = json.loads(content)
        return Holder(**{name: said[name] for name in Holder.__dataclass_fields__})
    except (ValueError, KeyError, TypeError):
        return Holder()


def _create(path: Path, content: bytes) -> bool:
    """Create the file ``path``, whole, unless there is one."""
    temporary = temporary_file(path.parent)
    try:
        temporary.write_bytes(content)
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        try:
            with path.open("xb") as file:  # for an instant it is empty, and then of nobody who could be silent
                file.write(content)
        except FileExistsError:
            return False
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _take_away(path: Path, expected: str) -> None:
    """Remove the lease with the token ``expected``, and no other: one that was taken meanwhile is put back."""
    away = path.with_name(f"{GONE}{host()}-{token()}")
    try:
        path.rename(away)
    except FileNotFoundError:
        return
    content = away.read_bytes()
    if _holder(content).token != expected:
        _create(path, content)
    away.unlink(missing_ok=True)
