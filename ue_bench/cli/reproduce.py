"""``ue-bench reproduce``: a paper's table, computed again on a board."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..catalogue.registry import did_you_mean, registry
from ..catalogue.selectors import write_text
from ..errors import UserError
from ..grid.grid import Grid
from .common import evasion_only_options, json_option, resolved, say, setting_options

if TYPE_CHECKING:
    from ..grid.cell import Cell
    from ..leaderboard.printed import PrintedTable


@click.command("reproduce")
@click.argument("table_name", metavar="[TABLE]", required=False)
@setting_options
@click.option("--jobs", type=click.IntRange(1), help="Workers a device; a CPU has one a core.")
@click.option("--train-steps", type=click.IntRange(1), default=5000, show_default=True,
              help="Of rows that train a hiding network of their own.")  # fmt: skip
@click.option("--natural", type=click.Path(path_type=Path),
              help="Photographs for rows that hide natural images: a folder of images or Parquet files.")  # fmt: skip
@click.option("--preset", type=click.Choice(["micro", "paper"]), default="micro", show_default=True,
              help="Of what raeg tables train; the paper's takes GPUs.")  # fmt: skip
@click.option("--weights", type=click.Path(path_type=Path), help="raeg tables: a generator of 'ue-bench raeg train'.")
@click.option("--unseen", help="raeg-table4: a victim that is no target, for acc_transfer.")
@evasion_only_options
@click.option("--dry-run", is_flag=True, help="Show what would be computed, and stop.")
@click.option("--markdown", is_flag=True, help="Print Markdown.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    table_name: str | None,
    as_json: bool,
    markdown: bool,
    dry_run: bool,
    natural: Path | None,
    train_steps: int,
    preset: str,
    weights: Path | None,
    unseen: str | None,
    images: int | None,
    transfer: bool,
    jobs: int | None,
    devices: str,
    threads: int,
    **options: Any,
) -> int:
    """Compute a table of a paper on a board, and print its numbers beside the printed ones.

    Without TABLE, lists the tables. Results are those of 'run' and 'evade', in the same folder: what exists is not
    computed again.

    \b
    ue-bench reproduce tableD --board cifar10-micro --natural photos
    """
    from ..grid.progress import Progress
    from ..leaderboard import printed, raeg
    from ..leaderboard.comparison import compare

    titles = printed.TITLES | raeg.TITLES
    if table_name is None:
        lines = [f"{name:<11} {title}" for name, title in titles.items()]
        print(json.dumps(titles, indent=1) if as_json else "\n".join(lines))
        return 0
    if table_name not in titles:
        raise UserError(f"no table {table_name!r}", did_you_mean(table_name, list(titles)))
    if as_json and markdown:
        raise UserError("--json and --markdown exclude each other", "choose one")
    if table_name in raeg.TITLES:
        from .reproduce_raeg import quoted, reproduce

        _refuse(ctx, table_name, _no_part_in_raeg(table_name, weights))
        return reproduce(
            table_name, weights=None if weights is None else quoted(weights), preset=preset, unseen=unseen,
            images=images, transfer=transfer, dry_run=dry_run, as_json=as_json, markdown=markdown, devices=devices,
            jobs=jobs, threads=threads, **options,
        )  # fmt: skip
    table = printed.table(table_name)
    unused = {name for name, used in (("train_steps", table.trains), ("natural", table.natural)) if not used}
    _refuse(ctx, table.name, {*unused, "preset", "weights", "unseen", "images", "transfer"})

    say("ue-bench: preparing")
    texts = {row.label: row.selector(train_steps, _quoted(natural)) for row in table.rows}
    asked = {label: text for label, text in texts.items() if text is not None}
    if len(asked) < len(texts):
        say(f"ue-bench: not computed without --natural: {'; '.join(set(texts) - set(asked))}")
    wanted = _grid(table, list(asked.values()), devices=devices, threads=threads, **options)
    selectors = {label: registry().resolve("protector", text)[0].selector for label, text in asked.items()}
    if dry_run:
        from .plan import show

        return show(wanted, wanted.missing(), as_json)
    failed = wanted.fill(Progress(), jobs)
    found = compare(table, selectors, wanted.cells, _measured(table, wanted))
    if as_json:
        print(json.dumps([c.plain() for c in found], indent=1, ensure_ascii=False))
    else:
        print("\n".join(c.markdown() if markdown else c.text() for c in found), end="")
    return 1 if failed or not all(c.complete for c in found) else 0


def _refuse(ctx: click.Context, table: str, unused: Collection[str]) -> None:
    """Raise UserError when an option that has no part in ``table`` is given."""
    for name in sorted(unused):
        if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            raise UserError(f"--{name.replace('_', '-')} has no part in {table}", "leave it out")


def _no_part_in_raeg(table: str, weights: Path | None) -> set[str]:
    """Options that a table of RAEG does not use."""
    unused = {"train_steps", "natural"}
    unused |= {"images", "transfer"} if table == "raeg-table3" else {"fraction"}
    if table != "raeg-table4":
        unused |= {"unseen"}
    if table in ("raeg-table2", "raeg-table3") and weights is not None:
        unused |= {"preset"}
    return unused


def _quoted(path: Path | None) -> str | None:
    """A path as a value of a selector."""
    return None if path is None else write_text(str(path.expanduser().absolute()))


def _grid(table: PrintedTable, protectors: list[str], **options: Any) -> Grid:
    """The cells of the table and no others: a board's reference rows are not part of it."""
    from ..grid.stages.features import FeatureStage
    from ..leaderboard.printed import COSINES

    features = table.columns == COSINES
    columns = ("vanilla",) if features else table.columns
    whole = resolved(protectors=tuple(protectors), countermeasures=columns, reference=False, **options)
    return whole.with_cells(whole.cells, FeatureStage if features else None)


def _measured(table: PrintedTable, wanted: Grid) -> Callable[[Cell], Mapping[str, float]]:
    """What gives the measured numbers of a cell, by column of the table."""
    from ..grid.stages.base import Stores
    from ..leaderboard.printed import COSINES

    stores = Stores(wanted.env)

    def values(cell: Cell) -> Mapping[str, float]:
        numbers = wanted.goal(cell).measured(stores)
        if numbers is None:
            return {}
        if table.columns == COSINES:
            return {column: numbers[column] for column in COSINES}
        return {cell.countermeasure.selector: numbers["accuracy"]}

    return values
