"""``ue-bench``: find the command, print errors in one line, set the exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module

import click

from .. import __version__
from ..errors import UserError, batch_problem, did_you_mean, disk_problem, place_problem
from ..output import printable
from .common import say

COMMANDS = {
    "run": "Fill the grid of protectors and countermeasures and print the table.",
    "plan": "Show what 'run' would compute, without computing it.",
    "status": "Show which cells of a board have results.",
    "run-stage": "Compute one stage of a plan.",
    "results": "Merge or export results.",
    "list": "List protectors, countermeasures, victims, datasets, boards, protocols or tables.",
    "show": "Show one plugin, board, protocol or table with its parameters.",
    "check": "Try plugins out: do they keep the rules, what do they change and cost?",
    "new": "Make a distribution with a new protector, countermeasure, victim, dataset or board.",
    "evade": "Show protected test images to classifiers trained on clean ones.",
    "reproduce": "Compute a table of a paper on a board, beside its printed numbers.",
    "protect": "Protect a folder of images.",
    "recover": "Recover the images behind protected ones.",
    "audit": "Measure what protection changed, and check it.",
    "leaderboard": "Build a board's pages from its results, or check them.",
    "figures": "Draw protected images, what networks make of them, and plots of results.",
    "cache": "Show or clear stored datasets and protected sets.",
    "doctor": "Say what this machine and installation offer.",
}


class Commands(click.Group):
    """The group of all commands, each imported when used: ``--help`` must not wait for torch."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *self.added()]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name in COMMANDS:
            module = import_module(f".{name.replace('-', '_')}", __package__)
            command: click.Command = module.command
            return command
        return self.added().get(name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and self.get_command(ctx, args[0]) is None:
            raise UserError(f"no command {args[0]!r}", did_you_mean(args[0], self.list_commands(ctx)))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = list(COMMANDS.items())
        rows += [(name, command.get_short_help_str(80)) for name, command in self.added().items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def added(self) -> dict[str, click.Command]:
        """Return the commands that plugins bring."""
        if not hasattr(self, "_added"):
            self._added = _commands_of_plugins()
        return self._added


def _commands_of_plugins() -> dict[str, click.Command]:
    """Return what every ``ue_bench_commands`` hook adds; one that fails, or wants a name that is taken, is reported."""
    from ..catalogue import loading

    loaded = loading.load()
    added: dict[str, click.Command] = {}

    def collect(distribution: str, implementation: Callable[..., None]) -> None:
        group = click.Group()
        implementation(group=group)
        taken = sorted(name for name in group.commands if name in COMMANDS or name in added)
        added.update({name: command for name, command in group.commands.items() if name not in taken})
        if taken:
            raise ValueError(f"there is a command {taken[0]!r} already")

    for problem in loaded.call_each("ue_bench_commands", collect):
        say(f"ue-bench: commands of {problem.distribution} cannot be used: {problem.reason}")
    return added


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ue-bench")
@click.option("--traceback", is_flag=True, help="Show the whole traceback of an error.")
def cli(traceback: bool) -> None:
    """Benchmark unlearnable examples: protectors against countermeasures.

    \b
    ue-bench run --protector deephiding --countermeasure all
    """


def main() -> None:
    """Run the ``ue-bench`` script."""
    printable()
    try:
        code = cli(standalone_mode=False)
    except UserError as error:
        _complain(error)
        sys.exit(error.exit_code)
    except SystemExit as end:  # nothing here raises it, and what did would have this command look done
        _complain(UserError(f"a plugin ended the program, with code {end.code}", "--traceback shows where"))
        sys.exit(1)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        print("ue-bench: interrupted; run the same command again to continue", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output left, as `head` does
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        problem = disk_problem(error) or place_problem(error)
        if problem is None:
            raise
        _complain(problem)
        sys.exit(problem.exit_code)
    except ValueError as error:
        found = batch_problem(error)
        if found is None:
            raise
        _complain(found)
        sys.exit(found.exit_code)
    sys.exit(code if isinstance(code, int) else 0)


def _complain(error: UserError) -> None:
    if "--traceback" in sys.argv:
        raise error
    print(f"ue-bench: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"  hint: {error.hint}", file=sys.stderr)
