"""``ue-bench run``: fill the grid and print the table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .common import (
    executor_options,
    fill_options,
    grid_options,
    jobs_option,
    json_option,
    print_json,
    resolved,
    say,
    separation_options,
    shard_option,
    shown,
)

if TYPE_CHECKING:
    from ..grid.filling import FillOptions
    from ..grid.separating import Budget


@click.command("run")
@grid_options
@shard_option
@jobs_option
@fill_options
@separation_options
@executor_options
@click.option("--no-table", is_flag=True, help="Print no table at the end: it takes time for thousands of cells.")
@click.option("--dry-run", is_flag=True, help="Show what would be computed, and stop.")
@json_option
def command(
    as_json: bool,
    dry_run: bool,
    no_table: bool,
    jobs: int | None,
    fill: FillOptions,
    budget: Budget | None,
    **options: Any,
) -> int:
    """Fill the grid of protectors and countermeasures and print the table.

    The board's reference rows, such as clean images, are part of it without --no-reference. What exists is not computed
    again. Any number of these commands may work on one folder, on any machines that share it.
    """
    if dry_run:
        from .plan import show, show_separation

        grid = resolved(**options)
        if budget is not None:
            return show_separation(grid, budget, as_json, jobs, fill)
        return show(grid, grid.missing(fill), as_json, jobs)
    from ..grid.progress import Progress
    from ..store.schema import as_json as plain

    say("ue-bench: preparing")
    grid = resolved(**options)
    if budget is None:
        failed = grid.fill(Progress(), jobs, fill)
    else:
        from ..grid import separating

        rows = separating.Separating(grid, budget)
        failed = separating.run(rows, Progress(), jobs, fill, lambda text: say(f"ue-bench: {text}"))
        grid = rows.whole_grid()
    results = grid.outcome()
    if as_json:
        print_json([plain(r) for r in results])
    elif not no_table:
        print(results.table())
    for protector in grid.unchanged(results):
        say(f"ue-bench: warning: {protector} left every image as it was, its results are those of clean images")
    say(f"ue-bench: {len(results)} of {len(grid.cells)} cells have results in {shown(grid.env.out)}")
    return 1 if failed or not results.complete else 0
