"""``ue-bench reproduce``: a paper's table, computed again on a board."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import UserError
from ..registry import registry
from ..selectors import write_text
from .common import Grid, grid, json_option, say, setting_options

if TYPE_CHECKING:
    from ..leaderboard.printed import PrintedTable
    from ..plan import Cell, Planned


@click.command("reproduce")
@click.argument("table_name", metavar="[TABLE]", required=False)
@setting_options
@click.option("--jobs", type=click.IntRange(1), help="Workers a device; a CPU has one a core.")
@click.option("--train-steps", type=click.IntRange(1), default=5000, show_default=True,
              help="Of rows that train a hiding network of their own.")  # fmt: skip
@click.option("--natural", type=click.Path(path_type=Path),
              help="Photographs for rows that hide natural images: a folder of images or Parquet files.")  # fmt: skip
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
    jobs: int | None,
    devices: str,
    threads: int,
    **options: Any,
) -> int:
    """Compute a table of a paper on a board, and print its numbers beside the printed ones.

    Without TABLE, lists the tables. Results are those of 'run', in the same folder: what exists is not computed again.

    \b
    ue-bench reproduce tableD --board cifar10-micro --natural photos
    """
    from ..leaderboard import printed
    from ..leaderboard.comparison import compare

    if table_name is None:
        lines = [f"{name:<8} {title}" for name, title in printed.TITLES.items()]
        print(json.dumps(printed.TITLES, indent=1) if as_json else "\n".join(lines))
        return 0
    if as_json and markdown:
        raise UserError("--json and --markdown exclude each other", "choose one")
    table = printed.table(table_name)
    for name, used in (("train_steps", table.trains), ("natural", table.natural)):
        if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE and not used:
            raise UserError(f"--{name.replace('_', '-')} has no part in {table.name}", "leave it out")

    say("ue-bench: preparing")
    texts = {row.label: row.selector(train_steps, _quoted(natural)) for row in table.rows}
    asked = {label: text for label, text in texts.items() if text is not None}
    if len(asked) < len(texts):
        say(f"ue-bench: not computed without --natural: {'; '.join(set(texts) - set(asked))}")
    wanted = _grid(table, list(asked.values()), devices=devices, threads=threads, **options)
    selectors = {label: registry().resolve("protector", text)[0].selector for label, text in asked.items()}
    if dry_run:
        from .plan import show

        return show(wanted, _planned(table, wanted), as_json)
    failed = _fill(table, wanted, devices, jobs, threads)
    found = compare(table, selectors, wanted.cells, _measured(table, wanted))
    if as_json:
        print(json.dumps([c.plain() for c in found], indent=1, ensure_ascii=False))
    else:
        print("\n".join(c.markdown() if markdown else c.text() for c in found), end="")
    return 1 if failed or not all(c.complete for c in found) else 0


def _quoted(path: Path | None) -> str | None:
    """A path as a value of a selector."""
    return None if path is None else write_text(str(path.expanduser().absolute()))


def _grid(table: PrintedTable, protectors: list[str], **options: Any) -> Grid:
    """The cells of the table and no others: a board's reference rows are not part of it."""
    from ..leaderboard.printed import COSINES
    from .run import loading

    columns = ("vanilla",) if table.columns == COSINES else table.columns
    whole = grid(tuple(protectors), columns, report=loading(), **options)
    own = {p.selector for p in registry().resolve("protector", protectors)}
    return replace(whole, cells=[cell for cell in whole.cells if cell.protector.selector in own])


def _planned(table: PrintedTable, wanted: Grid) -> list[Planned]:
    """Stages still to compute."""
    from ..leaderboard.printed import COSINES
    from ..plan import FeatureStage, TrainStage

    return wanted.planned(FeatureStage if table.columns == COSINES else TrainStage)


def _fill(table: PrintedTable, wanted: Grid, devices: str, jobs: int | None, threads: int) -> bool:
    from ..store.results import ResultStore
    from .run import fill

    store = ResultStore(wanted.place.out)
    store.create()
    with store.lock():
        return fill(wanted, _planned(table, wanted), devices, jobs, threads)


def _measured(table: PrintedTable, wanted: Grid) -> Callable[[Cell], Mapping[str, float]]:
    """What gives the measured numbers of a cell, by column of the table."""
    from ..leaderboard.printed import COSINES
    from ..plan import FeatureStage
    from ..store.artifacts import ArtifactStore, read_json
    from ..store.results import ResultStore

    artifacts = ArtifactStore(wanted.place.cache_dir)
    results = {r.key: r.metrics.accuracy_last for r in ResultStore(wanted.place.out).results()}

    def cosines(cell: Cell) -> Mapping[str, float]:
        stage = FeatureStage(cell)
        if not artifacts.has(stage.kind, stage.key):
            return {}
        found = read_json(artifacts.path(stage.kind, stage.key) / "features.json")
        return {column: found[column] for column in COSINES}

    def accuracies(cell: Cell) -> Mapping[str, float]:
        return {cell.countermeasure.selector: results[cell.key]} if cell.key in results else {}

    return cosines if table.columns == COSINES else accuracies
