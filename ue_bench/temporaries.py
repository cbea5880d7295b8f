"""Temporary names in folders that several machines share: told apart by host and token, removed when they are old."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import socket
import threading
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

FOLDER, FILE = ".making-", ".writing-"  # how names of temporary folders and files begin
OLD = 24 * 3600.0  # seconds without a sign of its maker, after which a temporary folder or file is abandoned
REFRESH = OLD / 24

_live: set[Path] = set()
_lock = threading.Lock()
_keeper: list[int] = []  # the process whose thread keeps folders fresh: none after a fork


@cache
def host() -> str:
    """Return the name of this machine, as part of a file name."""
    return re.sub(r"[^A-Za-z0-9]+", "-", socket.gethostname())[:24].strip("-") or "host"


def token() -> str:
    """Return a name that no other process, here or elsewhere, chooses."""
    return secrets.token_hex(8)


def temporary_file(folder: Path) -> Path:
    """Return the path of a new temporary file in ``folder``."""
    return folder / f"{FILE}{host()}-{token()}"


@contextlib.contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """Make a temporary folder in ``parent`` that is gone afterwards. While it is used no ``sweep`` takes it away."""
    folder = parent / f"{FOLDER}{host()}-{token()}"
    folder.mkdir()
    _keep(folder)
    try:
        yield folder
    finally:
        with _lock:
            _live.discard(folder)
        shutil.rmtree(folder, ignore_errors=True)


def sweep(folders: Iterable[Path], patterns: Iterable[str] = (f"{FOLDER}*", f"{FILE}*")) -> None:
    """Remove temporary folders and files in ``folders`` that nobody has touched for a day.

    Whether their maker lives cannot be asked: it may run on another machine, or in a container with processes of its
    own. Age is measured on the clock of the file system that they lie on.
    """
    for folder in folders:
        old = [path for pattern in patterns for path in folder.glob(pattern)]
        if not old:
            continue
        with contextlib.suppress(OSError):
            now = clock_of(folder)
            for path in old:
                _remove_if_old(path, now)


def clock_of(folder: Path) -> float:
    """Return the time of the file system of ``folder``, by a file that is written there."""
    probe = temporary_file(folder)
    probe.touch()
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def _remove_if_old(path: Path, now: float) -> None:
    with contextlib.suppress(OSError):
        newest = max(p.stat().st_mtime for p in [path, *(path.iterdir() if path.is_dir() else ())])
        if now - newest < OLD:
            return
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _keep(folder: Path) -> None:
    """Touch ``folder`` now and then as long as it is used: filling it may take days without a new file."""
    with _lock:
        _live.add(folder)
        if os.getpid() not in _keeper:
            _keeper[:] = [os.getpid()]
            threading.Thread(target=_refresh, name="keeps temporary folders", daemon=True).start()


def _refresh() -> None:
    pause = threading.Event()
    while not pause.wait(REFRESH):
        with _lock:
            folders = list(_live)
        for folder in folders:
            with contextlib.suppress(OSError):
                os.utime(folder)
