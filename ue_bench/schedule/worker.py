"""A worker process: lives across tasks, and dies with the process that started it."""

from __future__ import annotations

import importlib
import os
import signal
import threading
import time
import traceback
from multiprocessing.connection import Connection
from typing import Any

from ..errors import UserError
from .devices import Slot

REPORT_EVERY = 0.25  # seconds between progress messages


def _die_with_parent(parent: int) -> None:
    """Leave when the driver is gone, even if it was killed: nobody would read what this worker finds."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def main(connection: Connection, parent: int, slot: Slot, target: str, settings: dict[str, Any]) -> None:
    """Serve tasks from ``connection`` until it closes.

    ``target`` is ``module:function``; it is called as ``function(payload, slot, settings, report, attempt)``.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver decides what Ctrl-C means
    threading.Thread(target=_die_with_parent, args=(parent,), daemon=True).start()
    os.environ["OMP_NUM_THREADS"] = str(slot.threads)  # before torch is imported
    module, _, function = target.partition(":")
    last = 0.0

    def report(done: float, total: float, text: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= REPORT_EVERY:
            last = now
            connection.send(("progress", done / max(total, 1e-9), text))

    try:
        run = getattr(importlib.import_module(module), function)
        while True:
            payload, attempt = connection.recv()
            try:
                run(payload, slot, settings, report, attempt)
            except UserError as error:
                connection.send(("refused", str(error), ""))
            except Exception as error:  # whatever a plugin raises costs its task only
                reason = f"{type(error).__name__}: {error}".splitlines()[0]
                connection.send(("failed", reason, traceback.format_exc()))
            else:
                connection.send(("done", "", ""))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
