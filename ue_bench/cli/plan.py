"""``ue-bench plan``: what 'run' would compute."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from .common import Grid, grid, grid_options, json_option

if TYPE_CHECKING:
    from ..plan import Planned


@click.command("plan")
@grid_options
@json_option
def command(as_json: bool, **options: Any) -> int:
    """Show what 'run' would compute, without computing it.

    Loads the dataset, because its fingerprint is part of every cell's key.
    """
    from .run import loading

    wanted = grid(report=loading(), **options)
    return show(wanted, wanted.planned(), as_json)


def show(wanted: Grid, planned: list[Planned], as_json: bool) -> int:
    """Print the stages that are missing."""
    if as_json:
        rows = [{"kind": p.stage.kind, "key": p.stage.key, "label": p.stage.label, "needs": p.needs} for p in planned]
        print(json.dumps(rows, indent=1))
        return 0
    todo = {p.stage.key for p in planned}
    for p in planned:
        print(f"{p.stage.kind:<10} {p.stage.key[:12]}  {p.stage.label}")
    missing = sum(c.key in todo for c in wanted.cells)
    print(f"{missing} of {len(wanted.cells)} cells to compute, {len(planned)} stages in all")
    return 0
