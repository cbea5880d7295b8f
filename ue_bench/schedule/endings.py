"""How a task ended, whatever ran it: the class of a failure, its line and its traceback."""

from __future__ import annotations

import errno
import traceback
from dataclasses import dataclass
from typing import Literal

from ..errors import Deferred, StorageProblem, UserError, batch_problem, disk_problem, without_controls
from .executor import Event, FailureClass, Job

# What CUDA says of a device that does not work any more; a device-side assertion is the code's own mistake.
BROKEN_DEVICE = ("CUDA error", "cuDNN error: CUDNN_STATUS_INTERNAL", "CUDA driver", "no CUDA-capable device", "NVML")
# What torch, CUDA and the system say of memory that ran out, on a device or on the machine.
OUT_OF_MEMORY = (
    "out of memory", "can't allocate memory", "not enough memory", "Cannot allocate memory",
    "CUDNN_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_ALLOC_FAILED",
)  # fmt: skip


@dataclass(frozen=True)
class Ending:
    """How one attempt ended. ``reusable``: whether the process that ran it can run another task."""

    kind: Literal["done", "failed", "deferred"] = "done"
    text: str = ""
    trace: str = ""
    failure: FailureClass = "task"
    storage: bool = False
    reusable: bool = True

    def event(self, job: Job, slot: str, log: str = "", seconds: float | None = None) -> Event:
        """Return the event of it. Where nothing failed, nobody asks for the ``log``."""
        return Event(
            self.kind, job.task, slot, text=self.text, trace=self.trace, attempt=job.attempt, failure=self.failure,
            storage=self.storage, log=log if self.kind == "failed" else "", seconds=seconds,
        )  # fmt: skip


# Of a task that another process has taken over: this one leaves.
LOST = Ending("deferred", reusable=False)


def ending_of(error: BaseException) -> Ending:
    """Return how a task ended that raised ``error``.

    Text only: a plugin's exception may not survive pickling. Call it where ``error`` is being handled.
    """
    if isinstance(error, Deferred):
        return Ending("deferred", error.lease)
    if isinstance(error, OSError) and (problem := disk_problem(error)):
        return Ending("failed", printable(str(problem)), failure="infrastructure", storage=True)
    if isinstance(error, ValueError):
        error = batch_problem(error) or error
    if isinstance(error, UserError):
        failure: FailureClass = "diverged" if error.kind == "diverged" else "task"
        return Ending("failed", printable(str(error)), failure=failure, storage=isinstance(error, StorageProblem))
    # An error can leave a process unusable, a CUDA context for instance.
    return Ending("failed", describe(error), printable(traceback.format_exc()), failure_class(error), reusable=False)


def failure_class(error: BaseException) -> FailureClass:
    """Return what kind of failure an error is that is not the user's."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's, without its import
        return "resource"
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:  # as of a process or a map that needs it
        return "resource"
    if isinstance(error, RuntimeError):  # torch's AcceleratorError is one
        text = describe(error)
        if any(words in text for words in OUT_OF_MEMORY):
            return "resource"
        if any(words in text for words in BROKEN_DEVICE) and "device-side assert" not in text:
            return "infrastructure"
    return "task"


def describe(error: BaseException) -> str:
    """Return an error that is not the user's in one line."""
    try:
        text = str(error)
    except Exception:  # a plugin's exception class can do anything
        text = "(its message cannot be shown)"
    return without_controls(printable(f"{type(error).__name__}: {text}".splitlines()[0]))


def printable(text: str) -> str:
    """Return ``text`` without what UTF-8 cannot hold, such as half of a file name that is not UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
