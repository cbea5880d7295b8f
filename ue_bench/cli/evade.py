"""``ue-bench evade``: show protected test images to classifiers that were trained on clean images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .common import (
    evasion_options,
    executor_options,
    fill_options,
    jobs_option,
    json_option,
    print_json,
    resolved,
    say,
    shown,
)

if TYPE_CHECKING:
    from ..grid.filling import FillOptions


@click.command("evade")
@click.option("-P", "--protector", "protectors", multiple=True, required=True,
              help="Selectors of protectors; clean images are always there.")  # fmt: skip
@click.option("-C", "--countermeasure", "countermeasures", multiple=True, default=("@evasion",), show_default=True,
              help="What is done to test images before they are shown.")  # fmt: skip
@evasion_options
@jobs_option
@fill_options
@executor_options
@click.option("--dry-run", is_flag=True, help="Show what would be computed, and stop.")
@click.option("--markdown", is_flag=True, help="Print Markdown.")
@json_option
def command(
    protectors: tuple[str, ...],
    images: int | None,
    transfer: bool,
    as_json: bool,
    markdown: bool,
    dry_run: bool,
    jobs: int | None,
    fill: FillOptions,
    **options: Any,
) -> int:
    """Show protected test images to classifiers that were trained on clean images, and print their accuracy.

    Rows are protectors, columns what is done to images before. Victims of the board are the classifiers, its protocol
    trains them. What exists is not computed again.

    \b
    ue-bench evade -P 'raeg[weights=raeg.safetensors]' --board cifar10-micro -D cifar10
    """
    from ..catalogue import boards
    from ..catalogue.registry import registry
    from ..errors import UserError
    from ..grid.evasion import EvasionCell
    from ..grid.progress import Progress
    from ..grid.stages.base import Stores
    from ..grid.stages.evade import EvadeStage
    from ..leaderboard.evasion import panels, setting
    from ..store.schema import as_json as plain

    if as_json and markdown:
        raise UserError("--json and --markdown exclude each other", "choose one")
    say("ue-bench: preparing")
    board = resolved(protectors=(boards.board(options["board_name"]).clean, *protectors), reference=False, **options)
    grid = board.with_cells([EvasionCell.of(cell, images, transfer) for cell in board.cells], EvadeStage)
    if dry_run:
        from .plan import show

        return show(grid, grid.missing(fill), as_json, jobs)
    failed = grid.fill(Progress(), jobs, fill)
    stored = Stores(grid.env).evaded
    results = [stored[cell.key] for cell in grid.cells if cell.key in stored]
    if as_json:
        print_json([plain(r) for r in results])
    else:
        plain_column = registry().one("countermeasure", grid.board.plain).selector
        tables = panels(results, plain_column, setting(grid.cells))
        print("\n".join(p.markdown() if markdown else p.text() for p in tables), end="")
    say(f"ue-bench: {len(results)} of {len(grid.cells)} cells have results in {shown(grid.env.out / 'evasion')}")
    return 1 if failed or len(results) < len(grid.cells) else 0
