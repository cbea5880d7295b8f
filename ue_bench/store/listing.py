"""What lies in a folder of results, and what tells that a file changed; names of what did not change are remembered."""

from __future__ import annotations

import os
import stat
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

DIGITS = 8  # of a key, by which files are looked up; every name ends in as many or more
SETTLED = 2 * 10**9  # nanoseconds after which a change gets another time than the one before it, on any file system
BAD = "bad"  # folder below "results", "evasion" and so on for what is not a record

Names = Mapping[str, list[str]]  # of files, by the first digits of the key that they end in
_listed: dict[str, tuple[int, Names]] = {}  # by folder: when it had changed last, and what is in it


class Stamp(NamedTuple):
    """What tells that a file changed without reading it. Times in nanoseconds, of the file system.

    ``changed`` is the time of the inode: no program sets it, so that a copy, an unpacked archive or a file whose old
    ``modified`` was put back has another one.
    """

    inode: int
    size: int
    modified: int
    changed: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        """Return the stamp in a status."""
        return cls(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    @property
    def newest(self) -> int:
        """The last time that anything happened to the file."""
        return max(self.modified, self.changed)


def json_files(folder: Path, below: bool = True) -> dict[str, Stamp | None]:
    """Return the JSON files in ``folder``, and below it, by their path in it and in that order, with their stamps.

    None in place of a stamp says that there is something to tell the user when the file is read: it is no file, a link
    to nothing, or not ours to look at. Raises PermissionError for a folder that is not. A folder in ``folder``
    may be a link, as where a row lies on another disk; links further below are not followed. Left out is what was set
    aside, which lies two folders deep, for a plugin may be called ``bad``.
    """
    return dict(sorted(_walk(os.fspath(folder), "", below)))


def _walk(folder: str, prefix: str, below: bool) -> Iterator[tuple[str, Stamp | None]]:
    try:
        with os.scandir(folder) as listing:
            entries = list(listing)
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=not prefix):
            if below and not prefix.startswith(f"{BAD}/"):
                yield from _walk(entry.path, f"{prefix}{entry.name}/", below)
        elif entry.name.endswith(".json"):
            try:
                status = entry.stat()
                yield prefix + entry.name, Stamp.of(status) if stat.S_ISREG(status.st_mode) else None
            except FileNotFoundError:
                if entry.is_symlink():  # to nothing; else it was removed meanwhile
                    yield prefix + entry.name, None
            except OSError:
                yield prefix + entry.name, None


def files_of(folder: Path, key: str) -> list[Path]:
    """Return the files one folder below ``folder`` that may hold what has ``key``: their names say so."""
    digits, places = key[:DIGITS], []
    try:
        with os.scandir(folder) as entries:
            inner = [entry.path for entry in entries if entry.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    for place in sorted(inner):
        places += [Path(place, name) for name in _names(place).get(digits, ())]
    return places


def is_settled(changed: int) -> bool:
    """Return whether what was last changed at ``changed``, in nanoseconds, cannot change again at the same time."""
    return time.time_ns() - changed > SETTLED


def _names(folder: str) -> Names:
    try:
        changed = os.stat(folder).st_mtime_ns  # noqa: PTH116  called for every folder whenever a cell is looked up
        known = _listed.get(folder)
        if known is not None and known[0] == changed:
            return known[1]
        names: dict[str, list[str]] = defaultdict(list)
        for name in sorted(os.listdir(folder)):  # noqa: PTH208
            if name.endswith(".json"):
                names[name.rpartition("-")[2][:DIGITS]].append(name)
    except (FileNotFoundError, NotADirectoryError):  # it is gone
        return {}
    if is_settled(changed):
        _listed[folder] = changed, dict(names)
    return names
