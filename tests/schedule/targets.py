"""What workers do in these tests. A payload is (name, action, arguments of the action)."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from ue_bench.errors import Diverged, EnvironmentProblem
from ue_bench.schedule.call import Report
from ue_bench.schedule.devices import Slot


def run(payload: Any, slot: Slot, settings: dict[str, Any], report: Report, attempt: int) -> None:
    name, action, *args = payload
    write(settings["log"], f"start {name} {os.getpid()} {attempt}")
    ACTIONS[action](*args, name=name, settings=settings, report=report, attempt=attempt)
    write(settings["log"], f"end {name} {os.getpid()} {attempt}")


def write(log: str, line: str) -> None:
    """Append a line in one piece, whoever else writes."""
    handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(handle, f"{line}\n".encode())
    os.close(handle)


def worker_of(name: str, log: str) -> int:
    """Process id of the worker that finished ``name``, once it has."""
    while True:
        for line in Path(log).read_text().splitlines():
            if line.startswith(f"end {name} "):
                return int(line.split()[2])
        time.sleep(0.01)


def nothing(*_: Any, **__: Any) -> None:
    return


def sleep(seconds: float, report: Report, **_: Any) -> None:
    report(0, 1, "asleep")
    time.sleep(seconds)


def wait_for(path: str, **_: Any) -> None:
    while not Path(path).exists():
        time.sleep(0.01)


def die(signal_number: int, attempts: int, attempt: int, **_: Any) -> None:
    """Be killed in the first ``attempts`` attempts."""
    if attempt <= attempts:
        os.kill(os.getpid(), signal_number)
        time.sleep(DEADLY)


def leave(code: int, **_: Any) -> None:
    os._exit(code)


def lose_once(mark: str, report: Report, **_: Any) -> None:
    """Lose the task to another process, the first time of all attempts."""
    if not Path(mark).exists():
        Path(mark).touch()
        report.leave()


def kill_worker_of(other: str, settings: dict[str, Any], **_: Any) -> None:
    """Kill another worker, idle by then, and wait until it is a zombie or gone."""
    worker = worker_of(other, settings["log"])
    time.sleep(0.3)  # until the driver has heard that it is idle
    os.kill(worker, signal.SIGKILL)
    time.sleep(0.1)


def fork_and_die(settings: dict[str, Any], attempt: int, **_: Any) -> None:
    """Leave a child behind that holds everything this worker had open."""
    if attempt == 1:
        child = os.fork()
        if not child:
            time.sleep(DEADLY)
            os._exit(0)
        write(settings["log"], f"child {child}")
        os.kill(os.getpid(), signal.SIGKILL)


def start_a_process(**_: Any) -> None:
    import multiprocessing

    child = multiprocessing.get_context("spawn").Process(target=os.getpid)
    child.start()
    child.join()
    assert child.exitcode == 0


def speak(text: str, **_: Any) -> None:
    print(text)
    sys.stdout.flush()


def report_always(report: Report, **_: Any) -> None:
    """Leave a thread behind that goes on reporting."""

    def chatter() -> None:
        while True:
            report(1, 2, "from the past")
            time.sleep(0.01)

    threading.Thread(target=chatter, daemon=True).start()
    time.sleep(0.1)


def report_once(done: float, total: float, text: str, report: Report, **_: Any) -> None:
    report(done, total, text)


def hold_the_interpreter(name: str, settings: dict[str, Any], **_: Any) -> None:
    """Run native code that lets no other thread run, for longer than anybody waits."""
    write(settings["log"], f"holding {name}")
    re.match(r"(a+)+$", "a" * 60 + "b")


def cling(name: str, settings: dict[str, Any], **_: Any) -> None:
    """Refuse the signal that Linux sends when the parent dies, as on a system that has none."""
    ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)
    write(settings["log"], f"clinging {name}")
    time.sleep(DEADLY)


class OddError(Exception):
    """Like a plugin's own: needs two arguments, holds a lock, and cannot be shown."""

    def __init__(self, one: object, two: object) -> None:
        super().__init__(one)
        self.lock = threading.Lock()

    def __str__(self) -> str:
        raise RuntimeError("no text")


def fail(how: str, **_: Any) -> None:
    match how:
        case "plain":
            raise ValueError("first line\nsecond line")
        case "odd":
            raise OddError(1, 2)
        case "exit":
            sys.exit(0)
        case "interrupt":
            raise KeyboardInterrupt
        case "pipe":
            raise BrokenPipeError("not the driver's")
        case "memory":
            raise MemoryError("no room")
        case "device":
            raise RuntimeError("CUDA error: unspecified launch failure")
        case "disk":
            raise OSError(errno.ENOSPC, "No space left on device", "/some/file")
        case "user":
            raise EnvironmentProblem("no such file", "look for it")
        case "diverged":
            raise Diverged("loss", 3, 9)
        case "half a name":
            raise ValueError(os.fsdecode(b"caf\xe9"))
        case "long":
            raise ValueError("x" * 3_000_000)


class Unreadable:
    """Can be sent but not received."""

    def __reduce__(self) -> Any:
        return _refuse, ()


def _refuse() -> NoReturn:
    raise ImportError("no plugin of that name")


class Unsendable:
    """Cannot even be sent."""

    def __reduce__(self) -> Any:
        raise TypeError("cannot pickle this plugin")


class DiesOnArrival:
    """Kills the first process that receives it."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return _die_once, (self.mark,)


def _die_once(mark: str) -> None:
    if not Path(mark).exists():
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)


class SeesThreads:
    """Becomes, in the worker, what OMP_NUM_THREADS was when the worker's first objects arrived."""

    def __reduce__(self) -> Any:
        return _threads, ()


def _threads() -> str | None:
    return os.environ.get("OMP_NUM_THREADS")


def tell(key: str, name: str, settings: dict[str, Any], **_: Any) -> None:
    write(settings["log"], f"told {name} {settings[key]}")


def fail_at_first(how: str, attempts: int, attempt: int, **_: Any) -> None:
    if attempt <= attempts:
        fail(how)


def fail_on(device: str, settings: dict[str, Any], name: str, **_: Any) -> None:
    """Fail as a broken device does: on one of two, by what the worker may see."""
    write(settings["log"], f"on {name} {os.environ.get('CUDA_VISIBLE_DEVICES')}")
    if os.environ.get("CUDA_VISIBLE_DEVICES") == device:
        fail("device")
    time.sleep(0.5)  # long enough for a new worker of the broken one to ask for the next


def leave_a_child(settings: dict[str, Any], name: str, **_: Any) -> None:
    """End well, with a process still at work."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    write(settings["log"], f"child {child.pid}")


def print_much(**_: Any) -> None:
    for _number in range(3000):
        print("x" * 999)


def stand_still(attempts: int, attempt: int, **_: Any) -> None:
    if attempt <= attempts:
        os.kill(os.getpid(), signal.SIGSTOP)


DEADLY = 600.0  # seconds: as good as for ever
ACTIONS: dict[str, Callable[..., None]] = {
    f.__name__: f
    for f in (
        nothing,
        sleep,
        wait_for,
        die,
        leave,
        lose_once,
        kill_worker_of,
        fork_and_die,
        start_a_process,
        speak,
        report_always,
        report_once,
        hold_the_interpreter,
        cling,
        fail,
        tell,
        fail_at_first,
        fail_on,
        leave_a_child,
        print_much,
        stand_still,
    )
}
