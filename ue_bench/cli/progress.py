"""What a user sees while work goes on: a live display on a terminal, a line an event elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..schedule.local import Event, Task


def duration(seconds: float) -> str:
    """``1:05`` or ``2:03:04``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Progress:
    """Follows the events of a scheduler. Use as a context manager; pass ``on_event`` to the scheduler."""

    def __init__(self, tasks: list[Task], cached: int, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self.total, self.cached = len(tasks), cached
        self.weight = sum(t.weight for t in tasks)
        self.done: list[Task] = []
        self.failed: list[Event] = []
        self.running: dict[str, tuple[Task, str, float, str]] = {}
        self.started = time.monotonic()
        self.stopping = False
        self.live = Live(get_renderable=self.render, console=self.console, refresh_per_second=4, transient=True)
        self.interactive = self.console.is_terminal

    def __enter__(self) -> Progress:
        if self.interactive:
            self.live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.interactive:
            self.live.stop()

    def on_event(self, event: Event) -> None:
        """Take note of ``event`` and, off a terminal, print a line."""
        task = event.task
        if event.kind == "stopping":
            self.stopping = True
            self.line("stopping: no new work is started; Ctrl-C again stops at once")
            return
        assert task is not None
        if event.kind == "started":
            self.running[task.key] = (task, event.slot, 0.0, "")
        elif event.kind == "progress":
            self.running[task.key] = (task, event.slot, event.fraction, event.text)
        else:
            self.running.pop(task.key, None)
            if event.kind == "done":
                self.done.append(task)
                if not self.interactive:
                    self.line(f"done    {self.summary()}  {task.label}")
            elif event.kind == "crashed":
                self.line(f"crashed {task.label}: {event.text}; trying once more")
            else:
                self.failed.append(event)
                self.line(f"failed  {task.label}: {event.text}")

    def line(self, text: str) -> None:
        """Print above the live display, or plainly."""
        if self.interactive:
            self.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr, flush=True)

    def summary(self) -> str:
        """``12/26, eta 3:10``."""
        return f"{len(self.done)}/{self.total}, eta {self.eta()}"

    def eta(self) -> str:
        """Remaining time at the pace so far, each task counted by its weight."""
        finished = sum(t.weight for t in self.done)
        partly = sum(t.weight * fraction for t, _, fraction, _ in self.running.values())
        lost = sum(e.task.weight for e in self.failed if e.task)
        elapsed = time.monotonic() - self.started
        if finished + partly < 0.02 * self.weight:
            return "--"
        return duration(elapsed / (finished + partly) * max(0.0, self.weight - finished - partly - lost))

    def render(self) -> RenderableType:
        """The live display: one line of totals, one a running task."""
        finished = sum(t.weight for t in self.done)
        partly = sum(t.weight * fraction for t, _, fraction, _ in self.running.values())
        head = Table.grid(padding=(0, 2))
        counts = f"{len(self.done)} done, {len(self.failed)} failed, {len(self.running)} running, {self.cached} cached"
        head.add_row(
            ProgressBar(self.weight, finished + partly, width=24),
            f"{len(self.done)}/{self.total}",
            counts,
            f"eta {self.eta()}",
            Text("stopping" if self.stopping else "", style="yellow"),
        )
        body = Table.grid(padding=(0, 2))
        for task, slot, fraction, text in self.running.values():
            body.add_row(Text(slot, style="dim"), f"{fraction:4.0%}", Text(text, style="dim"), Text(task.label))
        return Group(head, body)
