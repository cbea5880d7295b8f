"""Lock between processes, on file systems with and without ``flock``."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from .errors import EnvironmentProblem

# What flock says where it does not exist: network file systems without a lock service, FUSE, some containers.
NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.ENOTTY})


@contextlib.contextmanager
def hold(path: Path, busy: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock at ``path``, in a folder that exists.

    Where another process has it ``busy`` is called with advice for the user: it raises an error, or returns, and then
    the lock is waited for.

    The lock of the operating system ends with its process. Where there is none, a file ``path.soft`` with the number of
    the process stands for it, which is taken over when that process has died on this machine. Raises EnvironmentProblem
    when neither can be had.
    """
    try:
        lock = _acquire(path, busy)
    except OSError as error:
        raise EnvironmentProblem(
            f"cannot lock {path}: {error.strerror or error}", "choose a folder on another file system"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _acquire(path: Path, busy: Callable[[str], None]) -> BaseFileLock:
    # Not filelock's own fallback: it knows ENOSYS only, and takes an empty file that a native lock left for one in use.
    native = FileLock(path, fallback_to_soft=False)
    try:
        if _taken(native):
            return native
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    else:
        busy("wait for it to end")
        native.acquire()
        return native
    marker = path.with_name(path.name + ".soft")
    soft = SoftFileLock(marker)
    # Twice: in some versions of filelock the first try removes the marker of a process that died, and no more.
    if not (_taken(soft) or _taken(soft)):
        busy(f"wait for it to end; if the machine it ran on was switched off, remove {marker}")
        soft.acquire()
    return soft


def _taken(lock: BaseFileLock) -> bool:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    return True
