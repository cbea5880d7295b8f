"""A worker process: lives across tasks, and dies with the process that started it."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import traceback
from multiprocessing.connection import Connection
from typing import Any

from ..errors import UserError
from ..output import printable
from .devices import Slot

REPORT_EVERY = 0.25  # seconds between progress messages
PR_SET_PDEATHSIG = 1  # of <linux/prctl.h>


# What a worker runs first: it finds modules where the driver does. The driver's own script is never imported, so that
# a script may call the scheduler without a main guard.
BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from ue_bench.schedule.worker import main; main()"


def start(slot: Slot, target: str, settings: dict[str, Any]) -> tuple[subprocess.Popen[bytes], Connection]:
    """Start a worker for ``slot``; return its process and the connection from which it serves tasks.

    ``target`` is ``module:function``; it is called as ``function(payload, slot, settings, report, attempt)``. The
    worker leads a session of its own: Ctrl-C on the terminal does not reach it.
    """
    ours, theirs = multiprocessing.Pipe()
    file = theirs.fileno()
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", BOOT, json.dumps(sys.path, allow_nan=False), str(file), str(os.getpid())],
        pass_fds=[file],
        stdin=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": str(slot.threads)},
        start_new_session=True,
    )
    theirs.close()
    with contextlib.suppress(OSError):  # it has died already, which the driver will find
        ours.send_bytes(pickle.dumps((slot, target, settings)))
    return process, ours


def main() -> None:
    """Serve tasks until the connection closes: what the process that ``start`` makes does."""
    connection, parent = Connection(int(sys.argv[2])), int(sys.argv[3])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver decides what Ctrl-C means
    _die_with(parent)
    with contextlib.suppress(OSError):
        os.dup2(2, 1)  # stdout is for data: what a plugin prints goes to stderr
    printable()
    try:
        slot, target, settings = pickle.loads(connection.recv_bytes())
        while True:
            message = connection.recv_bytes()
            with Report(connection) as report:
                answer = _serve(message, slot, target, settings, report)
            connection.send(answer)
    except (EOFError, OSError):  # the driver has closed its end
        return


def _serve(
    message: bytes, slot: Slot, target: str, settings: dict[str, Any], report: Report
) -> tuple[str, str, str, str]:
    """Run one task and say how it ended, why, with which traceback, and what kind of failure that is.

    Text only: a plugin's exception may not survive pickling.
    """
    try:
        payload, attempt = pickle.loads(message)
        module, _, function = target.partition(":")
        getattr(importlib.import_module(module), function)(payload, slot, settings, report, attempt)
    except UserError as error:
        return "refused", _printable(str(error)), "", error.kind
    except BaseException as error:  # whatever a plugin raises, SystemExit too, costs its task only
        return "failed", describe(error), _printable(traceback.format_exc()), "error"
    return "done", "", "", ""


def describe(error: BaseException) -> str:
    """An error that is not the user's, in one line."""
    try:
        text = str(error)
    except Exception:  # a plugin's exception class can do anything
        text = "(its message cannot be shown)"
    return _printable(f"{type(error).__name__}: {text}".splitlines()[0])


def _printable(text: str) -> str:
    """``text`` without what UTF-8 cannot hold, such as half of a file name that is not UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


class Report:
    """Tells the driver how far a task is, now and then, until the task is over. Threads may share it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._last = 0.0
        self._over = False

    def __enter__(self) -> Report:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:  # a thread that a plugin left behind must not speak for the next task
            self._over = True

    def __call__(self, done: float, total: float, text: str) -> None:
        now = time.monotonic()
        with self._lock:
            if self._over or now - self._last < REPORT_EVERY:
                return
            self._last = now
            fraction = float(done) / max(float(total), 1e-9)
            line = _printable(" ".join(str(text).split()))
            self._connection.send(("progress", min(fraction, 1.0) if fraction > 0 else 0.0, line, ""))

    def warn(self, text: str) -> None:
        """Send a line that the user should read."""
        with self._lock:
            if not self._over:
                self._connection.send(("warning", _printable(" ".join(text.split())), "", ""))


def _die_with(parent: int) -> None:
    """Leave when the driver is gone, even if it was killed: nobody would read what this worker finds."""
    if sys.platform == "linux":  # reaches a worker too that is in native code and lets no thread run
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
