"""``ue-bench run-stage``: compute one stage of a plan."""

from __future__ import annotations

from typing import Any

import click

from .common import grid_options, json_option, print_json, resolved, say


@click.command("run-stage")
@click.argument("key")
@grid_options
@json_option
def command(key: str, as_json: bool, **options: Any) -> int:
    """Compute the stage with KEY of a plan of the same options, for schedulers that start one process a stage.

    KEY may be cut off where it stays the only one. What the stage needs and is not stored is computed before it.

    \b
    ue-bench plan --format jsonl --protector em | jq -r .command | parallel
    """
    from ..grid.planner import find
    from ..grid.progress import Progress

    grid = resolved(**options)
    stage = find(grid.targets, key)
    failed = grid.fill_stage(stage, Progress())
    if as_json:
        print_json({"key": stage.key, "kind": stage.kind, "label": stage.label, "error": failed.get(stage.key)})
    say(f"ue-bench: {stage.label} {'failed' if failed else 'is stored'}")
    return 1 if failed else 0
