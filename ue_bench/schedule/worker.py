"""A worker process: lives across tasks, and dies with the process that started it."""

from __future__ import annotations

import contextlib
import ctypes
import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ..output import printable as printable_output
from .call import Call
from .devices import Slot
from .oom import prefer_to_be_killed

SIGN_EVERY = 2.0  # seconds between signs of life
PR_SET_PDEATHSIG = 1  # of <linux/prctl.h>


# What a worker runs first: it finds modules where the driver does. The driver's own script is never imported, so that
# a script may call the scheduler without a main guard.
BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from ue_bench.schedule.worker import main; main()"


def start(
    slot: Slot, target: str, settings: dict[str, Any], output: int | None = None
) -> tuple[subprocess.Popen[bytes], Connection]:
    """Start a worker for ``slot``; return its process and the connection from which it serves tasks.

    ``target`` and ``settings`` are those of a :class:`.call.Call`. The worker leads a session of its own: Ctrl-C on the
    terminal does not reach it. What it prints goes to the file ``output``, by default to stderr. It sees no other GPU
    than that of its slot, which it calls the first.
    """
    ours, theirs = multiprocessing.Pipe()
    file = theirs.fileno()
    environment = {**os.environ, "OMP_NUM_THREADS": str(slot.threads)}
    device = slot.device
    if device.startswith("cuda"):
        number = int(device.partition(":")[2] or 0)
        visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
        environment["CUDA_VISIBLE_DEVICES"] = visible[number] if visible else str(number)
        device = "cuda:0"
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", BOOT, json.dumps(sys.path, allow_nan=False), str(file), str(os.getpid())],
        pass_fds=[file],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env=environment,
        start_new_session=True,
    )
    theirs.close()
    with contextlib.suppress(OSError):  # it has died already, which the driver will find
        ours.send_bytes(pickle.dumps((slot.name, Call(target, settings, device, slot.threads))))
    return process, ours


def main() -> None:
    """Serve tasks until the connection closes: what the process that ``start`` makes does."""
    connection, parent = Connection(int(sys.argv[2])), int(sys.argv[3])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver decides what Ctrl-C means
    _die_with(parent)
    prefer_to_be_killed()
    with contextlib.suppress(OSError):
        os.dup2(2, 1)  # stdout is for data: what a plugin prints goes to stderr
    printable_output()
    line = Line(connection)
    threading.Thread(target=line.live, name="signs of life", daemon=True).start()
    try:
        name, call = pickle.loads(connection.recv_bytes())
        while True:
            payload, attempt, packed = pickle.loads(connection.recv_bytes())
            _forget_peak()
            ending = replace(call, packed=packed).run(name, payload, attempt, line.send)
            if _children():
                ending = replace(ending, reusable=False)
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError):
                    stream.flush()
            line.send("ended", ending, _peak_share())
    except (EOFError, OSError):  # the driver has closed its end
        return


class Line:
    """The way to the driver. Threads share it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def send(self, *message: Any) -> None:
        """Send a message in one piece."""
        with self._lock:
            self._connection.send(message)

    def live(self) -> None:
        """Give a sign of life now and then, until nobody listens."""
        with contextlib.suppress(OSError):
            while True:
                time.sleep(SIGN_EVERY)
                self.send("alive")


def _children() -> list[int]:
    """Return the processes that a task left behind, as far as the system tells; Python's own helper is none."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in Path("/proc/self/task").iterdir():
            with contextlib.suppress(OSError):
                found += map(int, (thread / "children").read_text(encoding="ascii").split())
    tracker = getattr(sys.modules.get("multiprocessing.resource_tracker"), "_resource_tracker", None)
    return [pid for pid in found if pid != getattr(tracker, "_pid", None)]


def _forget_peak() -> None:
    if (torch := sys.modules.get("torch")) and torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()


def _peak_share() -> float:
    """Return the largest share of a GPU's memory that was taken since ``_forget_peak``; 0 where there is none."""
    with contextlib.suppress(Exception):  # after an error CUDA may answer nothing at all
        if (torch := sys.modules.get("torch")) and torch.cuda.is_initialized():
            return float(torch.cuda.max_memory_reserved() / torch.cuda.mem_get_info()[1])
    return 0.0


def _die_with(parent: int) -> None:
    """Leave when the driver is gone, even if it was killed: nobody would read what this worker finds."""
    if sys.platform == "linux":  # reaches a worker too that is in native code and lets no thread run
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    with contextlib.suppress(OSError):
        os.killpg(0, signal.SIGKILL)  # and what the task started: this process leads its group
    os._exit(1)
