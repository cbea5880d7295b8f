"""``ue-bench results``: bring results together, and hand them to other programs."""

from __future__ import annotations

from pathlib import Path

import click

from ..errors import UserError
from .common import json_option, print_json, say, shown

ENDINGS = {".parquet": "parquet", ".csv": "csv", ".sqlite": "sqlite", ".db": "sqlite"}
_folder = click.Path(path_type=Path, file_okay=False)


@click.group("results")
def command() -> None:
    """Merge or export results."""


@command.command("merge")
@click.argument("sources", nargs=-1, required=True, type=_folder, metavar="FROM...")
@click.argument("target", type=click.Path(path_type=Path, file_okay=False), metavar="INTO")
@json_option
def merge(sources: tuple[Path, ...], target: Path, as_json: bool) -> int:
    """Copy the results of folders into another, such as those of shards.

    A result that is there stays, and one with other numbers for the same cell is named. Whose submitted results are is
    kept.
    """
    from dataclasses import asdict

    from ..leaderboard.submission import carry
    from ..store.merging import merge as bring_together

    merged = bring_together(sources, target, carry)
    if as_json:
        print_json(asdict(merged))
    for path in merged.differing:
        say(f"ue-bench: {path} has other numbers than {shown(target)}, which stay")
    for path in merged.unreadable:
        say(f"ue-bench: {path} is no result and was left out")
    failures = f", {merged.failures} failures" if merged.failures else ""
    say(f"ue-bench: {merged.added} results added{failures}, {merged.known} were there, in {shown(target)}")
    return 0 if merged.whole else 4


@command.command("export")
@click.argument("out", type=_folder)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--format", "form", type=click.Choice(sorted(set(ENDINGS.values()))), help="By the name of FILE.")
@click.option("--table", type=click.Choice(["results", "evasion", "failures"]), default="results", show_default=True,
              help="Which records; SQLite takes them all.")  # fmt: skip
@click.option("--force", is_flag=True, help="Overwrite FILE.")
def export(out: Path, file: Path, form: str | None, table: str, force: bool) -> None:
    """Write the results in the folder OUT as a table for other programs."""
    from ..store.exporting import export as write

    chosen = form or ENDINGS.get(file.suffix.lower())
    if chosen is None:
        raise UserError(f"{file} has no ending that names a format", "give --format")
    if file.exists() and not force:
        raise UserError(f"{file} is there already", "choose another name, or give --force")
    rows = write(out, file, chosen, table)
    say(f"ue-bench: {rows} rows in {shown(file)}")
