"""The hooks that a distribution may implement."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    import click

    from .registration import Register

PROJECT = "ue_bench"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def ue_bench_register(register: Register) -> None:
    """Register protectors, countermeasures, victims and datasets; boards, protocols, tables and sets of selectors.

    Called once for every implementation, when names are first needed: those of ue-bench first, then those marked
    ``tryfirst``, then the others by the name of their distribution. A name that is taken already is refused and
    reported as that distribution's problem.
    """


@hookspec
def ue_bench_commands(group: click.Group) -> None:
    """Add commands to the command line, with ``group.command()`` or ``group.add_command``.

    Called once for every implementation, in the same order, when the command line starts and a command is not one of
    the built-in ones. Keep imports inside the commands: this runs before ``--help`` is printed.
    """
