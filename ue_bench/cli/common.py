"""Options that several commands share, and the grid that they describe."""

from __future__ import annotations

import functools
import json
import math
import re
import sys
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from ..arguments import seeds_of
from ..errors import UserError

if TYPE_CHECKING:
    from ..grid.grid import Grid, Request
    from ..grid.separating import Budget

F = TypeVar("F", bound=Callable[..., Any])


def cache_option(command: F) -> F:
    return click.option(
        "--cache-dir", type=click.Path(path_type=Path), help="Folder of stored datasets and protected sets."
    )(command)


def json_option(command: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


dataset_option = click.option("-D", "--dataset", help="A dataset instead of the board's.")
devices_option = click.option("--devices", default="auto", show_default=True,
                              help="Devices to compute on, such as cuda:0,cuda:1 or cpu.")  # fmt: skip
threads_option = click.option("--threads", type=click.IntRange(1), default=1, show_default=True,
                              help="CPU threads of each worker.")  # fmt: skip
jobs_option = click.option("--jobs", type=click.IntRange(1), help="Workers on each device; one on a GPU, one a core "
                           "on a CPU by default. With slurm: jobs in the queue.")  # fmt: skip
shard_option = click.option("--shard", metavar="I/N", help="A part of the cells: 1/4 to 4/4 are a grid's four parts.")
data_dir_option = click.option("--data-dir", type=click.Path(path_type=Path),
                               help="Folder that datasets are read from and downloaded to.")  # fmt: skip


class Finite(click.FloatRange):
    """A number within bounds; click's own lets one pass that is none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no finite number.", param, ctx)
        return number


MOST_SEEDS = 1_000_000  # from first to last
fraction_option = click.option("--fraction", type=Finite(0, 1), default=1.0,
                               help="Share of the images that is protected.")  # fmt: skip

precision_option = click.option("--precision", type=click.Choice(["auto", "bf16", "fp32"]), default="auto",
                                show_default=True, help="Precision that networks compute in.")  # fmt: skip

TABLE_OPTIONS = [
    click.option(
        "-P", "--protector", "protectors", multiple=True, help="Selectors of protectors; the board's rows by default."
    ),
    click.option(
        "-C",
        "--countermeasure",
        "countermeasures",
        multiple=True,
        help="Selectors of countermeasures; 'all' is the board's.",
    ),
    click.option(
        "--no-reference",
        "reference",
        flag_value=False,
        default=True,
        type=bool,
        help="Without the board's reference rows.",
    ),
]
SETTING_OPTIONS = [
    click.option("-V", "--victim", "victims", multiple=True, help="Selectors of victims; the board's by default."),
    dataset_option,
    click.option(
        "--board", "board_name", default="demo", show_default=True, help="The grid to fill: a board or a TOML file."
    ),
    click.option("--protocol", help="A training recipe, or a TOML file, instead of the board's."),
    click.option("--seeds", help="Seeds, such as 0,1,2 or 0-4; the board's by default."),
    fraction_option,
    precision_option,
    devices_option,
    threads_option,
    click.option("--out", type=click.Path(path_type=Path), help="Results folder; ue-bench-results/BOARD by default."),
    data_dir_option,
    cache_option,
]
EVASION_OPTIONS = [
    click.option(
        "--images", type=click.IntRange(1), help="Test images to show, balanced over classes; all by default."
    ),
    click.option("--transfer", is_flag=True, help="Give classifiers a seed of their own, which no protector knows."),
]


RETRIED = ("failed", "oom", "timeout", "diverged", "nothing")
FILL_OPTIONS = [
    click.option("--pack", callback=lambda ctx, option, text: _pack(text), metavar="N|auto",
                 help="Workers that share a GPU; auto: as many as its memory holds. Timings then say nothing."),
    click.option("--timeout", callback=lambda ctx, option, text: _seconds(text), metavar="TIME",
                 help="Longest time a stage, such as 90s, 30m or 4h; by default many times what is predicted."),
    click.option("--fail-fast", is_flag=True, help="Start nothing more after the first failure."),
    click.option("--max-failures", type=click.IntRange(1), metavar="N", help="Nor after N of them."),
    click.option("--retry", type=click.Choice(RETRIED), multiple=True,
                 help="Which cells that failed before are tried again; all ('failed') by default."),
]  # fmt: skip


SEPARATION_OPTIONS = [
    click.option("--until-separated", is_flag=True,
                 help="Give further seeds to rows until those of one class are told apart."),
    click.option("--budget", callback=lambda ctx, option, text: _budget(text), metavar="N|TIME",
                 help="Of further seeds: cells, such as 200, or device time, such as 90m or 8h."),
]  # fmt: skip
EXECUTOR_OPTIONS = [
    click.option("--executor", type=click.Choice(["local", "ray", "slurm"]), default="local", show_default=True,
                 help="What computes stages: this machine, a Ray cluster, or SLURM."),
    click.option("--ray-address", default="", metavar="ADDRESS",
                 help="Head of the Ray cluster; RAY_ADDRESS or the one on this machine by default."),
    click.option("--slurm", multiple=True, metavar="NAME=VALUE,...",
                 help="Options of sbatch, such as partition=gpu,time=4:00:00,gres=gpu:1."),
]  # fmt: skip


def executor_options(command: F) -> F:
    """Add the options that choose where stages are computed: the command is called with ``executor`` for a Request."""

    @functools.wraps(command)
    def called(*args: Any, executor: str, ray_address: str, slurm: tuple[str, ...], **others: Any) -> Any:
        from ..schedule.choice import ExecutorChoice

        return command(*args, executor=ExecutorChoice.of(executor, ray_address, slurm), **others)

    return apply_options(EXECUTOR_OPTIONS, cast(F, called))


def fill_options(command: F) -> F:
    """The options of every command that computes what is missing: it is called with all of them as ``fill``."""

    @functools.wraps(command)
    def called(
        *args: Any, pack: Any, timeout: Any, fail_fast: bool, max_failures: int | None, retry: Any, **others: Any
    ) -> Any:
        from ..grid.filling import FillOptions

        if "nothing" in retry and len(set(retry)) > 1:
            raise UserError("--retry nothing excludes every other --retry", "give it alone, or leave it out")
        kinds = None if not retry or "failed" in retry else [kind for kind in retry if kind != "nothing"]
        most = 1 if fail_fast else max_failures
        how = FillOptions(pack=pack, timeout=timeout, max_failures=most, retry=kinds)
        return command(*args, fill=how, **others)

    return apply_options(FILL_OPTIONS, cast(F, called))


def separation_options(command: F) -> F:
    """Add the options that give seeds to rows: the command is called with ``budget``, None where that is not wanted."""

    @functools.wraps(command)
    def called(*args: Any, until_separated: bool, budget: Budget | None, **others: Any) -> Any:
        if until_separated and budget is None:
            raise UserError(
                "rows that are alike are never told apart: --until-separated needs a budget",
                "give --budget 200 for so many cells of further seeds, or --budget 8h of device time",
            )
        if budget is not None and not until_separated:
            raise UserError("--budget is that of --until-separated", "give both, or neither")
        return command(*args, budget=budget, **others)

    return apply_options(SEPARATION_OPTIONS, cast(F, called))


def _budget(text: str | None) -> Budget | None:
    """Read the value of --budget. Raises UserError."""
    from ..grid.separating import Budget

    if text is None:
        return None
    if text.isdecimal() and int(text):
        return Budget(cells=int(text))
    if not re.fullmatch(r"(\d+(?:\.\d*)?)[smhd]", text.strip()):
        raise UserError(f"cannot read the budget {text!r}", "write 200 for cells, or 90m or 8h of device time")
    return Budget(seconds=_seconds(text))


def _pack(text: str | None) -> int | str | None:
    """Read the value of --pack. Raises UserError."""
    if text is None or text == "auto":
        return text
    if not text.isdigit() or int(text) < 1:
        raise UserError(f"cannot pack {text!r} cells", "write a number, or auto")
    return int(text)


def _seconds(text: str | None) -> float | None:
    """Read the value of --timeout. Raises UserError."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d*)?)([smhd]?)", text.strip())
    if match is None or not float(match[1]):
        raise UserError(f"cannot read the time {text!r}", "write it as 90s, 30m or 4h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


def grid_options(command: F) -> F:
    """Add the options of every command that works on a grid."""
    return apply_options([*TABLE_OPTIONS, *SETTING_OPTIONS], command)


def setting_options(command: F) -> F:
    """Add the options of a command that knows its rows and columns."""
    return apply_options(SETTING_OPTIONS, command)


def evasion_options(command: F) -> F:
    """Add the options of a command that shows test images to classifiers; all these images are protected."""
    return apply_options(
        [option for option in SETTING_OPTIONS if option is not fraction_option] + EVASION_OPTIONS, command
    )


def evasion_only_options(command: F) -> F:
    """Add the options that evasion has beside those of a grid."""
    return apply_options(EVASION_OPTIONS, command)


def apply_options(options: Sequence[Callable[[F], F]], command: F) -> F:
    """Add ``options`` to ``command`` in the order in which the help is to list them."""
    for option in reversed(options):
        command = cast(F, option(command))
    return command


def refuse_options(names: Collection[str], place: str) -> None:
    """Raise UserError when one of these options of the running command is given, which change nothing in ``place``."""
    context = click.get_current_context()
    for parameter in context.command.params:
        given = context.get_parameter_source(parameter.name or "") is click.core.ParameterSource.COMMANDLINE
        if parameter.name in names and given:
            raise UserError(f"{max(parameter.opts, key=len)} has no part in {place}", "leave it out")


def say(text: str) -> None:
    """Print a line for the user on stderr; stdout is for data."""
    print(text, file=sys.stderr, flush=True)


def leave_out(name: str, problem: UserError) -> None:
    """Tell the user that a plugin of a glob or a tag is not used, and why."""
    say(f"ue-bench: {name} is left out: {problem.message}")


def given_grid_options(precision: str) -> list[str]:
    """Return the grid options of the running command as words of a command line, ``auto`` precision as it came out.

    Another machine may compute fastest in another precision, and its stages then have other keys.
    """
    context = click.get_current_context()
    names = {option.name for option in options_of([*TABLE_OPTIONS, *SETTING_OPTIONS])}
    words = []
    for option in context.command.params:
        if option.name not in names or option.name == "precision":
            continue
        if context.get_parameter_source(option.name) is not click.core.ParameterSource.COMMANDLINE:
            continue
        given = context.params[option.name]
        flag = max(option.opts, key=len)
        if isinstance(option, click.Option) and option.is_flag:
            words.append(flag)
            continue
        words += [word for value in (given if option.multiple else [given]) for word in (flag, str(value))]
    return [*words, "--precision", precision]


def options_of(decorators: Sequence[Callable[..., Any]]) -> list[click.Option]:
    """Return what these decorators add to a command."""

    @click.command()
    def bare() -> None: ...

    for decorator in decorators:
        bare = decorator(bare)
    return [option for option in bare.params if isinstance(option, click.Option)]


def parse_seeds(text: str) -> list[int]:
    """Read ``0,3-5`` as [0, 3, 4, 5]. Raises UserError when it cannot be read."""
    seeds: list[int] = []
    try:
        for part in text.split(","):
            first, _, last = part.partition("-")
            named = range(int(first), int(last or first) + 1)
            if not 0 < len(named) <= MOST_SEEDS:
                raise ValueError
            seeds += named
    except (ValueError, OverflowError):
        raise UserError(f"cannot read seeds {text!r}", "write them as 0,1,2 or 0-4") from None
    return seeds_of(seeds)


def loading() -> Callable[[float, float, str], None]:
    """Return a report that prints a line now and then while a dataset is loaded."""
    last = time.monotonic()

    def report(done: float, total: float, text: str) -> None:
        nonlocal last
        if time.monotonic() - last > 2:
            last = time.monotonic()
            say(f"ue-bench: {text} {done / max(total, 1):.0%}")

    return report


def requested(*, board_name: str, seeds: str | None = None, **options: Any) -> Request:
    """Return the request that these options of the command line describe."""
    from ..grid.grid import Request

    return Request(board=board_name, seeds=None if seeds is None else parse_seeds(seeds), **options)


def resolved(*, shard: str | None = None, **options: Any) -> Grid:
    """Return the grid that these options of the command line describe, or a part of it."""
    from ..grid.grid import resolve
    from ..grid.sharding import Shard

    part = Shard.parse(shard) if shard else None  # first: loading a dataset takes time
    grid = resolve(requested(**options), loading(), leave_out)
    return grid.shard(part) if part else grid


def print_json(content: Any, default: Callable[[Any], Any] | None = None) -> None:
    """Print ``content`` on stdout: readable where that is UTF-8, else escaped, so that nothing of it is lost.

    ``default`` turns what JSON does not know into what it does. Raises ValueError for numbers that JSON has not.
    """
    unicode = (sys.stdout.encoding or "utf-8").lower().replace("_", "-").startswith("utf")
    text = json.dumps(content, indent=1, ensure_ascii=not unicode, allow_nan=False, default=default)
    print(text.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))  # names of files may be no UTF-8


def shown(path: Path) -> str:
    """Return ``path`` relative to here where that is shorter."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
