"""The hooks of ue-bench."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    import click

    from ..catalogue.registry import Register

PROJECT = "ue_bench"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def ue_bench_register(register: Register) -> None:
    """Register protectors, countermeasures, victims and datasets.

    Called once for every distribution, when names are first needed. Every implementation is called; a name that is
    taken already is refused and reported as that distribution's problem.
    """


@hookspec
def ue_bench_commands(group: click.Group) -> None:
    """Add commands to the command line, with ``group.command()`` or ``group.add_command``.

    Called once, when the command line starts and a command is not one of the built-in ones. Keep imports inside the
    commands: this runs before ``--help`` is printed.
    """
