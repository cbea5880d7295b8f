"""``ue-bench reproduce``: compute a paper's table again on a board."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ..errors import UserError
from .common import (
    EXECUTOR_OPTIONS,
    FILL_OPTIONS,
    evasion_only_options,
    executor_options,
    fill_options,
    jobs_option,
    json_option,
    loading,
    options_of,
    print_json,
    refuse_options,
    requested,
    say,
    setting_options,
    threads_option,
)

if TYPE_CHECKING:
    from ..grid.filling import FillOptions


# Options that say how something is computed, and not what.
COMPUTING = {
    "dry_run",
    *(option.name for option in options_of([jobs_option, threads_option, *FILL_OPTIONS, *EXECUTOR_OPTIONS])),
}


class ReproduceCommand(click.Command):
    """A command whose help lists the settings of a table: ``ue-bench reproduce TABLE --help``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta["words"] = list(args)  # --help is met before the table is
        return super().parse_args(ctx, args)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from ..catalogue import tables

        for name in sorted(set(ctx.meta.get("words", ())) & set(tables.names())):
            settings = tables.table(name).settings
            rows = [
                (
                    f"{s.name}={'...' if s.default is None else s.default}",
                    f"[{'|'.join(s.choices)}] " * bool(s.choices) + s.description,
                )
                for s in settings
            ]
            with formatter.section(f"Settings of {name}, for --set"):
                formatter.write_dl(rows or [("it has no settings", "")])


@click.command("reproduce", cls=ReproduceCommand)
@click.argument("table_name", metavar="[TABLE]", required=False)
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE",
              help="A setting of the table; 'reproduce TABLE --help' lists them. May be repeated.")  # fmt: skip
@click.option("--columns", default="", help="Columns to compute and print, such as 'vanilla,jpeg[quality=10]'; all "
              "by default. Means are then over these.")  # fmt: skip
@setting_options
@evasion_only_options
@jobs_option
@fill_options
@executor_options
@click.option("--dry-run", is_flag=True, help="Show what would be computed, and stop.")
@click.option("--stored", is_flag=True, help="Compute nothing: print what there is, with gaps.")
@click.option("--markdown", is_flag=True, help="Print Markdown.")
@json_option
def command(
    table_name: str | None,
    settings: tuple[str, ...],
    columns: str,
    images: int | None,
    transfer: bool,
    jobs: int | None,
    fill: FillOptions,
    dry_run: bool,
    stored: bool,
    markdown: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Compute a table of a paper on a board, and print its numbers beside the printed ones.

    Without TABLE, lists the tables. Results are those of 'run' and 'evade', in the same folder: what exists is not
    computed again. Exits with 1 while numbers are missing.

    \b
    ue-bench reproduce tableD --board cifar10-micro --set natural=photos --columns vanilla,median
    """
    from ..catalogue import tables
    from ..grid.progress import Progress
    from ..grid.reproduce import resolve_table, unused_options

    if table_name is None:
        titles = tables.titles()
        width = max(map(len, titles), default=0)
        print_json(titles) if as_json else print("\n".join(f"{n:<{width}}  {t}" for n, t in titles.items()))
        return 0
    if as_json and markdown:
        raise UserError("--json and --markdown exclude each other", "choose one")
    if stored:
        refuse_options(COMPUTING, "--stored, which computes nothing")
    given = _given(settings)
    table = tables.table(table_name, given)
    if columns:
        table = table.of_columns(_names(columns))
    refuse_options(unused_options(table), table.name)
    left_out = [line.name for line in table.lines if not line.asks]
    if left_out:
        say(f"ue-bench: not measured, see the notes of the table: {'; '.join(left_out)}")
    say("ue-bench: preparing")
    grid = resolve_table(table, requested(**options), given, images, transfer, loading())
    if dry_run:
        from .plan import show

        return show(grid, grid.missing(fill), as_json, jobs)
    failed = {} if stored else grid.fill(Progress(), jobs, fill)
    comparison = grid.comparison()
    if as_json:
        print_json(comparison.plain())
    else:
        print(comparison.markdown() if markdown else comparison.text(), end="")
    return 1 if failed or not comparison.complete else 0


def _names(text: str) -> list[str]:
    """Return names with commas between them; those within brackets belong to the parameters of a plugin."""
    names, depth = [""], 0
    for letter in text:
        depth += (letter == "[") - (letter == "]")
        if letter == "," and not depth:
            names.append("")
        else:
            names[-1] += letter
    return [name.strip() for name in names if name.strip()]


def _given(settings: Sequence[str]) -> dict[str, str]:
    """Return the settings by name."""
    given: dict[str, str] = {}
    for text in settings:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise UserError(f"cannot read the setting {text!r}", "write it as --set name=value")
        if name in given:
            raise UserError(f"the setting {name!r} is given twice", "give it once")
        given[name] = value
    return given
