"""``ue-bench plan``: what 'run' would compute."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from .common import Grid, grid, grid_options, json_option

if TYPE_CHECKING:
    from ..grid.plan import Planned, Stage


@click.command("plan")
@grid_options
@json_option
def command(as_json: bool, **options: Any) -> int:
    """Show what 'run' would compute, without computing it.

    Loads the dataset, because its fingerprint is part of every cell's key, and times some passes through the networks.
    """
    from .run import loading

    wanted = grid(report=loading(), **options)
    return show(wanted, wanted.planned(), as_json)


def show(wanted: Grid, planned: list[Planned], as_json: bool) -> int:
    """Print the stages that are missing, and how long they will take."""
    from .progress import duration

    seconds = [_seconds(p.stage, wanted) for p in planned]
    if as_json:
        rows = [
            {"kind": p.stage.kind, "key": p.stage.key, "label": p.stage.label, "needs": p.needs, "seconds": took}
            for p, took in zip(planned, seconds, strict=True)
        ]
        print(json.dumps(rows, indent=1))
        return 0
    todo = {p.stage.key for p in planned}
    for p, took in zip(planned, seconds, strict=True):
        print(f"{p.stage.kind:<10} {p.stage.key[:12]}  {duration(took) if took else '':>8}  {p.stage.label}")
    missing = sum(c.key in todo for c in wanted.cells)
    work = f"{missing} of {len(wanted.cells)} cells to compute, {len(planned)} stages in all"
    if planned:
        work += f", some {duration(sum(took or 0 for took in seconds))} of network passes on one worker"
    print(work)
    return 0


def _seconds(stage: Stage, wanted: Grid) -> float | None:
    """How long ``stage`` will spend in networks on this machine, which is measured; None where it uses none."""
    from ..contract.plugin import NetworkCost
    from ..grid.cost import seconds
    from ..grid.evasion_plan import ClassifierStage
    from ..grid.plan import ProtectStage, TrainStage, epochs

    env, info = wanted.env, wanted.data.info
    costs: list[NetworkCost | None] = []
    if isinstance(stage, ProtectStage):
        costs = [stage.protector.cost(info.train)]
    elif isinstance(stage, TrainStage):
        cell = stage.cell
        passes = cell.countermeasure.passes * epochs(cell.recipe, info.train)
        costs = [cell.victim.cost(info.train), NetworkCost(cell.victim.selector, passes)]
    elif isinstance(stage, ClassifierStage):
        costs = [NetworkCost(stage.victim.selector, epochs(stage.recipe, info.train))]
    size, precision = (info.height, info.width), wanted.cells[0].precision
    known = [
        seconds(cost, info.train, info.classes, size, env.device, precision, env.threads) for cost in costs if cost
    ]
    return sum(known) if known else None
