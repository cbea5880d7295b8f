"""``ue-bench run``: fill the grid, print the table."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .common import Grid, grid, grid_options, jobs_option, json_option, say

if TYPE_CHECKING:
    from ..grid.plan import Planned


@click.command("run")
@grid_options
@jobs_option
@click.option("--dry-run", is_flag=True, help="Show what would be computed, and stop.")
@json_option
def command(as_json: bool, dry_run: bool, jobs: int | None, devices: str, threads: int, **options: Any) -> int:
    """Fill the grid of protectors and countermeasures and print the table.

    The board's reference rows, such as clean images, are always part of it. What exists is not computed again.
    """
    if dry_run:
        from .plan import show

        wanted = grid(devices=devices, threads=threads, report=loading(), **options)
        return show(wanted, wanted.planned(), as_json)
    from ..leaderboard.statistics import panels
    from ..leaderboard.tables import terminal
    from ..store.results import ResultStore
    from ..store.schema import as_json as plain
    from .leaderboard import board_info

    say("ue-bench: preparing")
    wanted = grid(devices=devices, threads=threads, report=loading(), **options)
    store = ResultStore(wanted.env.out)
    store.create()
    with store.lock():
        failed = fill(wanted, wanted.planned(), devices, jobs, threads)
    keys = {c.key for c in wanted.cells}
    results = [r for r in store.results() if r.key in keys]
    if as_json:
        print(json.dumps([plain(r) for r in results], indent=1, ensure_ascii=False))
    else:
        for panel in panels(results, board_info(wanted.board)):
            print(terminal(panel))
    say(f"ue-bench: {len(results)} of {len(keys)} cells have results in {_shown(wanted.env.out)}")
    return 1 if failed or len(results) < len(keys) else 0


def fill(wanted: Grid, planned: list[Planned], devices: str, jobs: int | None, threads: int) -> bool:
    """Compute the stages ``planned`` for the cells of ``wanted``; whether something failed."""
    from ..schedule.devices import slots
    from ..schedule.local import Scheduler, Task
    from ..store.artifacts import ArtifactStore
    from .progress import Progress, duration

    todo = {p.stage.key for p in planned}
    cached = sum(c.key not in todo for c in wanted.cells)
    if not planned:
        say(f"ue-bench: nothing to compute, all {cached} cells have results")
        return False
    ArtifactStore(wanted.env.cache_dir).sweep()
    tasks = [Task(p.stage.key, p.stage.label, p.stage, p.needs, p.weight) for p in planned]
    found = slots(devices, jobs, threads)[: len(tasks)]
    cells = f"{len(wanted.cells) - cached} of {len(wanted.cells)} cells to compute, {cached} cached"
    work = cells if cached < len(wanted.cells) else f"{len(planned)} stages to compute"
    say(
        f"ue-bench: {work}, on {len(found)} worker{'s' if len(found) > 1 else ''} "
        f"({', '.join(s.name for s in found)}), {wanted.cells[0].precision}"
    )
    labels = {p.stage.key: p.stage for p in planned}
    started = time.monotonic()
    with Progress(tasks, cached) as progress:

        def on_event(event: Any) -> None:
            if event.kind == "failed":
                _record(wanted, labels[event.task.key], event)
            progress.on_event(event)

        scheduler = Scheduler(found, "ue_bench.grid.work:run", {"env": wanted.env}, on_event)
        failed = scheduler.run(tasks)
    say(f"ue-bench: computed {len(progress.done)} stages in {duration(time.monotonic() - started)}")
    return bool(failed)


def _record(wanted: Grid, stage: Any, event: Any) -> None:
    """Keep a failed cell's reason beside the results."""
    from datetime import UTC, datetime

    from ..store.results import ResultStore
    from ..store.schema import Failure

    if stage.kind != "result":
        return
    now = datetime.now(UTC).isoformat(timespec="seconds")
    failure = Failure(key=stage.key, id=stage.label, attempts=event.attempt, error=event.text[:500], failed=now)
    ResultStore(wanted.env.out).write_failure(failure, event.trace)


def loading() -> Callable[[float, float, str], None]:
    """A report that prints a line now and then while a dataset is loaded."""
    last = time.monotonic()

    def report(done: float, total: float, text: str) -> None:
        nonlocal last
        if time.monotonic() - last > 2:
            last = time.monotonic()
            say(f"ue-bench: {text} {done / max(total, 1):.0%}")

    return report


def _shown(path: Path) -> str:
    """Relative to here where that is shorter."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
