"""``ue-bench plan``: show what 'run' would compute."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .common import grid_options, json_option, print_json, resolved

if TYPE_CHECKING:
    from ..grid.grid import Grid
    from ..grid.planner import Planned


@click.command("plan")
@grid_options
@json_option
def command(as_json: bool, **options: Any) -> int:
    """Show what 'run' would compute, without computing it.

    Loads the dataset, because its fingerprint is part of every cell's key, and times some passes through the networks.
    """
    grid = resolved(**options)
    return show(grid, grid.missing(), as_json)


def show(grid: Grid, planned: list[Planned], as_json: bool) -> int:
    """Print the stages that are missing, and how long they will take."""
    from ..grid.cost import stage_seconds
    from ..grid.progress import duration

    seconds = [stage_seconds(p.stage, grid) for p in planned]
    if as_json:
        rows = [
            {"kind": p.stage.kind, "key": p.stage.key, "label": p.stage.label, "needs": p.needs, "seconds": took}
            for p, took in zip(planned, seconds, strict=True)
        ]
        print_json(rows)
        return 0
    todo = {p.stage.key for p in planned}
    for p, took in zip(planned, seconds, strict=True):
        print(f"{p.stage.kind:<10} {p.stage.key[:12]}  {duration(took) if took else '':>8}  {p.stage.label}")
    missing = sum(target.key in todo for target in grid.targets)
    work = f"{missing} of {len(grid.targets)} cells to compute, {len(planned)} stages in all"
    if planned:
        work += f", some {duration(sum(took or 0 for took in seconds))} of network passes on one worker"
    print(work)
    return 0
