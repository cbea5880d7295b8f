"""``ue-bench new``: make a plugin distribution to start from."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from ..errors import UserError, did_you_mean
from ..scaffold import KINDS, Blueprint, write
from .common import say


def _kind(ctx: click.Context, parameter: click.Parameter, value: str) -> str:
    if value not in KINDS:
        raise UserError(f"nothing called {value!r} to make", did_you_mean(value, KINDS))
    return value


@click.command("new")
@click.argument("kind", metavar="KIND", callback=_kind)
@click.argument("name")
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option("--smallest", is_flag=True, help="Only one module and pyproject.toml, without test, README and CI file.")
def command(kind: str, name: str, folder: Path | None, smallest: bool) -> None:
    """Make a distribution with a new protector, countermeasure, victim, dataset or board.

    It works as it is, and has a test: put your method in its place. FOLDER is ue-bench-NAME by default.

    \b
    ue-bench new protector my-stripes
    """
    blueprint = Blueprint(kind, name, smallest)
    folder = folder or Path(blueprint.distribution)
    for path in write(blueprint, folder):
        click.echo(str(path))
    look = f"ue-bench show {name}" if kind == "board" else f"ue-bench check {name}"
    say(f"ue-bench: next: pip install -e {shlex.quote(str(folder))} && {look}")
