"""Every command that a page prints is read, planned, and must give the cell it stands at."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from real import DATA

from ue_bench.catalogue import boards
from ue_bench.catalogue.protocols import protocol
from ue_bench.catalogue.registry import registry
from ue_bench.cli import common, run
from ue_bench.contract.inputs import name_and_digest
from ue_bench.contract.plugin import Countermeasure, Dataset, Protector, Victim
from ue_bench.errors import UserError
from ue_bench.grid import grid as grid_module
from ue_bench.grid.cell import Cell, Data, cells, protected_images
from ue_bench.grid.data import stored_dataset
from ue_bench.grid.environment import RunEnvironment
from ue_bench.grid.grid import Request
from ue_bench.keys import digest
from ue_bench.leaderboard.board import BoardInfo, board_info
from ue_bench.leaderboard.build import check, render
from ue_bench.leaderboard.commands import board_commands, cell_command
from ue_bench.leaderboard.statistics import panels
from ue_bench.leaderboard.versions import obstacle
from ue_bench.schedule import devices
from ue_bench.store.results import ResultStore
from ue_bench.store.schema import DatasetInfo, Result

from .factory import BOARD, result
from .test_build import Page

ROOT = Path(__file__).resolve().parents[2]
BOARDS = sorted(path.parent.name for path in (ROOT / "leaderboards").glob("*/results"))


def resolve(kind: str, text: str) -> Any:
    [found] = registry().resolve(kind, text)
    return found


def planned(command: str) -> list[Cell]:
    """The cells of a command line, as the command itself resolves them."""
    program, name, *arguments = shlex.split(command)
    assert (program, name) == ("ue-bench", "run")
    options = run.command.make_context("run", arguments).params
    of_the_grid = {f.name for f in fields(Request)} | {"board_name"}  # the others say how it is filled and shown
    return list(common.resolved(**{k: v for k, v in options.items() if k in of_the_grid - {"executor"}}).cells)


def keys(commands: Iterable[str]) -> set[str]:
    return {cell.key for command in commands for cell in planned(command)}


def shown(text: str) -> list[dict[str, Any]]:
    """What the page shows at a click on each of its cells."""
    return list(json.loads(Page(text).data)["cells"].values())


def reproduced(text: str) -> list[str]:
    """The commands of a Markdown page."""
    return [line for block in re.findall(r"```sh\n(.*?)\n```", text, flags=re.DOTALL) for line in block.splitlines()]


@pytest.fixture(autouse=True)
def one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a processor alone, without asking torch in another process."""
    monkeypatch.setattr(devices, "available", lambda: ["cpu"])


@pytest.fixture
def unloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Datasets that are named and never loaded; ``identity`` stands for their images."""
    monkeypatch.setattr(grid_module, "stored_dataset", lambda plugin, env, report: data(plugin))


def data(plugin: Dataset) -> Data:
    train, test = digest(["train", plugin.identity()]), digest(["test", plugin.identity()])
    info = DatasetInfo(
        selector=plugin.selector, source="made up", train=10_000, test=1000, classes=10, height=32, width=32,
        fingerprint=digest([train, test])[:16],
    )  # fmt: skip
    return Data(plugin, "artifact", info, train, test)


def made(
    protector: str = "none", countermeasure: str = "vanilla", dataset: str = "demo", victim: str = "resnet9[blocks=1]",
    recipe: str = "smoke", seed: int = 0, fraction: float = 1.0, precision: str = "fp32",
) -> Result:  # fmt: skip
    """The result of a cell of the board ``demo``, or of one beside it."""
    cell = Cell(
        data(resolve("dataset", dataset)), resolve("protector", protector), resolve("countermeasure", countermeasure),
        resolve("victim", victim), protocol(recipe), seed, fraction, precision,
    )  # fmt: skip
    found = result(
        cell.protector.selector, cell.countermeasure.selector, key=cell.key, id=cell.id, victim=cell.victim.selector,
        protocol=cell.protocol.name, protocol_version=cell.protocol.version, seed=seed, fraction=fraction,
        precision=precision,
    )  # fmt: skip
    return found.model_copy(update={"dataset": cell.data.info})


@pytest.fixture
def demo() -> BoardInfo:
    return board_info(boards.board("demo"))


ODD: list[dict[str, Any]] = [
    {},
    {"protector": "lsp"},
    {"protector": "deephiding[projection=linf,eps=0.8/255]", "countermeasure": "gray+jpeg[quality=11]"},
    {"dataset": "demo[seed=1]"},
    {"victim": "resnet18"},
    {"recipe": "micro"},
    {"seed": 7},
    {"fraction": 0.123456},
    {"precision": "bf16"},
    {"precision": "bf16", "seed": 2, "fraction": 0.5, "victim": "vit", "recipe": "fast", "dataset": "demo[seed=1]"},
]


@pytest.mark.usefixtures("unloaded")
@pytest.mark.parametrize("alone", [True, False], ids=["alone", "all on one page"])
def test_the_command_of_a_cell_gives_that_cell(demo: BoardInfo, alone: bool) -> None:
    results = [made(**odd) for odd in ODD]
    pages = [[r] for r in results] if alone else [results]
    for on_page in pages:
        cells = shown(render(on_page, demo)["index.html"])
        assert sorted(key for cell in cells for key in cell["keys"]) == sorted(r.key for r in on_page)
        for cell in cells:
            assert set(cell["keys"]) <= keys([cell["command"]])


@pytest.mark.usefixtures("unloaded")
def test_the_command_of_a_cell_gives_no_more_than_reference_rows_beside_it(demo: BoardInfo) -> None:
    for cell in shown(render([made(**odd) for odd in ODD], demo)["index.html"]):
        for other in planned(cell["command"]):
            assert other.key in cell["keys"] or other.protector.selector in demo.reference


@pytest.mark.usefixtures("unloaded")
def test_the_command_of_a_missing_cell_gives_that_cell(demo: BoardInfo) -> None:
    results = [made("none", precision="bf16"), made("deephiding", "gray", precision="bf16")]
    [panel] = json.loads(Page(render(results, demo)["index.html"]).data)["panels"]
    assert len(panel["gaps"]) == 2 * len(demo.countermeasures) - 2
    for gap in panel["gaps"]:
        cell = made(gap["protector"], gap["countermeasure"], precision="bf16")
        assert cell.key in keys([gap["command"]])


@pytest.mark.usefixtures("unloaded")
def test_the_commands_of_a_page_fill_all_it_shows(demo: BoardInfo) -> None:
    results = [made(**odd) for odd in ODD]
    assert {r.key for r in results} <= keys(reproduced(render(results, demo)["README.md"]))


def full(info: BoardInfo, **changes: Any) -> list[Result]:
    rows = (*info.reference, *info.protectors)
    return [made(p, c, **changes) for p in rows for c in info.countermeasures]


@pytest.mark.usefixtures("unloaded")
@pytest.mark.parametrize("changes", [{}, {"victim": "resnet18"}, {"seed": 4}, {"fraction": 0.5}, {"precision": "bf16"}])
def test_one_command_fills_a_full_board_and_nothing_else(demo: BoardInfo, changes: dict[str, Any]) -> None:
    results = full(demo, **changes)
    [command] = reproduced(render(results, demo)["README.md"])
    assert keys([command]) == {r.key for r in results}
    assert "--protector all --countermeasure all" in command


@pytest.mark.usefixtures("unloaded")
def test_rows_and_columns_that_are_not_the_boards_are_named(demo: BoardInfo) -> None:
    rows = [*demo.reference, "lsp"]
    results = [*full(demo), *(made("lsp", c) for c in demo.countermeasures), *(made(r, "resize") for r in rows)]

    commands = reproduced(render(results, demo)["README.md"])

    assert [re.findall(r"--(?:protector|countermeasure) '?([^' ]+)", c) for c in commands] == [
        ["all,lsp", "all"],
        ["lsp", "resize"],
    ]
    assert keys(commands) == {r.key for r in results}


@pytest.mark.usefixtures("unloaded")
def test_what_the_board_still_misses_is_part_of_its_command(demo: BoardInfo) -> None:
    [command] = reproduced(render([made("none")], demo)["README.md"])
    assert keys([command]) == {r.key for r in full(demo)}


@pytest.mark.usefixtures("unloaded")
def test_rows_of_other_seeds_have_commands_of_their_own(demo: BoardInfo) -> None:
    more = [made("deephiding", c, seed=s) for c in demo.countermeasures for s in (1, 2)]
    results = [*full(demo), *more]

    commands = reproduced(render(results, demo)["README.md"])

    assert len(commands) == 2
    assert {r.key for r in results} <= keys(commands)


@pytest.mark.usefixtures("unloaded")
def test_seeds_of_some_columns_have_a_command_of_their_own(demo: BoardInfo) -> None:
    rows, few = (*demo.reference, "deephiding"), demo.countermeasures[:2]
    results = [*full(demo), *(made(row, column, seed=1) for row in rows for column in few)]

    commands = reproduced(render(results, demo)["README.md"])

    assert [re.findall(r"--(?:countermeasure|seeds) '?([^' ]+)", c) for c in commands] == [
        ["all"],
        [",".join(few), "1"],
    ]
    assert keys(commands) == {r.key for r in results}


@pytest.mark.usefixtures("unloaded")
def test_a_file_of_one_name_is_the_one_the_cell_was_measured_with(demo: BoardInfo, tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    results = []
    for number, folder in enumerate(folders):
        folder.mkdir()
        (folder / "noise.npy").write_bytes(bytes([number]))
        (folder / "set.npz").write_bytes(bytes([number]))
        results.append(made(f"precomputed[path={folder}/noise.npy]", dataset=f"npz[path={folder}/set.npz]"))
        results.append(made(f"precomputed[path={folder}/noise.npy]"))
    pages = render(results, demo)
    cells = shown(pages["index.html"])

    assert len(cells) == 4
    assert not any(str(tmp_path) in text for text in pages.values())
    for cell in cells:
        [runnable] = list(filter(None, (planned_in(folder, cell["command"]) for folder in folders)))
        assert set(cell["keys"]) <= {found.key for found in runnable}
        assert "looked for in the current folder" in cell["needs"]


def planned_in(folder: Path, command: str) -> list[Cell]:
    """The cells of a command in a folder; none where its files are not there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        try:
            return planned(command)
        except UserError:
            return []


@pytest.mark.usefixtures("unloaded")
def test_the_dataset_of_a_board_in_the_data_folder_is_found_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data" / "imagenet100"
    folder.mkdir(parents=True)
    (folder / "x").write_text("pixels", encoding="utf-8")
    monkeypatch.setenv("UE_BENCH_DATA", str(tmp_path / "data"))
    info = board_info(boards.board("imagenet100"))
    own = made("lsp[patch=32]", dataset=f"imagefolder[path={folder},size=224]", victim="resnet18",
               recipe="paper-imagenet")  # fmt: skip

    [cell] = shown(render([own], info)["index.html"])

    assert f"--dataset 'imagefolder[size=224,path={name_and_digest(folder)}]'" in cell["command"]
    assert set(cell["keys"]) <= keys([cell["command"]])


def old(**changes: Any) -> Result:
    given: dict[str, Any] = {"protocol": "fast", "protocol_version": 2} | changes
    return result(**given)


def test_a_cell_of_another_version_of_a_protocol_has_a_reason_instead_of_a_command() -> None:
    pages = render([old()], BOARD)
    [cell] = shown(pages["index.html"])

    assert cell["command"] == ""
    assert cell["needs"] == (
        "Measured with protocol fast, version 2: this version of ue-bench has version 1, so no command gives this cell."
    )
    assert reproduced(pages["README.md"]) == []
    assert "so no command gives this cell" in pages["README.md"]


def test_a_cell_of_a_protocol_that_is_gone_says_so() -> None:
    assert "does not have it" in obstacle(BOARD, old(protocol="gone"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, ""),
        ({"engine": 1}, "Measured with training loop, revision 1: this version of ue-bench has revision 2"),
        ({"victim": {"name": "v", "revision": 2}}, "Measured with victim v, revision 2: this version of ue-bench has"),
        (
            {"countermeasure": {"combination": [{"name": "c", "revision": 3}, {"name": "gone", "revision": 3}]}},
            "Measured with countermeasure gone, revision 3: this version of ue-bench does not have it",
        ),
    ],
    ids=["today's", "engine", "plugin", "part that is gone"],
)
def test_a_cell_of_another_revision_has_a_reason_instead_of_a_command(change: dict[str, Any], reason: str) -> None:
    parts = {kind: {"name": kind[0], "revision": 3} for kind in ("protector", "countermeasure", "victim")}
    made_of = result().model_copy(update={"cell": {"engine": 2, **parts, **change}})  # not what its key says
    board = replace(BOARD, engine_revision=2, revision=lambda kind, name: None if name == "gone" else 3)

    assert obstacle(board, made_of).startswith(reason)
    assert bool(obstacle(board, made_of)) == bool(reason)


def test_a_board_without_results_says_how_to_begin(demo: BoardInfo) -> None:
    expected = "ue-bench run --board demo --protector all --countermeasure all"
    assert reproduced(render([], demo)["README.md"]) == [expected]
    assert expected in Page(render([], demo)["index.html"]).text


def test_columns_are_named_where_a_board_has_no_list_of_its_own() -> None:
    board = replace(BOARD, countermeasures=())
    [panel] = panels([result("em", "b"), result("em", "a")], board)
    [command] = board_commands(board, panel)
    assert "--countermeasure 'a,b'" in command


def test_more_digits_than_a_result_keeps_are_refused() -> None:
    """A fraction of 1/3 would be stored as 0.333333, which is another cell."""
    kinds = (Protector, "none"), (Countermeasure, "vanilla"), (Victim, "resnet9")
    demo = data(resolve("dataset", "demo"))
    protectors, countermeasures, victims = ([resolve(kind.kind, name)] for kind, name in kinds)
    with pytest.raises(UserError, match=r"more than six digits \(give 0.333333\)"):
        cells(demo, protectors, countermeasures, victims, protocol("smoke"), [0], 1 / 3, "fp32")
    images = demo.info.train
    with pytest.raises(UserError, match=rf"1e-05 of {images:,} images protects none") as caught:
        cells(demo, protectors, countermeasures, victims, protocol("smoke"), [0], 1e-5, "fp32")
    least = float(caught.value.hint.split()[1])
    for fraction in (0.0, least, 1.0):  # none at all may be asked for
        assert cells(demo, protectors, countermeasures, victims, protocol("smoke"), [0], fraction, "fp32")
    assert protected_images(least, images) == 1


# The boards of this repository


@pytest.fixture(scope="module")
def cifar(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Dataset, RunEnvironment, Any], Data]:
    """Stored datasets of the data folder, each loaded once."""
    if not (DATA / "cifar10").is_dir():
        pytest.skip(f"real data is not there: {DATA / 'cifar10'}")
    cache = tmp_path_factory.mktemp("cache")
    real, loaded = stored_dataset, dict[str, Data]()

    def load(plugin: Dataset, place: RunEnvironment, report: Any) -> Data:
        if plugin.selector not in loaded:
            loaded[plugin.selector] = real(plugin, replace(place, cache_dir=cache, data_dir=DATA), report)
        return loaded[plugin.selector]

    return load


@pytest.mark.parametrize("name", BOARDS)
def test_every_command_of_a_published_board_gives_its_cells(
    name: str, cifar: Callable[..., Data], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid_module, "stored_dataset", cifar)
    folder = ROOT / "leaderboards" / name
    cells = shown((folder / "index.html").read_text(encoding="utf-8"))
    page = (folder / "README.md").read_text(encoding="utf-8")

    assert len(cells) > 100
    for cell in cells:
        assert set(cell["keys"]) <= keys([cell["command"]]), cell["command"]
    published = {key for cell in cells for key in cell["keys"]}
    fills = [cell for command in reproduced(page) for cell in planned(command)]
    assert published <= {cell.key for cell in fills}
    known = {(cell["protector"], cell["countermeasure"]) for cell in cells}
    beyond = [c for c in fills if c.key not in published]  # what a row still lacks
    assert [c.id for c in beyond if (c.protector.selector, c.countermeasure.selector) in known] == []


@pytest.mark.parametrize("name", BOARDS)
def test_the_pages_of_a_published_board_agree_with_its_results(name: str) -> None:
    folder = ROOT / "leaderboards" / name
    assert check(ResultStore(folder).results(), board_info(boards.board(name)), folder) == []


def test_the_command_of_a_cell_is_empty_only_with_a_reason() -> None:
    [panel] = panels([old(), result("ar")], BOARD)[:1]
    for row in panel.rows:
        for cell in row.cells.values():
            assert bool(cell_command(BOARD, cell)) != bool(obstacle(BOARD, cell.results[0]))
