from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ue_bench.schedule.devices import Slot
from ue_bench.schedule.local import Event, Scheduler, Task

from . import targets
from .helpers import Outcome, read_log, slots


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def drive(log: Path) -> Callable[..., Outcome]:
    """Run tasks in this process. ``on_event`` may be added; events come back in any case."""

    def run(
        tasks: list[Task],
        jobs: int = 1,
        target: str = f"{targets.__name__}:run",
        on_event: Callable[[Event], None] | None = None,
        on: list[Slot] | None = None,
        **settings: Any,
    ) -> Outcome:
        events: list[Event] = []

        def note(event: Event) -> None:
            events.append(event)
            if on_event:
                on_event(event)

        scheduler = Scheduler(slots(jobs) if on is None else on, target, {"log": str(log), **settings}, note)
        outcome = Outcome(events)
        try:
            outcome.failed = scheduler.run(tasks)
        except KeyboardInterrupt:
            outcome.interrupted = True
        outcome.log = read_log(log)
        return outcome

    return run
