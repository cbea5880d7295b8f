"""Errors that are the user's to mend: one line, a hint, an exit code. Everything else is a bug with a traceback."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable
from typing import Any, Literal


class UserError(Exception):
    """An error that the user can put right.

    ``message`` is one line without a final full stop; ``hint`` says what to do about it.
    """

    exit_code = 2
    kind: Literal["error", "diverged"] = "error"  # what the failure of a cell is recorded as

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.message, self.hint)  # errors travel between processes

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class EnvironmentProblem(UserError):
    """An error for a missing package, device, file or permission."""

    exit_code = 3


class StorageProblem(EnvironmentProblem):
    """A folder of results or of the cache that fails: whatever else is computed would fail the same way."""


class Deferred(BaseException):
    """Work that cannot go on before another process has made what it needs; ``lease`` names what that one holds.

    No Exception: a plugin that catches those around its work must not take it for a failure.
    """

    def __init__(self, lease: str) -> None:
        super().__init__(lease)
        self.lease = lease


def first_line(error: BaseException) -> str:
    """Return the first line of what ``error`` says, for a line of ours; its class where it says nothing."""
    return next(iter(_said(error)), type(error).__name__)


def _said(error: BaseException) -> list[str]:
    """Return the lines of what ``error`` says, without what a terminal would obey."""
    return [without_controls(line) for line in str(error).strip().splitlines()]


def without_controls(text: str) -> str:
    """Return ``text`` with ``?`` for every character that cannot be printed, such as those that a terminal obeys."""
    return "".join(c if c.isprintable() else "?" for c in text)


NO_DISK = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ENXIO, errno.ENODEV}
)


def disk_problem(error: OSError) -> StorageProblem | None:
    """Return ``error`` in one line where the disk is what is wrong: full, gone, or not to be written."""
    wrong = error.errno in NO_DISK or isinstance(error, Unwritable)
    if not wrong or isinstance(error, (ConnectionError, BlockingIOError)):
        return None
    where = f" ({error.filename})" if error.filename else ""
    return StorageProblem(f"{error.strerror}{where}", "make room or choose other folders; the same command continues")


# What a path of the user's is that cannot be what it was given for.
NO_PLACE = frozenset(
    {errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ELOOP}
    | {errno.ENAMETOOLONG, errno.ENOENT}
)


class Unwritable(PermissionError):
    """A folder of results or of the cache that nobody here may write to: no fault of what was computed for it."""


def place_problem(error: OSError) -> EnvironmentProblem | None:
    """Return ``error`` in one line where it is of a file or folder that cannot be used as it is."""
    if error.errno not in NO_PLACE or error.filename is None:
        return None
    where = error.filename2 or error.filename  # of two, as of a rename, the one that the user knows
    return EnvironmentProblem(f"{error.strerror}: {where}", "choose another place, or change that one")


def batch_problem(error: ValueError) -> UserError | None:
    """Return ``error`` in one line where torch says that a batch of one image leaves nothing to normalise."""
    if not str(error).startswith("Expected more than 1 value per channel when training"):
        return None
    message = "a batch of one image is left over, of which a layer of this network leaves one value a channel"
    return UserError(message, "choose another batch size or number of images, larger images or another network")


class ValidationError(UserError):
    """An error for data or results that do not hold what they declare."""

    exit_code = 4


class Diverged(ValidationError):
    """An error for a training whose loss, weights or outputs are no longer finite: there is nothing to measure.

    ``what`` is what is not finite, such as ``loss``; ``step`` counts from 1, of ``steps`` in all.
    """

    kind = "diverged"

    def __init__(self, what: str, step: int | None = None, steps: int | None = None, hint: str = "") -> None:
        where = "" if step is None else f" at step {step}" + ("" if steps is None else f" of {steps}")
        super().__init__(f"diverged{where}: {what} not finite", hint or "choose a lower learning rate")
        self.what, self.step, self.steps = what, step, steps

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.what, self.step, self.steps, self.hint)


class NothingSelected(UserError):
    """An error for a selector that matches nothing."""

    exit_code = 5


def one_line(error: BaseException) -> str:
    """Return an exception as a user reads it: its type and the first line of its message."""
    first = _said(error)
    return f"{type(error).__name__}: {first[0]}" if first else type(error).__name__


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a hint with the nearest of the known names, or with all of them."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known) or 'none'}"
