from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from ue_bench.schedule import call
from ue_bench.schedule.devices import Slot
from ue_bench.schedule.driver import Driver
from ue_bench.schedule.executor import Event
from ue_bench.schedule.graph import Task
from ue_bench.schedule.local import LocalExecutor
from ue_bench.schedule.rules import Limits, Stops

from . import targets
from .board_drivers import Board
from .helpers import Outcome, kill, processes, read_log, slots


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
        limits: Limits | None = None,
        stops: Stops | None = None,
        executor: dict[str, Any] | None = None,
        **settings: Any,
    ) -> Outcome:
        events: list[Event] = []

        def note(event: Event) -> None:
            events.append(event)
            if on_event:
                on_event(event)

        places = slots(jobs) if on is None else on
        local = LocalExecutor(places, target, {"log": str(log), **settings}, **(executor or {}))
        driver = Driver(local, note, limits=limits, stops=stops)
        outcome = Outcome(events)
        try:
            outcome.failed = driver.run(tasks, len(places))
        except KeyboardInterrupt:
            outcome.interrupted = True
        outcome.log = read_log(log)
        return outcome

    return run


@pytest.fixture
def leaving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """What ``lose_once`` marks, where workers run in this process and must not end it."""

    def end(code: int) -> NoReturn:
        raise SystemExit(code)

    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(call, "LEAVING", 0.1)
    yield str(tmp_path / "mark")
    for thread in threading.enumerate():
        if thread.name == "works":  # of a Ray worker, which must not leave when it can again
            thread.join()


@pytest.fixture
def the_board(tmp_path: Path) -> Iterator[Board]:
    """A board that drivers of their own processes fill; whatever is left of them is killed afterwards."""
    (tmp_path / "board").mkdir()
    one = Board(tmp_path / "board")
    yield one
    for pid in processes(one.marker):
        kill(pid)
    for driver in one.drivers:
        if driver.stdout and not driver.stdout.closed:
            driver.communicate()
