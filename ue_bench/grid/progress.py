"""What a user sees while work goes on: a live display on a terminal, a line an event elsewhere."""

from __future__ import annotations

import re
import sys
import time
import warnings
from dataclasses import dataclass, field
from importlib.util import find_spec

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..schedule.devices import Slot
from ..schedule.executor import Event
from ..schedule.graph import Graph, Task

SILENCE = 60  # seconds off a terminal, after which a task that is at work says so
FIRST = 0.02  # share of all work that must be done before its pace says more than a prediction
SILENT = 0.9  # share that a task has done at most that says nothing
BAR = 12  # columns; with the counts beside it the line fits into 80


def duration(seconds: float) -> str:
    """``1:05`` or ``2:03:04``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def shorten(label: str, width: int) -> str:
    """``label`` in at most ``width`` characters: the longest parameters go first, then some of the middle."""
    parameters = sorted(re.findall(r"\[[^\[\]]{2,}\]", label), key=len)
    while len(label) > width and parameters:
        label = label.replace(parameters.pop(), "[…]", 1)
    if len(label) <= width:
        return label
    head = (width - 1) // 2
    return label[:head] + "…" + label[len(label) - (width - 1 - head) :]


@dataclass
class _Running:
    """A task at work: how far it says that it is, and since when."""

    task: Task
    slot: str
    fraction: float = 0.0
    text: str = ""
    since: float = field(default_factory=lambda: time.monotonic())

    def share(self) -> float:
        """Return how much of it is done; where it has not said so, as its predicted seconds tell."""
        if self.fraction or not self.task.seconds:
            return self.fraction
        return min(SILENT, (time.monotonic() - self.since) / self.task.seconds)


class Progress:
    """Follows the computation of stages: a live display on a terminal or in a notebook, a line an event elsewhere."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self.tasks: list[Task] = []
        self.cached = 0
        self.weight, self.workers = 0.0, 1
        self.done: list[Task] = []
        self.failed: list[Event] = []
        self.running: dict[str, _Running] = {}
        self.known = 0.0
        self.ended: set[str] = set()
        self.chains: list[tuple[float, Task]] = []
        self.started = self.spoken = time.monotonic()
        self.stopping = False
        self.elsewhere = 0
        self.live = Live(get_renderable=self.render, console=self.console, refresh_per_second=4, transient=True)
        terminal = self.console.is_terminal and not self.console.is_dumb_terminal
        widgets = self.console.is_jupyter and find_spec("ipywidgets") is not None  # else rich warns at each refresh
        self.interactive = terminal or widgets

    def begin(self, tasks: list[Task], targets: int, missing: int, workers: list[Slot]) -> None:
        """Say how much there is to compute, and start the display."""
        self.tasks, self.cached = tasks, targets - missing
        self.weight, self.workers = sum(t.weight for t in tasks), max(1, len(workers))
        self.known = sum(t.weight for t in tasks if t.seconds is not None)  # of that weight the seconds are known
        self.done, self.failed, self.running, self.elsewhere, self.ended = [], [], {}, 0, set()
        length = Graph(tasks).length
        self.chains = sorted(((length[t.key], t) for t in tasks), key=lambda chain: chain[0])  # the longest is the last
        self.started = self.spoken = time.monotonic()
        if not tasks:
            left = (
                f"{self.cached} of {targets} cells have results"
                if self.cached < targets
                else f"all {targets} cells have results"
            )
            self.line(f"ue-bench: nothing to compute, {left}")
            return
        work = f"{missing} of {targets} cells to compute, {self.cached} cached"
        names = ", ".join(dict.fromkeys(worker.name for worker in workers))
        self.line(f"ue-bench: {work}, on {len(workers)} worker{'s' if len(workers) > 1 else ''} ({names})")
        if self.interactive:
            self.live.start()

    def end(self) -> None:
        """Stop the display, and say what was done."""
        if self.interactive and self.live.is_started:
            self.live.stop()
        if self.tasks:
            others = f", {self.elsewhere} more were computed by other drivers" if self.elsewhere else ""
            computed = f"{len(self.done) - self.elsewhere} stages in {duration(time.monotonic() - self.started)}"
            self.line(f"ue-bench: computed {computed}{others}")

    def on_event(self, event: Event) -> None:
        """Take note of ``event`` and, off a terminal, print a line."""
        task = event.task
        if event.kind == "stopping":
            self.stopping = True
            why = f"{event.text}; " if event.text else ""
            self.line(f"stopping: {why}no new work is started; Ctrl-C again stops at once")
            return
        if event.kind == "warning":
            self.line(f"warning: {event.text}")
            return
        if event.kind == "retired":
            self.line(f"warning: {event.slot} gets no more work, several cells in a row failed there: {event.text}")
            return
        assert task is not None
        if event.kind == "started":
            self.running[task.key] = _Running(task, event.slot)
        elif event.kind == "progress":
            one = self.running.setdefault(task.key, _Running(task, event.slot))
            one.fraction, one.text = event.fraction, event.text
            self.sign_of_life(task, event)
        else:
            self.running.pop(task.key, None)
            if event.kind in ("done", "elsewhere", "failed"):
                self.ended.add(task.key)
            if event.kind in ("done", "elsewhere"):
                self.done.append(task)
                self.elsewhere += event.kind == "elsewhere"
                if not self.interactive and event.kind == "done":
                    self.line(f"done    {self.summary()}  {task.label}")
            elif event.kind in ("deferred", "waiting"):
                pass  # it starts again, when what it needs is there or its turn comes in the queue
            elif event.kind == "crashed":
                then = "run again to try it again" if self.stopping else "trying once more"
                self.line(f"crashed {self.summary()}  {task.label}: {event.text}; {then}")
            else:
                self.failed.append(event)
                log = f"; see {event.log}" if event.log else ""
                self.line(f"failed  {self.summary()}  {task.label}: {event.text}{log}")

    def sign_of_life(self, task: Task, event: Event) -> None:
        """Off a terminal, a line when nothing was printed for a while: a task may take hours."""
        if not self.interactive and time.monotonic() - self.spoken > SILENCE:
            self.line(f"at work {self.summary()}  {task.label}: {event.text}, {event.fraction:.0%}")

    def line(self, text: str) -> None:
        """Print above the live display, or plainly."""
        self.spoken = time.monotonic()
        if self.interactive:
            self.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr, flush=True)

    def summary(self) -> str:
        """``12/26, eta 3:10``, with the number that failed if there are any."""
        failed = f", {len(self.failed)} failed" if self.failed else ""
        return f"{len(self.done)}/{len(self.tasks)}{failed}, eta {self.eta()}"

    def finished(self) -> float:
        """Weight of what is done, running tasks counted in part."""
        running = list(self.running.values())  # a copy: the display draws in a thread of its own
        return sum(t.weight for t in self.done) + sum(one.task.weight * one.share() for one in running)

    def eta(self) -> str:
        """Remaining time, each task counted by its weight, running ones by what is left of them.

        At the pace so far; at first, where most of the weight is in seconds, at that which was predicted. At the end,
        when there is less to do than there are workers, the longest chain of tasks tells.
        """
        finished, elapsed = self.finished(), time.monotonic() - self.started
        lost = sum(e.task.weight for e in self.failed if e.task)
        predicted = FIRST * self.weight if self.known > self.weight / 2 else 0.0
        if not predicted and finished <= FIRST * self.weight:
            return "--"
        pace = (elapsed + predicted / self.workers) / (finished + predicted)  # of all workers together
        return duration(pace * max(self.weight - finished - lost, self.workers * self._longest(), 0.0))

    def _longest(self) -> float:
        """Return the weight that is left of the longest chain of tasks."""
        while self.chains and self.chains[-1][1].key in self.ended:
            self.chains.pop()
        longest = 0.0
        for length, task in reversed(self.chains):
            one = self.running.get(task.key)
            if task.key not in self.ended:
                longest = max(longest, length - (one.task.weight * one.share() if one else 0.0))
                if one is None:
                    break
        return longest

    def render(self) -> RenderableType:
        """The live display: one line of totals, one a running task."""
        running = list(self.running.values())
        counts = [
            f"{len(self.done)}/{len(self.tasks)} done",
            f"[red]{len(self.failed)} failed[/]" if self.failed else "",
            f"{len(running)} running",
            f"eta {self.eta()}",
            "[yellow]stopping[/]" if self.stopping else "",
            f"{self.cached} cached" if self.cached else "",
        ]
        head = Table.grid(padding=(0, 2))
        head.add_column(width=BAR)
        head.add_column(no_wrap=True, overflow="ellipsis")
        bar = ProgressBar(self.weight, self.finished(), width=BAR)
        head.add_row(bar, Text.from_markup(", ".join(filter(None, counts))))
        slots = max((len(one.slot) for one in running), default=0)
        texts = min(max((len(one.text) for one in running), default=0), self.console.width // 4)
        labels = max(8, self.console.width - slots - texts - 4 - 3 * 2)  # 4 for the percentage, 2 between columns
        body = Table.grid(padding=(0, 2))
        for width in (slots, 4, texts, labels):
            body.add_column(no_wrap=True, overflow="ellipsis", max_width=width)
        for one in running:
            label = Text(shorten(one.task.label, labels))
            body.add_row(Text(one.slot, style="dim"), f"{one.fraction:4.0%}", Text(one.text, style="dim"), label)
        return Group(head, body)


class Quiet:
    """Follows the computation of stages without a word, but for warnings, which go to ``warnings.warn``."""

    def begin(self, tasks: list[Task], targets: int, missing: int, workers: list[Slot]) -> None:
        """Take no note of the work."""

    def on_event(self, event: Event) -> None:
        """Pass warnings on."""
        if event.kind == "warning":
            warnings.warn(event.text, stacklevel=2)

    def end(self) -> None:
        """Stop following."""
