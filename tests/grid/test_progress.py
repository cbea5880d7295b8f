from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from ue_bench.grid.progress import Progress, duration, shorten
from ue_bench.schedule.devices import Slot
from ue_bench.schedule.executor import Event
from ue_bench.schedule.graph import Task

LONG = "demo[train_per_class=20,test_per_class=10]/deephiding[secret=7]/jpeg[quality=10]/resnet18[width=64]/tiny/s0"


def task(name: str, weight: float = 1.0, seconds: float | None = None, needs: tuple[str, ...] = ()) -> Task:
    return Task(name, f"task {name}", None, needs, weight, seconds=seconds)


def predicted(name: str, seconds: float, needs: tuple[str, ...] = ()) -> Task:
    return task(name, seconds, seconds, needs)


class Clock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("ue_bench.grid.progress.time.monotonic", clock)
    return clock


def plain(tasks: list[Task], cached: int = 0) -> Progress:
    progress = Progress(Console(file=StringIO(), force_terminal=False))
    progress.begin(tasks, len(tasks) + cached, len(tasks), [Slot("cpu#0", "cpu", 1)])
    return progress


def screen(progress: Progress, width: int = 80) -> list[str]:
    """What the live display shows, without colours."""
    console = Console(file=StringIO(), force_terminal=True, width=width, color_system=None)
    progress.console = console
    console.print(progress.render())
    assert isinstance(console.file, StringIO)
    return console.file.getvalue().rstrip("\n").split("\n")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (59.6, "1:00"), (65, "1:05"), (3599.4, "59:59"), (3600, "1:00:00"), (7384, "2:03:04")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("width", "text"),
    [
        (200, LONG),
        (80, "demo[…]/deephiding[secret=7]/jpeg[quality=10]/resnet18[width=64]/tiny/s0"),
        (60, "demo[…]/deephiding[secret=7]/jpeg[…]/resnet18[…]/tiny/s0"),
        (50, "demo[…]/deephiding[…]/jpeg[…]/resnet18[…]/tiny/s0"),
        (20, "demo[…]/d……]/tiny/s0"),
        (1, "…"),
    ],
)
def test_shorten(width: int, text: str) -> None:
    assert shorten(LONG, width) == text
    assert len(text) <= width


def test_a_line_an_event_off_a_terminal(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    tasks = [task(name) for name in "abcd"]
    progress = plain(tasks)
    progress.on_event(Event("started", tasks[0], "cpu#0"))
    progress.on_event(Event("progress", tasks[0], "cpu#0", 0.5, "epoch 1/2"))
    clock.now += 60
    progress.on_event(Event("done", tasks[0]))
    progress.on_event(Event("started", tasks[1], "cpu#0"))
    progress.on_event(Event("crashed", tasks[1], text="SIGKILL"))
    progress.on_event(Event("failed", tasks[1], text="ValueError: no"))
    progress.on_event(Event("stopping"))
    progress.on_event(Event("crashed", tasks[2], text="SIGKILL"))
    progress.on_event(Event("warning", tasks[3], text="nothing changed"))
    progress.end()
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "ue-bench: 4 of 4 cells to compute, 0 cached, on 1 worker (cpu#0)",
        "done    1/4, eta 3:00  task a",
        "crashed 1/4, eta 3:00  task b: SIGKILL; trying once more",
        "failed  1/4, 1 failed, eta 2:00  task b: ValueError: no",
        "stopping: no new work is started; Ctrl-C again stops at once",
        "crashed 1/4, 1 failed, eta 2:00  task c: SIGKILL; run again to try it again",
        "warning: nothing changed",
        "ue-bench: computed 1 stages in 1:00",
    ]


def test_long_work_gives_a_sign_of_life_off_a_terminal(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    tasks = [task(name) for name in "ab"]
    progress = plain(tasks)
    progress.on_event(Event("started", tasks[0], "cpu#0"))
    for second in range(1, 301):
        clock.now += 1
        progress.on_event(Event("progress", tasks[0], "cpu#0", second / 600, f"train, loss {second}"))
    lines = capsys.readouterr().err.splitlines()[1:]
    assert lines[0] == "at work 0/2, eta 18:59  task a: train, loss 61, 10%"
    assert len(lines) == 4


def test_eta_is_unknown_at_first(clock: Clock) -> None:
    tasks = [task("a"), task("b")]
    progress = plain(tasks)
    clock.now += 10
    progress.on_event(Event("started", tasks[0], "cpu#0"))
    assert progress.eta() == "--"
    progress.on_event(Event("progress", tasks[0], "cpu#0", 0.5))
    assert progress.eta() == "0:30"


def test_eta_counts_weights(clock: Clock) -> None:
    tasks = [task("light", weight=1), task("heavy", weight=9)]
    progress = plain(tasks)
    clock.now += 10
    progress.on_event(Event("done", tasks[0]))
    assert progress.eta() == "1:30"


def test_eta_is_never_negative(clock: Clock) -> None:
    tasks = [task("a"), task("b")]
    progress = plain(tasks)
    clock.now += 10
    progress.on_event(Event("progress", tasks[0], "cpu#0", 1.0))
    progress.on_event(Event("progress", tasks[1], "cpu#0", 1.0))
    assert progress.eta() == "0:00"
    progress.on_event(Event("failed", tasks[1], text="late"))
    assert progress.eta() == "0:00"


@pytest.mark.parametrize("tasks", [[], [task("a", weight=0)]])
def test_eta_without_work(tasks: list[Task]) -> None:
    assert plain(tasks).eta() == "--"


def test_display_of_several_tasks_fits_80_columns(clock: Clock) -> None:
    tasks = [Task(str(i), LONG, None) for i in range(8)]
    progress = plain(tasks, cached=130)
    clock.now += 3600
    progress.on_event(Event("done", tasks[0]))
    progress.on_event(Event("failed", tasks[1], text="no"))
    for i in range(2, 8):
        progress.on_event(
            Event("progress", tasks[i], f"cuda:{i}", i / 16, "hiding pictures in pictures" if i % 2 else "")
        )
    lines = screen(progress)
    assert len(lines) == 1 + 6
    assert all(len(line) <= 80 for line in lines)
    assert "1/8 done, 1 failed, 6 running, eta 1:36:17, 130 cached" in lines[0]
    assert lines[1].split()[:2] == ["cuda:2", "12%"]
    assert "demo[…]" in lines[1]
    assert lines[1].rstrip().endswith("tiny/s0")
    assert "hiding pictures in …" in lines[2]


def test_display_survives_a_narrow_terminal(clock: Clock) -> None:
    progress = plain([Task("a", LONG, None)])
    progress.on_event(Event("progress", Task("a", LONG, None), "cuda:0", 0.5, "epoch 10/20"))
    assert len(screen(progress, width=30)) == 2


def test_brackets_are_no_markup() -> None:
    progress = plain([task("a")])
    one = Task("a", "x[bold]", None)
    progress.on_event(Event("progress", one, "cpu#0", 0.5, "[red]"))
    assert "[red]  x[bold]" in screen(progress)[1]


def test_terminal_shows_failures_above_and_leaves_nothing_else() -> None:
    console = Console(file=StringIO(), force_terminal=True, width=80)
    tasks = [task("a"), task("b")]
    progress = Progress(console)
    progress.begin(tasks, 2, 2, [Slot("cpu#0", "cpu", 1)])
    progress.on_event(Event("started", tasks[0], "cpu#0"))
    progress.on_event(Event("failed", tasks[0], text="ValueError: [no]"))
    progress.on_event(Event("done", tasks[1]))
    assert progress.live.is_started
    progress.end()
    assert not progress.live.is_started
    assert isinstance(console.file, StringIO)
    shown = console.file.getvalue()
    assert "task a: ValueError: [no]" in shown
    assert "done    " not in shown
    assert "\x1b[2K" in shown  # the display is cleared
    assert shown.endswith("ue-bench: computed 1 stages in 0:00\n")


def test_dumb_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert not Progress(Console(file=StringIO(), force_terminal=True)).interactive


def test_eta_knows_the_tail(clock: Clock) -> None:
    """One long task is left for four workers: three of them cannot help."""
    tasks = [task(name) for name in "abcd"]
    progress = Progress(Console(file=StringIO(), force_terminal=False))
    progress.begin(tasks, 4, 4, [Slot(f"cpu#{i}", "cpu", 1) for i in range(4)])
    for one in tasks:
        progress.on_event(Event("started", one))
    clock.now += 60
    for one in tasks[:3]:
        progress.on_event(Event("done", one))
    progress.on_event(Event("progress", tasks[3], fraction=0.25))
    # 3.25 tasks a minute by four workers, so one worker does 0.8125, and has 0.75 of a task before it.
    assert progress.eta() == "0:55"


def on_workers(count: int, tasks: list[Task]) -> Progress:
    progress = Progress(Console(file=StringIO(), force_terminal=False))
    progress.begin(tasks, len(tasks), len(tasks), [Slot(f"cpu#{i}", "cpu", 1) for i in range(count)])
    return progress


def test_eta_is_that_of_earlier_runs_until_this_one_tells_more(clock: Clock) -> None:
    tasks = [predicted("a", 60), predicted("b", 60)]
    progress = on_workers(1, tasks)
    assert progress.eta() == "2:00"
    progress.on_event(Event("started", tasks[0]))
    clock.now += 120  # twice as long as predicted
    progress.on_event(Event("done", tasks[0]))
    assert progress.eta() == "1:58"  # the prediction still counts a little


def test_eta_takes_a_task_that_says_nothing_for_as_far_as_it_was_predicted_to_be(clock: Clock) -> None:
    tasks = [predicted("a", 100), predicted("b", 100)]
    progress = on_workers(1, tasks)
    progress.on_event(Event("started", tasks[0]))
    clock.now += 50
    assert progress.eta() == "2:30"
    clock.now += 1000  # it says nothing, and so is not done
    assert progress.finished() == 90


def test_eta_knows_that_one_task_waits_for_another(clock: Clock) -> None:
    """Four workers do not help a chain of two."""
    tasks = [predicted("p", 60), predicted("t", 60, ("p",)), *(predicted(name, 10) for name in "abc")]
    progress = on_workers(4, tasks)
    assert progress.eta() == "2:00"
    progress.on_event(Event("started", tasks[0]))
    clock.now += 60
    for one in (tasks[0], *tasks[2:]):
        progress.on_event(Event("done", one))
    assert progress.eta() != "--"
    assert progress._longest() == 60
    progress.on_event(Event("failed", tasks[1], text="no"))
    assert progress.eta() == "0:00"


@pytest.mark.parametrize(("widgets", "live"), [(None, False), ("a spec", True)])
def test_a_notebook_has_a_live_display_where_there_are_widgets(
    monkeypatch: pytest.MonkeyPatch, widgets: str | None, live: bool
) -> None:
    monkeypatch.setattr("ue_bench.grid.progress.find_spec", lambda name: widgets)
    assert Progress(Console(file=StringIO(), force_jupyter=True)).interactive is live


def test_nothing_to_compute_is_not_called_done(capsys: pytest.CaptureFixture[str]) -> None:
    """As with failures that are not tried again."""
    for cells, missing in ((2, 0), (2, 1)):
        Progress().begin([], cells, missing, [])
    assert capsys.readouterr().err.splitlines() == [
        "ue-bench: nothing to compute, all 2 cells have results",
        "ue-bench: nothing to compute, 1 of 2 cells have results",
    ]
