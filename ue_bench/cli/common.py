"""Options that several commands share, and the grid they describe."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from ..errors import UserError

if TYPE_CHECKING:
    from ..grid.grid import Grid, Request

F = TypeVar("F", bound=Callable[..., Any])


def cache_option(command: F) -> F:
    return click.option(
        "--cache-dir", type=click.Path(path_type=Path), help="Folder of stored datasets and protected sets."
    )(command)


def json_option(command: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


dataset_option = click.option("-D", "--dataset", help="A dataset instead of the board's.")
devices_option = click.option("--devices", default="auto", show_default=True, help="Such as cuda:0,cuda:1 or cpu.")
threads_option = click.option("--threads", type=click.IntRange(1), default=1, show_default=True,
                              help="CPU threads a worker.")  # fmt: skip
jobs_option = click.option("--jobs", type=click.IntRange(1), help="Workers a device; a CPU has one a core.")
shard_option = click.option("--shard", metavar="I/N", help="A part of the cells: 1/4 to 4/4 are a grid's four parts.")
data_dir_option = click.option("--data-dir", type=click.Path(path_type=Path),
                               help="Folder where datasets are or will be.")  # fmt: skip

fraction_option = click.option("--fraction", type=click.FloatRange(0, 1), default=1.0,
                               help="Share of the images that is protected.")  # fmt: skip

TABLE_OPTIONS = [
    click.option("-P", "--protector", "protectors", multiple=True, help="Selectors; the board's rows by default."),
    click.option("-C", "--countermeasure", "countermeasures", multiple=True, help="Selectors; 'all' is the board's."),
]
SETTING_OPTIONS = [
    click.option("-V", "--victim", "victims", multiple=True, help="Selectors; the board's by default."),
    dataset_option,
    click.option(
        "--board", "board_name", default="demo", show_default=True, help="The grid to fill: a board or a TOML file."
    ),
    click.option("--protocol", help="A training recipe, or a TOML file, instead of the board's."),
    click.option("--seeds", help="Such as 0,1,2 or 0-4; the board's by default."),
    fraction_option,
    click.option("--precision", type=click.Choice(["auto", "bf16", "fp32"]), default="auto", show_default=True),
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


def grid_options(command: F) -> F:
    """The options of every command that works on a grid."""
    return _with([*TABLE_OPTIONS, *SETTING_OPTIONS], command)


def setting_options(command: F) -> F:
    """Those of a command that knows its rows and columns."""
    return _with(SETTING_OPTIONS, command)


def evasion_options(command: F) -> F:
    """Those of a command that shows test images to classifiers; all of these images are protected."""
    return _with([option for option in SETTING_OPTIONS if option is not fraction_option] + EVASION_OPTIONS, command)


def evasion_only_options(command: F) -> F:
    """What these have beside the options of a grid."""
    return _with(EVASION_OPTIONS, command)


def _with(options: Sequence[Callable[[F], F]], command: F) -> F:
    for option in reversed(options):
        command = cast(F, option(command))
    return command


def say(text: str) -> None:
    """A line for the user; stdout is for data."""
    print(text, file=sys.stderr, flush=True)


def given_grid_options(precision: str) -> list[str]:
    """Return the grid options of the running command as words of a command line, ``auto`` precision as it came out.

    Another machine may compute fastest in another precision, and its stages then have other keys.
    """
    context = click.get_current_context()
    names = {option.name for option in _options([*TABLE_OPTIONS, *SETTING_OPTIONS])}
    words = []
    for option in context.command.params:
        if option.name not in names or option.name == "precision":
            continue
        if context.get_parameter_source(option.name) is not click.core.ParameterSource.COMMANDLINE:
            continue
        given = context.params[option.name]
        flag = max(option.opts, key=len)
        words += [word for value in (given if option.multiple else [given]) for word in (flag, str(value))]
    return [*words, "--precision", precision]


def _options(decorators: Sequence[Callable[..., Any]]) -> list[click.Option]:
    """Return what these decorators add to a command."""

    @click.command()
    def bare() -> None: ...

    for decorator in decorators:
        bare = decorator(bare)
    return [option for option in bare.params if isinstance(option, click.Option)]


def parse_seeds(text: str) -> list[int]:
    """``0,3-5`` as [0, 3, 4, 5]. Raises UserError when it cannot be read."""
    found: list[int] = []
    try:
        for part in text.split(","):
            first, _, last = part.partition("-")
            found += range(int(first), int(last or first) + 1)
    except ValueError:
        raise UserError(f"cannot read seeds {text!r}", "write them as 0,1,2 or 0-4") from None
    if not found:
        raise UserError(f"seeds {text!r} name no seed", "write them as 0,1,2 or 0-4")
    return list(dict.fromkeys(found))


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

    return Request(board=board_name, seeds=parse_seeds(seeds) if seeds else None, **options)


def resolved(*, shard: str | None = None, **options: Any) -> Grid:
    """Return the grid that these options of the command line describe, or a part of it."""
    from ..grid.grid import resolve
    from ..grid.sharding import Shard

    part = Shard.parse(shard) if shard else None  # first: loading a dataset takes time
    grid = resolve(requested(**options), loading())
    return grid.shard(part) if part else grid


def print_json(content: Any, default: Callable[[Any], Any] | None = None) -> None:
    """Print ``content`` on stdout: as it reads where that is UTF-8, else escaped, so that nothing of it is lost.

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
