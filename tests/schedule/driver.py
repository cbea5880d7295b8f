"""A driver to be killed: ``python -m schedule.driver FOLDER JOBS MODE``. Plans what has no result yet, runs it, exits.

Grid: three 'protect' tasks, each needed by three 'train' tasks. Everything is stored by atomic rename, as the harness
does, with a random token inside: an output that was computed again would differ. MODE names the action of the 'train'
tasks (see ``STEPS``), or 'interrupt' to send Ctrl-C to the whole process group while the first worker starts.
"""

from __future__ import annotations

import os
import random
import secrets
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ue_bench.schedule.devices import Slot
from ue_bench.schedule.driver import Driver
from ue_bench.schedule.executor import Event
from ue_bench.schedule.graph import Task
from ue_bench.schedule.local import LocalExecutor

from .targets import cling, hold_the_interpreter, write

PROTECTORS, COUNTERMEASURES = "abc", "xyz"


def step(payload: Path, slot: Slot, settings: dict[str, Any], report: Any, attempt: int) -> None:
    """Compute ``payload``, unless an attempt before this one got as far as storing it."""
    log, name = settings["log"], payload.name
    write(log, f"start {name} {os.getpid()} {attempt}")
    if payload.exists():
        write(log, f"{'stored' if attempt > 1 else 'again'} {name}")
        return
    STEPS[settings["mode"]](name=name, settings=settings)
    part = payload.with_suffix(f".{os.getpid()}")
    part.write_text(secrets.token_hex(8))
    part.rename(payload)
    write(log, f"made {name}")
    time.sleep(random.Random(name).uniform(0, 0.05))  # a moment in which the result is there but not reported


def short(**_: Any) -> None:
    time.sleep(0.05)


STEPS: dict[str, Callable[..., None]] = {
    "short": short,
    "interrupt": short,
    "cling": cling,
    "hold": hold_the_interpreter,
}


def plan(folder: Path) -> list[Task]:
    """What has no result yet."""
    tasks = [Task(p, f"protect {p}", folder / p) for p in PROTECTORS]
    tasks += [Task(p + c, f"train {p}{c}", folder / (p + c), (p,)) for p in PROTECTORS for c in COUNTERMEASURES]
    return [t for t in tasks if not t.payload.exists()]


def main(folder: Path, jobs: int, mode: str) -> int:
    def on_event(event: Event) -> None:
        print(event.kind, event.task.key if event.task else "", event.text, flush=True)
        if mode == "interrupt" and event.kind == "started":
            os.killpg(0, signal.SIGINT)

    slots = [Slot(f"cpu#{i}", "cpu", 1) for i in range(jobs)]
    settings = {"log": str(folder.parent / "log"), "mode": mode}
    try:
        failed = Driver(LocalExecutor(slots, f"{__package__}.driver:step", settings), on_event).run(plan(folder), jobs)
    except KeyboardInterrupt:
        return 130
    return 1 if failed else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # as Python starts; coverage handles it, and a driver leaves that be
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
