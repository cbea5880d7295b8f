"""``ue-bench plan``: show what 'run' would compute."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from ..errors import UserError
from .common import (
    given_grid_options,
    grid_options,
    jobs_option,
    json_option,
    print_json,
    resolved,
    separation_options,
    shard_option,
)

if TYPE_CHECKING:
    from ..grid.filling import FillOptions
    from ..grid.grid import Grid
    from ..grid.planner import Planned
    from ..grid.prediction import Forecast
    from ..grid.separating import Budget
    from ..schedule.devices import Slot

FORMATS = ("text", "json", "jsonl")


@click.command("plan")
@grid_options
@shard_option
@jobs_option
@separation_options
@click.option("--format", "form", type=click.Choice(FORMATS), default="text", show_default=True,
              help="jsonl: one stage a line, with the command that computes it.")  # fmt: skip
@json_option
def command(as_json: bool, form: str, jobs: int | None, budget: Budget | None, **options: Any) -> int:
    """Show what 'run' would compute, without computing it, and how long that will take here.

    Loads the dataset, because its fingerprint is part of every cell's key. What this machine has not computed before is
    predicted from some passes through its networks, and from what protectors and purifiers do to a few images.
    """
    if budget is not None and form == "jsonl":
        raise UserError(
            "stages that depend on results are not known beforehand", "plan --until-separated has no --format jsonl"
        )
    grid = resolved(**options)
    if budget is not None:
        return show_separation(grid, budget, as_json or form == "json", jobs)
    if form == "jsonl":
        return show_lines(grid, grid.missing(), jobs, given_grid_options(grid.precision))
    return show(grid, grid.missing(), as_json or form == "json", jobs)


def show(grid: Grid, planned: list[Planned], as_json: bool, jobs: int | None = None) -> int:
    """Print the stages that are missing, and how long they will take."""
    from ..grid.prediction import forecast
    from ..grid.progress import duration

    workers = _workers(grid, planned, jobs)
    expected = forecast(planned, grid, workers)
    if as_json:
        print_json([_row(p, took) for p, took in zip(planned, expected.stages, strict=True)])
        return 0
    for p, took in zip(planned, expected.stages, strict=True):
        time = "" if took is None else duration(took)
        print(f"{p.stage.kind:<10} {p.stage.key[:12]}  {time:>8}  {p.stage.label}")
    todo = {p.stage.key for p in planned}
    missing = sum(target.key in todo for target in grid.targets)
    print(
        f"{missing} of {len(grid.targets)} cells to compute, {len(planned)} stages in all{_summary(expected, workers)}"
    )
    return 0


def show_separation(
    grid: Grid, budget: Budget, as_json: bool, jobs: int | None = None, fill: FillOptions | None = None
) -> int:
    """Print the stages of the grid that are missing, or else those of the next seed, and how far rows are apart."""
    from ..grid.separating import Separating

    separating = Separating(grid, budget)
    planned = grid.missing(fill)
    if planned:
        show(grid, planned, as_json, jobs)
        if not as_json:
            print(f"then further seeds of rows until they are apart, at most {budget.limit}")
        return 0
    results = separating.results()
    step = separating.next_step(results)
    next_grid = separating.grid_of(step) if step else grid
    show(next_grid, next_grid.missing(fill), as_json, jobs)
    if not as_json:
        for state in separating.classes(results):
            print(state.text())
        spent = budget.text(separating.spent(results))
        print(f"next: seed {step.seed} of {step.place[0]}; {spent} spent" if step else separating.verdict(results))
    return 0


def show_lines(grid: Grid, planned: list[Planned], jobs: int | None, options: Sequence[str]) -> int:
    """Print one line of JSON a stage, with the command that computes it."""
    from ..grid.prediction import forecast

    expected = forecast(planned, grid, _workers(grid, planned, jobs))
    rest = shlex.join(options)
    for p, took in zip(planned, expected.stages, strict=True):
        words = f"ue-bench run-stage {p.stage.key} {rest}".rstrip()
        print(json.dumps(_row(p, took) | {"command": words}, allow_nan=False))
    return 0


def _row(planned: Planned, seconds: float | None) -> dict[str, Any]:
    stage = planned.stage
    return {"kind": stage.kind, "key": stage.key, "label": stage.label, "needs": planned.needs, "seconds": seconds}


def _workers(grid: Grid, planned: list[Planned], jobs: int | None) -> list[Slot]:
    from ..schedule.devices import slots

    return slots(grid.devices, jobs, grid.env.threads)[: len(planned)]


def _summary(expected: Forecast, workers: Sequence[Slot]) -> str:
    """Return how long it takes, in words; nothing where there is nothing to compute."""
    from ..grid.progress import duration

    if not expected.stages:
        return ""
    end = datetime.now() + timedelta(seconds=expected.finish)
    count = f"{len(workers)} worker{'s' if len(workers) > 1 else ''}"
    hours = expected.work / 3600
    work = f"{hours:,.0f}" if hours >= 10 else f"{hours:.2f}"  # neither 1.8e-05 nor 1.2e+02
    text = f", some {duration(expected.finish)} on {count} ({work} device-hours), until {end:%Y-%m-%d %H:%M}"
    if expected.unknown:
        text += f"; {expected.unknown} stages of unknown length are not counted"
    return text
