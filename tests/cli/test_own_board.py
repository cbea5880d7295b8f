"""A board of one's own, from its file to its pages; its protocol is a file as well."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from .conftest import Command

BOARD = """
title = "Two rows of mine"
description = "Brought along."
dataset = "demo[train_per_class=4,test_per_class=3]"
protocol = "recipe.toml"
victims = ["resnet9[width=4]"]
protectors = ["ops"]
countermeasures = ["vanilla", "gray+cutout"]
reference = ["none"]
"""
RECIPE = """
batch = 8
epochs = 1
learning_rate = 0.1
schedule = "cosine"
"""
MACHINE = ["--devices", "cpu", "--precision", "fp32"]


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    folder = tmp_path / "my boards"
    folder.mkdir()
    (folder / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    (folder / "mine.toml").write_text(BOARD, encoding="utf-8")
    return folder


def printed_commands(page: Path) -> list[list[str]]:
    lines = page.read_text(encoding="utf-8").splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("ue-bench run ")]


def test_from_its_file_to_its_pages(ue_bench: Command, computed: list[str], mine: Path, tmp_path: Path) -> None:
    board = "my boards/mine.toml"
    ran = ue_bench("run", "--board", board, *MACHINE)
    assert ran.code == 0, ran.err
    assert "4 of 4 cells have results in ue-bench-results/mine" in ran.err
    rows = ran.out.splitlines()
    assert any(line.startswith("mean ") for line in rows)
    assert any(line.startswith("worst case ") for line in rows)
    assert "protocol recipe.toml#" in ran.out

    out = tmp_path / "ue-bench-results" / "mine"
    results = [json.loads(p.read_text(encoding="utf-8")) for p in (out / "results").rglob("*.json")]
    assert {r["protector"] for r in results} == {"none", "ops"}
    [protocol] = {r["protocol"] for r in results}
    assert protocol.startswith("recipe.toml#")

    assert ue_bench("leaderboard", "build", "--board", board).code == 0
    page = (out / "README.md").read_text(encoding="utf-8")
    assert page.startswith("# Two rows of mine\n")
    assert "| `ops` " in page
    assert "Not on the board" not in page
    assert "Two rows of mine" in (out / "index.html").read_text(encoding="utf-8")
    assert "--board 'my boards/mine.toml'" in page
    assert ue_bench("leaderboard", "check", "--board", board).code == 0

    computed.clear()
    for command in printed_commands(out / "README.md"):
        assert ue_bench(*command, *MACHINE).code == 0
    assert computed == []


def test_two_recipes_of_one_name_share_no_row(ue_bench: Command, computed: list[str], mine: Path) -> None:
    one = ["run", "--board", "my boards/mine.toml", "-P", "none", "-C", "vanilla", *MACHINE]
    assert ue_bench(*one).code == 0
    (mine / "recipe.toml").write_text(RECIPE.replace("0.1", "0.2"), encoding="utf-8")
    assert ue_bench(*one).code == 0
    assert sum("/vanilla/" in label for label in computed) == 2
    assert ue_bench("leaderboard", "build", "--board", "my boards/mine.toml").code == 0
    page = Path("ue-bench-results/mine/README.md").read_text(encoding="utf-8")
    assert page.count("\n## `demo") == 2


def test_a_protocol_of_ones_own_on_a_board_of_ours(ue_bench: Command, mine: Path) -> None:
    grid = ["-D", "demo[train_per_class=4,test_per_class=3]", "-P", "none", "-C", "vanilla", *MACHINE]
    ours = ue_bench("plan", "--json", *grid).json
    own = ue_bench("plan", "--json", "--protocol", "my boards/recipe.toml", *grid).json
    assert {r["key"] for r in own if r["kind"] == "result"}.isdisjoint(r["key"] for r in ours)
    assert all("/recipe.toml#" in r["label"] for r in own if r["kind"] == "result")


def test_a_fault_in_the_file_is_said_before_anything_is_loaded(ue_bench: Command, mine: Path) -> None:
    (mine / "mine.toml").write_text(BOARD.replace("victims", "victim"), encoding="utf-8")
    for command in ("run", "plan", "status"):
        found = ue_bench(command, "--board", "my boards/mine.toml")
        assert found.code == 4
        assert found.err.splitlines()[-2:] == [
            "ue-bench: my boards/mine.toml: no key is called 'victim'",
            "  hint: did you mean victims?",
        ]


def test_a_page_prints_the_command_with_the_file_of_a_protocol(
    ue_bench: Command, computed: list[str], mine: Path, tmp_path: Path
) -> None:
    (mine / "mine.toml").write_text(BOARD.replace("recipe.toml", "smoke"), encoding="utf-8")
    board = ["--board", "my boards/mine.toml"]
    other = ["--protocol", "my boards/recipe.toml", "-P", "none", "-C", "vanilla"]
    assert ue_bench("run", *board, *other, *MACHINE).code == 0
    assert ue_bench("leaderboard", "build", *board).code == 0
    commands = printed_commands(tmp_path / "ue-bench-results" / "mine" / "README.md")
    assert commands
    assert all(command[command.index("--protocol") + 1].startswith("recipe.toml#") for command in commands)
    (tmp_path / "recipe.toml").write_text(RECIPE, encoding="utf-8")  # it is looked for in the current folder
    for command in commands:
        assert ue_bench("plan", "--json", *command[1:], "-C", "^gray+cutout", "-P", "^ops").json == []
