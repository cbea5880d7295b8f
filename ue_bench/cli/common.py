"""Options that several commands share, and the grid they describe."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from ..errors import UserError

if TYPE_CHECKING:
    from ..contract.board import Board
    from ..grid.plan import Cell, Data, Planned, TrainStage
    from ..grid.stages import RunEnvironment

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


@dataclass(frozen=True)
class Grid:
    """A resolved request: the cells of the table, and where they are computed and kept."""

    board: Board
    data: Data
    cells: list[Cell]
    env: RunEnvironment

    def planned(self, last: type[TrainStage] | None = None) -> list[Planned]:
        """Stages still to compute, up to the results or to another ``last`` stage of each cell."""
        from ..grid import plan
        from ..store.artifacts import ArtifactStore
        from ..store.results import ResultStore

        artifacts = ArtifactStore(self.env.cache_dir)
        have = {r.key for r in ResultStore(self.env.out).results()}
        return plan.stages(
            self.cells,
            lambda kind, key: key in have if kind == "result" else artifacts.has(kind, key),
            last or plan.TrainStage,
        )


def say(text: str) -> None:
    """A line for the user; stdout is for data."""
    print(text, file=sys.stderr, flush=True)


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


def grid(
    protectors: tuple[str, ...],
    countermeasures: tuple[str, ...],
    victims: tuple[str, ...],
    dataset: str | None,
    board_name: str,
    protocol: str | None,
    seeds: str | None,
    fraction: float,
    precision: str,
    devices: str,
    out: Path | None,
    data_dir: Path | None,
    cache_dir: Path | None,
    threads: int,
    report: Callable[[float, float, str], None],
) -> Grid:
    """Resolve what the user asked for. Loads the dataset, because its fingerprint is part of every key."""
    from .. import machine
    from ..catalogue import boards, protocols
    from ..catalogue.registry import registry
    from ..contract.plugin import Countermeasure, Dataset, Protector, Victim
    from ..grid import plan, stages
    from ..schedule.devices import slots

    board = boards.board(board_name)
    names = registry()
    wanted = names.resolve("protector", protectors or board.protectors, (*board.reference, *board.protectors))
    reference = names.resolve("protector", board.reference)  # always part of the grid, whatever is excluded
    rows = [*reference, *(p for p in wanted if p not in reference)]
    columns = names.resolve("countermeasure", countermeasures or board.countermeasures, board.countermeasures)
    nets = names.resolve("victim", victims or board.victims, board.victims)
    recipe = protocols.protocol(protocol or board.protocol)
    cache = (cache_dir or machine.cache_dir()).absolute()
    data_folder = (data_dir or machine.data_dir(cache)).absolute()
    sets = names.resolve("dataset", dataset or board.dataset.replace("{data_dir}", str(data_folder)))
    base_seeds = parse_seeds(seeds) if seeds else list(board.seeds)
    if len(sets) != 1:
        raise UserError("one dataset at a time", "run the command once for each")
    device = slots(devices, 1, threads)[0].device
    if precision == "auto":
        [precision] = [d.precision for d in machine.devices() if d.name == device]
    env = stages.RunEnvironment(
        cache_dir=cache,
        data_dir=data_folder,
        out=(out or Path("ue-bench-results") / board.name).absolute(),
        device=device,
        threads=threads,
    )
    data = stages.dataset(cast(Dataset, sets[0]), env, report)
    cells = plan.cells(
        data,
        cast(list[Protector], rows),
        cast(list[Countermeasure], columns),
        cast(list[Victim], nets),
        recipe,
        base_seeds,
        fraction,
        precision,
    )
    return Grid(board, data, cells, env)
