"""Which files lie in a folder of results, remembered: nothing is listed twice that did not change."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

DIGITS = 8  # of a key, by which files are looked up; every name ends in as many or more
SETTLED = 2 * 10**9  # nanoseconds after which a change gets another time than the one before it, on any file system

Names = Mapping[str, list[str]]  # of files, by the first digits of the key that they end in
_listed: dict[str, tuple[int, Names]] = {}  # by folder: when it had changed last, and what is in it


def files_of(folder: Path, key: str) -> list[Path]:
    """Return the files one folder below ``folder`` that may hold what has ``key``: their names say so."""
    digits, places = key[:DIGITS], []
    try:
        with os.scandir(folder) as entries:
            inner = [entry.path for entry in entries if entry.is_dir()]
    except OSError:
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
    except OSError:  # it is gone, or not ours to read
        return {}
    if is_settled(changed):
        _listed[folder] = changed, dict(names)
    return names
